"""U-Net: Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv 1505.04597.

The teacher of the `gopro_unet` report, which names no widths. As published (64 channels, four levels down, 31.0 M
parameters) but for two things: the layers are padded, so that the image keeps its size, and predict the residual.
"""

import torch
from torch import Tensor, nn

from clearcall.imaging.sizes import SizeContract
from clearcall.models.layers import he_, pad_to, zero_


def _two_layers(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.ReLU(),
    )


class Unet(nn.Module):
    """Two 3x3 layers a level, half the size and twice the width further down, and each level joined on the way up."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.stride = 2**levels
        widths = [channels * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            _two_layers(in_channels, width) for in_channels, width in zip([3, *widths], widths, strict=False)
        )
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in reversed(widths[:-1]))
        self.up = nn.ModuleList(_two_layers(2 * width, width) for width in reversed(widths[:-1]))
        he_(self)
        self.tail = zero_(nn.Conv2d(channels, 3, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        height, width = image.shape[-2:]
        padded = pad_to(image, SizeContract(self.stride))
        features, passed = self.down[0](padded), []
        for layers in self.down[1:]:
            passed.append(features)
            features = layers(nn.functional.max_pool2d(features, 2))
        for enlarge, layers in zip(self.enlarge, self.up, strict=True):
            features = layers(torch.cat([passed.pop(), enlarge(features)], dim=1))
        restored: Tensor = (padded + self.tail(features))[..., :height, :width]
        return restored


def build(channels: int, levels: int = 4) -> Unet:
    """Build the teacher from the width of its first level and the number of times that it halves the image."""
    if channels < 1 or levels < 1:
        raise ValueError("channels and levels must be at least 1")
    return Unet(channels, levels)
