"""Weights that others published: a file or a URL, always with its SHA-256, and never run as a program."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clearcall.errors import UserError
from clearcall.files import cache_folder, sha256_of

# Where files that hold more than weights keep them; of a moving average and the last step's, the average.
_INNER = ("params_ema", "params", "state_dict")
# torch's reader of older files meets damage with any of these.
_DAMAGE = (RuntimeError, EOFError, LookupError, ValueError, TypeError, pickle.UnpicklingError, SafetensorError)


def fetch_weights(source: str, sha256: str) -> Path:
    """Return the checked file that a path or a URL means; a URL's is kept in $CLEARCALL_CACHE or ~/.cache/clearcall.

    Raises UserError if there is no such file, it cannot be downloaded, or its SHA-256 is another.
    """
    if not source.startswith(("http://", "https://")):
        path = Path(source)
        if not path.is_file():
            raise UserError(f"there is no file {path} of published weights: correct its path, or give a URL")
        if (found := sha256_of(path)) != sha256:
            raise UserError(f"{path} has the SHA-256 {found}, not {sha256}: it is not the published file")
        return path
    import pooch  # noqa: PLC0415  # only where something is downloaded

    folder, name = cache_folder(), source.rpartition("/")[2]
    try:
        return Path(pooch.retrieve(source, f"sha256:{sha256}", name, folder))
    except (OSError, ValueError) as error:  # of the network, and of another hash
        raise UserError(
            f"cannot download {source}: {error}. Run the same command again, or download it by hand and put it at "
            f"{folder / name}"
        ) from None


def load_published(source: str, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of published weights by name, on the CPU; raise UserError if the file holds anything else."""
    path = fetch_weights(source, sha256)
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, weights_only=True, map_location="cpu")
        )
    except _DAMAGE as error:
        raise UserError(f"{path} holds no weights that can be read: {error}") from None
    if isinstance(state, dict):
        state = next((state[name] for name in _INNER if name in state), state)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds no weights by name")
    return dict(state)
