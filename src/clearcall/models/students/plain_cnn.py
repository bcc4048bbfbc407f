"""A few 3x3 layers with ReLU at full size, no shortcut: the least that the reports call a student.

The code of the `dncnn` report has three with 32 channels (11 K parameters; Team Power Rangers, 2025,
https://github.com/RudraByte/Intel_unnati_team_power_rangers); the `gopro_unet` report describes the same shape,
three or four layers to a 3-channel output, without naming a width.
"""

import torch
from torch import Tensor, nn


class PlainCnn(nn.Module):
    """The output is the image itself, not what is missing from it."""

    stride = 1

    def __init__(self, channels: int, convs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convs - 1):
            layers += [_passing_on(nn.Conv2d(channels if layers else 3, channels, 3, padding=1)), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.tail = _passing_on(nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        restored: Tensor = self.tail(self.body(image))
        return restored


@torch.no_grad()
def _passing_on(layer: nn.Conv2d) -> nn.Conv2d:
    """Let a layer's first three outputs be its first three inputs: the untrained network then returns the image."""
    layer.weight[:3] = 0
    layer.weight[:3, :3, 1, 1] = torch.eye(3)
    if layer.bias is not None:
        layer.bias[:3] = 0
    return layer


def build(channels: int, convs: int = 3) -> PlainCnn:
    """Build the student; `convs` counts all its layers."""
    if channels < 3 or convs < 2:  # noqa: PLR2004  # an image has three channels
        raise ValueError("channels must be at least 3, convs at least 2")
    return PlainCnn(channels, convs)
