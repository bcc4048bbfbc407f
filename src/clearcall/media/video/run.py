"""Sharpen one video into another.

Timestamps, colour tags, pixel aspect ratio, rotation, chapters and metadata are kept; sound, subtitles and all else
that the new container can hold are copied packet by packet, without what an edit list hides. Planes go to the network
as stored, of limited or full range alike. Of 10-bit video the network gets 8 bits of the luma, and the change is added
to the 10 bits; chroma of 10-bit video and of frames with an odd side is not changed.
"""

import io
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.console import ProgressBar, warn
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, check_target
from clearcall.core.processes import stopped_by_interrupt
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import NewSize
from clearcall.media.slider import SplitVideo
from clearcall.media.video.canvas import Canvas, View, eight_bits
from clearcall.media.video.fit import Fit, progress_of, sized, squared
from clearcall.media.video.hdr import check_hdr, lost_metadata
from clearcall.media.video.journal import SUFFIX, Journal
from clearcall.media.video.part import Part
from clearcall.media.video.read import (
    METADATA,
    PLANAR,
    Reader,
    depth_scale,
    failure_told,
    frame_at,
    is_coded,
    is_hdr,
    opened,
    planar,
    plane_of,
    rate_of,
    video_span_s,
    video_stream,
)
from clearcall.media.video.write import (
    OF_PAGES,
    VideoCodec,
    Writer,
    add_copies,
    add_encoder,
    codec_of,
    container_of,
    options_for,
    told,
)
from clearcall.runtime.family import SharpenerFor, settled
from clearcall.runtime.sharpener import PixelFormat, Sharpener
from clearcall.temporal.filter import TemporalFilter

_YUV4MPEG = "yuv4mpegpipe"
_IN_A_PNG = "A PNG shows the middle frame without loss."
_NO_TEXT = b"\0\0"  # between two subtitles of MP4; the new file gets its own
_PLANAR = {"yuv420p", "yuvj420p", "nv12"}  # 8 bits, 4:2:0: nothing is lost on the way to yuv420p
_PLANAR_HDR = _PLANAR | {"yuv420p10le", "p010le"}  # likewise, to yuv420p10le
# VP8 and VP9 have transparency in a second frame, which is not decoded; a tag tells of it.
_ALPHA_MODES = ("ALPHA_MODE", "alpha_mode")


class BusyClock:
    """Context that adds up the seconds in which at least one thread is inside.

    `now` returns seconds of a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._lock = now, threading.Lock()
        self._inside, self._since, self.busy_s = 0, 0.0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._since = self._now()
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self.busy_s += self._now() - self._since

    @contextmanager
    def left(self) -> Iterator[None]:
        """Leave for the length of a block: time counts only while another thread is inside."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


@dataclass(frozen=True)
class VideoSummary:
    """Number of frames, both rates, whether Ctrl-C ended it early, and how many frames repeated the one before them.

    Both sides share the cores of the machine. `encode_fps` is None if nothing was encoded. `taken_up` frames were
    encoded by a run that was stopped.
    """

    frames: int
    sharpen_fps: float
    encode_fps: float | None
    interrupted: bool
    repeated: int = 0
    taken_up: int = 0

    def __str__(self) -> str:
        """Return one line."""
        again = f", {self.repeated} of them repeated" if self.repeated else ""
        again += f", {self.taken_up} of them from a run that was stopped" if self.taken_up else ""
        sharpened = f"{self.frames} frames{again}, decode + sharpen {self.sharpen_fps:.1f} fps"
        return sharpened if self.encode_fps is None else f"{sharpened}, encode {self.encode_fps:.1f} fps"


def sharpen_video(
    sharpener: Sharpener | SharpenerFor,
    source: Path,
    target: Path,
    *,
    view: View = "plain",
    size: NewSize | None = None,
    codec: VideoCodec | None = None,
    crf: int | None = None,
    past_frames: bool = True,
    part: Part = Part(),  # noqa: B008  # frozen
    overwrite: bool = False,
) -> VideoSummary:
    """Sharpen a video, or a part of it, into `target`, whose suffix tells the container.

    `codec` is VP9 in WebM and H.264 in all others if not given; HDR stays HDR, as 10-bit AV1 in WebM and as 10-bit HEVC
    in all others. Frames have the largest size that occurs in the input, times `size` if that is a factor, or else
    `size`, as they are shown; smaller ones are upscaled. `view` may show the input too, `side-by-side` with the result
    or in its left half. `crf` is the encoder's constant rate factor: lower is better and larger. `past_frames` applies
    the temporal filter (`TemporalFilter`). `sharpener` may be a function that chooses one for a frame size and rate.
    Ctrl-C, and an input that ends early, leave a video of what was done until then. A run that was stopped or killed
    leaves its packets beside `target` too, from which the same call goes on. Raises UserError, and writes nothing, if
    there is no video to sharpen, if `target` cannot hold the result, or if it exists, unless `overwrite`.
    """
    kind = container_of(target, codec)
    first = frame_at(source, 0)
    check_target(target, source, overwrite=overwrite)
    check_hdr(source, first)
    fit = Fit.of_video(source, first, size)
    with (
        failure_told(f"{source} cannot be sharpened into {target}"),
        stopped_by_interrupt() as stop,
        opened(source) as video,
        atomic_path(target) as temporary,
    ):
        chosen = _settled(sharpener, fit, video_stream(video, source))
        # Whatever decides the frames and how they are encoded.
        work = repr((_identity(source), chosen.identity, view, size, codec, crf, past_frames, part, kind))
        journal = Journal(target.with_name(target.name + SUFFIX), sha256(work.encode()).hexdigest())
        options = options_for(kind, told(video.metadata))
        with journal:
            with av.open(str(temporary), "w", format=kind, options=options, **METADATA) as out:
                summary = _sharpen(
                    chosen, video, out, first, fit, view, codec, crf, stop, source, past_frames, part, journal
                )
            if not stop.is_set():  # and the file is complete: its end may not fit on the disk
                journal.finish()
        if not summary.frames:
            _raise_empty(source, part, stop)
        return summary


def _identity(source: Path) -> tuple[str, int, int]:
    found = source.stat()
    return str(source.resolve()), found.st_size, found.st_mtime_ns


def _raise_empty(source: Path, part: Part, stop: threading.Event) -> None:
    """Raise the error for a video without a frame: an early interrupt, or a part that begins behind the end."""
    if stop.is_set() or part.whole:
        raise KeyboardInterrupt
    raise UserError(
        f"{source} has no frame from {float(part.start_s):g} s on: it lasts {video_span_s(source)[1]:.1f} s, choose an "
        "earlier --start or a longer --duration"
    )


def time_video(
    sharpener: Sharpener | SharpenerFor,
    source: Path,
    *,
    size: NewSize | None = None,
    past_frames: bool = True,
    part: Part = Part(),  # noqa: B008  # frozen
) -> VideoSummary:
    """Decode and sharpen a video without writing it: the rate of this machine while no encoder takes its cores.

    Ctrl-C ends it early. Raises UserError if there is no video to sharpen.
    """
    first = frame_at(source, 0)
    check_hdr(source, first)
    fit = Fit.of_video(source, first, size)
    with failure_told(f"{source} cannot be sharpened"), stopped_by_interrupt() as stop, opened(source) as video:
        main, clock = video_stream(video, source), BusyClock()
        chosen = _settled(sharpener, fit, main)
        reader = Reader(video, main, fit, source, stop, part)
        with progress_of(video, main, "sharpening", part) as bar:
            done = sum(1 for _ in _sharpened(chosen, reader, fit(first), clock, bar, past_frames=past_frames))
        reader.warn_of_end()
        if not done:
            _raise_empty(source, part, stop)
        return VideoSummary(done, done / max(clock.busy_s, 1e-9), None, stop.is_set(), chosen.repeated)


def pipe_video(
    sharpener: Sharpener | SharpenerFor,
    source: Path | None,
    *,
    size: NewSize | None = None,
    past_frames: bool = True,
    part: Part = Part(),  # noqa: B008  # frozen
) -> VideoSummary:
    """Sharpen a video, or YUV4MPEG from standard input if `source` is None, into YUV4MPEG on standard output.

    Frames are 8-bit 4:2:0, upright and of square pixels, without sound; HDR becomes SDR. Ctrl-C and a reader that goes
    away end it early. Raises UserError if there is no video to sharpen.
    """
    name = source or Path("-")
    with (
        failure_told(f"{name} cannot be sharpened"),
        stopped_by_interrupt() as stop,
        opened(source) if source else _standard_input() as video,
        _StandardOutput() as pipe,
        av.open(pipe, "w", format=_YUV4MPEG) as out,
    ):
        main, clock = video_stream(video, name), BusyClock()
        if source:
            first = frame_at(source, 0)
            check_hdr(source, first)
            fit = Fit.of_video(source, first, size, plain=True)
            start = fit(first)
            if is_hdr(first):
                warn(f"{source} is HDR, which is converted to SDR: what is brighter than white is clipped")
        else:
            pixels = {(main.width, main.height): main.sample_aspect_ratio or Fraction(0)}
            fit = Fit(name, squared(*sized(name, pixels, size)), Fraction(1), pixels, 0, planar)
            start = VideoFrame(*fit.size, PLANAR)
            start.color_range = main.codec_context.color_range
        chosen = _settled(sharpener, fit, main)
        canvas = Canvas(start, fit.size, "plain", even=False)
        stream = out.add_stream("rawvideo", rate_of(main), width=canvas.width, height=canvas.height, pix_fmt=PLANAR)
        stream.codec_context.color_range = start.color_range
        reader, done = Reader(video, main, fit, name, stop, part), 0
        with progress_of(video, main, "sharpening", part) as bar:
            for frame, planes in _sharpened(chosen, reader, start, clock, bar, past_frames=past_frames):
                shown = canvas.show(frame, planes)
                shown.pts, shown.time_base = done, 1 / rate_of(main)  # it has no times, but a rate
                out.mux(stream.encode(shown))
                done += 1
                if pipe.abandoned:
                    stop.set()
        reader.warn_of_end()
        if source and not done:
            _raise_empty(source, part, stop)
        interrupted = stop.is_set() and not pipe.abandoned
        return VideoSummary(done, done / max(clock.busy_s, 1e-9), None, interrupted, chosen.repeated)


def split_video(sharpener: Sharpener | SharpenerFor, source: Path, part: Part) -> SplitVideo:
    """Sharpen a part of a video as `sharpen_video` does, into one that shows the input too, for a page.

    Frames are 8-bit 4:2:0, upright and of square pixels, without sound; HDR becomes SDR. Raises UserError if there is
    no video to sharpen, KeyboardInterrupt if it is interrupted.
    """
    first, file = frame_at(source, 0), io.BytesIO()
    check_hdr(source, first)
    fit = Fit.of_video(source, first, None, plain=True)
    start = fit(first)
    with (
        failure_told(f"{source} cannot be sharpened"),
        stopped_by_interrupt() as stop,
        opened(source) as video,
        av.open(file, "w", format="mp4") as out,
    ):
        main, clock = video_stream(video, source), BusyClock()
        chosen = _settled(sharpener, fit, main)
        canvas = Canvas(start, fit.size, "side-by-side", even=True)
        encoder = add_encoder(out, main, start, fit, canvas, "h264", OF_PAGES)
        reader, done = Reader(video, main, fit, source, stop, part), 0
        with progress_of(video, main, "sharpening", part) as bar, Writer(out, encoder) as writer:
            for frame, planes in _sharpened(chosen, reader, start, clock, bar, past_frames=True):
                writer.put(canvas.show(frame, planes))
                done += 1
        if stop.is_set():
            raise KeyboardInterrupt
        if not done:
            where = f"{float(part.start_s):g} s, where its middle is said to begin"
            raise UserError(f"{source} ends before {where}: it is truncated; name a PNG, which shows the last frame")
        rate = rate_of(main)
    return SplitVideo(file.getvalue(), fit.size, rate, float(done / rate), _IN_A_PNG)


@contextmanager
def _standard_input() -> Iterator[InputContainer]:
    try:
        video = av.open(sys.stdin.buffer, "r", format=_YUV4MPEG)
    except (OSError, av.FFmpegError):
        raise UserError(
            "standard input is no YUV4MPEG: send it with `ffmpeg -i IN -f yuv4mpegpipe -pix_fmt yuv420p -`"
        ) from None
    with video:
        yield video


class _StandardOutput(io.RawIOBase):
    """Standard output, into which nothing more is written once its reader has gone away."""

    def __init__(self) -> None:
        self._file = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115  # a descriptor
        self.abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401  # as its base class has it
        if not self.abandoned:
            try:
                self._file.write(data)
                self._file.flush()
            except BrokenPipeError:
                self.abandoned = True
        return len(data)


def check_network(sharpener: Sharpener) -> None:
    """Raise UserError for a network that cannot sharpen videos."""
    if sharpener.graph.kind == "rgb":
        raise UserError(f"{sharpener.graph.name} works on RGB: a video needs a luma network such as fast")


def _settled(sharpener: Sharpener | SharpenerFor, fit: Fit, main: VideoStream) -> Sharpener:
    chosen = settled(sharpener, fit.size, rate_of(main))
    check_network(chosen)
    chosen.begin_video(coded=is_coded(main))
    return chosen


def _pixel_format(sharpener: Sharpener, frame: VideoFrame) -> PixelFormat:
    """Return the pixel format of a video's frames for a network: I420 if it restores chroma, else luma alone."""
    even = frame.width % 2 == frame.height % 2 == 0
    return "i420" if sharpener.graph.coloured and even and depth_scale(frame) == 1 else "gray"


def _input(frame: VideoFrame, pixel_format: PixelFormat, prepare: Callable[[Frame], Frame]) -> Frame:
    """Return the input of the network, its luma preprocessed: luma alone, or I420."""
    luma = prepare(eight_bits(plane_of(frame, 0)))
    if pixel_format == "gray":
        return luma
    chroma = [cast(Frame, plane_of(frame, index)).reshape(-1) for index in (1, 2)]
    return np.concatenate([luma.reshape(-1), *chroma]).reshape(-1, luma.shape[1])


def _planes(sharpened: Frame, pixel_format: PixelFormat) -> list[Frame]:
    """Return the planes of a sharpened frame: luma alone, or all three."""
    if pixel_format == "gray":
        return [sharpened]
    height, width = sharpened.shape[0] // 3 * 2, sharpened.shape[1]
    return [sharpened[:height], *sharpened[height:].reshape(2, height // 2, width // 2)]


def sharpen_frame(sharpener: Sharpener, frame: VideoFrame) -> list[Frame]:
    """Return the sharpened planes of one planar frame by itself: luma alone, or all three."""
    pixel_format = _pixel_format(sharpener, frame)
    return _planes(sharpener(_input(frame, pixel_format, lambda luma: luma), pixel_format), pixel_format)


def _sharpened(
    sharpener: Sharpener,
    things: "Iterable[VideoFrame | Packet[Any]]",
    first: VideoFrame,
    clock: BusyClock,
    bar: ProgressBar,
    *,
    past_frames: bool,
    copy: Callable[["Packet[Any]"], None] = lambda _: None,
) -> Iterator[tuple[VideoFrame, list[Frame]]]:
    """Yield each frame with its sharpened planes, and give other streams' packets to `copy`.

    The clock stops while this is left.
    """
    pixel_format = _pixel_format(sharpener, first)
    prepare = TemporalFilter() if past_frames else lambda luma: luma
    frames = deque[VideoFrame]()

    def inputs() -> Iterator[Frame]:
        for thing in things:
            if isinstance(thing, VideoFrame):
                frames.append(thing)
                yield _input(thing, pixel_format, prepare)
            else:
                copy(thing)

    # The first call, in which a runtime is chosen, does not count.
    sharpen_frame(sharpener, first)
    started = time.perf_counter()
    with clock:
        for done, sharpened in enumerate(sharpener.map(inputs(), pixel_format, around=clock), 1):
            yield frames.popleft(), _planes(sharpened, pixel_format)
            bar.advance()
            bar.note(f"{done / (time.perf_counter() - started):.1f} fps")


def _sharpen(
    chosen: Sharpener,
    video: InputContainer,
    out: OutputContainer,
    first: VideoFrame,
    fit: Fit,
    view: View,
    codec: VideoCodec | None,
    crf: int | None,
    stop: threading.Event,
    source: Path,
    past_frames: bool,  # noqa: FBT001  # of a function of this module
    part: Part,
    journal: Journal,
) -> VideoSummary:
    """Write a file from its header on, until the video ends or `stop` is set; first what the journal holds."""
    main = video_stream(video, source)
    canvas = Canvas(first, fit.size, view, even=out.format.name != "webm")
    encoder = add_encoder(out, main, first, fit, canvas, codec, {} if crf is None else {"crf": str(crf)})
    copies = add_copies(video, out, main, source)
    for index, stream in {main.index: encoder, **copies}.items():
        stream.metadata.update(told(video.streams[index].metadata))
        stream.disposition = video.streams[index].disposition
    out.metadata.update(told(video.metadata))
    out.set_chapters(part.placed(main).chapters(video.chapters()))
    out.start_encoding()
    _warn_of_changes(first, main, canvas, source)
    reader, clock, done = Reader(video, main, fit, source, stop, part), BusyClock(), 0

    def copy(packet: "Packet[Any]") -> None:
        if packet.stream_index in copies and not (codec_of(packet.stream) == "mov_text" and bytes(packet) == _NO_TEXT):
            packet.stream = copies[packet.stream_index]
            with clock.left():
                writer.put(packet)

    with progress_of(video, main, "sharpening", part) as bar, Writer(out, encoder, journal) as writer:
        left = _left_to_do(reader, journal, encoder, writer, bar)
        for frame, planes in _sharpened(chosen, left, fit(first), clock, bar, past_frames=past_frames, copy=copy):
            shown = canvas.show(frame, planes)
            with clock.left():
                writer.put(shown)
            done += 1
    reader.warn_of_end()
    if writer.refused:
        warn(f"{source}: {writer.refused} packets of sound or text are broken and were left out")
    rates = done / max(clock.busy_s, 1e-9), done / max(writer.busy_s, 1e-9)
    return VideoSummary(journal.taken_up + done, *rates, stop.is_set(), chosen.repeated, journal.taken_up)


def _left_to_do(
    reader: Reader, journal: Journal, encoder: VideoStream, writer: Writer, bar: ProgressBar
) -> "Iterator[VideoFrame | Packet[Any]]":
    """Yield what the journal does not hold, and write what it holds, both in the order of the video."""
    for thing in reader:
        if isinstance(thing, VideoFrame):
            until = cast(int, thing.pts)
            for packet in journal.taken(until, encoder):
                writer.put(packet)
            if journal.end is not None and until < journal.end:
                bar.advance()
                continue
        yield thing


def _warn_of_changes(first: VideoFrame, main: VideoStream, canvas: Canvas, source: Path) -> None:
    bits, kept = (10, _PLANAR_HDR) if is_hdr(first) else (8, _PLANAR)
    if first.format.name not in kept:
        warn(f"{source} is {first.format.name}: it is converted to {bits} bits, 4:2:0")
    if lost := lost_metadata(first):
        warn(f"{source} has {' and '.join(lost)} metadata, which are left out: static HDR metadata are kept")
    if "1" in {main.metadata.get(name) for name in _ALPHA_MODES}:
        warn(f"{source} is transparent in places: that is left out")
    if canvas.padded:
        warn(f"{source} has an odd side, which H.264 and side by side cannot have: the last row or column is repeated")
    if first.interlaced_frame:
        warn(f"{source} is interlaced: it is deinterlaced")
