"""The teacher of the `resblocks_x4` report: "several residual blocks, deep and wide", at full size.

The report gives neither widths nor a count; this is the body of EDSR (Lim et al. 2017, arXiv 1707.02921, whose baseline
has 16 blocks of 64 channels) without its enlarging tail.
"""

from torch import Tensor, nn

from clearcall.models.layers import ResidualBlock, zero_


class ResidualBlocks(nn.Module):
    """A 3x3 layer, residual blocks and a 3x3 layer under a long shortcut, a 3x3 layer to the residual."""

    stride = 1

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualBlock(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = zero_(nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        shallow = self.head(image)
        restored: Tensor = image + self.tail(shallow + self.body(shallow))
        return restored


def build(channels: int, blocks: int) -> ResidualBlocks:
    """Build the teacher from its width and its depth."""
    if min(channels, blocks) < 1:
        raise ValueError("channels and blocks must be at least 1")
    return ResidualBlocks(channels, blocks)
