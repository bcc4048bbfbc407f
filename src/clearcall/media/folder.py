"""clearcall.media.folder."""

import errno
import hashlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearcall.core.console import track, warn
from clearcall.core.errors import UserError, describe
from clearcall.core.files import read_json, sha256_of, write_json
from clearcall.media.images import FORMATS, KINDS, _read, _sharpened, _write
from clearcall.runtime.sharpener import Sharpener

RECORD = ".clearcall.json"


_RECORD_SECONDS = 5.0


_SHOWN = 20  # names in one message


@dataclass(frozen=True)
class FolderSummary:
    """How many pictures were sharpened, skipped because they had been, or failed, and the files that are no picture."""

    done: int
    skipped: int
    failed: int
    ignored: list[str]

    def __str__(self) -> str:
        return f"{self.done} sharpened, {self.skipped} skipped, {self.failed} failed, {len(self.ignored)} ignored"


def sharpen_folder(sharpener: Sharpener, source: Path, target: Path, *, overwrite: bool = False) -> FolderSummary:
    """Sharpen every picture below `source` into the same place below `target`, each in its own format.

    What was made from the same bytes with the same model, strength and look is skipped if the record in `target` still
    has its hash. A picture that fails is named on standard error and the others go on. Unless `overwrite`, which does
    all again, raises UserError if `target` holds files but no record: then they are not ours to replace.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}")
    inner, outer = target.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(f"{source} and {target} overlap: choose a folder for the results with none of yours in it")
    names, ignored = _listed(source)
    if not names:
        raise UserError(f"{source} holds no picture ({KINDS})")
    _claim(target, overwrite=overwrite)
    record = {} if overwrite else _read_record(target / RECORD)
    settings = {
        "model": hashlib.sha256(sharpener.graph.onnx).hexdigest(),
        "strength": sharpener.strength,
        "look": sharpener.look,
    }
    # Written before the first picture, so that after a kill the folder is still known as ours.
    write_json(target / RECORD, record)
    written = time.monotonic()
    outputs: dict[tuple[int, int], str] = {}  # by device and inode, which a file system without case shows to be one
    done = skipped = failed = 0
    try:
        for name in track(names, len(names), "sharpening"):
            path, output = source / name, target / name
            try:
                _refuse_output(output, source, outputs)
                data = _read(path)
                entry = {"input": hashlib.sha256(data).hexdigest(), **settings}
                if output.is_file() and record.get(name) == {**entry, "output": sha256_of(output)}:
                    skipped += 1
                else:
                    sharpened = _sharpened(sharpener, data, path, None)
                    _write(output, sharpened)
                    record[name] = {**entry, "output": hashlib.sha256(sharpened).hexdigest()}
                    done += 1
                outputs[_identity(output)] = name
            except (UserError, OSError) as error:
                if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                print(f"failed: {describe(error) or f'{path}: {error}'}", file=sys.stderr, flush=True)
                failed += 1
            if time.monotonic() - written >= _RECORD_SECONDS:
                write_json(target / RECORD, record)
                written = time.monotonic()
    finally:
        write_json(target / RECORD, record)
    if ignored:
        more = f" and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
        hint = "; clearcall video sharpens a GIF" if any(name.lower().endswith(".gif") for name in ignored) else ""
        print(f"ignored, not {KINDS}: {', '.join(ignored[:_SHOWN])}{more}{hint}", file=sys.stderr)
    return FolderSummary(done, skipped, failed, ignored)


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
    """Raise UserError if a result would replace that of another picture, or through a link a picture itself."""
    if output.parent.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output} lies in {source} through a link: it would replace a picture of yours")
    if output.exists() and _identity(output) in outputs:
        raise UserError(f"{output} would replace the result of {outputs[_identity(output)]}: rename one of the two")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _listed(source: Path) -> tuple[list[str], list[str]]:
    """Return the names below a folder, with forward slashes, of its pictures and of its other files.

    Linked folders are not entered but counted among the latter; hidden folders are passed over.
    """
    pictures: list[str] = []
    others: list[str] = []
    for folder, folders, files in os.walk(source, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder) / name for name in [*files, *folders]):
            if path.is_dir() and not path.is_symlink():
                continue
            picture = path.suffix.lower() in FORMATS and not path.name.startswith(".") and not path.is_dir()
            (pictures if picture else others).append(path.relative_to(source).as_posix())
    return sorted(pictures), sorted(others)


def _raise(error: OSError) -> None:
    raise error


def _read_record(path: Path) -> dict[str, Any]:
    """Return what was made from what; nothing if there is no record, or a broken one: then all is done again."""
    try:
        return dict(read_json(path)) if path.is_file() else {}
    except (ValueError, TypeError):
        warn(f"{path} is broken: every picture is sharpened again")
        return {}
