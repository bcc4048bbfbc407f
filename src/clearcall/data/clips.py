"""Clips to encode: videos, or photographs that pan and zoom or bend as faces do."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np

from clearcall.core.errors import UserError
from clearcall.data.ingest.sources import bundled_originals
from clearcall.data.synthetic import MAX_BEND, MAX_PAN, MAX_ZOOM, bent, pan_and_zoom, with_noise
from clearcall.imaging.decode import KINDS, SUFFIXES, read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import resized
from clearcall.media.video.read import VIDEO_SUFFIXES, opened, upright_rgb, video_stream
from clearcall.params import PhotoMotion

_MIN_SIDE_PX = 64
_NOISE_LEVELS, _GRAIN = (0.5, 3.0), 0.6  # 8-bit levels, pixels


@dataclass(frozen=True)
class Clip:
    """A clip: the name of its file, and its first frames, 8-bit RGB of one size."""

    name: str
    frames: list[Frame]


def clip_files(folder: Path) -> list[Path]:
    """Return the videos and photographs of a folder by name; raise UserError if there is none.

    In place of a folder, `bundled` stands for `bundled_files`.
    """
    if str(folder) == "bundled" and not folder.exists():
        return bundled_files()
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give one of videos ({', '.join(VIDEO_SUFFIXES)}) or photographs")
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in {*VIDEO_SUFFIXES, *SUFFIXES}]
    if not files:
        raise UserError(
            f"{folder} holds neither videos ({', '.join(VIDEO_SUFFIXES)}) nor photographs ({KINDS}): put some there"
        )
    return files


def bundled_files() -> list[Path]:
    """Return the bundled test photographs (faces of a woman and of a cat, a cup) and a printed page."""
    photographs = [original.path for original in bundled_originals() if original.split == "test"]
    return [*photographs, photographs[0].with_name("page.png")]  # all are scikit-image's


def video_files(folder: Path) -> list[Path]:
    """Return the videos of a folder by name; raise UserError if there is none."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
    if not files:
        raise UserError(f"{folder} holds no videos ({', '.join(VIDEO_SUFFIXES)}): put some there")
    return files


def read_clip(path: Path, frames: int, height: int, motion: PhotoMotion = "pan") -> Clip:
    """Return the first frames of a video, or a clip of a photograph, at most `height` pixels high.

    Photographs pan and zoom, or bend with a camera's noise on them, as a face before a webcam does. Raises UserError
    if the file cannot be read, or if a video has fewer than two frames.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Clip(path.name, [_fitted(frame, height) for frame in _first_frames(path, frames)])
    photo = _fitted(np.asarray(read_rgb(path, _MIN_SIDE_PX)), height)
    draw = np.random.default_rng(list(hashlib.sha256(path.name.encode()).digest()))
    if motion == "bend":
        clip = bent([photo] * frames, draw.uniform(0, MAX_BEND), draw)
        return Clip(path.name, with_noise(clip, draw.uniform(*_NOISE_LEVELS), _GRAIN, draw))
    x, y = draw.uniform(-MAX_PAN, MAX_PAN, 2)
    return Clip(path.name, pan_and_zoom(photo, frames, (x, y), draw.uniform(1 / MAX_ZOOM, MAX_ZOOM)))


def _first_frames(path: Path, frames: int) -> Iterator[Frame]:
    count, size = 0, None
    try:
        with opened(path) as video:
            for frame in islice(video.decode(video_stream(video, path)), frames):
                size = size or (frame.width, frame.height)  # that of the first, should it change
                yield upright_rgb(frame, size)
                count += 1
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be read as a video ({error}): mend or remove it") from None
    if count < 2:  # noqa: PLR2004  # flicker is of two
        raise UserError(f"{path} holds {count} frames, and at least 2 are needed: remove it")


def _fitted(frame: Frame, height: int) -> Frame:
    own_height, width = frame.shape[:2]
    return frame if own_height <= height else resized(frame, (max(1, round(width * height / own_height)), height))
