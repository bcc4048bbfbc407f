"""IMDN-RTC for x2, winner of the challenge "AI in RTC": a narrow IMDN without attention and fusion.

20 K parameters; described beside IMDN (Hui et al. 2019) at https://github.com/Zheng222/IMDN.
"""

from torch import Tensor, nn

from clearcall.models.students.imdn import MultiDistillation


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(MultiDistillation(channels), nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = features + self.layers(features)
        return added


class ImdnRtc(nn.Module):
    """A stem, blocks one after the other under a long shortcut, a pixel shuffle."""

    stride = 1

    def __init__(self, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*(_Block(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 1))
        self.tail = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge RGB of (N, 3, H, W) in [0, 1]."""
        stem = self.stem(image)
        enlarged: Tensor = self.tail(stem + self.body(stem))
        return enlarged


def build(channels: int = 12, blocks: int = 5, scale: int = 2) -> ImdnRtc:
    """Build IMDN-RTC as published."""
    return ImdnRtc(channels, blocks, scale)
