"""Luma of 8 or 10 bits for a network that takes 8."""

from typing import cast

import cv2
import numpy as np

from clearcall.metrics import Frame
from clearcall.video.read import Plane

_LEVELS, _MOST = 4, 1023  # of 10 bits: for each 8-bit level, and the highest
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def eight_bits(luma: Plane) -> Frame:
    """Return a luma, uint8 or 10 bits in uint16, as uint8: itself, or rounded."""
    if luma.dtype == np.uint8:
        return cast(Frame, luma)
    return np.asarray(np.minimum((luma + _LEVELS // 2) // _LEVELS, 255), np.uint8)


def add_change(luma: Plane, sharpened: Frame) -> Plane:
    """Return a luma with what was done to its 8 bits, so that a part that has not changed keeps all 10.

    Where neighbours differ by one 8-bit level at most, it stays as it is: there a network would sharpen the steps that
    rounding has made of a gradient.
    """
    if luma.dtype == np.uint8:
        return sharpened
    eight = eight_bits(luma)
    added = cv2.subtract(sharpened, eight, dtype=cv2.CV_16S)
    added[cv2.subtract(cv2.dilate(eight, _NEIGHBOURS), cv2.erode(eight, _NEIGHBOURS)) <= 1] = 0
    return np.asarray(np.clip(luma.astype(np.int16) + _LEVELS * added, 0, _MOST), np.uint16)
