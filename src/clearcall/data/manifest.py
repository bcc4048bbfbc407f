"""The manifest: a CSV file with one line for each photograph in `data/raw`."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from clearcall.core.files import read_records, write_csv

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MANIFEST = "manifest.csv"
CLIP_FRAMES = 8
# Columns that are left out where no photograph has them.
_OPTIONAL = {"degraded", "degraded_sha256", "before", "before_sha256"}


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One photograph: an upright 8-bit RGB file in the raw folder, and where it came from.

    `path` is relative to the raw folder, with forward slashes. `sha256` is of the stored file. `width` and `height`
    are in pixels, as stored. `mode` is the mode that the original was decoded in. `note` says what was changed.
    Photographs of one `group` (a stereo pair, frames of one clip) always share a split. `degraded` is the path of the
    blurred partner, of the same size, where the source brings pairs, and `degraded_sha256` of that file. `before` is
    the path of the frames before one from a video, one below the other, and `before_sha256` of that file.
    """

    path: str
    sha256: str
    width: int
    height: int
    mode: str
    source: str
    licence: str
    group: str
    split: Split
    note: str = ""
    degraded: str = ""
    degraded_sha256: str = ""
    before: str = ""
    before_sha256: str = ""


def write_manifest(raw: Path, records: Iterable[ImageRecord]) -> None:
    """Write `manifest.csv`, sorted by path, without optional columns that are empty."""
    ordered = sorted(records, key=lambda record: record.path)
    left_out = {name for name in _OPTIONAL if not any(getattr(record, name) for record in ordered)}
    names = [field.name for field in fields(ImageRecord) if field.name not in left_out]
    write_csv(raw / MANIFEST, ({name: getattr(record, name) for name in names} for record in ordered))


def read_manifest(raw: Path) -> list[ImageRecord]:
    """Read `manifest.csv`; raise UserError if it is missing or has other columns."""
    return list(read_records(raw / MANIFEST, ImageRecord, "download_data"))


def split_sha256(records: Iterable[ImageRecord], split: Split) -> str:
    """Return the SHA-256 over the sorted content hashes of one split."""
    hashes = sorted(record.sha256 for record in records if record.split == split)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
