"""A tiny network that predicts the luma residual at a half or a quarter of the resolution.

The eye and SSIM alike see detail in luma. The same luma residual is added to R, G and B, which changes Y and leaves Cb
and Cr as they are, without a round trip through 8-bit YCbCr. With `colour` the network also takes Cb and Cr at half
resolution, as 4:2:0 video has them, and predicts what is missing from them: at stride 2 that is the resolution of its
features, so it costs next to nothing.
"""

import torch
from torch import Tensor, nn

from clearcall.imaging.frame import (
    CHROMA_LUMA_WEIGHTS,
    CHROMA_ONE,
    CHROMA_PLANES,
    CHROMA_STRIDE,
    CHROMA_TO_RGB,
    CHROMA_WEIGHTS,
    LUMA_ONE,
    LUMA_WEIGHTS,
    NEUTRAL,
)
from clearcall.imaging.sizes import SMALLEST_SIDE, SizeContract
from clearcall.models.layers import CollapsibleConv, detail_, pad_to, zero_


class LumaStrided(nn.Module):
    """A strided stem, 3x3 layers, a 1x1 layer to the sub-pixels, a pixel shuffle."""

    luma_weights: Tensor
    chroma_to_rgb: Tensor

    def __init__(self, channels: int, body_layers: int, stride: int, expansion: int, *, colour: bool) -> None:
        super().__init__()
        self.stride, self.colour = stride, colour
        self.register_buffer("luma_weights", torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("chroma_to_rgb", torch.tensor(CHROMA_TO_RGB)[..., None, None], persistent=False)

        def conv(in_channels: int, size: int, step: int, padding: int) -> nn.Conv2d | CollapsibleConv:
            if expansion:
                return CollapsibleConv(in_channels, channels, size, width=expansion, stride=step, padding=padding)
            return nn.Conv2d(in_channels, channels, size, step, padding)

        def stem(in_channels: int, size: int, step: int, padding: int) -> nn.Conv2d | CollapsibleConv:
            layer = conv(in_channels, size, step, padding)
            detail_(layer.expand if isinstance(layer, CollapsibleConv) else layer)
            return layer

        layers: list[nn.Module] = [stem(1, stride + 4, stride, 2), nn.LeakyReLU(0.1, inplace=True)]
        for _ in range(body_layers):
            layers += [conv(channels, 3, 1, 1), nn.LeakyReLU(0.1, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.chroma_stem = stem(CHROMA_PLANES, 3, 1, 1) if colour else None
        self.tail = zero_(nn.Conv2d(channels, stride**2 + (CHROMA_PLANES if colour else 0), 1))

    def luma(self, image: Tensor) -> Tensor:
        """Return the luma (N, 1, H, W) of RGB, both in [0, 1], rounded to 8-bit levels.

        The same as OpenCV's conversion of an 8-bit frame, so that training sees what the runtime will feed.
        """
        levels = (image * 255).round()
        weighted = (levels * self.luma_weights).sum(1, keepdim=True)
        return ((weighted + LUMA_ONE / 2) / LUMA_ONE).floor() / 255

    def chroma(self, image: Tensor) -> Tensor:
        """Return Cb and Cr (N, 2, H / 2, W / 2) of RGB, both in [0, 1], rounded to 8-bit levels.

        The same as OpenCV's: means of 2 x 2 pixels, rounded, then converted.
        """
        means = nn.functional.avg_pool2d((image * 255).round(), CHROMA_STRIDE)
        means = (means + 0.5).floor()
        red, green, blue = means.unbind(dim=1)
        weights = CHROMA_LUMA_WEIGHTS
        luma = ((red * weights[0] + green * weights[1] + blue * weights[2] + CHROMA_ONE / 2) / CHROMA_ONE).floor()
        differences = torch.stack([(blue - luma) * CHROMA_WEIGHTS[0], (red - luma) * CHROMA_WEIGHTS[1]], dim=1)
        return ((differences + CHROMA_ONE / 2) / CHROMA_ONE + NEUTRAL).floor().clamp(0, 255) / 255

    def features(self, luma: Tensor, chroma: Tensor | None = None) -> Tensor:
        """Return the last feature maps (N, channels, H / stride, W / stride) of luma (N, 1, H, W).

        H and W keep the size contract. With `colour` the network also takes `chroma`, see the method of that name.
        """
        if self.chroma_stem is None:
            features: Tensor = self.body(luma)
        else:
            features = self.body[1:](self.body[0](luma) + self.chroma_stem(chroma))
        return features

    def padded(self, image: Tensor) -> Tensor:
        """Return an image (N, C, H, W) padded to the size contract by its last rows and columns."""
        return pad_to(image, SizeContract(self.stride, SMALLEST_SIDE))

    def padded_luma(self, image: Tensor) -> Tensor:
        """Return the luma of RGB, both in [0, 1], padded to the size contract."""
        return self.padded(self.luma(image))

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        height, width = image.shape[-2:]
        chroma = self.chroma(self.padded(image)) if self.colour else None
        # What to add to luma before the shuffle: stride^2 planes; with `colour` two more, what to add to chroma.
        sub_pixels = self.tail(self.features(self.padded_luma(image), chroma))
        residual = nn.functional.pixel_shuffle(sub_pixels[:, : self.stride**2], self.stride)
        if self.colour:
            coarse = nn.functional.conv2d(sub_pixels[:, self.stride**2 :], self.chroma_to_rgb)
            residual = residual + nn.functional.interpolate(coarse, scale_factor=CHROMA_STRIDE, mode="bilinear")
        return image + residual[..., :height, :width]


def build(channels: int, body_layers: int, stride: int = 2, expansion: int = 0, *, colour: bool = False) -> LumaStrided:
    """Build the student from its width, number of 3x3 layers and stride.

    With an `expansion` above 0 each layer is trained as wide as that and collapsed at export. With `colour` it restores
    chroma too.
    """
    if channels < 1 or body_layers < 0 or expansion < 0:
        raise ValueError("channels must be at least 1, body_layers and expansion at least 0")
    if stride not in {2, 4}:
        raise ValueError("stride must be 2 or 4")
    if colour and stride != CHROMA_STRIDE:
        raise ValueError(f"colour needs the stride {CHROMA_STRIDE}, at which chroma has the resolution of the features")
    return LumaStrided(channels, body_layers, stride, expansion, colour=colour)
