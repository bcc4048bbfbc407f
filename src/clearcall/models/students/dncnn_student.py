"""The student of the `dncnn` report's text: eight 3x3 layers that predict the residual at full size.

BatchNorm after the third and the sixth alone, folded into them at export. The text claims about 120 K parameters; what
it describes has 57 K. Team Power Rangers, 2025, https://github.com/RudraByte/Intel_unnati_team_power_rangers, whose
code has `plain_cnn`.
"""

from torch import nn

from clearcall.models.layers import Residual


def build(channels: int, convs: int = 8, normalise_every: int = 3) -> Residual:
    """Build the student; published with 32 channels. `convs` counts all its layers, each third one is normalised."""
    if channels < 1 or convs < 2 or normalise_every < 1:  # noqa: PLR2004  # the first layer and the last
        raise ValueError("channels must be at least 1, convs at least 2, normalise_every at least 1")
    layers: list[nn.Module] = []
    for number in range(1, convs):
        normalised = number % normalise_every == 0
        # The normalisation after it would remove a bias.
        layers.append(nn.Conv2d(channels if layers else 3, channels, 3, padding=1, bias=not normalised))
        layers += [nn.BatchNorm2d(channels)] if normalised else []
        layers.append(nn.ReLU())
    return Residual(nn.Sequential(*layers), channels)
