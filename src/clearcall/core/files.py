"""Files written under a temporary name, then renamed: complete or not there."""

import csv
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clearcall.core.errors import UserError
from clearcall.core.locks import lock, open_to_lock

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SHIPPED = Path(__file__).parents[1] / "runtime" / "shipped"  # networks of the package
TEACHER = "teacher"  # has no ONNX file there: it is too slow for a call
_NAME = 20  # letters of a file's name in that of its temporary one, which may not be longer than names may be
# In every temporary name: no file of the user's is ever taken for one that a killed process left.
_MARK = "clearcall-"
_KEPT_CELLS = 4096  # of a column of a CSV file, remembered while it is read
_cleaned = set[Path]()

Record = TypeVar("Record", bound="DataclassInstance")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it if not."""

    def make() -> str:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_NAME]}.{_MARK}", suffix=path.suffix)
        os.close(handle)
        return name

    with _temporary(path, make) as temporary:
        temporary.chmod(0o666 & ~_umask())
        try:
            yield temporary
            temporary.replace(path)
        except OSError as error:
            # Of a full disk Python names no file, and of the temporary one nobody knows.
            if error.filename == str(temporary) or error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)


def check_target(path: Path, source: Path, *, overwrite: bool) -> None:
    """Raise UserError if a result must not be written to `path`: a folder, its own source, or a file that exists."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file")
    if path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"{path} is the input itself: name another file for the result")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists: name another file for the result, or --overwrite to replace it")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it replaces `path` if the block succeeds, else it is removed."""

    def make() -> str:
        return tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:_NAME]}.{_MARK}")

    with _temporary(path, make) as temporary:
        temporary.chmod(0o777 & ~_umask())
        try:
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _temporary(path: Path, make: Callable[[], str]) -> Iterator[Path]:
    """Yield what `make` creates beside `path`, locked, so that no other process takes it for a killed one's."""
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} is a file or below one: name a folder for {path.name}") from None
    _remove_leftovers(folder)
    while True:
        try:
            temporary = Path(make())
        except OSError as error:
            # It is the folder that must be writable.
            raise OSError(error.errno, error.strerror, str(folder)) from error
        handle = open_to_lock(temporary)
        mine = handle is None or lock(handle) is not False
        # Another process may have come between its creation and its lock, and removed it.
        if mine and temporary.exists():
            break
        if handle is not None:
            os.close(handle)
    try:
        yield temporary
    finally:
        if handle is not None:
            os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder; a process looks once into each."""
    if folder.absolute() in _cleaned:
        return
    _cleaned.add(folder.absolute())
    for path in folder.glob(f".*.{_MARK}*"):
        if (handle := open_to_lock(path)) is None:
            continue
        if lock(handle):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        os.close(handle)


def _umask() -> int:
    # mkstemp and mkdtemp keep what they make private to its owner; a result should be as readable as any other file.
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one piece."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document, keys in the order given, in one piece."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Iterable[Any]) -> None:
    """Write dataclass instances or mappings of the same keys, at least one, as CSV; one is in memory at a time."""
    records: Iterator[Mapping[str, Any]] = (asdict(row) if is_dataclass(row) else row for row in rows)  # type: ignore[arg-type]  # no class
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        if (first := next(records, None)) is None:
            raise UserError(f"{path} would have no lines: there is nothing to list")
        writer = csv.DictWriter(file, list(first), lineterminator="\n")
        writer.writeheader()
        writer.writerows(chain([first], records))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header: a dictionary of texts for each line."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_records(path: Path, kind: type[Record], stage: str) -> Iterator[Record]:
    """Yield the lines of a CSV file as instances of a dataclass; columns that have a default may be missing.

    Raises UserError if the stage that writes the file has to run, and ValueError for a line that it has not written.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro {stage}` first")
    types = {field.name: field.type for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is MISSING}
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        if not required <= set(names) <= types.keys():
            raise UserError(f"{path} has the columns {names}, not {list(types)}: run `dvc repro -f -s {stage}`")
        # Equal cells of lines that are close become one object: of a million lines most memory would be such cells.
        parse = [lru_cache(_KEPT_CELLS)({int: int, float: float}.get(types[name], str)) for name in names]  # type: ignore[arg-type]  # str
        for line in lines:
            yield kind(**{name: of(cell) for name, of, cell in zip(names, parse, line, strict=True)})


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document whose top level is an object."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def cache_folder() -> Path:
    """Return where downloads are kept: $CLEARCALL_CACHE, or ~/.cache/clearcall."""
    return Path(os.environ.get("CLEARCALL_CACHE") or "~/.cache/clearcall").expanduser()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
