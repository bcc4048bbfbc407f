"""Degraded and sharp images side by side in memory-mapped 8-bit shards, with an index of where each one lies."""

import csv
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clearcall.core.errors import UserError
from clearcall.data.manifest import Split
from clearcall.imaging.frame import Frame

INDEX = "pairs.csv"
_BLOCK_PX = 4


@dataclass(frozen=True)
class PairRecord:
    """One pair: which photograph at which scale, how it was degraded, and where its two images lie.

    The photograph was first scaled by `scale` (always 1 in the test split) to `width` by `height`. Images are 8-bit
    RGB, row by row, `height * width * 3` bytes from the offset in the shard. `psnr_db` and `ssim` are of the degraded
    image against the sharp one; equal images have an infinite PSNR. The sharp one was downscaled by `enlarged`,
    and upscaled to its size again, where that is above 1.
    """

    image: str
    image_sha256: str
    group: str
    split: Split
    scale: float
    degradation: str
    variant: int
    height: int
    width: int
    degraded_height: int
    degraded_width: int
    sharp_shard: str
    sharp_offset: int
    degraded_shard: str
    degraded_offset: int
    psnr_db: float
    ssim: float
    enlarged: float = 1.0


def read_pairs(pairs: Path, split: Split | None = None) -> list[PairRecord]:
    """Read the index of a pairs folder, all of it or one split."""
    path = pairs / INDEX
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro degrade_pairs` first")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := {field.name for field in fields(PairRecord)} - set(reader.fieldnames or ()):
            raise UserError(f"{path} lacks the columns {sorted(missing)}: run `dvc repro -f -s degrade_pairs`")
        records = [PairRecord(**_parsed(row)) for row in reader]
    return [record for record in records if split in (None, record.split)]


def _parsed(row: dict[str, str]) -> dict[str, Any]:
    parse = {int: int, float: float}
    return {field.name: parse.get(field.type, str)(row[field.name]) for field in fields(PairRecord)}  # type: ignore[arg-type]  # str


class PairReader:
    """Pairs of one folder as images; the shards are memory-mapped, so only what is looked at is read."""

    def __init__(self, pairs: Path) -> None:
        self._folder = pairs
        self._shards: dict[str, npt.NDArray[np.uint8]] = {}

    def sharp(self, record: PairRecord) -> Frame:
        """Return the sharp image as a read-only view of shape (height, width, 3)."""
        return self._picture(record.sharp_shard, record.sharp_offset, record)

    def degraded(self, record: PairRecord) -> Frame:
        """Return the degraded image as a read-only view of shape (height, width, 3)."""
        return self._picture(record.degraded_shard, record.degraded_offset, record)

    def _picture(self, shard: str, offset: int, record: PairRecord) -> Frame:
        if shard not in self._shards:
            self._shards[shard] = np.memmap(self._folder / shard, np.uint8, mode="r")
        size = record.height * record.width * 3
        return self._shards[shard][offset : offset + size].reshape(record.height, record.width, 3)


def pairs_sha256(records: Iterable[PairRecord]) -> str:
    """Return a hash over photographs and how each was degraded: figures may be compared only where it is the same."""
    lines = (f"{pair.image_sha256} {pair.degradation} {pair.variant} {pair.psnr_db:.4f}" for pair in records)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def degradations_of(records: Iterable[PairRecord]) -> list[str]:
    """Return the names of the pairs' degradations, in the order of the mix."""
    return list(dict.fromkeys(record.degradation for record in records))


def spread(records: Sequence[PairRecord], limit: int | None) -> list[PairRecord]:
    """Return about `limit` of the pairs, as many of each degradation and from first to last; all if they are few.

    None is no limit.
    """
    if limit is None or len(records) <= limit:
        return list(records)
    groups: dict[str, list[PairRecord]] = {}
    for record in records:
        groups.setdefault(record.degradation, []).append(record)
    each = math.ceil(limit / len(groups))
    # Each degradation begins a bit further on, so that few pairs show many photographs.
    return [
        group[int((index + number / len(groups)) * len(group) / count)]
        for number, group in enumerate(groups.values())
        for count in [min(each, len(group))]
        for index in range(count)
    ]


def middle(picture: Frame, side: int) -> Frame:
    """Return the middle of an image, at most `side` by `side` pixels, as a view.

    It begins where a block of a strided network begins in the image: experts know a frame's pattern of two pixels.
    """
    top, left = (max(0, length - side) // (2 * _BLOCK_PX) * _BLOCK_PX for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]
