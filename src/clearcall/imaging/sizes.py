"""Sizes of frames: parsed, reached by resizing, and the least that a network takes."""

import re
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame

Size = tuple[int, int]  # width, height
NewSize = Size | float  # of a result: width and height in pixels, or how many times larger it is
MOST_SIDE = 8192  # pixels of a side: 8K, beyond which encoders and memory end

Filter = Literal["bicubic", "bilinear", "lanczos"]
_FILTERS: dict[Filter, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
# Pixels of a luma network's frame, as many as the router's filters have taps and a multiple of all strides. Smaller
# frames are continued by their last rows and columns.
SMALLEST_SIDE = 32


class SizeContract(NamedTuple):
    """Sides that a network takes, in pixels: multiples of `multiple_of`, and at least `minimum`, which is one."""

    multiple_of: int
    minimum: int = 1

    def padded(self, side: int) -> int:
        """Return the smallest allowed side that holds `side`; frames are padded to it at the bottom and the right."""
        return max(self.minimum, side + -side % self.multiple_of)


def parse_size(text: str, least: int = 2) -> Size:
    """Return width and height of a text such as 1280x720, of even sides from `least` to 8192 pixels.

    Raises UserError if it is something else.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(width, height) < least or max(width, height) > MOST_SIDE or width % 2 or height % 2:
        raise UserError(
            f"size {text!r}: give width x height as even numbers from {least} to {MOST_SIDE}, such as 1280x720"
        )
    return width, height


def scaled(size: Size, new: NewSize | None) -> Size:
    """Return a size times a factor, rounded; or the largest size of the same shape inside another one."""
    width, height = size
    if new is None:
        return size
    factor = min(new[0] / width, new[1] / height) if isinstance(new, tuple) else new
    return max(1, round(width * factor)), max(1, round(height * factor))


def divided(size: Size, factor: float) -> Size:
    """Return a width and height divided by a factor, rounded, at least 1 pixel each."""
    width, height = size
    return max(1, round(width / factor)), max(1, round(height / factor))


def resized(frame: Frame, size: tuple[int, int], filter_name: Filter = "bicubic") -> Frame:
    """Return a frame at (width, height) in pixels, antialiased; itself if it has that size."""
    if frame.shape[1::-1] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, _FILTERS[filter_name]))
