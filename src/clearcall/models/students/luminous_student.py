"""The student of the `luminous` report: a residual CNN of 13,571 parameters, wide and shallow, at full size.

Team Luminous, "Image Sharpening Using Knowledge Distillation", 2025,
https://github.com/Lakshmi-krishna-vr/TeamLuminous-ImageSharpeningUsingKnowledgeDistillation.
"""

from torch import Tensor, nn

from clearcall.models.layers import zero_


class LuminousStudent(nn.Module):
    """3x3 to many channels, 1x1 to half of them, 3x3 to the residual."""

    stride = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.ReLU()
        )
        self.tail = zero_(nn.Conv2d(channels // 2, 3, 3, padding=1))

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels / 2, H, W)."""
        features = self.body(picture)
        return picture + self.tail(features), features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(channels: int) -> LuminousStudent:
    """Build the student; published with 128 channels."""
    if channels < 2:  # noqa: PLR2004  # the second layer has half of them
        raise ValueError("channels must be at least 2")
    return LuminousStudent(channels)
