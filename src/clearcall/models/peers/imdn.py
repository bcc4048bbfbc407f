"""IMDN for x2: Hui et al. 2019, "Lightweight Image Super-Resolution with Information Multi-distillation Network".

arXiv 1909.11856, 694 K parameters; https://github.com/Zheng222/IMDN.
"""

import torch
from torch import Tensor, nn

SLOPE = 0.05


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
        deviation = (features - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
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

    stride = 1

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(channels) for _ in range(blocks))
        self.fuse = nn.Sequential(
            nn.Conv2d(channels * blocks, channels, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, picture: Tensor) -> Tensor:
        """Enlarge RGB of (N, 3, H, W) in [0, 1]."""
        stem = features = self.stem(picture)
        outputs = []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        enlarged: Tensor = self.tail(stem + self.fuse(torch.cat(outputs, dim=1)))
        return enlarged


def build(channels: int = 64, blocks: int = 6, scale: int = 2) -> Imdn:
    """Build IMDN as published."""
    return Imdn(channels, blocks, scale)
