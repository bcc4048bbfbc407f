"""Sharpen the images and videos of a folder; a later run skips up-to-date ones."""

import errno
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from clearcall.core.console import track, warn
from clearcall.core.errors import UserError, describe
from clearcall.core.files import read_json, sha256_of, write_json
from clearcall.imaging.sizes import NewSize
from clearcall.media.images import FORMATS, KINDS, READ_ONLY, read_image, result_suffix, sharpen_image, write_image
from clearcall.media.options import SharpenerOptions, VideoOptions
from clearcall.media.video.animation import is_animation
from clearcall.media.video.read import VIDEO_SUFFIXES
from clearcall.media.video.run import sharpen_video
from clearcall.media.video.write import FORMATS as CONTAINERS
from clearcall.runtime.family import SharpenerFor
from clearcall.runtime.sharpener import Sharpener

RECORD = ".clearcall.json"
_RECORD_SECONDS = 5.0
_SHOWN = 20  # names in one message
_ANIMATIONS = {".gif", ".png", ".webp"}


@dataclass(frozen=True)
class FolderSummary:
    """How many files were sharpened, skipped as up to date, or failed, and which are no image or video.

    `runtime` is that of the images, empty if none was sharpened.
    """

    done: int
    skipped: int
    failed: int
    ignored: list[str]
    runtime: str

    def __str__(self) -> str:
        """Say it in one line."""
        how = self.runtime or ("nothing to do" if not self.done + self.failed else "")
        counts = f"{self.done} sharpened, {self.skipped} skipped, {self.failed} failed, {len(self.ignored)} ignored"
        return f"{counts} ({how})" if how else counts


def sharpen_folder(
    options: SharpenerOptions,
    source: Path,
    target: Path,
    video: VideoOptions = VideoOptions(),  # noqa: B008  # frozen
    *,
    overwrite: bool = False,
) -> FolderSummary:
    """Sharpen all images and videos below `source` into the same places below `target`.

    An image keeps its format; BMP, GIF and transparent HEIC become PNG, other HEIC JPEG. A video keeps its container if
    that can be written, else it becomes Matroska, an animation MP4.

    A file is skipped if the record in `target` says that its present content was made from the same bytes with the same
    options. A file that fails is named on standard error and the others go on. Unless `overwrite`, which does all
    again, raises UserError if `target` holds files but no record: then they are not ours to replace.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}")
    _refuse_overlap(source, target)
    images, videos, ignored = _listed(source)
    if not images and not videos:
        raise UserError(f"{source} holds no image ({KINDS}) and no video")
    size = video.recorded_size()
    wanted = {
        False: {**options.recorded(video=False), **size},
        True: {**options.recorded(video=True), **size, **video.recorded()},
    }
    _claim(target, overwrite=overwrite)
    sharpener = options.for_images()
    make = {
        False: partial(_sharpen_image, sharpener, video.size),
        True: partial(_sharpen_video, options.for_videos(), video),
    }
    record = _Record(target / RECORD, anew=overwrite)
    results: dict[tuple[int, int], str] = {}  # by device and inode: a file system may take `A` and `a` for one name
    done = skipped = failed = 0
    try:
        # The videos come last: each has a progress bar of its own.
        for is_video, names in ((False, track(images, len(images), "sharpening") if images else []), (True, videos)):
            for name in names:
                kept = PurePosixPath(name)
                output = target / (_video_name(name) if is_video else kept.with_suffix(result_suffix(source / name)))
                try:
                    _refuse_output(output, source, results)
                    made = record.update(name, source / name, output, wanted[is_video], make[is_video])
                    done, skipped = done + made, skipped + (not made)
                    results[_identity(output)] = name
                except (UserError, OSError) as error:
                    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                        raise
                    print(f"failed: {describe(error) or f'{source / name}: {error}'}", file=sys.stderr, flush=True)
                    failed += 1
    finally:
        record.write()
    if ignored:
        more = f" and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
        print(f"ignored, neither {KINDS} nor a video: {', '.join(ignored[:_SHOWN])}{more}", file=sys.stderr)
    return FolderSummary(done, skipped, failed, ignored, str(sharpener.choice or ""))


class _Record:
    """JSON record: for each input its SHA-256, the options, and its result's SHA-256."""

    def __init__(self, path: Path, *, anew: bool) -> None:
        self._path, self._entries = path, {} if anew else _read_record(path)
        self.write()  # before the first result, so that after a kill the folder is still known as ours

    def update(
        self, name: str, path: Path, output: Path, options: dict[str, object], make: Callable[[Path, Path], None]
    ) -> bool:
        """Make a result unless it is up to date; return whether it was made."""
        if not path.is_file():
            raise UserError(f"{path} is not a file")
        entry = {"input": sha256_of(path), **options}
        if output.is_file() and self._entries.get(name) == {**entry, "output": sha256_of(output)}:
            return False
        make(path, output)
        self._entries[name] = {**entry, "output": sha256_of(output)}
        if time.monotonic() - self._written_s >= _RECORD_SECONDS:
            self.write()
        return True

    def write(self) -> None:
        """Write the file."""
        write_json(self._path, self._entries)
        self._written_s = time.monotonic()


def _sharpen_image(sharpener: Sharpener, size: NewSize | None, path: Path, output: Path) -> None:
    kind = FORMATS[output.suffix.lower()] if path.suffix.lower() in READ_ONLY else None
    write_image(output, sharpen_image(sharpener, read_image(path), path, kind, size))


def _sharpen_video(sharpener: Sharpener | SharpenerFor, video: VideoOptions, path: Path, output: Path) -> None:
    summary = sharpen_video(sharpener, path, output, **vars(video), overwrite=True)
    if summary.interrupted:
        output.unlink()  # an incomplete video is no result
        raise KeyboardInterrupt
    print(f"{output}: {summary}", file=sys.stderr, flush=True)


def _video_name(name: str) -> str:
    """Return the name of a video's result: of the same container if it can be written, else as MP4 or Matroska."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in CONTAINERS:
        return name
    # Matroska holds nearly every kind of sound and subtitles; animations have none.
    return str(path.with_suffix(".mp4" if suffix in _ANIMATIONS else ".mkv"))


def _refuse_overlap(source: Path, target: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(f"{source} and {target} overlap: choose a folder for the results with none of yours in it")


def _claim(target: Path, *, overwrite: bool) -> None:
    """Create the folder of the results; raise UserError if it is none or holds files that may not be ours."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{target} is a file or below one: name a folder for the results") from None
    if any(target.iterdir()) and not (target / RECORD).is_file() and not overwrite:
        raise UserError(
            f"{target} holds files, but no {RECORD}, so they may not be ours: choose another folder, or --overwrite "
            "to replace those that bear the names of results"
        )


def _refuse_output(output: Path, source: Path, outputs: dict[tuple[int, int], str]) -> None:
    """Raise UserError if a result would replace that of another file, or through a link an input itself."""
    if output.parent.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output} lies in {source} through a link: it would replace a file of yours")
    if output.exists() and _identity(output) in outputs:
        raise UserError(f"{output} would replace the result of {outputs[_identity(output)]}: rename one of the two")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _listed(source: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the names below a folder, with forward slashes, of its images, its videos and its other files.

    Those whose results keep their names come first, so that no other's result takes one of these names.
    Linked folders are not entered but counted among the last; hidden folders are passed over.
    """
    images, videos, others = list[str](), list[str](), list[str]()
    for folder, folders, files in os.walk(source, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder) / name for name in [*files, *folders]):
            if path.is_dir() and not path.is_symlink():
                continue
            suffix = path.suffix.lower()
            if path.name.startswith(".") or path.is_dir():
                kind = others
            elif suffix in VIDEO_SUFFIXES or (suffix in _ANIMATIONS and is_animation(path)):
                kind = videos
            else:
                kind = images if suffix in {*FORMATS, *READ_ONLY} else others
            kind.append(path.relative_to(source).as_posix())
    images.sort(key=lambda name: (PurePosixPath(name).suffix.lower() in READ_ONLY, name))
    videos.sort(key=lambda name: (_video_name(name) != name, name))
    return images, videos, sorted(others)


def _raise(error: OSError) -> None:
    raise error


def _read_record(path: Path) -> dict[str, Any]:
    """Return the entries of a record; none if it is missing or corrupt."""
    try:
        return dict(read_json(path)) if path.is_file() else {}
    except (ValueError, TypeError):
        warn(f"{path} is corrupt: every file is sharpened again")
        return {}
