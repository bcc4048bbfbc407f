"""Locks between processes, freed by the kernel however their holder ends."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

_POLL_SECONDS = 0.2
_held = dict[Path, int]()


def hold_lock(path: Path, doing: str, *, told: bool = True) -> None:
    """Lock the file `path` for this process until it ends or calls `release_lock`; wait while another one holds it.

    The kernel frees the lock however its holder ends, so that none is ever left behind. `doing` tells in the file what
    it is held for and, if `told`, on standard error. A process may ask for what it holds already.
    """
    path = path.absolute()
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if lock(handle) is not False and _is_at(handle, path):
            break
        if told and (holder := os.pread(handle, 1000, 0).decode(errors="replace")):
            pid = holder.split()[0]
            print(
                f"waiting until process {holder} ends; `kill {pid}` ends it now, and this one resumes its work",
                file=sys.stderr,
                flush=True,
            )
            told = False
        os.close(handle)
        time.sleep(_POLL_SECONDS)
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()} ({doing})".encode())
    _held[path] = handle


def _is_at(handle: int, path: Path) -> bool:
    """Return whether an open file still is what others see: its holder may have removed it since."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def release_lock(path: Path) -> None:
    """Remove a lock's file and free it, if this process holds it."""
    if (handle := _held.pop(path.absolute(), None)) is not None:
        with suppress(PermissionError):  # Windows removes no open file
            path.unlink(missing_ok=True)  # before others can lock it
        os.close(handle)


def open_to_lock(path: Path) -> int | None:
    """Open a file or folder to lock it; None if that cannot be done."""
    if sys.platform == "win32":  # where an open file can be neither renamed nor removed
        return None
    try:
        # Over a network an exclusive lock takes a file that is open for writing, which no folder can be.
        return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return None


def lock(handle: int) -> bool | None:
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
