"""Luma of RGB, as the runtime computes it; apart from `frame`, which must not import OpenCV."""

import cv2
import numpy as np

from clearcall.imaging.frame import Frame


def luma_of(rgb: Frame) -> Frame:
    """Return the luma of 8-bit RGB (height, width, 3) as (height, width)."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
