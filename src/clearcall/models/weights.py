"""Trained networks on disk: safetensors, with the architecture's name and arguments beside them."""

from pathlib import Path
from typing import cast, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from clearcall.architectures import Kind
from clearcall.errors import UserError
from clearcall.files import atomic_folder, read_json, write_json
from clearcall.models import build_model
from clearcall.params import Model

WEIGHTS, ARCHITECTURE = "model.safetensors", "model.json"


def save_weights(folder: Path, kind: Kind, model: Model, state: dict[str, Tensor]) -> None:
    """Write a network's state and what is needed to build it again, both or neither."""
    with atomic_folder(folder) as temporary:
        # As bytes: safetensors' own writer turns a full disk into an error that does not tell.
        (temporary / WEIGHTS).write_bytes(save({name: tensor.detach().contiguous() for name, tensor in state.items()}))
        write_json(temporary / ARCHITECTURE, {"kind": kind, **model.model_dump()})


def load_weights(folder: Path) -> nn.Module:
    """Build the network that a folder holds, load its state strictly and put it in evaluation mode."""
    try:
        architecture = read_json(folder / ARCHITECTURE)
        kind, name, arguments = (architecture[key] for key in ("kind", "name", "arguments"))
        if kind not in get_args(Kind):
            raise ValueError(f"{ARCHITECTURE} says kind {kind!r}")  # noqa: TRY301  # the same message as for other damage
        state = load_file(folder / WEIGHTS)
    except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no trained network ({error}): run `dvc repro` to train it") from None
    model = build_model(cast(Kind, kind), name, arguments)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise UserError(f"the weights in {folder} are not of its architecture: {error}") from None
    model.requires_grad_(requires_grad=False)
    return model.eval()
