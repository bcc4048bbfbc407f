"""From 8-bit images to tensors and back, and a network's output to one image."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from clearcall.imaging.frame import Frame


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
