"""Sample frames of videos, each with the frames before it, which an encoder needs."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from av.video.frame import VideoFrame

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.data.manifest import CLIP_FRAMES
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import resized
from clearcall.media.video.read import (
    CUT_SECONDS,
    frames_at,
    quarter_turns,
    upright_rgb,
    video_span_s,
)


class SampledFrame(NamedTuple):
    """A frame of a video, 8-bit RGB of (height, width, 3), and the frames before it, earliest first.

    `seconds` is its time after the video's beginning.
    """

    frame: Frame
    before: list[Frame]
    seconds: float


def sample_frames(path: Path, count: int, scale: float = 1.0) -> Iterator[SampledFrame]:
    """Yield `count` frames of a video at even distances, upright, each with up to seven before it.

    All are downscaled by `scale`, antialiased; the frames before have the size of the frame. A video that is shorter,
    or truncated, yields fewer, none twice. Raises UserError if the video has no frame that can be decoded, or is
    corrupt where a frame is sampled.
    """
    (begin_s, length_s), last = video_span_s(path), None
    for index in range(count):
        wanted_s = length_s * (index + 1) / (count + 1)
        found = frames_at(path, wanted_s, CLIP_FRAMES)
        if found.broken:
            raise UserError(f"{path} is broken about {wanted_s:.1f} s after its beginning: mend or remove it")
        *_, shown = found.frames
        at_s = wanted_s if shown.time is None else shown.time - begin_s
        if shown.pts is None or shown.pts != last:
            # It may change its size, or be turned.
            alike = takewhile(lambda one: _shape(one) == _shape(shown), reversed(found.frames))  # noqa: B023  # used at once
            frame, *before = (_downscaled(upright_rgb(one, (shown.width, shown.height)), scale) for one in alike)
            yield SampledFrame(frame, before[::-1], at_s)
        last = shown.pts
        if at_s < wanted_s - CUT_SECONDS:
            warn(f"{path}: its picture ends after {at_s:.1f} of {length_s:.1f} s, so fewer frames were taken of it")
            break


def _downscaled(frame: Frame, scale: float) -> Frame:
    height, width = frame.shape[:2]
    return resized(frame, (max(1, round(width * scale)), max(1, round(height * scale))))


def _shape(frame: VideoFrame) -> tuple[int, int, int]:
    return frame.width, frame.height, quarter_turns(frame)
