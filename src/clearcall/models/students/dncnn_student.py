"""The student of the `dncnn` report's text: eight 3x3 layers that predict the residual at full size.

BatchNorm after the third and the sixth alone, folded into them at export. The text claims about 120 K parameters; what
it describes has 57 K. Team Power Rangers, 2025, https://github.com/RudraByte/Intel_unnati_team_power_rangers, whose
code has `plain_cnn`.
"""

from torch import Tensor, nn

from clearcall.models.layers import zero_


class DncnnStudent(nn.Module):
    """What is missing is predicted at full size and added."""

    stride = 1

    def __init__(self, channels: int, convs: int, normalise_every: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(1, convs):
            normalised = number % normalise_every == 0
            # A bias would be taken away by the normalisation after it.
            layers.append(nn.Conv2d(channels if layers else 3, channels, 3, padding=1, bias=not normalised))
            layers += [nn.BatchNorm2d(channels)] if normalised else []
            layers.append(nn.ReLU())
        self.body = nn.Sequential(*layers)
        self.tail = zero_(nn.Conv2d(channels, 3, 3, padding=1))

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels, H, W)."""
        features = self.body(picture)
        return picture + self.tail(features), features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(channels: int, convs: int = 8, normalise_every: int = 3) -> DncnnStudent:
    """Build the student; published with 32 channels. `convs` counts all its layers, each third one is normalised."""
    if channels < 1 or convs < 2 or normalise_every < 1:  # noqa: PLR2004  # the first layer and the last
        raise ValueError("channels must be at least 1, convs at least 2, normalise_every at least 1")
    return DncnnStudent(channels, convs, normalise_every)
