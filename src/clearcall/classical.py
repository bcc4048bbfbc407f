"""The unsharp mask: the classic sharpener that a student must beat to be worth its milliseconds."""

import cv2
import numpy as np

from clearcall.metrics import Frame


def unsharp_mask(frame: Frame, radius: float, amount: float) -> Frame:
    """Return frame + amount * (frame - blurred), rounded and clipped, for 8-bit pictures of any channel count.

    `radius` is the sigma of the Gaussian blur in pixels, `amount` a factor (1.0 is 100 %).
    """
    blurred = cv2.GaussianBlur(frame, (0, 0), radius)
    return np.asarray(cv2.addWeighted(frame, 1 + amount, blurred, -amount, 0), dtype=np.uint8)
