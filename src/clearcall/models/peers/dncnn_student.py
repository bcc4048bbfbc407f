"""The student of the `dncnn` report's text: eight 3x3 layers that predict the residual at full size.

BatchNorm after the third and the sixth alone. The text claims about 120 K parameters; what it describes has 57 K.
Team Power Rangers, 2025, https://github.com/RudraByte/Intel_unnati_team_power_rangers, whose code has `plain_cnn`.
"""

from torch import Tensor, nn


class DncnnStudent(nn.Module):
    """What is missing is predicted at full size and added."""

    stride = 1

    def __init__(self, channels: int, convs: int, normalised: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(1, convs):
            layers.append(nn.Conv2d(channels if layers else 3, channels, 3, padding=1))
            if number in normalised:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        restored: Tensor = picture + self.layers(picture)
        return restored


def build(channels: int = 32, convs: int = 8, normalised: tuple[int, ...] = (3, 6)) -> DncnnStudent:
    """Build the student as described; `normalised` counts the layers from one."""
    return DncnnStudent(channels, convs, normalised)
