"""What is shown of a frame: the result alone, beside the input, or in half of it."""

from typing import Literal, cast

import numpy as np
from av.video.frame import VideoFrame

from clearcall.metrics import Frame
from clearcall.video.read import plane_of

View = Literal["plain", "side-by-side", "split"]
Matrix = tuple[int, ...]
UPRIGHT: Matrix = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_WHITE, _NEUTRAL = 235, 128


class Canvas:
    """Makes of a frame and its sharpened luma what is shown: this alone, beside the input, or half and half."""

    def __init__(self, first: VideoFrame, view: View, *, even: bool) -> None:
        self._view = view
        self.matrix = _display_matrix(first)
        # Of a frame that is shown turned by a quarter, the rows make the columns of the screen.
        self._lies = abs(self.matrix[3]) > abs(self.matrix[0])
        self.size = first.width, first.height
        even |= view == "side-by-side"  # each half begins with a whole chroma sample
        width, height = (side + side % 2 if even else side for side in self.size)
        self.padded = (width, height) != self.size
        if view == "side-by-side":
            width, height = (width, 2 * height) if self._lies else (2 * width, height)
        self.width, self.height = width, height

    def show(self, frame: VideoFrame, luma: Frame) -> VideoFrame:
        """Return the frame to encode; `frame` and `luma` are used up."""
        if self._view == "split":
            shown = self._displayed(luma)
            at = shown.shape[1] // 4 * 2
            shown[:, :at] = self._displayed(plane_of(frame, 0))[:, :at]
            shown[:, at : at + 2] = _WHITE
        if (self.width, self.height) == self.size:
            frame.make_writable()  # the decoder may yet predict others from its own
            plane_of(frame, 0)[:] = luma
        else:
            frame = self._enlarged(frame, luma)
        if self._view == "split":
            for index in (1, 2):
                self._displayed(plane_of(frame, index))[:, at // 2] = _NEUTRAL
        return frame

    def _enlarged(self, frame: VideoFrame, luma: Frame) -> VideoFrame:
        canvas = VideoFrame(self.width, self.height, "yuv420p")
        for index in range(3):
            area, plane = plane_of(canvas, index), plane_of(frame, index)
            result = luma if index == 0 else plane
            if self._view == "side-by-side":
                left, right = np.hsplit(self._displayed(area), 2)
                _fill(left, self._displayed(plane))
                _fill(right, self._displayed(result))
            else:
                _fill(area, result)
        for name in ("pts", "time_base", "duration", "colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(canvas, name, getattr(frame, name))
        return canvas

    def _displayed(self, plane: Frame) -> Frame:
        """Return a view of a plane whose columns run from left to right on the screen."""
        across = self.matrix[3 if self._lies else 0]
        return (plane.T if self._lies else plane)[:, :: -1 if across < 0 else 1]


def _display_matrix(frame: VideoFrame) -> Matrix:
    """Return how a player turns a frame: screen = (m[0] x + m[3] y, m[1] x + m[4] y), in units of 1 / 65536."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return UPRIGHT if data is None else tuple(np.frombuffer(cast(bytes, data), np.int32).tolist())


def _fill(area: Frame, plane: Frame) -> None:
    """Copy a plane into an area that may be larger, where its last row and column are repeated."""
    area[:] = np.pad(plane, [(0, large - small) for large, small in zip(area.shape, plane.shape, strict=True)], "edge")
