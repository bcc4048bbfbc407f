"""Pairs of degraded and sharp images: memory-mapped 8-bit shards, and an index of their places."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearcall.core.files import read_records
from clearcall.data.manifest import Split
from clearcall.imaging.frame import Frame

INDEX = "pairs.csv"
PAIRS_SHA256 = "pairs_sha256"  # a param of trainings in MLflow: the hash of the index
# What is cut out of a frame begins at a multiple of this, where a block of a strided network begins: upscaling by two
# leaves a pattern of two pixels, whose place in a frame such a network learns: 0.24 dB at bicubic x2, docs/findings.md.
BLOCK_PX = 4


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One pair: the photograph, its scale and degradation, and the places of the two images.

    The photograph was first scaled by `scale` (always 1 in the test split) to `width` by `height`. Images are 8-bit
    RGB, row by row, `height * width * 3` bytes from the offset in the shard. `psnr_db` and `ssim` are of the degraded
    image against the sharp one; equal images have an infinite PSNR. Where `enlarged` is above 1, the sharp image was
    downscaled by that factor and upscaled again.
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
    enlarged: float


def iterate_pairs(pairs: Path) -> Iterator[PairRecord]:
    """Yield the index of a pairs folder, one pair in memory at a time."""
    return read_records(pairs / INDEX, PairRecord, "degrade_pairs")


def read_pairs(pairs: Path, split: Split | None = None) -> list[PairRecord]:
    """Read the index of a pairs folder, all of it or one split."""
    return [record for record in iterate_pairs(pairs) if split in (None, record.split)]


class PairReader:
    """Reads the images of a pairs folder by memory mapping."""

    def __init__(self, pairs: Path) -> None:
        self._folder = pairs
        self._shards: dict[str, npt.NDArray[np.uint8]] = {}

    def sharp(self, record: PairRecord) -> Frame:
        """Return the sharp image as a read-only view of shape (height, width, 3)."""
        return self._image(record.sharp_shard, record.sharp_offset, record)

    def degraded(self, record: PairRecord) -> Frame:
        """Return the degraded image as a read-only view of shape (height, width, 3)."""
        return self._image(record.degraded_shard, record.degraded_offset, record)

    def _image(self, shard: str, offset: int, record: PairRecord) -> Frame:
        if shard not in self._shards:
            self._shards[shard] = np.memmap(self._folder / shard, np.uint8, mode="r")
        size = record.height * record.width * 3
        return self._shards[shard][offset : offset + size].reshape(record.height, record.width, 3)


def pairs_sha256(records: Iterable[PairRecord]) -> str:
    """Return a hash over photographs and their degradations: figures are comparable only where it is equal."""
    lines = (f"{pair.image_sha256} {pair.degradation} {pair.variant} {pair.psnr_db:.4f}" for pair in records)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def spread(records: Sequence[PairRecord], limit: int | None) -> list[PairRecord]:
    """Return about `limit` of the pairs (None: all), evenly spread over degradations and photographs."""
    if limit is None or len(records) <= limit:
        return list(records)
    groups: dict[str, list[PairRecord]] = {}
    for record in records:
        groups.setdefault(record.degradation, []).append(record)
    each = math.ceil(limit / len(groups))
    # Each degradation starts at another offset, so that few pairs show many photographs.
    return [
        group[int((index + number / len(groups)) * len(group) / count)]
        for number, group in enumerate(groups.values())
        for count in [min(each, len(group))]
        for index in range(count)
    ]


def middle(image: Frame, side: int) -> Frame:
    """Return the middle of an image, to multiples of BLOCK_PX, at most `side` by `side` pixels, as a view."""
    top, left = (max(0, length - side) // (2 * BLOCK_PX) * BLOCK_PX for length in image.shape[:2])
    return image[top : top + side, left : left + side]
