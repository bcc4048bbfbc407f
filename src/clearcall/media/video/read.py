"""Read videos: frames of one stream, packets of the others, in file order."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from clearcall.core.console import warn
from clearcall.core.errors import UserError, describe
from clearcall.imaging.frame import Frame
from clearcall.imaging.yuv import CONVERSION, SCALING
from clearcall.media.video.animation import AnimatedWebP, is_webp
from clearcall.media.video.deinterlace import Deinterlacer
from clearcall.media.video.edits import has_edits, is_hidden, without_hidden
from clearcall.media.video.part import Part

# As FFmpeg numbers matrices, ranges, primaries and transfers.
ITU709, _ITU2020, LIMITED = 1, 9, 1
_BT709, _PQ, _HLG = 1, 16, 18
# It keeps its table, which takes seconds to make.
_SDR, _SDR_LOCK = VideoReformatter(), threading.Lock()
Plane = npt.NDArray[Any]  # of 8-bit or 16-bit unsigned integers
PLANAR, PLANAR_10 = "yuv420p", "yuv420p10le"
_DESCRIBED = ("pts", "time_base", "duration", "colorspace", "color_range", "color_primaries", "color_trc")
# Containers whose header states the duration, so that truncation can be detected.
_ANNOUNCING = {"mov", "matroska", "avi", "flv", "asf"}
CUT_SECONDS = 1.0  # a video that ends more than this before its announced end is truncated
# Containers whose duration counts from zero, not from the first frame.
_FROM_ZERO = {"matroska"}
_JUMP_S = 1  # timestamps that go back further begin a new piece
_SETTING_THE_PACE = {"video", "audio"}  # subtitles may be out of order
_MOST_FPS = 300
_OPAQUE = 255  # 8-bit level of alpha
# PyAV 18 refuses metadata that is no UTF-8 unless told so; from 19 on it always reads and writes it byte by byte.
METADATA: dict[str, Any] = {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}  # noqa: PLR2004  # PyAV's
_ENTRIES_S = (0.0, 2.0, 12.0, math.inf)  # how much earlier than wanted decoding starts, one try after the other
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".y4m"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".flv", ".wmv", ".3gp"),
)


@contextmanager
def opened(path: Path, **options: str) -> Iterator[InputContainer]:
    """Open a video for reading, with options of FFmpeg's; raise UserError if it is none."""
    if not path.is_file():
        raise UserError(f"there is no video {path}")
    with failure_told(f"{path} cannot be read as a video"):
        # Absolute: a name with a colon would be taken for a protocol.
        file = AnimatedWebP(path) if is_webp(path) else str(path.resolve())
        video = av.open(file, options=options, **METADATA)
    with video:
        yield video


@contextmanager
def failure_told(what: str) -> Iterator[None]:
    """Turn errors of files, encoders and decoders into a UserError that begins with `what`."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        if describe(error):
            raise
        raise UserError(f"{what}: {error.strerror or error}") from None


def is_coded(stream: VideoStream) -> bool:
    """Return whether the codec is lossy and predicts frames from others, as in a call."""
    codec = stream.codec_context.codec
    return codec.lossy and not codec.intra_only


def video_stream(video: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that is not a cover image; raise UserError if there is none to decode."""
    for stream in video.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise UserError(f"{path} is in a codec that is not known here: convert it to H.264 first")
            stream.thread_type = "AUTO"
            return stream
    raise UserError(f"{path} holds no moving picture")


def video_size(path: Path) -> tuple[int, int]:
    """Return width and height of a video in pixels as stored, from its header."""
    with opened(path) as video:
        stream = video_stream(video, path)
        if not stream.width:
            raise UserError(f"{path} holds no frame that can be decoded")
        return stream.width, stream.height


def video_span_s(path: Path) -> tuple[float, float]:
    """Return start and duration of a video in s, from its header or all packets."""
    with opened(path) as video:
        begin = (video.start_time or 0) / av.time_base
        if video.duration:
            from_zero = _FROM_ZERO & set(video.format.name.split(","))
            return begin, video.duration / av.time_base - (begin if from_zero else 0)
        times = [
            float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base)
            for packet in _packets(video.demux(video_stream(video, path)))
            if packet.size and packet.time_base
        ]
        return begin, max(times, default=begin) - begin


def frame_at(path: Path, part: float) -> VideoFrame:
    """Return the frame at this part, 0 to 1, of a video's duration; raise UserError if it has none.

    Of a video that ends earlier, return the last frame.
    """
    return frames_at(path, part and part * video_span_s(path)[1], 1).frames[-1]


class VideoFrames(NamedTuple):
    """Consecutive frames of a video, earliest first; `broken` if a decoder error affects one of them.

    Not every decoder reports errors.
    """

    frames: list[VideoFrame]
    broken: bool


def frames_at(path: Path, seconds: float, count: int) -> VideoFrames:
    """Return the frame `seconds` after the beginning and those before it, `count` in all or fewer if there are none.

    Of a video that ends earlier, return its last frames. Raises UserError if it has none.
    """
    # Not every video can be sought exactly: try earlier and earlier, at last from the beginning.
    for earlier_s in _ENTRIES_S:
        found, from_beginning = _found_at(path, seconds, count, earlier_s)
        if from_beginning or (len(found.frames) == count and not found.broken):
            break
    if not found.frames:
        raise UserError(f"{path} holds no frame that can be decoded")
    return found


def _found_at(path: Path, seconds: float, count: int, earlier_s: float) -> tuple[VideoFrames, bool]:
    """Return the frames found, and whether the video was read from its beginning."""
    found = deque[tuple[VideoFrame, bool]](maxlen=count)
    with opened(path) as video:
        stream = video_stream(video, path)
        begin = (video.start_time or 0) / av.time_base
        entry = begin + seconds - float((count - 1) / rate_of(stream)) - earlier_s
        broken = entered = entry > begin  # until a key frame: some decoders make up missing references
        if entered:
            with suppress(av.FFmpegError):
                video.seek(int(entry * av.time_base))
        for thing in _read(stream, video.demux(stream)):
            if isinstance(thing, VideoFrame):
                broken = (broken and not thing.key_frame) or thing.is_corrupt
                found.append((thing, broken))
                if not seconds or (thing.time is not None and thing.time >= begin + seconds):
                    break
            elif isinstance(thing, av.FFmpegError):
                broken = True
        else:
            if len(found) > 1 and found[-1][0].is_corrupt:
                found.pop()  # the half frame at which a video was truncated
    return VideoFrames([frame for frame, _ in found], any(hurt for _, hurt in found)), not entered


def is_hdr(frame: VideoFrame) -> bool:
    """Return whether a frame is HDR, by its transfer function: PQ or HLG."""
    return frame.color_trc in {_PQ, _HLG}


def reformat_to_sdr(
    frame: VideoFrame,
    width: int,
    height: int,
    pixel_format: str,
    **options: Any,  # noqa: ANN401  # of PyAV
) -> VideoFrame:
    """Return a frame as `reformat` makes it; HDR gets the transfer and primaries of BT.709.

    Of HDR, reference white becomes white, and what is brighter is clipped to it.
    """
    if not is_hdr(frame):
        return frame.reformat(width, height, pixel_format, **options)
    with _SDR_LOCK:
        return _SDR.reformat(
            frame, width, height, pixel_format, dst_color_trc=_BT709, dst_color_primaries=_BT709, **options
        )


def planar(frame: VideoFrame, width: int, height: int, pixel_format: str = PLANAR) -> VideoFrame:
    """Return a frame as planar 4:2:0 of a size, itself if it is so already; NV12 and full range keep every value.

    HDR stays HDR as yuv420p10le, and becomes SDR as yuv420p.
    """
    if frame.format.is_rgb or (pixel_format == PLANAR and is_hdr(frame)):
        convert, matrix = (reformat_to_sdr, ITU709) if pixel_format == PLANAR else (VideoFrame.reformat, _ITU2020)
        options = {"dst_colorspace": matrix, "dst_color_range": LIMITED, "interpolation": SCALING}
        flat = convert(frame, width, height, pixel_format, **options)
        flat.colorspace, flat.color_range = matrix, LIMITED
        return flat
    flat = frame.reformat(width, height, pixel_format, interpolation=SCALING)
    # PyAV takes the number of the one matrix for that of another, of the same values.
    flat.colorspace, flat.color_range = frame.colorspace, frame.color_range
    return flat


def describe_as(frame: VideoFrame, model: VideoFrame) -> VideoFrame:
    """Give a frame the times and colour tags of another, and return it."""
    for name in _DESCRIBED:
        setattr(frame, name, getattr(model, name))
    return frame


def depth_scale(frame: VideoFrame) -> int:
    """Return how many levels of a frame equal one 8-bit level: 1 at 8 bits, 4 at 10."""
    return 1 << (frame.format.components[0].bits - 8)


def is_transparent(frame: VideoFrame) -> bool:
    """Return whether any pixel of a frame is transparent."""
    alpha = next((one for one in frame.format.components if one.is_alpha), None)
    if alpha is None:
        return False
    if frame.format.is_planar:
        return int(plane_of(frame, alpha.plane).min()) < (1 << alpha.bits) - 1
    return int(frame.to_ndarray(format="rgba")[..., 3].min()) < _OPAQUE


def plane_of(frame: VideoFrame, index: int) -> Plane:
    """Return a plane as a view (height, width), uint8 or uint16, without line padding."""
    plane = frame.planes[index]
    kind = np.uint8 if depth_scale(frame) == 1 else np.uint16
    rows = np.frombuffer(cast(bytes, plane), kind).reshape(plane.height, -1)  # a buffer, which its stubs conceal
    step = -1 if plane.line_size < 0 else 1
    return rows[::step, : plane.width]


def side_data(frame: VideoFrame, kind: str) -> bytes | None:
    """Return side data of a frame, of a kind as PyAV names it; None if there is none that can be read."""
    try:
        return cast(bytes | None, frame.side_data.get(kind))  # a buffer, which its stubs conceal
    except ValueError:  # of a frame that has a kind unknown to PyAV, such as a JPEG's EXIF, it reads none at all
        return None


def quarter_turns(frame: VideoFrame) -> int:
    """Return how many counter-clockwise quarter turns make a frame upright."""
    return round(frame.rotation / 90) % 4


def rate_of(main: VideoStream) -> Fraction:
    """Return the average frame rate of a stream; 25 where it is unknown.

    Browsers record at a variable rate and state the unit of timestamps instead: 1000 fps counts as unknown.
    """
    rate = main.average_rate or main.guessed_rate
    return rate if rate and rate <= _MOST_FPS else Fraction(25)


def time_base_of(main: VideoStream) -> Fraction:
    """Return the unit of a stream's times in seconds."""
    return main.time_base or Fraction(1, av.time_base)


class Timeline:
    """Makes timestamps of a concatenated video continuous, and none negative.

    Recorders and broadcasters concatenate pieces whose timestamps each start over, for sound and video alike. A new
    piece begins where the timestamps of a video or audio stream go back; another stream follows as soon as the new
    piece's offset brings it closer to the present position.
    """

    def __init__(self, begin: Fraction) -> None:
        self._offsets = [begin]  # s, for each piece
        self._piece: dict[int, int] = {}  # of each stream
        self._last: dict[int, Fraction] = {}  # its latest time in s, as stored
        self._end = Fraction(0)  # s, as moved

    def moved(self, packet: "Packet[Any]") -> "Packet[Any]":
        """Shift the timestamps of the next packet in file order, and return it."""
        stored = packet.pts if packet.dts is None else packet.dts
        if stored is None or not packet.time_base:
            return packet
        at, index, newest = stored * packet.time_base, packet.stream_index, len(self._offsets) - 1
        piece = self._piece.get(index, 0)
        if piece < newest:
            piece = min((piece, newest), key=lambda one: abs(at + self._offsets[one] - self._end))
        elif packet.is_discard:  # an edit list goes back to a key frame to decode on from there
            at = self._last.get(index, at)
        elif packet.stream.type in _SETTING_THE_PACE and at < self._last.get(index, at) - _JUMP_S:
            self._offsets.append(self._end - at)
            piece = newest + 1
        self._piece[index], self._last[index] = piece, at
        shift = round(self._offsets[piece] / packet.time_base)
        if packet.dts is not None:
            packet.dts += shift
        if packet.pts is not None:
            packet.pts += shift
        self._end = max(self._end, at + self._offsets[piece] + (packet.duration or 0) * packet.time_base)
        return packet


class Reader:
    """Yields the frames of one stream, deinterlaced and fitted by `fit`, and the packets of others, in file order.

    Of a part, times count from its start.
    """

    def __init__(
        self,
        video: InputContainer,
        main: VideoStream,
        fit: Callable[[VideoFrame], VideoFrame],
        path: Path,
        stop: threading.Event,
        part: Part = Part(),  # noqa: B008  # frozen
    ) -> None:
        self._video, self._main, self._fit, self._path, self._stop = video, main, fit, path, stop
        self._part = part.placed(main)
        self._step = max(1, round(1 / (rate_of(main) * time_base_of(main))))
        self._last: int | None = None
        # Players skip negative times: where no edit list intends that, everything is shifted later.
        early = Fraction(0) if has_edits(video) else max(Fraction(0), -(main.start_time or 0) * time_base_of(main))
        self._timeline = Timeline(early)
        self._end_s, self._broken = 0.0, 0

    def __iter__(self) -> "Iterator[VideoFrame | Packet[Stream]]":
        packets = without_hidden(self._video, self._main, self._video.demux(), str(self._path))
        wanted = self._part.packets(map(self._timeline.moved, packets), self._main)
        for thing in self._deinterlaced(_read(self._main, wanted)):
            if self._stop.is_set():
                return
            if isinstance(thing, av.FFmpegError):
                self._broken += 1
                continue
            if thing.pts is not None:
                end = (thing.pts + (thing.duration or 0)) * (thing.time_base or 0)
                self._end_s = max(self._end_s, float(end))
            if not isinstance(thing, VideoFrame):
                yield self._shifted(thing)
            elif self._part.holds(thing):
                yield self._prepared(thing)

    def _deinterlaced(
        self, things: "Iterator[VideoFrame | Packet[Stream] | av.FFmpegError]"
    ) -> "Iterator[VideoFrame | Packet[Stream] | av.FFmpegError]":
        """Yield the same, from the first interlaced frame on with whole frames."""
        deinterlacer: Deinterlacer | None = None
        for thing in things:
            if deinterlacer is None and isinstance(thing, VideoFrame) and thing.interlaced_frame:
                deinterlacer = Deinterlacer(time_base_of(self._main))
            if deinterlacer is None or not isinstance(thing, VideoFrame):
                yield thing
            else:
                yield from deinterlacer(thing)
        if deinterlacer is not None:
            yield from deinterlacer.rest()

    def _shifted(self, packet: "Packet[Stream]") -> "Packet[Stream]":
        """Return a packet with its times counted from the start of the part; a cover image has none."""
        if packet.time_base and not packet.stream.disposition & Disposition.attached_pic:
            for name in ("dts", "pts"):
                if (time := getattr(packet, name)) is not None:
                    setattr(packet, name, self._part.moved(time, packet.time_base))
        return packet

    def _prepared(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame fitted, and later than the one before."""
        pts = None if frame.pts is None else self._part.moved(frame.pts, time_base_of(self._main))
        if self._last is not None and (pts is None or pts <= self._last):
            pts = self._last + self._step
        prepared = self._fit(frame)
        prepared.pts = self._last = max(0, pts or 0)
        prepared.pict_type = PictureType.NONE  # or the encoder would repeat the choices of the old one
        return prepared

    def warn_of_end(self) -> None:
        """Warn of decoder errors, and of a video that ends before its announced end."""
        video = self._video
        if self._broken:
            warn(f"{self._path} is broken in {self._broken} places: frames may be missing")
        kinds = set(video.format.name.split(","))
        if self._stop.is_set() or not self._part.whole or video.duration is None or not _ANNOUNCING & kinds:
            return
        announced_s = (video.duration + (0 if _FROM_ZERO & kinds else video.start_time or 0)) / av.time_base
        if self._end_s < announced_s - CUT_SECONDS:
            warn(f"{self._path} is cut short: it ends after {self._end_s:.1f} s of {announced_s:.1f} s")


def _packets(packets: "Iterator[Packet[Any]]") -> "Iterator[Packet[Any]]":
    """Yield packets up to the first that cannot be read."""
    with suppress(av.FFmpegError):
        yield from packets


def _read(
    main: VideoStream, packets: "Iterator[Packet[Any]]"
) -> "Iterator[VideoFrame | Packet[Stream] | av.FFmpegError]":
    """Yield the decoded frames of one stream, the packets of others, and an error where something is broken."""
    edited = has_edits(main.container)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:  # nothing can be read after that
            yield error
            packet = None
        if packet is not None and not packet.size:
            continue  # PyAV ends each stream with one; to a decoder it would mean the end wherever it stands
        if packet is not None and packet.stream_index != main.index:
            yield packet
            continue
        try:
            for frame in main.decode(packet):
                frame.time_base = time_base_of(main)  # the last ones come without
                if not (edited and is_hidden(frame, main)):
                    yield frame
        except av.FFmpegError as error:
            yield error
        if packet is None:
            return


def decoded(main: VideoStream, packets: "Iterator[Packet[Any]]") -> Iterator[VideoFrame]:
    """Yield the frames of one stream that can be decoded."""
    return (thing for thing in _read(main, packets) if isinstance(thing, VideoFrame))


def upright_rgb(frame: VideoFrame, size: tuple[int, int]) -> Frame:
    """Return a frame, scaled to (width, height) as it is stored, as 8-bit SDR RGB, turned as it is shown."""
    rgb = reformat_to_sdr(frame, *size, "rgb24", interpolation=CONVERSION).to_ndarray()
    return np.ascontiguousarray(np.rot90(np.asarray(rgb, np.uint8), quarter_turns(frame)))
