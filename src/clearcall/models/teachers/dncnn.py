"""DnCNN: Zhang et al. 2017, "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising".

arXiv 1608.03981: 3x3 layers that predict what is wrong with the image; batch normalisation in all of them but the
first and the last. The teacher of the `dncnn` report: 17 layers of 64 channels, 558 K parameters for RGB.
"""

from torch import nn

from clearcall.models.layers import Residual


def build(channels: int, convs: int = 17) -> Residual:
    """Build the teacher; published with 64 channels. `convs` counts all its layers."""
    if channels < 1 or convs < 2:  # noqa: PLR2004  # the first layer and the last
        raise ValueError("channels must be at least 1, convs at least 2")
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
    for _ in range(convs - 2):
        # The normalisation after it would remove a bias.
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return Residual(nn.Sequential(*layers), channels)
