"""The student of the `luminous` report: a residual CNN of 13,571 parameters, wide and shallow, at full size.

Team Luminous, "Image Sharpening Using Knowledge Distillation", 2025,
https://github.com/Lakshmi-krishna-vr/TeamLuminous-ImageSharpeningUsingKnowledgeDistillation.
"""

from torch import Tensor, nn


class LuminousStudent(nn.Module):
    """3x3 to many channels, 1x1 to half of them, 3x3 to the residual."""

    stride = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels // 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, 3, 3, padding=1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        restored: Tensor = picture + self.layers(picture)
        return restored


def build(channels: int = 128) -> LuminousStudent:
    """Build the student as published."""
    return LuminousStudent(channels)
