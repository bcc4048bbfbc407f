"""Edit lists of MP4 and MOV: packets that they hide are not copied.

FFmpeg marks hidden packets but returns them, since decoders may need them, and drops their frames. Copied into a
container without edit lists they would be seen and heard again.
"""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.codec.codec import Codec, Properties
from av.container import Container, InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.console import warn

# Most packets of audio priming, which an edit list hides too: 2112 samples of AAC.
_PRIMING_PACKETS = 2.5
_ROUNDING_S = Fraction(1, 500)  # the lengths of edits are often told in 1/600 s


def has_edits(video: Container) -> bool:
    """Return whether a container may have edit lists."""
    return "mov" in video.format.name.split(",")


def begins_at(stream: Stream) -> int:
    """Return when the visible part of a stream begins, in its own unit."""
    return max(0, stream.start_time or 0)


def begins_hidden(stream: Stream) -> bool:
    """Return whether FFmpeg says, as it does from version 9 on, that players skip more of a stream than its priming."""
    context = stream.codec_context
    padding = getattr(context, "initial_padding", 0)  # samples
    return padding > _PRIMING_PACKETS * getattr(context, "frame_size", 0)


def is_hidden(frame: VideoFrame, main: VideoStream) -> bool:
    """Return whether a frame ends before its stream begins (unmarked in fragments)."""
    return frame.pts is not None and frame.pts + max(1, frame.duration or 0) <= begins_at(main)


def without_hidden(
    video: InputContainer, main: VideoStream, packets: "Iterator[Packet[Any]]", name: str
) -> "Iterator[Packet[Any]]":
    """Yield packets without those that edit lists hide, fully or in part, of all streams but the decoded one."""
    filters: dict[int, _Copied] = {}
    if has_edits(video):
        kinds = {"audio": _Sound, "video": _Video}
        for stream in video.streams:
            if stream.index != main.index and not stream.disposition & Disposition.attached_pic:
                filters[stream.index] = kinds.get(stream.type, _Copied)(stream, name)
    failure = None
    try:
        for packet in packets:
            if packet.size and packet.stream_index in filters:
                yield from filters[packet.stream_index].shown(packet)
            else:
                yield packet
    except av.FFmpegError as error:
        failure = error
    for one in filters.values():
        yield from one.rest()
    if failure is not None:
        raise failure


class _Copied:
    """A stream whose packets stand alone, such as subtitles: the hidden ones are left out."""

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream, self._begin, self._name = stream, begins_at(stream), name

    def shown(self, packet: "Packet[Any]") -> "Iterator[Packet[Any]]":
        """Yield what may be copied now that this packet has come."""
        if not self._hides(packet):
            yield packet

    def rest(self) -> "Iterator[Packet[Any]]":
        """Yield what may be copied at the end of the file."""
        yield from ()

    def _hides(self, packet: "Packet[Any]") -> bool:
        return packet.is_discard or (packet.pts is not None and packet.pts < self._begin)


class _Sound(_Copied):
    """Sound: packets that hold hidden samples beside others are left out too, but not what an encoder begins with.

    A packet of a lossy codec tells of the samples of the one after it too, as their transforms overlap.
    """

    def __init__(self, stream: Stream, name: str) -> None:
        super().__init__(stream, name)
        self._lossless = stream.codec_context is not None and Properties.LOSSLESS in Properties(
            Codec(stream.codec_context.name, "r").properties
        )
        self._held: deque[Packet[Any]] = deque()  # the last packets, which an edit may cut that ends after them
        self._primed: bool | None = None
        self._longest, self._furthest, self._read = 0, -1, 0

    def shown(self, packet: "Packet[Any]") -> "Iterator[Packet[Any]]":
        """Yield the packet before the last one, once it is known that no edit ends there."""
        pts = self._begin if packet.pts is None else packet.pts
        self._longest = max(self._longest, packet.duration or 0)
        if (packet.pos or 0) > self._furthest:  # an edit may go back to what was read before
            self._furthest, self._read = packet.pos or 0, self._read + 1
        if self._primed is None:
            self._primed = not self._lossless and self._begin - pts <= _PRIMING_PACKETS * self._longest
        if self._hides(packet) and not (self._primed and pts < self._begin):
            self._held.clear()
            return
        self._held.append(packet)
        if len(self._held) > (1 if self._lossless else 2):
            yield self._held.popleft()

    def rest(self) -> "Iterator[Packet[Any]]":
        """Yield the last packets but those that the last edit cuts; padding at the end of all the sound is no cut."""
        cut = self._read < self._stream.frames and self._stream.duration is not None
        for packet in self._held:
            reach = (packet.pts or 0) + self._longest * (1 if self._lossless else 2)
            if not cut or (reach - (self._stream.duration or 0)) * packet.time_base <= _ROUNDING_S:
                yield packet


class _Video(_Copied):
    """Video: of the frames that follow on a hidden one, those up to the next key frame may need it, and go too."""

    def __init__(self, stream: Stream, name: str) -> None:
        super().__init__(stream, name)
        self._waits, self._key, self._warned = False, self._begin, False

    def shown(self, packet: "Packet[Any]") -> "Iterator[Packet[Any]]":
        pts = self._begin if packet.pts is None else packet.pts
        if self._hides(packet):
            self._waits = True
            return
        if packet.is_keyframe:
            self._waits, self._key = False, pts
        if not self._waits and pts >= self._key:
            yield packet
        elif not self._warned:
            self._warned = True
            warn(
                f"{self._name}: of stream {self._stream.index} (video) frames that build on hidden ones are left out: "
                "it has gaps at the edits"
            )
