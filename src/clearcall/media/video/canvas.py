"""Views of a sharpened frame: alone, beside the input, or as a split screen."""

from collections.abc import Sequence
from typing import Literal, cast

import cv2
import numpy as np
from av.video.frame import VideoFrame

from clearcall.imaging.frame import NEUTRAL, Frame
from clearcall.imaging.sizes import Size
from clearcall.media.video.read import Plane, depth_scale, describe_as, plane_of, side_data

View = Literal["plain", "side-by-side", "split"]
Matrix = tuple[int, ...]
UPRIGHT: Matrix = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_WHITE = 235  # 8-bit level
_LEVELS, _MOST = 4, 1023  # of 10 bits: for each 8-bit level, and the highest
_NEIGHBOURS = np.ones((3, 3), np.uint8)


class Canvas:
    """Draws the view of a frame and its sharpened planes; frames have `size` in pixels and the rotation of `first`."""

    def __init__(self, first: VideoFrame, size: Size, view: View, *, even: bool) -> None:
        self._view = view
        self.matrix = _display_matrix(first)
        # At a rotation by 90 degrees the rows of a frame are the columns of the screen.
        self._lies = abs(self.matrix[3]) > abs(self.matrix[0])
        self.size = size
        even |= view == "side-by-side"  # each half begins with a chroma sample of its own
        width, height = (side + side % 2 if even else side for side in self.size)
        self.padded = (width, height) != self.size
        if view == "side-by-side":
            width, height = (width, 2 * height) if self._lies else (2 * width, height)
        self.width, self.height = width, height

    def show(self, frame: VideoFrame, sharpened: Sequence[Frame]) -> VideoFrame:
        """Return the frame to encode; `sharpened` are 8 bits of its luma, or all three planes; both are used up."""
        luma, *chroma = sharpened
        shown: list[Plane] = [add_change(plane_of(frame, 0), luma), *chroma]
        white, neutral = (level * depth_scale(frame) for level in (_WHITE, NEUTRAL))
        at = self._displayed(shown[0]).shape[1] // 4 * 2
        if self._view == "split":
            for plane, column, given in zip(shown, (at, at // 2, at // 2), _planes_of(frame), strict=False):
                self._displayed(plane)[:, :column] = self._displayed(given)[:, :column]
            self._displayed(shown[0])[:, at : at + 2] = white
        if (self.width, self.height) == self.size:
            frame.make_writable()  # the decoder may yet predict others from its own
            for plane, given in zip(shown, _planes_of(frame), strict=False):
                given[:] = plane
        else:
            frame = self._enlarged(frame, shown)
        if self._view == "split":
            for index in (1, 2):
                self._displayed(plane_of(frame, index))[:, at // 2] = neutral
        return frame

    def _enlarged(self, frame: VideoFrame, shown: Sequence[Plane]) -> VideoFrame:
        canvas = VideoFrame(self.width, self.height, frame.format.name)
        for index, (area, plane) in enumerate(zip(_planes_of(canvas), _planes_of(frame), strict=True)):
            result = shown[index] if index < len(shown) else plane
            if self._view == "side-by-side":
                left, right = np.hsplit(self._displayed(area), 2)
                _fill(left, self._displayed(plane))
                _fill(right, self._displayed(result))
            else:
                _fill(area, result)
        return describe_as(canvas, frame)

    def _displayed(self, plane: Plane) -> Plane:
        """Return a view of a plane whose columns run from left to right on the screen."""
        across = self.matrix[3 if self._lies else 0]
        return (plane.T if self._lies else plane)[:, :: -1 if across < 0 else 1]


def _planes_of(frame: VideoFrame) -> list[Plane]:
    return [plane_of(frame, index) for index in range(3)]


def _display_matrix(frame: VideoFrame) -> Matrix:
    """Return how a player turns a frame: screen = (m[0] x + m[3] y, m[1] x + m[4] y), in units of 1 / 65536."""
    data = side_data(frame, "DISPLAYMATRIX")
    return UPRIGHT if data is None else tuple(np.frombuffer(data, np.int32).tolist())


def _fill(area: Plane, plane: Plane) -> None:
    """Copy a plane into an area, padded by its last row and column."""
    area[:] = np.pad(plane, [(0, large - small) for large, small in zip(area.shape, plane.shape, strict=True)], "edge")


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
