"""The part of a video that is wanted, such as ten seconds for a preview."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.errors import UserError

_INTERLEAVED_S = 2  # by which packets of other streams may come later in a file
_MOST_FIELDS = 3  # hours, minutes and seconds
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


@dataclass(frozen=True)
class Part:
    """From `start_s` after a video's beginning on, for `duration_s`, or to its end if that is None."""

    start_s: Fraction = Fraction(0)
    duration_s: Fraction | None = None

    def __post_init__(self) -> None:
        if self.duration_s is not None and self.duration_s <= 0:
            raise UserError("a duration must be longer than 0 s: leave it out for all of the video")

    def placed(self, main: VideoStream) -> "Part":
        """Return the part of a video whose times do not begin at 0."""
        begin = max(Fraction(0), (main.start_time or 0) * (main.time_base or Fraction(0)))
        return self if self.whole else Part(self.start_s + begin, self.duration_s)

    @property
    def whole(self) -> bool:
        """Whether it is all of a video."""
        return not self.start_s and self.duration_s is None

    def packets(self, packets: "Iterator[Packet[Any]]", main: VideoStream) -> "Iterator[Packet[Any]]":
        """Yield the packets of a part, and those of the main stream that its first frames are predicted from.

        Those are the ones from the last key frame before it on. A file is read from its beginning, since not every one
        can be sought exactly; without decoding that is quick.
        """
        if self.whole:
            yield from packets
            return
        waiting: list[Packet[Any]] = []  # since the last key frame
        begun = not self.start_s
        for packet in packets:
            if packet.stream_index != main.index:
                if packet.stream.disposition & Disposition.attached_pic or self.holds(packet):
                    yield packet
                continue
            begun = begun or self._place(packet) >= 0
            if begun:
                yield from waiting
                waiting.clear()
                yield packet
            else:
                if packet.is_keyframe:
                    waiting.clear()
                waiting.append(packet)
            if self.duration_s is not None and self._place(packet) > self.duration_s + _INTERLEAVED_S:
                return
        yield from waiting  # the part begins behind the last packet, perhaps within its frame

    def holds(self, thing: "VideoFrame | Packet[Any]") -> bool:
        """Return whether a frame or packet begins within the part; one without a time does."""
        place = self._place(thing)
        return place >= 0 and (self.duration_s is None or place < self.duration_s)

    def moved(self, pts: int, time_base: Fraction) -> int:
        """Return a time, in units of `time_base`, as it is counted from the start of the part."""
        return pts - round(self.start_s / time_base)

    def chapters(self, chapters: list[Any]) -> list[Any]:
        """Return those chapters that reach into the part, with their times in it."""
        found = []
        for chapter in chapters:
            unit = chapter["time_base"]
            start, end = (self.moved(chapter[name], unit) for name in ("start", "end"))
            last = end if self.duration_s is None else min(end, round(self.duration_s / unit))
            if last > max(0, start):
                found.append({**chapter, "start": max(0, start), "end": last})
        return found

    def _place(self, thing: "VideoFrame | Packet[Any]") -> Fraction:
        """Return when a frame or packet begins, in s after the start of the part."""
        pts = thing.pts if thing.pts is not None else thing.dts
        return Fraction(0) if pts is None or thing.time_base is None else pts * thing.time_base - self.start_s


def parse_time(text: str) -> Fraction:
    """Return a time in s from seconds, minutes:seconds or hours:minutes:seconds; raise UserError for anything else."""
    fields = text.split(":")
    if len(fields) > _MOST_FIELDS or not all(_NUMBER.fullmatch(field) for field in fields):
        raise UserError(f"{text!r} is no time: write seconds, such as 90 or 2.5, or minutes:seconds, such as 1:30")
    return sum((Fraction(field) * 60**place for place, field in enumerate(reversed(fields))), Fraction(0))
