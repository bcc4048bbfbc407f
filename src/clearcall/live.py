"""What a live pipeline does around the student: a size of its own for the network, and an unsharp mask behind it."""

import cv2
import numpy as np

from clearcall.classical import unsharp_mask
from clearcall.errors import UserError
from clearcall.metrics import Frame, Restore
from clearcall.params import Live


def surrounded(restore: Restore, live: Live) -> Restore:
    """Return a restorer of 8-bit RGB frames with what `live` asks for around it: the same one if that is nothing."""

    def restored(frame: Frame) -> Frame:
        answer = frame if live.model_size is None else _resized(frame, live.model_size)
        answer = restore(answer)
        if live.model_size is not None:
            answer = _resized(answer, frame.shape[:2])
        return unsharp_mask(answer, live.unsharp_radius, live.unsharp_amount) if live.unsharp_amount else answer

    return restore if live.model_size is None and not live.unsharp_amount else restored


def require_alone(live: Live) -> None:
    """Raise UserError if quality and speed are of more than the network, which is all that a model's file holds."""
    if live.model_size is not None or live.unsharp_amount:
        raise UserError(
            "what was measured is the student with what stands under `live` in params.yaml around it, and a model's "
            "file holds the student alone: set model_size to null and unsharp_amount to 0 there, and run `dvc repro`"
        )


def _resized(frame: Frame, size: tuple[int, ...]) -> Frame:
    height, width = size
    if (height, width) == frame.shape[:2]:
        return frame
    # Area: OpenCV's bicubic does not look at all pixels of a frame that becomes smaller.
    how = cv2.INTER_AREA if height * width < frame.shape[0] * frame.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (width, height), interpolation=how), np.uint8)
