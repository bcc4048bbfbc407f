"""SwinIR: Liang et al. 2021, "SwinIR: Image Restoration Using Swin Transformer", arXiv 2108.10257.

The teacher of the `clearsight` report: 180 channels, 6 blocks of 6 layers, 6 heads, windows of 8. Names of weights are
those of https://github.com/JingyunLiang/SwinIR (Apache-2.0), so that what is published there can be trained on (its
file below https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/, then its SHA-256):

- `pixelshuffle`, 11.8 M parameters: 001_classicalSR_DF2K_s64w8_SwinIR-M_x2.pth,
  2032ebf8f401dd3ce2fae5f3852117cb72101ec6ed8358faa64c2a3fa09ed4ac
- `pixelshuffledirect` with 60 channels and 4 blocks, 910 K parameters (the paper prints 878 K):
  002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2.pth,
  193b229909ca89cd8b55de9c9e7fce146ae759d59dfcd78d8feb9dd1d6fa0fd7
"""

from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clearcall.imaging.sizes import SizeContract
from clearcall.models.layers import halved, pad_to, zero_

Upsampler = Literal["none", "pixelshuffle", "pixelshuffledirect"]
_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's photographs, RGB
_UPSAMPLED_CHANNELS = 64
_APART = -100.0  # what keeps two places from seeing each other


def _windows(features: Tensor, window: int) -> Tensor:
    """Cut (N, H, W, C) into (N, windows, window^2, C)."""
    count, height, width, channels = features.shape
    cut = features.reshape(count, height // window, window, width // window, window, channels)
    return cut.transpose(2, 3).reshape(count, -1, window**2, channels)


def _joined(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Join (N, windows, window^2, C) to (N, H, W, C) again."""
    count, _, _, channels = windows.shape
    cut = windows.reshape(count, height // window, width // window, window, window, channels)
    return cut.transpose(2, 3).reshape(count, height, width, channels)


def _mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Return what keeps places apart that only a shift brought into one window: (windows, window^2, window^2)."""

    def zones(side: int) -> Tensor:
        places = torch.arange(side, device=device)
        return (places >= side - window).int() + (places >= side - window // 2).int()

    windows = _windows((3 * zones(height)[:, None] + zones(width))[None, ..., None], window)[0]
    return torch.where(windows == windows.transpose(1, 2), 0.0, _APART)


def _linear(in_channels: int, out_channels: int) -> nn.Linear:
    layer = nn.Linear(in_channels, out_channels)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


class _Attention(nn.Module):
    """Self-attention within windows, with a learned bias for each way that two places can lie to each other."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self._heads = heads
        steps = 2 * window - 1
        table = torch.empty(steps**2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        places = torch.arange(window**2)
        down, right = (place[:, None] - place + window - 1 for place in (places // window, places % window))
        self.register_buffer("relative_position_index", down * steps + right)
        self.qkv = _linear(channels, 3 * channels)
        self.proj = _linear(channels, channels)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self.qkv(windows).unflatten(-1, (3, self._heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index].movedim(-1, 0)
        if mask is not None:
            bias = bias + mask[:, None]
        seen = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1) + bias).softmax(dim=-1)
        attended: Tensor = self.proj((seen @ value).transpose(2, 3).flatten(-2))
        return attended


class _Layer(nn.Module):
    """Attention and two linear layers, each with a shortcut; every other layer's windows are shifted by half of one."""

    def __init__(self, channels: int, heads: int, window: int, mlp_ratio: float, *, shifted: bool) -> None:
        super().__init__()
        self._window, self._shift = window, window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn = _Attention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels)
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=_linear(channels, hidden), act=nn.GELU(), fc2=_linear(hidden, channels))
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        _, height, width, _ = features.shape
        moved = self.norm1(features)
        if self._shift:
            moved = moved.roll((-self._shift, -self._shift), (1, 2))
        attended = self.attn(_windows(moved, self._window), mask if self._shift else None)
        moved = _joined(attended, self._window, height, width)
        if self._shift:
            moved = moved.roll((self._shift, self._shift), (1, 2))
        features = features + moved
        added: Tensor = features + self.mlp(self.norm2(features))
        return added


class _Group(nn.Module):
    def __init__(self, channels: int, layers: int, heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Layer(channels, heads, window, mlp_ratio, shifted=number % 2 == 1) for number in range(layers)
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        for layer in self.blocks:
            features = layer(features, mask)
        return features


class _Block(nn.Module):
    """A residual Swin Transformer block, from (N, C, H, W) to the same."""

    def __init__(self, channels: int, layers: int, heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        self.residual_group = _Group(channels, layers, heads, window, mlp_ratio)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        added: Tensor = features + self.conv(self.residual_group(features.movedim(1, -1), mask).movedim(-1, 1))
        return added


class SwinIR(nn.Module):
    """A 3x3 layer, blocks and a 3x3 layer under a long shortcut, and one of three tails.

    Without an upsampler the tail predicts the residual at full size. With one, the image is restored anew from half
    its size, as a network for x2 does.
    """

    mean: Tensor

    def __init__(
        self,
        channels: int,
        blocks: int,
        layers: int,
        heads: int,
        window: int,
        mlp_ratio: float,
        upsampler: Upsampler,
    ) -> None:
        super().__init__()
        self._window, self._upsampler = window, upsampler
        self.stride = window if upsampler == "none" else 2 * window
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.patch_embed = nn.Sequential(OrderedDict(norm=nn.LayerNorm(channels)))
        self.layers = nn.ModuleList(_Block(channels, layers, heads, window, mlp_ratio) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = nn.Conv2d(channels, channels, 3, padding=1)
        if upsampler == "none":
            self.conv_last = zero_(nn.Conv2d(channels, 3, 3, padding=1))
        elif upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(nn.Conv2d(channels, 3 * 2**2, 3, padding=1), nn.PixelShuffle(2))
        else:
            wide = _UPSAMPLED_CHANNELS
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(channels, wide, 3, padding=1), nn.LeakyReLU())
            self.upsample = nn.Sequential(nn.Conv2d(wide, wide * 2**2, 3, padding=1), nn.PixelShuffle(2))
            self.conv_last = nn.Conv2d(wide, 3, 3, padding=1)
        self.register_load_state_dict_pre_hook(_without_masks)  # type: ignore[no-untyped-call]  # torch's own

    def _features(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        shallow = self.conv_first(image - self.mean)
        mask = _mask(height, width, self._window, image.device)
        features = self.patch_embed(shallow.movedim(1, -1)).movedim(-1, 1)
        for block in self.layers:
            features = block(features, mask)
        deep: Tensor = shallow + self.conv_after_body(self.norm(features.movedim(1, -1)).movedim(-1, 1))
        return deep

    def enlarge(self, image: Tensor) -> Tensor:
        """Upscale (N, 3, h, w) by 2; sides are multiples of the window."""
        features = self._features(image)
        if self._upsampler == "pixelshuffle":
            features = self.conv_before_upsample(features)
        upscaled: Tensor = self.upsample(features)
        return (upscaled if self._upsampler == "pixelshuffledirect" else self.conv_last(upscaled)) + self.mean

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        height, width = image.shape[-2:]
        padded = pad_to(image, SizeContract(self.stride))
        if self._upsampler == "none":
            restored: Tensor = padded + self.conv_last(self._features(padded))
        else:
            restored = self.enlarge(halved(padded))
        return restored[..., :height, :width]


def _without_masks(_module: nn.Module, state: dict[str, Any], *_rest: object) -> None:
    """Leave out the masks that published files hold for one size of image; here they are made for every size."""
    for name in [name for name in state if name.endswith("attn_mask")]:
        del state[name]


def build(
    channels: int,
    blocks: int,
    layers: int = 6,
    heads: int = 6,
    window: int = 8,
    mlp_ratio: float = 2.0,
    upsampler: Upsampler = "none",
) -> SwinIR:
    """Build the teacher: `blocks` residual blocks of `layers` transformer layers each.

    Published with 180 channels and 6 blocks, or with 60 and 4 and `pixelshuffledirect` as the lightweight variant.
    """
    if min(channels, blocks, layers, heads) < 1 or mlp_ratio <= 0:
        raise ValueError("channels, blocks, layers and heads must be at least 1, mlp_ratio above 0")
    if window < 2 or window % 2:  # noqa: PLR2004  # windows are shifted by half of one
        raise ValueError("window must be even and at least 2")
    if channels % heads:
        raise ValueError(f"channels must be a multiple of heads, which {channels} is not of {heads}")
    return SwinIR(channels, blocks, layers, heads, window, mlp_ratio, upsampler)
