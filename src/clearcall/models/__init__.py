"""Architectures: one a file, in `teachers` and `students`; the folder's listing is the registry.

Every network takes RGB of shape (N, 3, H, W), float32 in [0, 1], of any height and width, and returns the restored
picture in the same form, not clipped. Networks are residual: untrained, they return their input. Each has a `stride`,
which exported pictures' sides must be multiples of, and `forward_features`, which returns the restored picture and the
last feature maps before it, (N, C, h, w).
"""

import copy
import importlib
import inspect
from typing import Any, cast

import torch
from pydantic import ConfigDict, validate_call
from torch import Tensor, nn

from clearcall.architectures import Kind, require_known
from clearcall.errors import UserError


def build_model(kind: Kind, name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build an architecture by name; raise UserError for an unknown name or arguments that its `build` refuses."""
    require_known(kind, name)
    build = importlib.import_module(f"{__name__}.{kind}.{name}").build
    signature = inspect.signature(build)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UserError(f"{kind[:-1]} {name} takes {signature}: {error}") from None
    try:
        # Strict: "48" or 2.5 channels are mistakes. Its ValidationError is a ValueError.
        return cast(nn.Module, validate_call(config=ConfigDict(strict=True))(build)(**arguments))
    except ValueError as error:
        raise UserError(f"{kind[:-1]} {name}: {error}") from None


def pad_to_multiple(picture: Tensor, multiple: int) -> Tensor:
    """Repeat the last rows and columns until height and width are multiples of `multiple`; the caller crops."""
    bottom, right = -picture.shape[-2] % multiple, -picture.shape[-1] % multiple
    if bottom == right == 0:
        return picture
    return nn.functional.pad(picture, (0, right, 0, bottom), mode="replicate")


def parameter_count(model: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())


class CollapsibleConv(nn.Module):
    """A convolution that is trained wide and deployed narrow (SESR, Bhardwaj et al. 2022, arXiv 2103.09404).

    It is trained as a k x k convolution to `width` channels followed by a 1x1, nothing in between, and a shortcut where
    input and output have the same form: more values to learn with, but the same function as one k x k convolution,
    whose kernel is worked out anew at each call (cheap, next to the pictures) and once and for all by `collapsed`.
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


def collapsed(model: nn.Module) -> nn.Module:
    """Return a copy of a network, in evaluation mode, in which every collapsible convolution is an ordinary one."""
    plain = copy.deepcopy(model).eval()
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, CollapsibleConv):
                setattr(parent, name, child.collapsed())
    return plain.requires_grad_(requires_grad=False)


@torch.no_grad()
def detail_(layer: nn.Conv2d) -> nn.Conv2d:
    """Make a first layer blind to brightness, in place: each filter sums to zero, at four times the usual scale.

    What is missing from a blurred picture does not depend on how bright it is, but brightness dwarfs detail: with the
    usual weights a network spends its first thousands of steps cancelling it.
    """
    layer.weight -= layer.weight.mean(dim=(1, 2, 3), keepdim=True)
    layer.weight *= 4
    if layer.bias is not None:
        layer.bias.zero_()
    return layer


@torch.no_grad()
def zero_(layer: nn.Conv2d) -> nn.Conv2d:
    """Set a layer to zero, in place, so that a residual network starts as the identity."""
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    return layer
