"""Animated WebP, which FFmpeg cannot decode, as lossless Matroska made by Pillow."""

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.console import warn
from clearcall.imaging.decode import ANIMATED, image_errors, open_image

_MOST_PIXELS = 33_177_600  # of a frame, 7680 x 4320: Pillow holds several at once
_UNIT = Fraction(1, 1000)  # s, of WebP's times


def is_animation(path: Path) -> bool:
    """Return whether a file is an animated GIF, PNG or WebP; False if unreadable."""
    try:
        with open_image(path, formats=ANIMATED) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # noqa: BLE001  # a decoder may raise anything for a corrupt file; whoever reads it says so
        return False


def is_webp(path: Path) -> bool:
    """Return whether a file says at its beginning that it is a WebP."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


class AnimatedWebP(io.RawIOBase):
    """Stream of a Matroska video, made as it is read, with a WebP's frames and times."""

    def __init__(self, path: Path) -> None:
        with image_errors(path, "cannot be read as a video"), open_image(path, _MOST_PIXELS, ["WEBP"]):
            pass  # it can be opened
        self._chunks, self._left = _matroska(path), b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes; none at the end."""
        while not self._left and (chunk := next(self._chunks, None)) is not None:
            self._left = chunk
        size = len(self._left) if size < 0 else size
        data, self._left = self._left[:size], self._left[size:]
        return data


@cache
def _tell(message: str) -> None:
    """Warn once, though a video is opened more than once."""
    warn(message)


def _matroska(path: Path) -> Iterator[bytes]:
    """Yield a Matroska file piece by piece; it ends before a frame that cannot be decoded."""
    sink, live = io.BytesIO(), {"live": "1", "flush_packets": "1"}
    with (
        open_image(path, _MOST_PIXELS, ["WEBP"]) as image,
        av.open(sink, "w", format="matroska", container_options=live) as out,
    ):
        pts = 0
        stream: VideoStream | None = None
        for number in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(number)
                rgba = image.convert("RGBA")
            except Exception as error:  # noqa: BLE001  # a decoder may raise anything for a corrupt file
                _tell(f"{path} is corrupt: from frame {number + 1} on it is left out ({error})")
                break
            if stream is None:
                stream = out.add_stream("ffv1", 25, width=rgba.width, height=rgba.height, pix_fmt="bgra")
                stream.time_base = stream.codec_context.time_base = _UNIT
                stream.codec_context.flags |= Flags.frame_duration
            frame = VideoFrame.from_ndarray(np.asarray(rgba), "rgba").reformat(format="bgra")
            frame.pts, frame.time_base, frame.duration = pts, _UNIT, max(1, round(image.info.get("duration", 0)))
            pts += frame.duration
            out.mux(stream.encode(frame))
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
        if stream is not None:
            out.mux(stream.encode(None))
    yield sink.getvalue()
