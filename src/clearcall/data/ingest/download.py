"""Fill the raw folder with upright 8-bit RGB photographs and their manifest."""

import hashlib
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clearcall.core.console import track, warn
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_folder, cache_folder, sha256_of
from clearcall.data.ingest.archives import (
    DIV2K,
    DIV2K_LICENCE,
    UNSPLASH_SR,
    Archive,
    dataset_page,
    fetch,
    fetch_dataset,
    unpack,
)
from clearcall.data.ingest.buckets import fetch_folder
from clearcall.data.ingest.sources import (
    SHOWN,
    Original,
    bundled_originals,
    folder_originals,
    gopro_folder,
    paired_originals,
    unsplash_folder,
)
from clearcall.data.ingest.videos import sample_frames
from clearcall.data.manifest import SPLITS, ImageRecord, split_sha256, write_manifest
from clearcall.imaging.decode import (
    SUFFIXES,
    Picture,
    image_errors,
    read_picture,
    refused_size,
)
from clearcall.media.video.read import VIDEO_SUFFIXES, video_size
from clearcall.params import DownloadData


class Downloaded(NamedTuple):
    """What is in the raw folder, and one line for each exact duplicate that is not."""

    records: list[ImageRecord]
    duplicates: list[str]


class _Taken(NamedTuple):
    """An image of an original, with its blurred partner or the frames before it in a video."""

    picture: Picture
    degraded: Picture | None = None
    before: Image.Image | None = None
    seconds: float | None = None


def download(
    params: DownloadData, raw: Path, archives: Sequence[Archive] = DIV2K, cache: Path | None = None
) -> Downloaded:
    """Replace the raw folder by the source's photographs and their manifest, or on failure keep it.

    `archives` and `cache` are what the source `div2k` downloads and where it keeps that. Raises UserError naming all
    photographs that cannot be used, or if a split stays empty.
    """
    url = params.folder if isinstance(params.folder, str) else None
    reads_folder = params.source not in ("bundled", "div2k")
    if reads_folder and url is None:
        _refuse_overlap(Path(params.folder).resolve(), raw.resolve())
    with atomic_folder(raw) as building:
        unpacked, fetched = building / "unpacked", building / "fetched"
        if reads_folder and url is not None:
            fetch_folder(url, fetched)
            params = params.model_copy(update={"folder": fetched})
        originals = _originals(params, archives, cache or cache_folder(), unpacked)
        downloaded = _store(originals, building, params)
        for used in (unpacked, fetched):
            shutil.rmtree(used, ignore_errors=True)
        for split in SPLITS:
            if not any(record.split == split for record in downloaded.records):
                raise UserError(f"no photograph is left for {split} once duplicates are dropped: add different ones")
        write_manifest(building, downloaded.records)
    for line in downloaded.duplicates:
        warn(line)
    counts = Counter(record.split for record in downloaded.records)
    shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    print(f"{len(downloaded.records)} photographs in {raw}: {shares}", file=sys.stderr)
    return downloaded


def summary(downloaded: Downloaded, source: str) -> dict[str, Any]:
    """Return the stage's report: counts and pixels by split, licences, conversions."""
    records = downloaded.records
    return {
        "source": source,
        "images": {split: sum(record.split == split for record in records) for split in SPLITS},
        "total": len(records),
        "pixels": {split: sum(r.width * r.height for r in records if r.split == split) for split in SPLITS},
        "licences": sorted({record.licence for record in records}),
        "notes": dict(sorted(Counter(note for record in records for note in record.note.split("; ") if note).items())),
        "duplicates": downloaded.duplicates,
        "test_manifest_sha256": split_sha256(records, "test"),
    }


def _refuse_overlap(folder: Path, raw: Path) -> None:
    # The raw folder is replaced as a whole: were the two one, the user's own photographs would go with it.
    if folder.is_relative_to(raw) or raw.is_relative_to(folder):
        raise UserError(
            f"download_data.folder ({folder}) and paths.raw ({raw}) overlap: keep them apart in params.yaml"
        )


def _originals(params: DownloadData, archives: Sequence[Archive], cache: Path, unpacked: Path) -> list[Original]:
    folder = Path(params.folder)
    match params.source:
        case "bundled":
            return bundled_originals()
        case "folder":
            return folder_originals(folder, params)
        case "div2k":
            for archive in archives:
                unpack(fetch(archive, cache), unpacked / archive.split)
            return folder_originals(unpacked, params.model_copy(update={"group_by": "file", "licence": DIV2K_LICENCE}))
        case "unsplash_sr":
            found = unsplash_folder(folder)
            if found is None:
                unpack(fetch_dataset(UNSPLASH_SR, cache, "set download_data.folder to where it is unpacked"), unpacked)
                found = unsplash_folder(unpacked) or unpacked
            licence = f"as stated at {dataset_page(UNSPLASH_SR)}"
            return folder_originals(found, params.model_copy(update={"licence": licence}))
        case "paired_folder":
            return paired_originals(folder, params)
        case "gopro":
            if params.archive:
                archive = Archive(**params.archive.model_dump(), split="train")  # the split stands in its folders
                unpack(fetch(archive, cache), unpacked)
                folder = unpacked
            return paired_originals(gopro_folder(folder), params)


def _store(originals: list[Original], building: Path, params: DownloadData) -> Downloaded:
    """Write each original once into its split's folder, one image in memory at a time."""
    records: list[ImageRecord] = []
    duplicates, problems = [], []
    names_by_pixels = dict[str, str]()
    taken = set[str]()
    # Test first, then validation: of two equal images the train copy is the one to go.
    ordered = sorted(originals, key=lambda original: (-SPLITS.index(original.split), original.name))
    for original in track(ordered, len(ordered), "photographs"):
        try:
            for picture in _pictures(original, params):
                name = _name(original, picture)
                pixels = picture.picture.pixels
                digest = hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()
                if (first := names_by_pixels.get(digest)) is not None:
                    duplicates.append(f"{name} ({original.split}) shows the same pixels as {first} and was left out")
                    continue
                names_by_pixels[digest] = name
                records.append(_store_one(original, picture, building, taken, params.source))
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(
            f"{len(problems)} of {len(originals)} photographs cannot be used; mend, replace or remove them "
            "(or change min_side or max_pixels of download_data):\n  " + "\n  ".join(problems[:SHOWN]) + more
        )
    return Downloaded(sorted(records, key=lambda record: record.path), duplicates)


def _pictures(original: Original, params: DownloadData) -> Iterator[_Taken]:
    """Decode a photograph and its partner, if it has one, or images of a video one by one.

    Raises UserError, a line of the message, if that fails.
    """
    if original.path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _sampled(original, params)
        return
    pictures = []
    for path in filter(None, (original.path, original.degraded)):
        name = original.name if path == original.path else f"the partner {path} of {original.name}"
        with image_errors(name, problem=""):
            pictures.append(read_picture(path, params.min_side, params.max_pixels))
    sizes = [f"{picture.pixels.width} x {picture.pixels.height}" for picture in pictures]
    if len(set(sizes)) > 1:
        raise UserError(f"{original.name}: {sizes[0]} pixels, but its partner {original.degraded} has {sizes[1]}")
    yield _Taken(pictures[0], pictures[1] if original.degraded else None)


def _sampled(original: Original, params: DownloadData) -> Iterator[_Taken]:
    """Sample frames of a video; raise UserError, a line of the message, if it cannot be used."""

    def require_size(width: int, height: int) -> None:
        if (problem := refused_size(width, height, params.min_side, params.max_pixels)) is not None:
            raise UserError(f"{original.name}: {problem}")

    require_size(*video_size(original.path))
    for frame, before, seconds in sample_frames(original.path, params.video_frames, params.video_scale):
        require_size(*frame.shape[1::-1])  # it may change
        picture = Picture(Image.fromarray(frame), "RGB", "video", ["frame of a video"])
        yield _Taken(picture, None, Image.fromarray(np.concatenate(before)) if before else None, seconds)


def _name(original: Original, taken: _Taken) -> str:
    return original.name if taken.seconds is None else f"{original.name} at {taken.seconds:.2f} s"


def _store_one(original: Original, one: _Taken, building: Path, taken: set[str], source: str) -> ImageRecord:
    picture, own_suffix = one.picture, PurePosixPath(original.name).suffix.lower()
    at = "" if one.seconds is None else f"_{one.seconds:.2f}s"
    plain = f"{original.split}/{_plain(PurePosixPath(original.name).stem)}{at}"
    numbered = chain([plain], (f"{plain}-{number}" for number in count(2)))
    stem = next(name for name in numbered if name.lower() not in taken)
    taken.add(stem.lower())
    stored = _write(picture, original.path, building / stem)
    degraded = before = None
    if one.degraded is not None and original.degraded is not None:
        degraded = _write(one.degraded, original.degraded, building / "degraded" / stem)
    if one.before is not None:
        before = _write(picture._replace(pixels=one.before), original.path, building / "before" / stem)
    misnamed = [f"{picture.format} named {own_suffix}"] if SUFFIXES.get(own_suffix, "video") != picture.format else []
    return ImageRecord(
        path=stored.relative_to(building).as_posix(),
        sha256=sha256_of(stored),
        width=picture.pixels.width,
        height=picture.pixels.height,
        mode=picture.mode,
        source=f"{source}: {_name(original, one)}",
        licence=original.licence,
        group=original.group,
        split=original.split,
        note="; ".join(picture.changes + misnamed),
        degraded=degraded.relative_to(building).as_posix() if degraded else "",
        degraded_sha256=sha256_of(degraded) if degraded else "",
        before=before.relative_to(building).as_posix() if before else "",
        before_sha256=sha256_of(before) if before else "",
    )


def _write(picture: Picture, original: Path, place: Path) -> Path:
    """Write an image to `place` with a suffix, as a copy if nothing was changed; return its path."""
    suffix = ".png" if picture.changes else next(s for s, kind in SUFFIXES.items() if kind == picture.format)
    stored = place.with_name(place.name + suffix)
    stored.parent.mkdir(parents=True, exist_ok=True)
    if picture.changes:
        picture.pixels.save(stored, compress_level=1)
    else:
        shutil.copyfile(original, stored)
    return stored


def _plain(stem: str) -> str:
    """Return a name that any file system and shell takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:100].strip("._-") or "image"
