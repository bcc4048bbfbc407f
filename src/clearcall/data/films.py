"""Pictures out of films, each with the frames before it, as an encoder would have seen them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame

from clearcall.data.codecs import CLIP_FRAMES, CONVERSION
from clearcall.metrics import Frame
from clearcall.video.read import frames_at, quarter_turns


class FilmPicture(NamedTuple):
    """A frame of a film, 8-bit RGB of (height, width, 3), the frames before it, earliest first, and its time in s."""

    frame: Frame
    before: list[Frame]
    seconds: float


def film_pictures(path: Path, count: int) -> Iterator[FilmPicture]:
    """Yield `count` frames of a film at even distances, upright, each with up to seven frames before it.

    Of a shorter film it yields fewer, none of them twice. Raises UserError if there is no frame that can be decoded.
    """
    last = -1.0
    for index in range(count):
        frames = frames_at(path, (index + 1) / (count + 1), CLIP_FRAMES)
        seconds = frames[-1].time or 0.0
        if seconds > last:
            size = frames[-1].width, frames[-1].height
            *before, frame = (upright_rgb(one, size) for one in frames)
            yield FilmPicture(frame, before, seconds)
        last = max(last, seconds)


def upright_rgb(frame: VideoFrame, size: tuple[int, int]) -> Frame:
    """Return a frame, scaled to (width, height) as it is stored, as 8-bit RGB, turned as it is to be shown."""
    rgb = frame.reformat(*size, format="rgb24", interpolation=CONVERSION).to_ndarray()
    return np.ascontiguousarray(np.rot90(np.asarray(rgb, np.uint8), quarter_turns(frame)))
