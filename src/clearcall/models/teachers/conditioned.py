"""A residual CNN that is told how an image was degraded, and works it out where nobody knows.

One network for many degradations spends its depth on telling them apart; told, it need not. How the features of each
block are weighed depends on the degradation (FiLM: Perez et al. 2018, arXiv 1709.07871).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearcall.imaging.sizes import SizeContract
from clearcall.models.layers import ResidualBlock, detail_, pad_to, zero_


class WeighedBlock(ResidualBlock):
    """A residual block, the channels of whose answer are weighed."""

    def forward(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        """Add to (N, channels, H, W), by a `weight` of (N, channels, 1, 1) above one."""
        change: Tensor = self.layers(features)
        return features + (change if weight is None else (1 + weight) * change)


class Conditioned(nn.Module):
    """Unshuffle, conv, residual blocks whose channels are weighed by the degradation, conv, shuffle, add the input."""

    def __init__(self, degradations: Sequence[str], channels: int, blocks: int, unshuffle: int) -> None:
        super().__init__()
        self.stride, self.degradations = unshuffle, tuple(degradations)
        self.head = nn.Sequential(
            nn.PixelUnshuffle(unshuffle), detail_(nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1))
        )
        self.body = nn.Sequential(*(WeighedBlock(channels, slope=0.1) for _ in range(blocks)))
        self.tail = nn.Sequential(
            zero_(nn.Conv2d(channels, 3 * unshuffle**2, 3, padding=1)), nn.PixelShuffle(unshuffle)
        )
        # Row 0 is of a degradation that is not known. Of each row: what is added to the first features, then by how
        # much each block's channels are weighed above one.
        self.conditions = nn.Parameter(torch.zeros(1 + len(degradations), 1 + blocks, channels))

    def forward(self, image: Tensor, degradations: Sequence[str] = ()) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]; `degradations` has each image's, any other name: not known."""
        height, width = image.shape[-2:]
        padded = pad_to(image, SizeContract(self.stride))
        rows = [1 + self.degradations.index(name) if name in self.degradations else 0 for name in degradations] or [0]
        shift, *weights = self.conditions[rows][..., None, None].unbind(dim=1)
        shallow = self.head(padded - 0.5)
        features = shallow + shift
        for block, weight in zip(self.body, weights, strict=True):
            features = block(features, weight)
        restored: Tensor = (padded + self.tail(shallow + features))[..., :height, :width]
        return restored


def build(degradations: list[str], channels: int, blocks: int, unshuffle: int = 2) -> Conditioned:
    """Build the teacher from the degradations that it can be told, its width, depth and the stride of its unshuffle."""
    if min(channels, blocks, unshuffle) < 1:
        raise ValueError("channels, blocks and unshuffle must be at least 1")
    if len(set(degradations)) < len(degradations):
        raise ValueError("degradations must differ")
    return Conditioned(degradations, channels, blocks, unshuffle)
