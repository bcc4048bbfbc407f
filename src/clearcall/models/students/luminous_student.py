"""The student of the `luminous` report: a residual CNN of 13,571 parameters, wide and shallow, at full size.

Team Luminous, "Image Sharpening Using Knowledge Distillation", 2025,
https://github.com/Lakshmi-krishna-vr/TeamLuminous-ImageSharpeningUsingKnowledgeDistillation.
"""

from torch import nn

from clearcall.models.layers import Residual


def build(channels: int) -> Residual:
    """Build the student: 3x3 to `channels`, 1x1 to half of them, 3x3 to the residual; published with 128 channels."""
    if channels < 2:  # noqa: PLR2004  # the second layer has half of them
        raise ValueError("channels must be at least 2")
    half = channels // 2
    body = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, half, 1), nn.ReLU())
    return Residual(body, half)
