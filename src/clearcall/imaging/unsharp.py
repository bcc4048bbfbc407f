"""Unsharp mask, the classic baseline."""

import cv2
import numpy as np

from clearcall.imaging.frame import Frame
from clearcall.imaging.luma import luma_of


def unsharp_mask(frame: Frame, radius: float, amount: float) -> Frame:
    """Return frame + amount * (frame - blurred), rounded and clipped, for 8-bit images of any channel count.

    `radius` is the sigma of the Gaussian blur in pixels, `amount` a factor (1.0 is 100 %).
    """
    blurred = cv2.GaussianBlur(frame, (0, 0), radius)
    return np.asarray(cv2.addWeighted(frame, 1 + amount, blurred, -amount, 0), dtype=np.uint8)


def unsharp_luma(frame: Frame, radius: float, amount: float) -> Frame:
    """Return an 8-bit RGB frame whose luma alone went through an unsharp mask.

    What changes in luma is added to R, G and B alike, as a luma network's answer is. `radius` and `amount` are those of
    `unsharp_mask`.
    """
    luma = luma_of(frame)
    added = cv2.addWeighted(luma, amount, cv2.GaussianBlur(luma, (0, 0), radius), -amount, 128)
    return np.asarray(cv2.addWeighted(frame, 1, cv2.merge([added] * 3), 1, -128), np.uint8)
