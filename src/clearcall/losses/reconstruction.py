"""Losses between two pictures of one shape."""

import torch
from pytorch_msssim import ssim
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3
# Of the mean squared difference: beyond 50 dB nothing is gained.
PSNR_FLOOR = 1e-5


def l1_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return (restored - target).abs().mean()


def mse_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return (restored - target).square().mean()


def charbonnier_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(difference^2 + 0.001^2), an L1 that is smooth at zero (Charbonnier et al. 1994)."""
    return torch.sqrt((restored - target).square() + CHARBONNIER_EPSILON**2).mean()


def psnr_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return minus the mean PSNR in dB of (N, C, H, W), each picture's bounded at 50 dB (Chen et al., HINet, 2021).

    Beside a mean squared difference of the batch, in which the worst pictures drown all others, a tenth less error
    counts as much in a mildly degraded picture as in a bad one.
    """
    errors = (restored - target).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(errors + PSNR_FLOOR).mean()


def ssim_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return 1 - SSIM with the Gaussian window of Wang et al. 2004, for pictures of at least 11x11 pixels."""
    similarity: Tensor = ssim(restored.float(), target.float(), data_range=1.0)
    return 1 - similarity
