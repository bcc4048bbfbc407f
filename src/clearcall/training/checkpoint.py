"""Training checkpoints: lock, save, load, resume."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import clearcall
from clearcall.core.console import warn
from clearcall.core.files import atomic_path
from clearcall.core.locks import hold_lock
from clearcall.models.weights import DAMAGE

# What a training depends on; not the export.
_SOURCES = ("models/build.py", "models/layers.py", "models/students", "models/teachers", "training")


def checkpoint_key(*parts: str) -> str:
    """Return a short hash over params, data and training code, by which checkpoints are resumed."""
    digest = hashlib.sha256()
    package = Path(clearcall.__file__).parent
    for place in _SOURCES:
        for path in sorted((package / place).rglob("*.py")) or [package / place]:
            digest.update(path.read_bytes())
    for part in parts:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:16]


def lock_path(checkpoint: Path) -> Path:
    """Return the file whose lock a process holds that trains on a checkpoint."""
    return checkpoint.with_suffix(".lock")


def lock_checkpoint(checkpoint: Path, fabric: Fabric) -> None:
    """Wait until no other training uses a checkpoint, then lock it."""
    if fabric.is_global_zero:
        hold_lock(lock_path(checkpoint), f"trains on {checkpoint}")
    # No other process of this training may read it earlier.
    fabric.barrier()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers, strings, lists and dictionaries in one piece."""
    # Through a buffer: torch's own writer turns a full disk into an error that does not tell.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint; return None if there is none, or with a warning if it is corrupt."""
    if not path.exists():
        return None
    try:
        if not zipfile.is_zipfile(path):  # what torch.save writes; its reader of older files raises anything
            raise EOFError("it is truncated or no checkpoint")  # the same warning as for other damage
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except DAMAGE as error:
        warn(f"the checkpoint {path} cannot be read ({error}); training starts from the beginning")
        return None
    return state
