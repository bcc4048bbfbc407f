"""Films read: frames as the encoder wants them, and the packets of all other streams in the order of the file."""

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
from clearcall.imaging.yuv import CONVERSION
from clearcall.media.video.animation import AnimatedWebP, is_webp
from clearcall.media.video.edits import has_edits, is_hidden, without_hidden

# As FFmpeg numbers matrices, ranges, primaries and transfers.
_ITU709, _ITU2020, _LIMITED = 1, 9, 1
_BT709, _PQ, _HLG = 1, 16, 18
# It keeps its table, which takes seconds to make.
_SDR, _SDR_LOCK = VideoReformatter(), threading.Lock()
Plane = npt.NDArray[Any]  # of 8-bit or 16-bit unsigned integers
PLANAR, PLANAR_10 = "yuv420p", "yuv420p10le"
_DESCRIBED = ("pts", "time_base", "duration", "colorspace", "color_range", "color_primaries", "color_trc")
# Containers that say in their head how long they are, from which a cut end can be told.
_ANNOUNCING = {"mov", "matroska", "avi", "flv", "asf"}
CUT_SECONDS = 1.0  # by how much a film may end before the end that it announces
# Containers whose length is told from zero, not from the time of the first frame.
_FROM_ZERO = {"matroska"}
_JUMP_S = 1  # a stream whose times go back further begins anew
_SETTING_THE_PACE = {"video", "audio"}  # texts may well stand out of order
_MOST_FPS = 300
_OPAQUE = 255  # 8-bit level of alpha
# PyAV 18 refuses metadata that is no UTF-8 unless told so; from 19 on it always reads and writes it byte by byte.
METADATA: dict[str, Any] = {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}  # noqa: PLR2004  # PyAV's
_ENTRIES_S = (0.0, 2.0, 12.0, math.inf)  # how much earlier than wanted a film is entered


FILMS = (
    *(".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".y4m"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".flv", ".wmv", ".3gp"),
)


@contextmanager
def opened(path: Path, **options: str) -> Iterator[InputContainer]:
    """Open a film for reading, with options of FFmpeg's; raise UserError if it is none."""
    if not path.is_file():
        raise UserError(f"there is no film {path}")
    try:
        # Absolute: a name with a colon would be taken for a protocol.
        file = AnimatedWebP(path) if is_webp(path) else str(path.resolve())
        film = av.open(file, options=options, **METADATA)
    except (OSError, av.FFmpegError) as error:
        if describe(error):
            raise
        raise UserError(f"{path} cannot be read as a film: {error.strerror or error}") from None
    with film:
        yield film


@contextmanager
def failure_told(what: str) -> Iterator[None]:
    """Turn what files, encoders and decoders fail with into a UserError that begins with `what` could not be done."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        if describe(error):
            raise
        raise UserError(f"{what}: {error.strerror or error}") from None


def is_coded(stream: VideoStream) -> bool:
    """Return whether frames have lost detail to an encoder that predicts them from others, as a call's do."""
    codec = stream.codec_context.codec
    return codec.lossy and not codec.intra_only


def film_stream(film: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that is not a cover picture; raise UserError if there is none to decode."""
    for stream in film.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise UserError(f"{path} is in a codec that is not known here: convert it to H.264 first")
            stream.thread_type = "AUTO"
            return stream
    raise UserError(f"{path} holds no moving picture")


def film_size(path: Path) -> tuple[int, int]:
    """Return width and height of a film's picture in pixels as stored, as its head has them; nothing is decoded."""
    with opened(path) as film:
        stream = film_stream(film, path)
        if not stream.width:
            raise UserError(f"{path} holds no frame that can be decoded")
        return stream.width, stream.height


def film_span_s(path: Path) -> tuple[float, float]:
    """Return when a film begins and how long it is, in seconds: as it announces, or else by all its packets."""
    with opened(path) as film:
        begin = (film.start_time or 0) / av.time_base
        if film.duration:
            from_zero = _FROM_ZERO & set(film.format.name.split(","))
            return begin, film.duration / av.time_base - (begin if from_zero else 0)
        times = [
            float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base)
            for packet in _packets(film.demux(film_stream(film, path)))
            if packet.size and packet.time_base
        ]
        return begin, max(times, default=begin) - begin


def frame_at(path: Path, part: float) -> VideoFrame:
    """Return the frame after this part, from 0 to 1, of a film's length; raise UserError if there is none at all.

    Of a film that ends before that, it is the last frame there is.
    """
    return frames_at(path, part and part * film_span_s(path)[1], 1).frames[-1]


class FilmFrames(NamedTuple):
    """Consecutive frames of a film, earliest first, and whether one of them, or one it builds on, is seen to be broken.

    Not every decoder tells of it.
    """

    frames: list[VideoFrame]
    broken: bool


def frames_at(path: Path, seconds: float, count: int) -> FilmFrames:
    """Return the first frame so many seconds after the beginning and the ones before it: `count`, or as many there are.

    Of a film that ends before that, they are the last ones. Raises UserError if there is none at all.
    """
    # Many a film cannot be entered everywhere: it is entered earlier and earlier then, at last at its beginning.
    for earlier_s in _ENTRIES_S:
        found, from_beginning = _found_at(path, seconds, count, earlier_s)
        if from_beginning or (len(found.frames) == count and not found.broken):
            break
    if not found.frames:
        raise UserError(f"{path} holds no frame that can be decoded")
    return found


def _found_at(path: Path, seconds: float, count: int, earlier_s: float) -> tuple[FilmFrames, bool]:
    """Return what was found, and whether the film was read from its beginning."""
    found = deque[tuple[VideoFrame, bool]](maxlen=count)
    with opened(path) as film:
        stream = film_stream(film, path)
        begin = (film.start_time or 0) / av.time_base
        entry = begin + seconds - float((count - 1) / rate_of(stream)) - earlier_s
        broken = entered = entry > begin  # until a key frame comes: some decoders make up what one would build on
        if entered:
            with suppress(av.FFmpegError):
                film.seek(int(entry * av.time_base))
        for thing in _read(stream, film.demux(stream)):
            if isinstance(thing, VideoFrame):
                broken = (broken and not thing.key_frame) or thing.is_corrupt
                found.append((thing, broken))
                if not seconds or (thing.time is not None and thing.time >= begin + seconds):
                    break
            elif isinstance(thing, av.FFmpegError):
                broken = True
        else:
            if len(found) > 1 and found[-1][0].is_corrupt:
                found.pop()  # the half frame at which a film was cut
    return FilmFrames([frame for frame, _ in found], any(hurt for _, hurt in found)), not entered


def is_hdr(frame: VideoFrame) -> bool:
    """Return whether a frame is HDR, by its transfer function: PQ or HLG."""
    return frame.color_trc in {_PQ, _HLG}


def reformat_to_sdr(
    frame: VideoFrame,
    width: int,
    height: int,
    pixel_format: str,
    **options: Any,  # noqa: ANN401  # handed on to PyAV
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
    """Return a frame as planar 4:2:0 of a size, itself if it is so already; of NV12 and full range no value changes.

    HDR stays HDR as yuv420p10le, and becomes SDR as yuv420p.
    """
    if frame.format.is_rgb or (pixel_format == PLANAR and is_hdr(frame)):
        convert, matrix = (reformat_to_sdr, _ITU709) if pixel_format == PLANAR else (VideoFrame.reformat, _ITU2020)
        flat = convert(frame, width, height, pixel_format, dst_colorspace=matrix, dst_color_range=_LIMITED)
        flat.colorspace, flat.color_range = matrix, _LIMITED
        return flat
    flat = frame.reformat(width, height, pixel_format)
    # PyAV takes the number of the one matrix for that of another, of the same values.
    flat.colorspace, flat.color_range = frame.colorspace, frame.color_range
    return flat


def describe_as(frame: VideoFrame, model: VideoFrame) -> VideoFrame:
    """Give a frame the times and colour tags of another, and return it."""
    for name in _DESCRIBED:
        setattr(frame, name, getattr(model, name))
    return frame


def depth_scale(frame: VideoFrame) -> int:
    """Return how many levels of a frame make one 8-bit level: 1 at 8 bits, 4 at 10."""
    return 1 << (frame.format.components[0].bits - 8)


def is_transparent(frame: VideoFrame) -> bool:
    """Return whether a pixel of a frame is transparent; many formats have alpha that is opaque everywhere."""
    alpha = next((one for one in frame.format.components if one.is_alpha), None)
    if alpha is None:
        return False
    if frame.format.is_planar:
        return int(plane_of(frame, alpha.plane).min()) < (1 << alpha.bits) - 1
    return int(frame.to_ndarray(format="rgba")[..., 3].min()) < _OPAQUE


def plane_of(frame: VideoFrame, index: int) -> Plane:
    """Return a plane as a view of (height, width), uint8 or uint16, without the padding at the end of each line."""
    plane = frame.planes[index]
    kind = np.uint8 if depth_scale(frame) == 1 else np.uint16
    rows = np.frombuffer(cast(bytes, plane), kind).reshape(plane.height, -1)  # a buffer, which its stubs conceal
    step = -1 if plane.line_size < 0 else 1
    return rows[::step, : plane.width]


def quarter_turns(frame: VideoFrame) -> int:
    """Return by how many quarters, against the clock, a frame is to be turned to be upright."""
    return round(frame.rotation / 90) % 4


def rate_of(main: VideoStream) -> Fraction:
    """Return how many frames a second a stream has on average; 25 where that is not known.

    Browsers record films whose rate varies, and give the unit of their times for it: 1000 a second is not known either.
    """
    rate = main.average_rate or main.guessed_rate
    return rate if rate and rate <= _MOST_FPS else Fraction(25)


def time_base_of(main: VideoStream) -> Fraction:
    """Return the unit of a stream's times in seconds."""
    return main.time_base or Fraction(1, av.time_base)


class Timeline:
    """Moves the times of packets so that they run on where a film's own begin anew, and none of its frames is early.

    Pieces that were put together, as recorders and broadcasters do, each bring times of their own, the same for sound
    and picture. A new piece is known by the times of one of these, which go back; other streams follow it there as soon
    as that brings them nearer to where the film is.
    """

    def __init__(self, begin: Fraction) -> None:
        self._offsets = [begin]  # s, for each piece
        self._piece: dict[int, int] = {}  # of each stream
        self._last: dict[int, Fraction] = {}  # its latest time in s, as stored
        self._end = Fraction(0)  # s, as moved

    def moved(self, packet: "Packet[Any]") -> "Packet[Any]":
        """Give a packet, of those in the order of the file, its place, and return it."""
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
    """Yields, in the order of the file, the frames of one stream, as `fit` makes them, and others' packets."""

    def __init__(
        self,
        film: InputContainer,
        main: VideoStream,
        fit: Callable[[VideoFrame], VideoFrame],
        path: Path,
        stop: threading.Event,
    ) -> None:
        self._film, self._main, self._fit, self._path, self._stop = film, main, fit, path, stop
        self._step = max(1, round(1 / (rate_of(main) * time_base_of(main))))
        self._last: int | None = None
        # Players leave out what comes before zero: where no edit list puts it there, all begins later instead.
        early = Fraction(0) if has_edits(film) else max(Fraction(0), -(main.start_time or 0) * time_base_of(main))
        self._timeline = Timeline(early)
        self._end_s, self._broken = 0.0, 0

    def __iter__(self) -> "Iterator[VideoFrame | Packet[Stream]]":
        packets = without_hidden(self._film, self._main, self._film.demux(), str(self._path))
        for thing in _read(self._main, map(self._timeline.moved, packets)):
            if self._stop.is_set():
                return
            if isinstance(thing, av.FFmpegError):
                self._broken += 1
                continue
            if thing.pts is not None:
                end = (thing.pts + (thing.duration or 0)) * (thing.time_base or 0)
                self._end_s = max(self._end_s, float(end))
            yield self._prepared(thing) if isinstance(thing, VideoFrame) else thing

    def _prepared(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame fitted, and later than the one before."""
        pts = frame.pts
        if self._last is not None and (pts is None or pts <= self._last):
            pts = self._last + self._step
        prepared = self._fit(frame)
        prepared.pts = self._last = max(0, pts or 0)
        prepared.pict_type = PictureType.NONE  # or the encoder would repeat the choices of the old one
        return prepared

    def warn_of_end(self) -> None:
        """Tell of what could not be decoded, and of an end before the one that the film announces."""
        film = self._film
        if self._broken:
            warn(f"{self._path} is broken in {self._broken} places: frames may be missing")
        kinds = set(film.format.name.split(","))
        if self._stop.is_set() or film.duration is None or not _ANNOUNCING & kinds:
            return
        announced_s = (film.duration + (0 if _FROM_ZERO & kinds else film.start_time or 0)) / av.time_base
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
