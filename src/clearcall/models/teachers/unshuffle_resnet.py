"""A residual CNN that works in pixel-unshuffled space, where the same work sees a wider field."""

from torch import Tensor, nn

from clearcall.models.layers import detail_, pad_to_multiple, zero_


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = features + self.layers(features)
        return added


class UnshuffleResNet(nn.Module):
    """Unshuffle, conv, `blocks` residual blocks without normalisation (as in EDSR), conv, shuffle, add the input."""

    def __init__(self, channels: int, blocks: int, unshuffle: int) -> None:
        super().__init__()
        self.stride = unshuffle
        self.head = nn.Sequential(
            nn.PixelUnshuffle(unshuffle), detail_(nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1))
        )
        self.body = nn.Sequential(*(_Block(channels) for _ in range(blocks)))
        self.tail = nn.Sequential(
            zero_(nn.Conv2d(channels, 3 * unshuffle**2, 3, padding=1)), nn.PixelShuffle(unshuffle)
        )

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the body's output, (N, channels, H / unshuffle, W / unshuffle)."""
        height, width = picture.shape[-2:]
        padded = pad_to_multiple(picture, self.stride)
        shallow = self.head(padded - 0.5)
        features = shallow + self.body(shallow)
        return (padded + self.tail(features))[..., :height, :width], features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of shape (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(channels: int, blocks: int, unshuffle: int) -> UnshuffleResNet:
    """Build the teacher from its width, its depth and the stride of its unshuffle."""
    if min(channels, blocks, unshuffle) < 1:
        raise ValueError("channels, blocks and unshuffle must be at least 1")
    return UnshuffleResNet(channels, blocks, unshuffle)
