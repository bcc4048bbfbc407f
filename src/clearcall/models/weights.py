"""Trained networks on disk: safetensors beside name and arguments of the architecture."""

import pickle
from difflib import get_close_matches
from pathlib import Path
from typing import cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED, TEACHER, atomic_folder, cache_folder, read_json, sha256_of, write_json
from clearcall.models.build import Kind, build_model
from clearcall.params import Model

WEIGHTS, ARCHITECTURE = "model.safetensors", "model.json"


# Where files that hold more than weights keep them; of a moving average and the last step's, the average.
_INNER = ("params_ema", "params", "state_dict")
# What readers of tensors raise for a corrupt file; torch's reader of older files any of these.
DAMAGE = (RuntimeError, EOFError, LookupError, ValueError, TypeError, pickle.UnpicklingError, SafetensorError)


def save_weights(folder: Path, kind: Kind, model: Model, state: dict[str, Tensor]) -> None:
    """Write a network's state and what is needed to build it again, both or neither."""
    with atomic_folder(folder) as temporary:
        # As bytes: safetensors' own writer turns a full disk into an error that does not tell.
        (temporary / WEIGHTS).write_bytes(save({name: tensor.detach().contiguous() for name, tensor in state.items()}))
        write_json(temporary / ARCHITECTURE, {"kind": kind, **model.model_dump()})


def load_weights(folder: Path) -> nn.Module:
    """Build the network that a folder holds, and load its state for evaluation."""
    try:
        architecture = read_json(folder / ARCHITECTURE)
        kind, name, arguments = (architecture[key] for key in ("kind", "name", "arguments"))
        if kind not in get_args(Kind):
            raise ValueError(f"{ARCHITECTURE} says kind {kind!r}")  # the same message as for other damage
        state = load_file(folder / WEIGHTS)
    except (FileNotFoundError, *DAMAGE) as error:
        raise UserError(f"{folder} holds no trained network ({error}): run `dvc repro` to train it") from None
    model = build_model(cast(Kind, kind), name, arguments)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise UserError(f"the weights in {folder} are not of its architecture: {error}") from None
    model.requires_grad_(requires_grad=False)
    return model.eval()


def load_shipped(name: str) -> nn.Module:
    """Return a shipped student or the shipped teacher, in evaluation mode; raise UserError if there is no such one."""
    if name not in (known := sorted(path.stem for path in SHIPPED.glob("*.safetensors"))):
        near = get_close_matches(name, known, 1)
        raise UserError(
            f"there is no shipped network {name!r}: {f'did you mean {near[0]}? ' if near else ''}give one of "
            f"{', '.join(known)}"
        )
    model = read_json(SHIPPED / f"{name}.json")["model"]
    network = build_model("teachers" if name == TEACHER else "students", model["name"], model["arguments"])
    network.load_state_dict(load_file(SHIPPED / f"{name}.safetensors"))
    return network.requires_grad_(requires_grad=False).eval()


def fetch_weights(source: str, sha256: str) -> Path:
    """Return the checked file of a path or a URL; downloads are kept in the cache folder.

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
    """Return published weights by name, on the CPU; raise UserError for anything else."""
    path = fetch_weights(source, sha256)
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, weights_only=True, map_location="cpu")
        )
    except DAMAGE as error:
        raise UserError(f"{path} holds no weights that can be read: {error}") from None
    if isinstance(state, dict):
        state = next((state[name] for name in _INNER if name in state), state)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds no weights by name")
    return dict(state)
