"""Three 3x3 layers with ReLU at full size, no shortcut: the least that the reports call a student.

The code of the `dncnn` report has it with 32 channels (11 K parameters; Team Power Rangers, 2025,
https://github.com/RudraByte/Intel_unnati_team_power_rangers); the `gopro_unet` report describes the same shape,
three or four layers to a 3-channel output, without naming a width.
"""

from torch import Tensor, nn


class PlainCnn(nn.Module):
    """The output is the picture itself, not what is missing from it."""

    stride = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 3, 3, padding=1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        restored: Tensor = self.layers(picture)
        return restored


def build(channels: int = 32) -> PlainCnn:
    """Build the student as published."""
    return PlainCnn(channels)
