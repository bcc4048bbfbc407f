"""Frame sources: a camera, or a video at its own rate; the newest frame is kept."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.console import warn
from clearcall.core.errors import UserError, describe, redact
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size
from clearcall.imaging.yuv import SCALING
from clearcall.media.video.fit import Fit, frame_pixels, largest
from clearcall.media.video.read import (
    LIMITED,
    PLANAR,
    Reader,
    frame_at,
    is_coded,
    is_hdr,
    opened,
    quarter_turns,
    rate_of,
    reformat_to_sdr,
    video_stream,
)

FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_DEFAULTS = {"linux": "/dev/video0", "darwin": "default"}
_WANTED_SIZE, _WANTED_FPS = (1280, 720), 30
ITU601 = 5  # as FFmpeg numbers matrices
_PROTOCOLS = ("rtsp://", "rtsps://", "http://", "https://")
_WAIT_S = 10.0, 5.0  # to open, and for each read
_NAP_S = 0.002
_OLDEST_S = 1.0  # of a frame that comes from a camera
_BROKEN_IN_A_ROW = 100
_JOIN_S = 2.0


@dataclass(frozen=True)
class Captured:
    """A frame as I420, BT.601 of limited range, uint8 of (height * 3 / 2, width), when it came and was seen, in s."""

    frame: Frame
    time_s: float
    seen_s: float  # by the camera's own clock, where it has one; else when it came


class Newest:
    """Holds the newest frame; an older one that was not taken is dropped and counted."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._held: Captured | None = None
        self._ended = False
        self.arrived, self.dropped = 0, 0
        self.trouble: str | None = None

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more, and none is left."""
        with self._changed:
            return self._ended and self._held is None

    def put(self, frame: Frame, stamp_s: float | None = None) -> None:
        """Hold a frame that has just come, with the time at which its camera saw it."""
        with self._changed:
            self.arrived += 1
            self.dropped += self._held is not None
            now_s = self._clock()
            # A stamp of another clock, or of a broken one, lies far from now.
            if stamp_s is None or not 0 <= now_s - stamp_s < _OLDEST_S:
                stamp_s = now_s
            self._held = Captured(frame, now_s, stamp_s)
            self._changed.notify_all()

    def end(self, trouble: str | None = None) -> None:
        """Mark the end of the frames, with the cause unless it is the end of a video."""
        with self._changed:
            self._ended, self.trouble = True, trouble
            self._changed.notify_all()

    def take(self, until_s: float, since_s: float = -np.inf) -> Captured | None:
        """Return the held frame as soon as there is one that came at `since_s` or later.

        At the time `until_s`, or when no more will come, it is whatever is held, or None.
        """
        with self._changed:
            while not self._ended and (self._held is None or self._held.time_s < since_s):
                left_s = until_s - self._clock()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            held, self._held = self._held, None
            return held


@dataclass(frozen=True)
class Source:
    """An open camera or video: its name, the size in pixels of its frames, its frames a second, and the newest frame.

    None comes before `begin` is called.
    """

    name: str
    size: Size
    rate: Fraction
    newest: Newest
    begin: Callable[[], None]
    coded: bool = False  # whether the frames come through a video encoder


def default_camera() -> str:
    """Return the name of the first camera of this system; raise UserError where it has none that is always there."""
    if sys.platform not in _DEFAULTS:
        raise UserError("name a camera, such as 'video=Integrated Camera', or a video")
    return _DEFAULTS[sys.platform]


@contextmanager
def open_source(name: str, size: Size | None, fps: int | None, *, again: bool = False) -> Iterator[Source]:
    """Open a video, a stream of the network, or else a camera, and read it on its own thread.

    A camera is asked for the size and rate, else for 1280x720 at 30. Frames are scaled to the size that is asked for,
    or else to the camera's, or to the largest that occurs in the video, of even sides and square pixels. `again` plays
    a video over and over. Raises UserError if there is no such camera or video.
    """
    path, stop = Path(name), threading.Event()
    if path.is_file():
        with opened(path) as video:
            rate, coded, newest = rate_of(video_stream(video, path)), is_coded(video_stream(video, path)), Newest()
        first = frame_at(path, 0.0)
        pixels = frame_pixels(path, first, all_frames=size is None)
        width, height = largest(pixels)
        # Where pixels are wider than high: screens and virtual cameras have square ones.
        stored = round(width * (pixels[width, height] or 1)), height
        # Phones store videos in landscape, with a rotation.
        shape = _even(size or (stored[::-1] if quarter_turns(first) % 2 else stored))
        fit = _upright(name, shape, pixels)
        if is_hdr(first):
            warn(f"{name} is HDR, which is converted to SDR: what is brighter than white is clipped")
            fit(first)  # the first takes seconds
        with _reading(name, newest, lambda: _play(path, fit, rate, newest, stop, again=again), stop) as thread:
            yield Source(name, shape, rate, newest, thread.start, coded)
        return
    told = redact(name)
    camera = _open_stream(name) if name.startswith(_PROTOCOLS) else _open_camera(name, size, fps)
    stream = video_stream(camera, Path(told))
    stored = stream.codec_context.width, stream.codec_context.height
    shape, newest = _even(size or stored), Newest()
    fit = _upright(told, shape, {stored: Fraction(1)})
    remote = name.startswith(_PROTOCOLS)
    coded, stored_there = remote and is_coded(stream), remote and camera.duration is not None
    watch = partial(_watch, told, camera, fit, newest, stop, paced=stored_there)
    try:
        with _reading(told, newest, watch, stop) as thread:
            yield Source(told, shape, rate_of(stream), newest, thread.start, coded)
    finally:
        if not thread.is_alive():  # one that still waits for a dead camera must not lose it under its hands
            camera.close()


def _even(size: Size) -> Size:
    """Return a size with its sides rounded down to even ones, as 4:2:0 needs."""
    width, height = size
    return max(2, width - width % 2), max(2, height - height % 2)


def _open_camera(name: str, size: Size | None, fps: int | None) -> InputContainer:
    """Open a camera in the first format it accepts: compressed, raw, or as it is set."""
    kind = FORMATS.get(sys.platform)
    if kind is None:
        raise UserError(f"there is no video {name}, and cameras are not known on {sys.platform}")
    width, height = size or _WANTED_SIZE
    wanted = {"video_size": f"{width}x{height}", "framerate": str(fps or _WANTED_FPS)}
    # Over USB 2, raw frames of this size come ten times a second, compressed ones thirty times.
    compressed = [wanted | {"input_format": "mjpeg"}] if kind == "v4l2" else []
    for options in [*compressed, wanted, {}]:
        try:
            camera = av.open(name, format=kind, options=options, timeout=_WAIT_S)
        except (av.FileNotFoundError, av.PermissionError, IsADirectoryError) as error:
            raise _no_camera(name, error) from None
        except (OSError, av.FFmpegError) as error:
            failure = error
            continue
        if not options:
            warn(f"{name} takes no {wanted['video_size']} at {wanted['framerate']} fps: it is used as it is set")
        return camera
    raise _no_camera(name, failure) from None


def _open_stream(address: str) -> InputContainer:
    """Open a camera of the network, or a video on a server."""
    options = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
    try:
        return av.open(address, options=options, timeout=_WAIT_S)
    except (OSError, av.FFmpegError) as error:
        reason = error.strerror or error
        raise UserError(
            f"{redact(address)} cannot be opened: {reason}; is it running, and are the name and password right?"
        ) from None


def _no_camera(name: str, error: OSError | av.FFmpegError) -> UserError:
    if isinstance(error, av.FileNotFoundError):
        return UserError(
            f"there is no camera or video {name}: plug one in, or name another, as in `clearcall camera X`"
        )
    if isinstance(error, av.PermissionError):
        return UserError(f"no permission to use the camera {name}: join the group `video`, or allow it in the settings")
    return UserError(
        f"{name} cannot be used as a camera: {error.strerror or error}; another program may hold it, or it is no camera"
    )


@contextmanager
def _reading(name: str, newest: Newest, read: Callable[[], None], stop: threading.Event) -> Iterator[threading.Thread]:
    """Yield a thread that runs `read` once it is started, and stop it; what it fails with becomes the trouble."""

    def work() -> None:
        try:
            read()
        except Exception as error:  # noqa: BLE001  # a thread has nobody to raise to; the loop ends and tells
            reason = describe(error) or getattr(error, "strerror", None) or repr(error)
            newest.end(f"{name} failed: {reason}")

    # A daemon: a camera that has died may never return from its last read.
    thread = threading.Thread(target=work, name="capture", daemon=True)
    try:
        yield thread
    finally:
        stop.set()
        if thread.is_alive():
            thread.join(_JOIN_S)


def _play(path: Path, fit: Fit, rate: Fraction, newest: Newest, stop: threading.Event, *, again: bool) -> None:
    """Put the frames of a video when their time has come."""
    begin_s = time.perf_counter()
    for video, main in _over_and_over(path):
        end_s = begin_s
        for frame, time_s in _video_frames(video, main, path, fit, stop):
            if stop.wait(max(0.0, begin_s + time_s - time.perf_counter())):
                return
            newest.put(frame)
            end_s = begin_s + time_s + float(1 / rate)
        if not again or end_s == begin_s:
            newest.end()
            return
        begin_s = end_s


def _over_and_over(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Yield a video, at its beginning, and its main stream, again and again.

    It stays open: the threads of a new decoder would each leave some memory behind that is not given back.
    """
    while True:
        with opened(path) as video:
            main = video_stream(video, path)
            yield video, main
            with suppress(av.FFmpegError):  # not every video can be wound back
                while True:
                    video.seek(video.start_time or 0)
                    yield video, main


def _video_frames(
    video: InputContainer, main: VideoStream, path: Path, fit: Fit, stop: threading.Event
) -> Iterator[tuple[Frame, float]]:
    """Yield a video's frames from its beginning, and their times in s after the first."""
    first_s: float | None = None
    for thing in Reader(video, main, fit, path, stop):
        if isinstance(thing, VideoFrame):
            time_s = thing.time or 0.0
            first_s = time_s if first_s is None else first_s
            yield _i420(thing), time_s - first_s


def _watch(name: str, camera: InputContainer, fit: Fit, newest: Newest, stop: threading.Event, *, paced: bool) -> None:
    """Put the frames of a camera as they come, those of a video on a server, `paced`, when their time has come."""
    broken, begin_s = 0, time.perf_counter()
    stamped = FORMATS["linux"] in camera.format.name  # Linux stamps a camera's frames by the clock that `Newest` reads
    while not stop.is_set() and broken < _BROKEN_IN_A_ROW:
        try:
            for frame in camera.decode(video=0):
                if stop.is_set():
                    return
                broken = 0
                if paced and stop.wait(max(0.0, begin_s + (frame.time or 0.0) - time.perf_counter())):
                    return
                newest.put(_i420(fit(frame)), frame.time if stamped else None)
            break
        except av.BlockingIOError:  # some systems' cameras say so instead of waiting
            stop.wait(_NAP_S)
        except av.InvalidDataError:  # the first frames of many a camera are
            broken += 1
    newest.end(None if paced else f"{name} sends no more frames: it may have been unplugged")


def _upright(name: str, size: Size, pixels: Mapping[Size, Fraction]) -> Fit:
    """Return what fits frames, upright and of square pixels, to a size in the one form that all outputs expect."""
    return Fit(name, size, Fraction(1), pixels, 0, _limited_601)


def _limited_601(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """Return a frame of a size as 4:2:0 of BT.601 and limited range, which keeps every value of one that is so."""
    options = {"dst_colorspace": ITU601, "dst_color_range": LIMITED, "interpolation": SCALING}
    flat = reformat_to_sdr(frame, width, height, PLANAR, **options)
    flat.color_range = LIMITED
    return flat


def _i420(frame: VideoFrame) -> Frame:
    """Return a fitted frame as an array."""
    return np.asarray(frame.to_ndarray(), np.uint8)
