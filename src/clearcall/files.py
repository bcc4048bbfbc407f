"""Files that are whole or not there: written to a temporary name, then renamed; and locks between processes."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAME = 20  # letters of a file's name in that of its temporary one, which may not be longer than names may be
# In every temporary name: no file of the user's is ever taken for one that a killed process left.
_MARK = "clearcall-"
_POLL_SECONDS = 0.2

_cleaned = set[Path]()
_held = dict[Path, int]()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it if not."""

    def make() -> str:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_NAME]}.{_MARK}", suffix=path.suffix)
        os.close(handle)
        return name

    with _temporary(path.parent, make) as temporary:
        temporary.chmod(0o666 & ~_umask())
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it replaces `path` if the block succeeds, else it is removed."""

    def make() -> str:
        return tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:_NAME]}.{_MARK}")

    with _temporary(path.parent, make) as temporary:
        temporary.chmod(0o777 & ~_umask())
        try:
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _temporary(folder: Path, make: Callable[[], str]) -> Iterator[Path]:
    """Yield what `make` creates in `folder`, locked, so that no other process takes it for a killed one's."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    while True:
        temporary = Path(make())
        handle = _open(temporary)
        mine = handle is None or _lock(handle) is not False
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
        if (handle := _open(path)) is None:
            continue
        if _lock(handle):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        os.close(handle)


def hold_lock(path: Path, doing: str) -> None:
    """Lock the file `path` for this process until it ends or calls `release_lock`; wait while another one holds it.

    The kernel frees the lock however its holder ends, so that none is ever left behind. `doing` tells on standard
    error, and in the file, what it is held for. A process may ask for what it holds already.
    """
    path = path.absolute()
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        # Its holder may have removed the file since: then the lock is on nothing that others see.
        if _lock(handle) is not False and path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            break
        if not told and (holder := os.pread(handle, 1000, 0).decode(errors="replace")):
            pid = holder.split()[0]
            print(
                f"waiting until process {holder} ends; `kill {pid}` ends it now, and this one goes on from there",
                file=sys.stderr,
                flush=True,
            )
            told = True
        os.close(handle)
        time.sleep(_POLL_SECONDS)
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()} ({doing})".encode())
    _held[path] = handle


def release_lock(path: Path) -> None:
    """Remove a lock's file and free it, if this process holds it."""
    if (handle := _held.pop(path.absolute(), None)) is not None:
        path.unlink(missing_ok=True)  # before others can lock it
        os.close(handle)


def _open(path: Path) -> int | None:
    """Open a file or folder to lock it; None if that cannot be done."""
    if sys.platform == "win32":  # where an open file can be neither renamed nor removed
        return None
    try:
        # Over a network an exclusive lock takes a file that is open for writing, which no folder can be.
        return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return None


def _lock(handle: int) -> bool | None:
    """Lock an open file or folder until it is closed; False if another process has, None where there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415  # only there where this line is reached

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document whose top level is an object."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def cache_folder() -> Path:
    """Return where downloads are kept: $CLEARCALL_CACHE, or ~/.cache/clearcall."""
    return Path(os.environ.get("CLEARCALL_CACHE") or "~/.cache/clearcall").expanduser()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
