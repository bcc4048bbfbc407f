"""Losses between two pictures of one shape."""

import torch
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
