"""The teacher of the `luminous` report: a residual CNN of 2,561,187 parameters, widest at its entry, at full size.

Team Luminous, "Image Sharpening Using Knowledge Distillation", 2025,
https://github.com/Lakshmi-krishna-vr/TeamLuminous-ImageSharpeningUsingKnowledgeDistillation.
"""

from itertools import pairwise

from torch import nn

from clearcall.models.layers import Residual, he_


def build(channels: int) -> Residual:
    """Build the teacher: 5x5 to `channels`, 3x3 layers that narrow to an eighth; published with 384 channels."""
    if channels < 8 or channels % 8:  # noqa: PLR2004  # eighths
        raise ValueError("channels must be at least 8 and a multiple of it")
    widths = [channels // divisor for divisor in (1, 1, 2, 2, 4, 8)]
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 5, padding=2), nn.ReLU()]
    for in_channels, out_channels in pairwise(widths):
        layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()]
    body = nn.Sequential(*layers)
    he_(body)
    return Residual(body, widths[-1])
