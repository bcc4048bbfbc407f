"""DnCNN: Zhang et al. 2017, "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising".

arXiv 1608.03981: 3x3 layers that predict what is wrong with the picture; batch normalisation in all of them but the
first and the last. The teacher of the `dncnn` report: 17 layers of 64 channels, 558 K parameters for RGB.
"""

from torch import Tensor, nn

from clearcall.models.layers import zero_


class Dncnn(nn.Module):
    """What is missing is predicted at full size and added."""

    stride = 1

    def __init__(self, channels: int, convs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
        for _ in range(convs - 2):
            # A bias would be taken away by the normalisation after it.
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.tail = zero_(nn.Conv2d(channels, 3, 3, padding=1))

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels, H, W)."""
        features = self.body(picture)
        return picture + self.tail(features), features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(channels: int, convs: int = 17) -> Dncnn:
    """Build the teacher; published with 64 channels. `convs` counts all its layers."""
    if channels < 1 or convs < 2:  # noqa: PLR2004  # the first layer and the last
        raise ValueError("channels must be at least 1, convs at least 2")
    return Dncnn(channels, convs)
