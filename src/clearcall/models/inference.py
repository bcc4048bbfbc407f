"""From 8-bit images to tensors and back, and a network's output to one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from clearcall.core.files import sha256_of
from clearcall.imaging.frame import Frame
from clearcall.models.weights import WEIGHTS, load_weights


def to_tensor(frames: Frame) -> Tensor:
    """Turn 8-bit RGB (..., height, width, 3) into float32 (..., 3, height, width) in [0, 1]."""
    return torch.from_numpy(np.array(frames)).movedim(-1, -3).float().div_(255)


def to_frame(image: Tensor) -> Frame:
    """Turn (3, height, width) in [0, 1] into 8-bit RGB (height, width, 3), rounded and clipped."""
    levels = image.detach().float().clamp(0, 1).mul(255).round_().byte()
    frame: Frame = levels.movedim(0, -1).contiguous().cpu().numpy()
    return frame


def output(model: nn.Module, image: Tensor, degradations: Sequence[str]) -> Tensor:
    """Return a network's output to RGB (N, 3, H, W); a conditioned one is told each image's degradation."""
    restored: Tensor = model(image, degradations) if hasattr(model, "degradations") else model(image)
    return restored


@torch.inference_mode()
def restore_unrounded(model: nn.Module, frame: Frame, degradation: str = "") -> Tensor:
    """Return a network's output to an 8-bit RGB image: float32 (3, height, width) in [0, 1].

    Where the `degradation` is known, a conditioned network is told it.
    """
    device = next(model.parameters()).device
    restored = output(model, to_tensor(frame)[None].to(device), [degradation])[0]
    return restored.float().clamp(0, 1)


def restore(model: nn.Module, frame: Frame, degradation: str = "") -> Frame:
    """Return a network's output to one 8-bit RGB image, in the same form; see `restore_unrounded`."""
    return to_frame(restore_unrounded(model, frame, degradation))


@dataclass(frozen=True)
class StoredNetwork:
    """A trained network in a folder: passed to other processes by its path, which load it once for each SHA-256."""

    folder: Path
    sha256: str

    @classmethod
    def find(cls, folder: Path) -> Self:
        """Return the network of a folder of weights; raise UserError if there is none."""
        load_weights(folder)
        return cls(folder, sha256_of(folder / WEIGHTS))

    def __call__(self, frame: Frame, degradation: str = "") -> Frame:
        """Restore one 8-bit RGB image, as `restore` does."""
        return restore(_loaded(self), frame, degradation)


@lru_cache(maxsize=4)  # one more than a pipeline trains
def _loaded(network: StoredNetwork) -> nn.Module:
    return load_weights(network.folder)
