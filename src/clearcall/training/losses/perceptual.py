"""The perceptual loss: the distance of two images in the feature space of a classifier.

The network is VGG-19 (Simonyan and Zisserman 2014, arXiv 1409.1556), up to where it is looked at.
"""

import torch
from torch import Tensor, nn

from clearcall.core.errors import UserError
from clearcall.models.weights import load_published
from clearcall.training.losses.reconstruction import mse_loss

# torchvision's VGG19_Weights.IMAGENET1K_V1 (BSD-3-Clause): 574,673,361 bytes, of which the first layers are used.
VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VGG19_SHA256 = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
# Widths of the 3x3 layers, between which each stage halves the image.
_STAGES = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512))
# Of RGB in [0, 1], over ImageNet: what the network was trained with.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The third layer of the third stage, before its ReLU, as in DeblurGAN (Kupyn et al. 2018, arXiv 1711.07064).
_LAST = 14


class Vgg19(nn.Module):
    """Feature maps (N, 256, H / 4, W / 4) of RGB (N, 3, H, W) in [0, 1]; random weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.features = nn.Sequential(*list(vgg19_trunk())[: _LAST + 1])
        self.requires_grad_(requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return what the network sees in an image."""
        seen: Tensor = self.features((image - self.mean) / self.deviation)
        return seen


def vgg19_trunk() -> nn.Sequential:
    """Return the sixteen 3x3 layers of VGG-19 with ReLUs and poolings, random weights."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in _STAGES:
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def load_vgg19() -> Vgg19:
    """Return VGG-19 with the published weights; raise UserError if they cannot be had."""
    network = Vgg19()
    published = load_published(VGG19_URL, VGG19_SHA256)
    try:
        network.load_state_dict({name: published[name] for name in network.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{VGG19_URL} does not hold the weights of VGG-19: {error}") from None
    return network.eval()


def perceptual_loss(restored: Tensor, target: Tensor, network: nn.Module) -> Tensor:
    """Return the mean squared difference of two images' features (Johnson et al. 2016, 1603.08155)."""
    return mse_loss(network(restored).float(), network(target).float())
