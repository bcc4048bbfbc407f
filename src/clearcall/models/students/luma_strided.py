"""A tiny network that predicts what is missing from the luma, at a half or a quarter of height and width.

The eye and SSIM alike see detail in luma; the chroma of a call is coarse anyway. The same luma residual is added to
R, G and B, which changes Y and leaves Cb and Cr as they are, without a round trip through 8-bit YCbCr.
"""

import torch
from torch import Tensor, nn

from clearcall.models import CollapsibleConv, detail_, pad_to_multiple, zero_

# ITU-R BT.601's weights of R, G and B in the fixed point that OpenCV uses: 32768 is one.
LUMA_WEIGHTS, LUMA_ONE = (9798.0, 19235.0, 3735.0), 32768.0
# Smaller frames are continued by their last rows and columns; it is a multiple of all strides.
SMALLEST_SIDE = 32  # pixels: as many as the router's filters have taps


class LumaStrided(nn.Module):
    """A strided stem that reaches two pixels beyond its block, 3x3 layers, a 1x1 layer to the sub-pixels, a shuffle."""

    luma_weights: Tensor

    def __init__(self, channels: int, body_layers: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("luma_weights", torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1), persistent=False)

        def conv(in_channels: int, size: int, step: int, padding: int) -> nn.Conv2d | CollapsibleConv:
            if expansion:
                return CollapsibleConv(in_channels, channels, size, width=expansion, stride=step, padding=padding)
            return nn.Conv2d(in_channels, channels, size, step, padding)

        stem = conv(1, stride + 4, stride, 2)
        detail_(stem.expand if isinstance(stem, CollapsibleConv) else stem)
        layers: list[nn.Module] = [stem, nn.LeakyReLU(0.1, inplace=True)]
        for _ in range(body_layers):
            layers += [conv(channels, 3, 1, 1), nn.LeakyReLU(0.1, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.tail = zero_(nn.Conv2d(channels, stride**2, 1))

    def luma(self, picture: Tensor) -> Tensor:
        """Return the luma of RGB in [0, 1] as (N, 1, H, W) in [0, 1], in whole grey levels, as 8-bit video has it.

        The same as OpenCV's conversion of an 8-bit frame, so that training sees what the runtime will feed.
        """
        grey_levels = (picture * 255).round()
        weighted = (grey_levels * self.luma_weights).sum(1, keepdim=True)
        return ((weighted + LUMA_ONE / 2) / LUMA_ONE).floor() / 255

    def sub_pixels(self, luma: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to add to luma of (N, 1, H, W) in [0, 1], before the shuffle, and the last feature maps.

        They are (N, stride^2, H / stride, W / stride) and (N, channels, H / stride, W / stride); H and W are multiples
        of the stride, at least `SMALLEST_SIDE`.
        """
        features = self.body(luma)
        return self.tail(features), features

    def padded_luma(self, picture: Tensor) -> Tensor:
        """Return the luma of RGB, both in [0, 1], continued until its sides suit the network."""
        luma = pad_to_multiple(self.luma(picture), self.stride)
        below, beside = (max(0, SMALLEST_SIDE - side) for side in luma.shape[-2:])
        return nn.functional.pad(luma, (0, beside, 0, below), mode="replicate") if below or beside else luma

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels, H / stride, W / stride)."""
        height, width = picture.shape[-2:]
        sub_pixels, features = self.sub_pixels(self.padded_luma(picture))
        residual = nn.functional.pixel_shuffle(sub_pixels, self.stride)
        return picture + residual[..., :height, :width], features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of shape (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(channels: int, body_layers: int, stride: int = 2, expansion: int = 0) -> LumaStrided:
    """Build the student from its width, the number of 3x3 layers between stem and tail, and the stem's stride.

    With an `expansion` above 0 each layer is trained as wide as that and collapsed at export.
    """
    if channels < 1 or body_layers < 0 or expansion < 0:
        raise ValueError("channels must be at least 1, body_layers and expansion at least 0")
    if stride not in {2, 4}:
        raise ValueError("stride must be 2 or 4")
    return LumaStrided(channels, body_layers, stride, expansion)
