"""IMDN: Hui et al. 2019, "Lightweight Image Super-Resolution with Information Multi-distillation Network".

arXiv 1909.11856, 694 K parameters for x2; https://github.com/Zheng222/IMDN. The `clearsight` report describes its
student as this network.
"""

import torch
from torch import Tensor, nn

from clearcall.models.layers import add_enlarged, zero_

SLOPE = 0.05
# Of a variance: where features are flat, the square root has no gradient.
_EPSILON = 1e-8


class MultiDistillation(nn.Module):
    """Four 3x3 layers: after each of the first three a quarter of the channels is set aside, the rest goes on.

    Takes and returns (N, channels, H, W); `channels` is a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kept = channels // 4
        self._split = [kept, channels - kept]
        self.layers = nn.ModuleList(
            nn.Conv2d(in_channels, channels, 3, padding=1)
            for in_channels in (channels, channels - kept, channels - kept)
        )
        self.last = nn.Conv2d(channels - kept, kept, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return what was set aside and what the last layer makes of the rest, concatenated."""
        set_aside = []
        for layer in self.layers:
            kept, features = torch.split(nn.functional.leaky_relu(layer(features), SLOPE), self._split, dim=1)
            set_aside.append(kept)
        return torch.cat([*set_aside, self.last(features)], dim=1)


class _Attention(nn.Module):
    """Contrast-aware channel attention: each channel is scaled by what its mean and deviation say of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels // 16, 1), nn.ReLU(), nn.Conv2d(channels // 16, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        mean = features.mean(dim=(2, 3), keepdim=True)
        deviation = ((features - mean).square().mean(dim=(2, 3), keepdim=True) + _EPSILON).sqrt()
        scaled: Tensor = features * self.gate(mean + deviation)
        return scaled


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(MultiDistillation(channels), _Attention(channels), nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = features + self.layers(features)
        return added


class Imdn(nn.Module):
    """A stem, blocks whose outputs are all fused by a 1x1 layer, a long shortcut, a pixel shuffle."""

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.stride = scale
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(channels) for _ in range(blocks))
        self.fuse = nn.Sequential(
            nn.Conv2d(channels * blocks, channels, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Sequential(zero_(nn.Conv2d(channels, 3 * scale**2, 3, padding=1)), nn.PixelShuffle(scale))

    def enlarge(self, image: Tensor) -> Tensor:
        """Return what the network makes of (N, 3, h, w): the residual, upscaled by the scale."""
        stem = features = self.stem(image)
        outputs = []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        residual: Tensor = self.tail(stem + self.fuse(torch.cat(outputs, dim=1)))
        return residual

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        return add_enlarged(image, self.stride, self.enlarge)


def build(channels: int, blocks: int, scale: int = 2) -> Imdn:
    """Build the network; published with 64 channels and 6 blocks for x2. At a `scale` of 1 it works at full size."""
    if channels < 16 or channels % 16 or blocks < 1:  # noqa: PLR2004  # the attention has a sixteenth
        raise ValueError("channels must be at least 16 and a multiple of it, blocks at least 1")
    if scale not in {1, 2}:
        raise ValueError("scale must be 1 or 2")
    return Imdn(channels, blocks, scale)
