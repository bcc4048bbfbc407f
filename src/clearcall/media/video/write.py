"""Write videos: sharpened frames, copies of other streams, the encoding thread."""

import io
import os
import threading
import time
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Literal, Self, cast

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size
from clearcall.media.slider import SplitVideo
from clearcall.media.video.canvas import UPRIGHT, Canvas
from clearcall.media.video.edits import begins_hidden
from clearcall.media.video.fit import Fit
from clearcall.media.video.hdr import hdr_metadata
from clearcall.media.video.journal import Journal
from clearcall.media.video.read import ITU709, LIMITED, is_hdr, opened, planar, rate_of, time_base_of

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
VideoCodec = Literal["h264", "hevc", "av1", "vp9"]
_CODECS: dict[str, tuple[VideoCodec, ...]] = {
    "mp4": ("h264", "hevc", "av1", "vp9"),
    "mov": ("h264", "hevc"),
    "matroska": ("h264", "hevc", "av1", "vp9"),
    "webm": ("vp9", "av1"),
}
# Presets that are quick: at the same crf they cost size rather than quality, and they leave the cores to the network.
_ENCODERS: dict[VideoCodec, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "18", "preset": "veryfast"}),
    "hevc": ("libx265", {"crf": "18", "preset": "veryfast", "x265-params": "log-level=error:open-gop=0"}),
    "av1": ("libsvtav1", {"crf": "24", "preset": "9"}),
    "vp9": ("libvpx-vp9", {"crf": "24", "deadline": "good", "cpu-used": "5", "row-mt": "1"}),
}
# Of little loss, but no more than 3 MB a second and as much once: Firefox takes pages' data up to 32 MB.
OF_PAGES = {"crf": "12", "maxrate": "24M", "bufsize": "24M"}
_OF_HDR: dict[VideoCodec, Literal["hevc", "av1"]] = {"h264": "hevc", "vp9": "av1"}  # in place of those of 8 bits
_UNTIMED_FRAMES = 2  # of so few, none of them reordered, x265 leaves the decoding times uninitialised
_QUEUED = 8  # frames and packets that wait for the encoder
# What metadata says of the file or of the old encoding, and which the new file says anew.
_OF_THE_FILE = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "bps", "alpha_mode"}
# What MP4 and MOV have places for; others, such as those of telephones, go where each has its name written beside it.
_PLACES = {
    *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "grouping"),
    *("lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords", "season_number", "track"),
    *("disc", "location", "location-eng", "creation_time"),
}
_STATISTICS = ("number_of_", "_statistics_", "bps-", "duration-")


def container_of(target: Path, codec: VideoCodec | None) -> str:
    """Return FFmpeg's name of a file's container; raise UserError if there is none for its suffix and a codec."""
    kind = FORMATS.get(target.suffix.lower())
    if kind is None:
        raise UserError(f"{target} must end in one of {', '.join(FORMATS)}: the suffix tells the container")
    if codec is None:
        return kind
    if codec not in _CODECS[kind]:
        raise UserError(f"{target} cannot hold {codec}: choose {' or '.join(_CODECS[kind])}, or name a .mkv file")
    if (encoder := _ENCODERS[codec][0]) not in av.codecs_available:
        raise UserError(f"this build of PyAV lacks {encoder}: choose another codec than {codec}")
    return kind


def _encoder(first: VideoFrame, kind: str, codec: VideoCodec | None) -> tuple[str, dict[str, str]]:
    """Return the encoder for frames like the first one in a container, by its name in FFmpeg, and its options.

    Raises UserError for HDR where there is no encoder for it.
    """
    chosen = codec or _CODECS[kind][0]
    if is_hdr(first):
        chosen = chosen if codec else _OF_HDR.get(chosen, chosen)
        if chosen not in _OF_HDR.values():
            raise UserError(f"the video is HDR, which {chosen} does not keep here: choose hevc or av1")
    encoder, options = _ENCODERS[chosen]
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it prints a page on standard error otherwise
    if not is_hdr(first):
        return encoder, options
    if encoder not in av.codecs_available:
        raise UserError(f"the video is HDR, for which this build of PyAV lacks {encoder}: convert it to SDR first")
    return encoder, options | hdr_metadata(first, "av1" if chosen == "av1" else "hevc")


def add_encoder(
    out: OutputContainer,
    main: VideoStream,
    first: VideoFrame,
    fit: Fit,
    canvas: Canvas,
    codec: VideoCodec | None,
    given: Mapping[str, str],
) -> VideoStream:
    """Add the stream for the sharpened frames, with times, colours, pixel shape and rotation of the input's.

    Options of the encoder that are `given` replace the usual ones. Raises UserError for HDR where there is no encoder
    for it.
    """
    encoder, options = _encoder(first, out.format.name, codec)
    stream = out.add_stream(encoder, rate_of(main), {**options, **given}, width=canvas.width, height=canvas.height)
    stream = cast(VideoStream, stream)
    context, colours = stream.codec_context, fit(first)
    context.pix_fmt = colours.format.name
    if encoder == "libx265" and out.format.name in {"mp4", "mov"}:
        context.codec_tag = "hvc1"  # the one that Apple's players take
    stream.time_base = context.time_base = time_base_of(main)
    context.sample_aspect_ratio = fit.pixel
    context.color_range, context.colorspace = colours.color_range, colours.colorspace
    context.color_primaries, context.color_trc = colours.color_primaries, colours.color_trc
    context.flags |= Flags.frame_duration
    stream.set_display_matrix(None if canvas.matrix == UPRIGHT else canvas.matrix)
    return stream


def join_halves(halves: Iterable[tuple[Frame, Frame]], size: Size, rate: Fraction, note: str) -> SplitVideo:
    """Encode RGB frames, each beside its output, into a video for a page; `size` is theirs, of even sides."""
    (width, height), file, (encoder, options) = size, io.BytesIO(), _ENCODERS["h264"]
    frames = 0
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream(encoder, rate, {**options, **OF_PAGES}, width=2 * width, height=height)
        stream = cast(VideoStream, stream)
        stream.codec_context.colorspace, stream.codec_context.color_range = ITU709, LIMITED
        for both in halves:
            rgb = VideoFrame.from_ndarray(np.hstack(both), "rgb24")
            out.mux(stream.encode(planar(rgb, rgb.width, rgb.height)))
            frames += 1
        out.mux(stream.encode(None))
    return SplitVideo(file.getvalue(), size, rate, float(frames / rate), note)


def add_copies(video: InputContainer, out: OutputContainer, main: VideoStream, source: Path) -> dict[int, Stream]:
    """Add a stream for each other that the container can hold, by index; raise UserError for sound and subtitles."""
    copies: dict[int, Stream] = {}
    for stream in video.streams:
        what = f"{source}: stream {stream.index} ({stream.type}, {codec_of(stream) or 'unknown'})"
        if stream.index == main.index or (codec_of(stream) == "bin_data" and video.chapters()):
            continue  # the latter holds the chapters of MP4, which are copied by themselves
        if stream.type == "data" and "timecode" in stream.metadata and "timecode" in main.metadata:
            continue  # a track of it is made of what the video's own metadata tells
        cover = stream.disposition & Disposition.attached_pic
        if cover and out.format.name == "matroska":
            _attach(out, stream, source)
        elif _holds(out.format.name, stream):
            copies[stream.index] = copy = _add_copy(out, stream, source)
            if isinstance(stream, VideoStream) and isinstance(copy, VideoStream) and not cover:
                copy.codec_context.framerate = rate_of(stream)
                warn(f"{what} is copied as it is: only the first video of a file is sharpened")
        elif stream.type in {"audio", "subtitle"}:
            # Matroska takes nearly all.
            other = next((suffix for suffix in (".mkv", *FORMATS) if _holds(FORMATS[suffix], stream)), None)
            advice = f"name a {other} file" if other else "convert it first, or remove it, with ffmpeg for example"
            raise UserError(f"{what} cannot be copied into a {out.format.name} file: {advice}")
        else:
            warn(f"{what} cannot be in a {out.format.name} file and is left out")
    return copies


def _add_copy(out: OutputContainer, stream: Stream, source: Path) -> Stream:
    if not begins_hidden(stream):
        return out.add_stream_from_template(stream, opaque=True)
    # Or Matroska would tell players to skip what is copied, which is no more than what is shown.
    with opened(source, ignore_editlist="1") as unedited:
        return out.add_stream_from_template(unedited.streams[stream.index], opaque=True)


def _attach(out: OutputContainer, stream: Stream, source: Path) -> None:
    """Attach a cover image, as Matroska wants it: as a stream it would come back as a video of one frame."""
    with opened(source) as video:
        cover = next(bytes(packet) for packet in video.demux(video.streams[stream.index]) if packet.size)
    kind = "png" if codec_of(stream) == "png" else "jpeg"
    name = stream.metadata.get("filename", "cover.png" if kind == "png" else "cover.jpg")
    out.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), cover)


def _holds(kind: str, stream: Stream) -> bool:
    """Return whether a container can hold a stream, by writing the head of one in memory: many say so only then."""
    try:
        with av.open(io.BytesIO(), "w", format=kind) as out:
            out.add_stream_from_template(stream, opaque=True)
            out.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True


def codec_of(stream: Stream) -> str | None:
    """Return the name of a stream's codec, None if it is not known: PyAV's streams have no name then."""
    return getattr(stream, "name", None)


def told(metadata: dict[str, str]) -> dict[str, str]:
    """Return metadata without what describes the old file and encoding."""
    return {
        name: value
        for name, value in metadata.items()
        if name.lower() not in _OF_THE_FILE and not name.lower().startswith(_STATISTICS)
    }


def options_for(kind: str, metadata: dict[str, str]) -> dict[str, str]:
    """Return the options with which a container keeps this metadata."""
    own = kind in {"mp4", "mov"} and {name.lower() for name in metadata} - _PLACES
    return {"movflags": "use_metadata_tags"} if own else {}


class Writer:
    """Encodes frames and writes packets on its own thread, in the order put; keeps what it encoded in a journal."""

    def __init__(self, out: OutputContainer, encoder: VideoStream, journal: Journal | None = None) -> None:
        self._out, self._encoder, self._journal = out, encoder, journal
        self._queue: Queue[VideoFrame | Packet[Stream] | None] = Queue(_QUEUED)
        self._thread = threading.Thread(target=self._work, name="encode")
        self._error: Exception | None = None
        self.busy_s, self.refused = 0.0, 0
        self._frames = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, thing: "VideoFrame | Packet[Stream]") -> None:
        """Queue a frame or packet; wait while the queue is full, raise the thread's error."""
        if self._error is not None:
            raise self._error
        self._queue.put(thing)

    def _work(self) -> None:
        thing: VideoFrame | Packet[Stream] | None = None
        try:
            while (thing := self._queue.get()) is not None:
                self._write(thing)
            self._write(None)
        except Exception as error:  # noqa: BLE001  # it is raised again where the frames come from
            self._error = error
            while thing is not None:  # nobody must wait at a full queue for ever
                thing = self._queue.get()

    def _write(self, thing: "VideoFrame | Packet[Stream] | None") -> None:
        """Write a packet, or encode a frame; None ends the frames."""
        started = time.perf_counter()
        if not isinstance(thing, Packet):
            encoded = self._encoder.encode(thing)
            self._frames += thing is not None
            if thing is None and self._frames <= _UNTIMED_FRAMES and self._encoder.name == "libx265":
                for packet in encoded:
                    packet.dts = packet.pts
            if self._journal is not None:
                self._journal.add(encoded)  # first: the container takes their data
            self._out.mux(encoded)
        else:
            try:
                self._out.mux(thing)
            except (av.ArgumentError, av.InvalidDataError):
                self.refused += 1
        self.busy_s += time.perf_counter() - started
