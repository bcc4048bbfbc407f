"""A residual CNN conditioned on the degradation.

One network for many degradations spends part of its depth on telling them apart. This one is told the name, which
selects a scale for each channel of each block (feature-wise linear modulation, Perez et al. 2018, arXiv 1709.07871).
Without a name it has to recognise the degradation from the image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearcall.imaging.sizes import SizeContract
from clearcall.models.layers import ResidualBlock, detail_, pad_to, zero_


class ScaledBlock(ResidualBlock):
    """A residual block with a scale for each channel of its residual."""

    def forward(self, features: Tensor, scale: Tensor | None = None) -> Tensor:
        """Add the residual, times 1 + `scale` of (N, channels, 1, 1), to features (N, channels, H, W)."""
        residual: Tensor = self.layers(features)
        return features + (residual if scale is None else (1 + scale) * residual)


class Conditioned(nn.Module):
    """Unshuffle, conv, residual blocks scaled by the degradation, conv, shuffle, add the input."""

    def __init__(self, degradations: Sequence[str], channels: int, blocks: int, unshuffle: int) -> None:
        super().__init__()
        self.stride, self.degradations = unshuffle, tuple(degradations)
        self.head = nn.Sequential(
            nn.PixelUnshuffle(unshuffle), detail_(nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1))
        )
        self.body = nn.Sequential(*(ScaledBlock(channels, slope=0.1) for _ in range(blocks)))
        self.tail = nn.Sequential(
            zero_(nn.Conv2d(channels, 3 * unshuffle**2, 3, padding=1)), nn.PixelShuffle(unshuffle)
        )
        # A row for each degradation, row 0 for an unknown one: a shift of the first features, then each block's scale.
        self.conditions = nn.Parameter(torch.zeros(1 + len(degradations), 1 + blocks, channels))

    def forward(self, image: Tensor, degradations: Sequence[str] = ()) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]; `degradations` names each image's; other names are unknown."""
        height, width = image.shape[-2:]
        padded = pad_to(image, SizeContract(self.stride))
        rows = [1 + self.degradations.index(name) if name in self.degradations else 0 for name in degradations] or [0]
        shift, *scales = self.conditions[rows][..., None, None].unbind(dim=1)
        shallow = self.head(padded - 0.5)
        features = shallow + shift
        for block, scale in zip(self.body, scales, strict=True):
            features = block(features, scale)
        restored: Tensor = (padded + self.tail(shallow + features))[..., :height, :width]
        return restored


def build(degradations: list[str], channels: int, blocks: int, unshuffle: int = 2) -> Conditioned:
    """Build the teacher from the degradations that it knows by name, its width, depth and unshuffle factor."""
    if min(channels, blocks, unshuffle) < 1:
        raise ValueError("channels, blocks and unshuffle must be at least 1")
    if len(set(degradations)) < len(degradations):
        raise ValueError("degradations must differ")
    return Conditioned(degradations, channels, blocks, unshuffle)
