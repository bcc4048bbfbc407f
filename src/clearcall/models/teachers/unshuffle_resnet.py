"""A residual CNN that works in pixel-unshuffled space, where the same work sees a wider field."""

from torch import Tensor, nn

from clearcall.imaging.sizes import SizeContract
from clearcall.models.layers import ResidualBlock, detail_, pad_to, zero_


class UnshuffleResNet(nn.Module):
    """Unshuffle, conv, `blocks` residual blocks without normalisation (as in EDSR), conv, shuffle, add the input."""

    def __init__(self, channels: int, blocks: int, unshuffle: int) -> None:
        super().__init__()
        self.stride = unshuffle
        self.head = nn.Sequential(
            nn.PixelUnshuffle(unshuffle), detail_(nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1))
        )
        self.body = nn.Sequential(*(ResidualBlock(channels, slope=0.1) for _ in range(blocks)))
        self.tail = nn.Sequential(
            zero_(nn.Conv2d(channels, 3 * unshuffle**2, 3, padding=1)), nn.PixelShuffle(unshuffle)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        height, width = image.shape[-2:]
        padded = pad_to(image, SizeContract(self.stride))
        shallow = self.head(padded - 0.5)
        restored: Tensor = (padded + self.tail(shallow + self.body(shallow)))[..., :height, :width]
        return restored


def build(channels: int, blocks: int, unshuffle: int) -> UnshuffleResNet:
    """Build the teacher from its width, its depth and the stride of its unshuffle."""
    if min(channels, blocks, unshuffle) < 1:
        raise ValueError("channels, blocks and unshuffle must be at least 1")
    return UnshuffleResNet(channels, blocks, unshuffle)
