"""The packets that were encoded so far, kept beside the result, so that a run that was killed can go on."""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from av.packet import Packet
from av.video.stream import VideoStream

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.core.locks import lock, open_to_lock

SUFFIX = ".resume"
_FIELDS = struct.Struct("<qqq?II")  # pts, dts, duration, whether it is a key frame, bytes, CRC-32 of all of it


class _Kept(NamedTuple):
    pts: int
    dts: int
    duration: int
    is_key: bool
    size: int
    data: int  # where the packet begins in the file, in bytes


class Journal:
    """Keeps packets of video in the file `path`, and has those of a run that was stopped, if it is of the same `work`.

    Only whole groups of pictures are taken up, since an encoder begins with a key frame: `end` is the time of the
    first frame to encode, in the encoder's unit, None if that is the first of all. After `finish` the file is removed,
    else it stays if it holds a whole group. Raises UserError if another process uses the file.
    """

    def __init__(self, path: Path, work: str) -> None:
        self.path, self.taken_up = path, 0  # packets that were handed out again
        self.end: int | None = None
        self._head = f"clearcall {work}\n".encode()
        self._waiting = list[_Kept]()  # that were not handed out again yet
        self._keys, self._finished = 0, False
        self._dts: int | None = None  # of the last packet

    def __enter__(self) -> Self:
        self.path.touch()
        self._file, self._before = self.path.open("r+b"), self.path.open("rb")
        self._lock = open_to_lock(self.path)
        if self._lock is not None and lock(self._lock) is False:
            self._close()
            raise UserError(f"{self.path} is in use: wait for the other process that makes the same video, or end it")
        if self._file.read(len(self._head)) == self._head:
            self._take_up([*self._records()])
        else:
            if self._file.tell():
                warn(f"{self.path} is of other options, another model or another input: begun anew")
            self._file.seek(0)
            self._file.write(self._head)
            self._file.truncate()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._close()
        if self._finished or self._keys <= 1:
            self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove the file at the end of the block: the result is complete."""
        self._finished = True

    def add(self, packets: "Sequence[Packet[Any]]") -> None:
        """Keep packets of an encoder, in the order in which they are decoded, none before those of an earlier run."""
        for packet in packets:
            # Where frames come at a variable rate, a new encoder may begin to count earlier than the last one ended.
            if self._dts is not None and packet.dts is not None and packet.dts <= self._dts:
                packet.dts = self._dts + 1
            self._dts = packet.dts
            data = bytes(packet)
            fields = packet.pts or 0, packet.dts or 0, packet.duration or 0, packet.is_keyframe, len(data)
            self._keys += packet.is_keyframe
            self._file.write(_FIELDS.pack(*fields, _checked(fields, data)) + data)
        self._file.flush()

    def taken(self, until: int, encoder: VideoStream) -> "Iterator[Packet[Any]]":
        """Yield those packets of the run before, in order, that are decoded at a time or earlier and were not yet."""
        while self._waiting and self._waiting[-1].dts <= until:
            kept = self._waiting.pop()
            self._before.seek(kept.data)
            packet = Packet(self._before.read(kept.size))
            packet.pts, packet.dts, packet.duration, packet.is_keyframe = kept[:4]
            packet.time_base, packet.stream = encoder.codec_context.time_base, encoder
            self.taken_up, self._dts = self.taken_up + 1, kept.dts
            yield packet

    def _take_up(self, records: list[_Kept]) -> None:
        """Keep the records up to the last key frame before and after which all others are shown, too."""
        latest = [*accumulate((one.pts for one in records), max)]
        earliest = [*accumulate((one.pts for one in reversed(records)), min)][::-1]
        cuts = (
            at
            for at in range(len(records) - 1, 0, -1)
            if records[at].is_key and latest[at - 1] < records[at].pts == earliest[at]
        )
        cut = next(cuts, 0)
        if cut:
            self.end = records[cut].pts
            self._keys = sum(one.is_key for one in records[: cut + 1])
        self._waiting = records[:cut][::-1]
        self._file.seek(records[cut].data - _FIELDS.size if records else len(self._head))
        self._file.truncate()

    def _records(self) -> Iterator[_Kept]:
        """Yield the records of the file, up to the first that is not whole."""
        length = self.path.stat().st_size
        while len(fields := self._file.read(_FIELDS.size)) == _FIELDS.size:
            pts, dts, duration, is_key, size, check = _FIELDS.unpack(fields)
            data = self._file.tell()
            if size > length - data or _checked((pts, dts, duration, is_key, size), self._file.read(size)) != check:
                return
            yield _Kept(pts, dts, duration, is_key, size, data)

    def _close(self) -> None:
        with suppress(OSError):  # of a full disk, which `add` has told already
            self._file.close()
        self._before.close()
        if self._lock is not None:
            os.close(self._lock)


def _checked(fields: Sequence[int], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_FIELDS.pack(*fields, 0)))
