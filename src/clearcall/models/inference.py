"""From 8-bit images to tensors and back, and a network's output to one image."""

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


@torch.inference_mode()
def restore_unrounded(model: nn.Module, frame: Frame) -> Tensor:
    """Return a network's output to an 8-bit RGB image: float32 (3, height, width) in [0, 1]."""
    device = next(model.parameters()).device
    restored: Tensor = model(to_tensor(frame)[None].to(device))[0]
    return restored.float().clamp(0, 1)


def restore(model: nn.Module, frame: Frame) -> Frame:
    """Return a network's output to one 8-bit RGB image, in the same form."""
    return to_frame(restore_unrounded(model, frame))
