"""The student of the `resblocks_x4` report: a "compact CNN" below a teacher of residual blocks, at full size.

The report gives neither widths nor a count. This is the smallest network of its teacher's kind, one residual block of
32 channels between two 3x3 layers: 20 K parameters, an assumption of ours.
"""

from torch import Tensor, nn


class CompactResnet(nn.Module):
    """One residual block, and a shortcut from the picture."""

    stride = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        features = self.head(picture)
        restored: Tensor = picture + self.tail(features + self.block(features))
        return restored


def build(channels: int = 32) -> CompactResnet:
    """Build our reading of the report."""
    return CompactResnet(channels)
