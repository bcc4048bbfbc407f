"""Losses between two pictures of one shape."""

import torch
from pytorch_msssim import ssim
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3


def l1_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return (restored - target).abs().mean()


def mse_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return (restored - target).square().mean()


def charbonnier_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(difference^2 + 0.001^2), an L1 that is smooth at zero (Charbonnier et al. 1994)."""
    return torch.sqrt((restored - target).square() + CHARBONNIER_EPSILON**2).mean()


def relative_mse_loss(restored: Tensor, target: Tensor, input_mse: Tensor, floor: float) -> Tensor:
    """Return the mean of each picture's squared difference over that of its degraded original, `input_mse` of (N,).

    A mean PSNR in dB counts a tenth less error as much in a mildly degraded picture as in a bad one, which in the plain
    mean squared difference drowns it. `input_mse` is raised by `floor`, so that clean pictures, which have none, weigh
    finitely: the lower it is, the more a student spares what is nearly clean, and the less it sharpens the rest.
    """
    errors = (restored - target).square().mean(dim=(1, 2, 3))
    return (errors / (input_mse + floor)).mean()


def ssim_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return 1 - SSIM with the Gaussian window of Wang et al. 2004, for pictures of at least 11x11 pixels."""
    similarity: Tensor = ssim(restored.float(), target.float(), data_range=1.0)
    return 1 - similarity
