"""The student of the `clearsight` report: a shortened IMDN for x2, two 3x3 layers a block.

466 K parameters, of which 1,731 are of a layer that is never called and not built here; Team ClearSight, "Image
Sharpening Using Knowledge Distillation for Video Conferencing", 2025, https://github.com/abhi68402/Team-ClearSight.
"""

import torch
from torch import Tensor, nn

from clearcall.models.layers import add_enlarged, zero_

SLOPE = 0.05


class _Block(nn.Module):
    """Of what the first layer makes, a quarter goes past the second; a 1x1 layer fuses both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kept = channels // 4
        self._split = [kept, channels - kept]
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels - kept, channels, 3, padding=1)
        self.fuse = nn.Conv2d(channels + kept, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        kept, rest = torch.split(nn.functional.leaky_relu(self.first(features), SLOPE), self._split, dim=1)
        rest = nn.functional.leaky_relu(self.second(rest), SLOPE)
        added: Tensor = features + self.fuse(torch.cat([kept, rest], dim=1))
        return added


class ClearsightImdn(nn.Module):
    """A stem, blocks under a long shortcut, a pixel shuffle."""

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.stride = scale
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(
            *(_Block(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Sequential(zero_(nn.Conv2d(channels, 3 * scale**2, 3, padding=1)), nn.PixelShuffle(scale))

    def enlarge(self, image: Tensor) -> Tensor:
        """Return what the network makes of (N, 3, h, w): the residual, upscaled by the scale."""
        stem = self.stem(image)
        residual: Tensor = self.tail(stem + self.body(stem))
        return residual

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        return add_enlarged(image, self.stride, self.enlarge)


def build(channels: int, blocks: int, scale: int = 2) -> ClearsightImdn:
    """Build the student; published with 64 channels and 6 blocks for x2. At a `scale` of 1 it works at full size."""
    if channels < 4 or channels % 4 or blocks < 1:  # noqa: PLR2004  # quarters
        raise ValueError("channels must be at least 4 and a multiple of it, blocks at least 1")
    if scale not in {1, 2}:
        raise ValueError("scale must be 1 or 2")
    return ClearsightImdn(channels, blocks, scale)
