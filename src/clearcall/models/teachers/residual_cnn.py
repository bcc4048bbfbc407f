"""The teacher of the `luminous` report: a residual CNN of 2,561,187 parameters, widest at its entry, at full size.

Team Luminous, "Image Sharpening Using Knowledge Distillation", 2025,
https://github.com/Lakshmi-krishna-vr/TeamLuminous-ImageSharpeningUsingKnowledgeDistillation.
"""

from itertools import pairwise

from torch import Tensor, nn

from clearcall.models.layers import he_, zero_


class ResidualCnn(nn.Module):
    """5x5 to many channels, then 3x3 layers that narrow to an eighth of them, then the residual."""

    stride = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels // divisor for divisor in (1, 1, 2, 2, 4, 8)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 5, padding=2), nn.ReLU()]
        for in_channels, out_channels in pairwise(widths):
            layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        he_(self.body)
        self.tail = zero_(nn.Conv2d(widths[-1], 3, 3, padding=1))

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels / 8, H, W)."""
        features = self.body(picture)
        return picture + self.tail(features), features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(channels: int) -> ResidualCnn:
    """Build the teacher; published with 384 channels."""
    if channels < 8 or channels % 8:  # noqa: PLR2004  # eighths
        raise ValueError("channels must be at least 8 and a multiple of it")
    return ResidualCnn(channels)
