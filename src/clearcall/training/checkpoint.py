"""Where a killed training goes on from."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

import clearcall
from clearcall.console import warn
from clearcall.files import atomic_path

_SOURCES = ("models", "losses", "training")


def checkpoint_key(*parts: str) -> str:
    """Return a short hash over params, data and the code that trains: what a checkpoint may be resumed for."""
    digest = hashlib.sha256()
    package = Path(clearcall.__file__).parent
    for folder in _SOURCES:
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    for part in parts:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:16]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers, strings, lists and dictionaries in one piece."""
    # Through a buffer: torch's own writer turns a full disk into an error that does not tell.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint, or return None if there is none; a damaged one is reported and ignored."""
    if not path.exists():
        return None
    try:
        if not zipfile.is_zipfile(path):  # what torch.save writes; its reader of older files raises anything
            raise EOFError("it is cut or no checkpoint")  # noqa: TRY301  # the same warning as for other damage
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        warn(f"the checkpoint {path} cannot be read ({error}); training starts from the beginning")
        return None
    return state
