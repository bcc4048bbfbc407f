"""Restormer: Zamir et al. 2022, "Restormer: Efficient Transformer for High-Resolution Image Restoration".

arXiv 2111.09881: 48 channels, 26.1 M parameters. The `gopro_unet` report names it beside its U-Net. Names of weights
are those of the deblurring networks at https://github.com/swz30/Restormer (MIT), so that these can be trained on.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearcall.imaging.sizes import SizeContract
from clearcall.models.layers import pad_to, zero_

_HEADS = (1, 2, 4, 8)
_LEVELS = 4
_WIDER = 2.66  # of the gated layers


class _Norm(nn.Module):
    """Layer normalisation over the channels of each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        normalised: Tensor = self.body(features.movedim(1, -1)).movedim(-1, 1)
        return normalised


class _Attention(nn.Module):
    """Self-attention between channels, whose cost grows with the image's area and not with its square."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        heads = self.temperature.shape[0]
        mixed = self.qkv_dwconv(self.qkv(features)).flatten(2).unflatten(1, (3, heads, -1))
        query, key, value = mixed.unbind(1)  # (N, heads, channels / heads, places)
        query, key = nn.functional.normalize(query, dim=-1), nn.functional.normalize(key, dim=-1)
        seen = (query @ key.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        attended: Tensor = self.project_out((seen @ value).flatten(1, 2).view_as(features))
        return attended


class _Gated(nn.Module):
    """Two ways through wide layers, one of which opens and closes the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = int(channels * _WIDER)
        self.project_in = nn.Conv2d(channels, 2 * wide, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * wide, 2 * wide, 3, padding=1, groups=2 * wide, bias=False)
        self.project_out = nn.Conv2d(wide, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        gate, passed = self.dwconv(self.project_in(features)).chunk(2, dim=1)
        out: Tensor = self.project_out(nn.functional.gelu(gate) * passed)
        return out


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = _Norm(channels), _Attention(channels, heads)
        self.norm2, self.ffn = _Norm(channels), _Gated(channels)

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.attn(self.norm1(features))
        added: Tensor = features + self.ffn(self.norm2(features))
        return added


def _blocks(channels: int, heads: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels, heads) for _ in range(count)))


def _resized(channels: int, out_channels: int, shuffle: nn.Module) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), shuffle)
    return nn.Sequential(OrderedDict(body=layers))


class Restormer(nn.Module):
    """A U-Net of transformer blocks on four levels, blocks that refine at full size, a 3x3 layer to the residual."""

    stride = 2 ** (_LEVELS - 1)

    def __init__(self, channels: int, blocks: Sequence[int]) -> None:
        super().__init__()
        one, two, three, four = (channels * 2**level for level in range(_LEVELS))
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, channels, 3, padding=1, bias=False)))
        self.encoder_level1 = _blocks(one, _HEADS[0], blocks[0])
        self.down1_2 = _resized(one, one // 2, nn.PixelUnshuffle(2))
        self.encoder_level2 = _blocks(two, _HEADS[1], blocks[1])
        self.down2_3 = _resized(two, two // 2, nn.PixelUnshuffle(2))
        self.encoder_level3 = _blocks(three, _HEADS[2], blocks[2])
        self.down3_4 = _resized(three, three // 2, nn.PixelUnshuffle(2))
        self.latent = _blocks(four, _HEADS[3], blocks[3])
        self.up4_3 = _resized(four, 2 * four, nn.PixelShuffle(2))
        self.reduce_chan_level3 = nn.Conv2d(2 * three, three, 1, bias=False)
        self.decoder_level3 = _blocks(three, _HEADS[2], blocks[2])
        self.up3_2 = _resized(three, 2 * three, nn.PixelShuffle(2))
        self.reduce_chan_level2 = nn.Conv2d(2 * two, two, 1, bias=False)
        self.decoder_level2 = _blocks(two, _HEADS[1], blocks[1])
        self.up2_1 = _resized(two, 2 * two, nn.PixelShuffle(2))
        # On the first level what comes from both sides is not narrowed again.
        self.decoder_level1 = _blocks(2 * one, _HEADS[0], blocks[0])
        self.refinement = _blocks(2 * one, _HEADS[0], blocks[4])
        self.output = zero_(nn.Conv2d(2 * one, 3, 3, padding=1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        height, width = image.shape[-2:]
        padded = pad_to(image, SizeContract(self.stride))
        one = self.encoder_level1(self.patch_embed(padded))
        two = self.encoder_level2(self.down1_2(one))
        three = self.encoder_level3(self.down2_3(two))
        up = self.up4_3(self.latent(self.down3_4(three)))
        up = self.decoder_level3(self.reduce_chan_level3(torch.cat([up, three], dim=1)))
        up = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(up), two], dim=1)))
        features = self.refinement(self.decoder_level1(torch.cat([self.up2_1(up), one], dim=1)))
        restored: Tensor = (padded + self.output(features))[..., :height, :width]
        return restored


def build(channels: int, blocks: Sequence[int] = (4, 6, 6, 8, 4)) -> Restormer:
    """Build the teacher from its width and the numbers of blocks on its four levels and in its refinement."""
    if channels < 2 or channels % 2:  # noqa: PLR2004  # on the way down they are halved
        raise ValueError("channels must be at least 2 and a multiple of it")
    if len(blocks) != _LEVELS + 1 or min(blocks) < 1:
        raise ValueError(f"blocks must be five numbers of at least 1, not {list(blocks)}")
    return Restormer(channels, blocks)
