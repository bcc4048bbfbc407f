"""The student of the `resblocks_x4` report: a "compact CNN" at full resolution.

The report gives neither widths nor a count. This is the smallest network of its teacher's kind, one residual block of
32 channels between two 3x3 layers: 20 K parameters, an assumption of ours.
"""

from torch import Tensor, nn

from clearcall.models.layers import ResidualBlock, zero_


class CompactResnet(nn.Module):
    """One residual block, and a shortcut from the image."""

    stride = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU())
        self.block = ResidualBlock(channels)
        self.tail = zero_(nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        restored: Tensor = image + self.tail(self.block(self.head(image)))
        return restored


def build(channels: int) -> CompactResnet:
    """Build our reading of the report; 32 channels are our guess."""
    if channels < 1:
        raise ValueError("channels must be at least 1")
    return CompactResnet(channels)
