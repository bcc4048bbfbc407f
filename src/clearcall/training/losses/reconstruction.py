"""Losses between two images of one shape."""

import torch
from pytorch_msssim import ssim
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

CHARBONNIER_EPSILON = 1e-3
BT601 = (0.299, 0.587, 0.114)  # weights of R, G and B in luma
CHROMA_OF_RGB = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # of R, G and B in Cb and in Cr


def l1_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return (restored - target).abs().mean()


def mse_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return (restored - target).square().mean()


def charbonnier_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(difference^2 + 0.001^2) (Charbonnier et al. 1994)."""
    return torch.sqrt((restored - target).square() + CHARBONNIER_EPSILON**2).mean()


def relative_mse_loss(restored: Tensor, target: Tensor, input_mse: Tensor, floor: float) -> Tensor:
    """Return the mean of each image's MSE over that of its input, `input_mse` of (N,).

    A mean PSNR in dB counts a tenth less error as much in a mildly degraded image as in a bad one, which in the plain
    mean squared difference drowns it. `input_mse` is raised by `floor`, so that clean images, which have none, weigh
    finitely: the lower it is, the more a student spares what is nearly clean, and the less it sharpens the rest.
    """
    errors = (restored - target).square().mean(dim=(1, 2, 3))
    return (errors / (input_mse + floor)).mean()


def luma_gain_loss(restored: Tensor, target: Tensor, degraded: Tensor, input_mse: Tensor, floor: float) -> Tensor:
    """Return the mean change of each image's luma MSE, relative to `input_mse` of (N,) + `floor`.

    Images are RGB of (N, 3, H, W) in [0, 1]; `input_mse` and `floor` are squares of that, as in relative_mse_loss.
    It is below 0 where images gain. Error is the mean squared difference of luma (ITU-R BT.601); that of RGB, which
    is what `input_mse` has, is mostly of colour where little is missing, since calls send it coarsely.
    """
    weights = torch.tensor(BT601, device=restored.device, dtype=restored.dtype).view(1, 3, 1, 1)

    def error(image: Tensor) -> Tensor:
        return ((image - target) * weights).sum(1).square().mean(dim=(1, 2))

    return ((error(restored) - error(degraded)) / (input_mse + floor)).mean()


def chroma_gain_loss(restored: Tensor, target: Tensor, degraded: Tensor, input_mse: Tensor, floor: float) -> Tensor:
    """Return luma_gain_loss of Cb and Cr (BT.601) at half resolution, as in 4:2:0 video.

    Images are RGB of (N, 3, H, W) in [0, 1] with even sides. It is 0 for a network that changes luma alone.
    """
    weights = torch.tensor(CHROMA_OF_RGB, device=restored.device, dtype=restored.dtype)[..., None, None]

    def error(image: Tensor) -> Tensor:
        return conv2d(avg_pool2d(image - target, 2), weights).square().mean(dim=(1, 2, 3))

    return ((error(restored) - error(degraded)) / (input_mse + floor)).mean()


def ssim_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return 1 - SSIM (Wang et al. 2004) of images of at least 11x11 pixels."""
    similarity: Tensor = ssim(restored.float(), target.float(), data_range=1.0)
    return 1 - similarity
