"""A tiny network that predicts what is missing from the luma, at half the height and width.

The eye and SSIM alike see detail in luma; the chroma of a call is coarse anyway. The same luma residual is added to
R, G and B, which changes Y and leaves Cb and Cr as they are, without a round trip through 8-bit YCbCr.
"""

import torch
from torch import Tensor, nn

from clearcall.models import detail_, pad_to_multiple, zero_

STRIDE = 2
# ITU-R BT.601's weights of R, G and B in the fixed point that OpenCV uses: 32768 is one.
LUMA_WEIGHTS, LUMA_ONE = (9798.0, 19235.0, 3735.0), 32768.0


class LumaStrided(nn.Module):
    """A 6x6 stem of stride 2, 3x3 layers, a 1x1 layer to the four sub-pixels and a shuffle, all on luma."""

    stride = STRIDE
    luma_weights: Tensor

    def __init__(self, channels: int, body_layers: int) -> None:
        super().__init__()
        self.register_buffer("luma_weights", torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1), persistent=False)
        stem = detail_(nn.Conv2d(1, channels, 6, stride=STRIDE, padding=2))
        layers: list[nn.Module] = [stem, nn.LeakyReLU(0.1, inplace=True)]
        for _ in range(body_layers):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.tail = zero_(nn.Conv2d(channels, STRIDE**2, 1))

    def luma(self, picture: Tensor) -> Tensor:
        """Return the luma of RGB in [0, 1] as (N, 1, H, W) in [0, 1], in whole grey levels, as 8-bit video has it.

        The same as OpenCV's conversion of an 8-bit frame, so that training sees what the runtime will feed.
        """
        grey_levels = (picture * 255).round()
        weighted = (grey_levels * self.luma_weights).sum(1, keepdim=True)
        return ((weighted + LUMA_ONE / 2) / LUMA_ONE).floor() / 255

    def sub_pixels(self, luma: Tensor) -> Tensor:
        """Return what to add to luma of (N, 1, H, W) in [0, 1], H and W even, as (N, 4, H / 2, W / 2)."""
        residual: Tensor = self.tail(self.body(luma))
        return residual

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels, H / 2, W / 2)."""
        height, width = picture.shape[-2:]
        luma = pad_to_multiple(self.luma(picture), STRIDE)
        features = self.body(luma)
        residual = nn.functional.pixel_shuffle(self.tail(features), STRIDE)
        return picture + residual[..., :height, :width], features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of shape (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(channels: int, body_layers: int) -> LumaStrided:
    """Build the student from its width and the number of 3x3 layers between stem and tail."""
    if channels < 1 or body_layers < 0:
        raise ValueError("channels must be at least 1 and body_layers at least 0")
    return LumaStrided(channels, body_layers)
