"""The student of the `clearsight` report: a shortened IMDN for x2, two 3x3 layers a block.

466 K parameters; Team ClearSight, "Image Sharpening Using Knowledge Distillation for Video Conferencing", 2025,
https://github.com/abhi68402/Team-ClearSight.
"""

import torch
from torch import Tensor, nn

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

    stride = 1

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(
            *(_Block(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        # Theirs has it and never calls it: it is among their 466 K parameters and costs no time.
        self.unused = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """Enlarge RGB of (N, 3, H, W) in [0, 1]."""
        stem = self.stem(picture)
        enlarged: Tensor = self.tail(stem + self.body(stem))
        return enlarged


def build(channels: int = 64, blocks: int = 6, scale: int = 2) -> ClearsightImdn:
    """Build the student as published."""
    return ClearsightImdn(channels, blocks, scale)
