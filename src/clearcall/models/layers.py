"""Architectures: one a file, in `teachers` and `students`; the folder's listing is the registry.

Every network takes RGB of shape (N, 3, H, W), float32 in [0, 1], of any height and width, and returns the restored
image in the same form, not clipped. Untrained, a network returns its input (but for `swinir` with an upsampler, which
is published so). Each has a `stride`, which exported images' sides must be multiples of.

Networks that were published to enlarge work on the image at half size here, and have the published part as `enlarge`.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clearcall.imaging.sizes import SizeContract


def pad_to(image: Tensor, contract: SizeContract) -> Tensor:
    """Pad to a size contract by repeating the last rows and columns; the caller crops."""
    bottom, right = (contract.padded(side) - side for side in image.shape[-2:])
    if bottom == right == 0:
        return image
    return nn.functional.pad(image, (0, right, 0, bottom), mode="replicate")


def halved(image: Tensor) -> Tensor:
    """Return (N, 3, H, W) at half resolution by Pillow's antialiased bicubic filter.

    Its kernel (Keys 1981 with a = -0.5, stretched over eight pixels) is exact in 256ths; beyond its borders an image
    goes on with its last rows and columns.
    """
    taps = torch.tensor([-3.0, -9.0, 29.0, 111.0, 111.0, 29.0, -9.0, -3.0], device=image.device) / 256
    kernel = (taps[:, None] * taps).expand(3, 1, 8, 8)
    return nn.functional.conv2d(nn.functional.pad(image, (3, 3, 3, 3), mode="replicate"), kernel, stride=2, groups=3)


def add_enlarged(image: Tensor, scale: int, enlarge: Callable[[Tensor], Tensor]) -> Tensor:
    """Return an image plus what a network makes of it at 1/`scale` of its resolution (1 or 2).

    Nothing that the image knows is lost on the way, and from half the size it takes a quarter of the work.
    """
    height, width = image.shape[-2:]
    padded = pad_to(image, SizeContract(scale))
    return (padded + enlarge(padded if scale == 1 else halved(padded)))[..., :height, :width]


class Residual(nn.Module):
    """A body and a 3x3 layer, at full resolution, predict the residual of the image."""

    stride = 1

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.tail = zero_(nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        restored: Tensor = image + self.tail(self.body(image))
        return restored


def parameter_count(model: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())


class CollapsibleConv(nn.Module):
    """A convolution trained wide, deployed narrow (SESR, Bhardwaj et al. 2022, arXiv 2103.09404).

    It is trained as a k x k convolution to `width` channels followed by a 1x1, nothing in between, and a shortcut where
    input and output have the same form: more values to learn with, but the same function as one k x k convolution,
    whose kernel is worked out anew at each call (cheap, next to the images) and once and for all by `collapsed`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, width: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(in_channels, width, kernel_size, stride, padding, bias=False)
        self.project = nn.Conv2d(width, out_channels, 1)
        self._shortcut = in_channels == out_channels and stride == 1

    def kernel(self) -> Tensor:
        """Return the one kernel that this stands for, (out_channels, in_channels, k, k)."""
        kernel = torch.einsum("ow,wikl->oikl", self.project.weight[:, :, 0, 0], self.expand.weight)
        if not self._shortcut:
            return kernel
        identity = torch.eye(kernel.shape[0], device=kernel.device, dtype=kernel.dtype)
        middle = kernel.shape[-1] // 2
        return kernel + nn.functional.pad(identity[..., None, None], (middle, middle, middle, middle))

    def forward(self, features: Tensor) -> Tensor:
        """Convolve (N, in_channels, H, W)."""
        expand = self.expand
        return nn.functional.conv2d(features, self.kernel(), self.project.bias, expand.stride, expand.padding)

    @torch.no_grad()
    def collapsed(self) -> nn.Conv2d:
        """Return the same function as an ordinary convolution."""
        kernel, expand = self.kernel(), self.expand
        out_channels, in_channels, size, _ = kernel.shape
        plain = nn.Conv2d(in_channels, out_channels, size, expand.stride, expand.padding)  # type: ignore[arg-type]  # pairs
        plain.weight.copy_(kernel)
        if plain.bias is not None and self.project.bias is not None:
            plain.bias.copy_(self.project.bias)
        return plain


class ResidualBlock(nn.Module):
    """Two 3x3 layers and a shortcut, without normalisation (EDSR, Lim et al. 2017); a `slope` of 0 is ReLU."""

    def __init__(self, channels: int, slope: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add to (N, channels, H, W)."""
        added: Tensor = features + self.layers(features)
        return added


def collapsed(model: nn.Module) -> nn.Module:
    """Return a copy of a network for evaluation, whose linear layers are merged.

    Collapsible convolutions are collapsed, and each batch normalisation becomes part of the convolution before it.
    """
    plain = copy.deepcopy(model).eval()
    for parent in list(plain.modules()):
        if isinstance(parent, nn.Sequential):
            _fold_normalisations(parent)
        for name, child in list(parent.named_children()):
            if isinstance(child, CollapsibleConv):
                setattr(parent, name, child.collapsed())
    return plain.requires_grad_(requires_grad=False)


def _fold_normalisations(layers: nn.Sequential) -> None:
    for index in reversed(range(1, len(layers))):
        conv, norm = layers[index - 1], layers[index]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index - 1] = fuse_conv_bn_eval(conv, norm)
            del layers[index]


@torch.no_grad()
def detail_(layer: nn.Conv2d) -> nn.Conv2d:
    """Let each filter of a first layer sum to zero, at four times the usual scale, in place.

    What is missing from a blurred image does not depend on how bright it is, but brightness dwarfs detail: with the
    usual weights a network spends its first thousands of steps cancelling it.
    """
    layer.weight -= layer.weight.mean(dim=(1, 2, 3), keepdim=True)
    layer.weight *= 4
    if layer.bias is not None:
        layer.bias.zero_()
    return layer


def he_(layers: nn.Module) -> None:
    """Initialise all convolutions for ReLU (He et al. 2015), with zero biases, in place.

    By torch's usual draw a signal fades layer by layer, and a deep plain network hardly learns at first.
    """
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def zero_(layer: nn.Conv2d) -> nn.Conv2d:
    """Set a layer to zero, in place, so that a residual network starts as the identity."""
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    return layer
