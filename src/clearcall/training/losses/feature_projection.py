"""Losses between the inside of a student and that of its teacher."""

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from clearcall.training.losses.reconstruction import mse_loss


def feature_projection_loss(projected: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean squared difference of two feature maps (FitNets, Romero et al. 2015).

    Both are (N, C, h, w); the student's have been brought to the teacher's width by a learned 1x1 layer, and what is
    larger is averaged down to the size of the other.
    """
    (height, width), (teacher_height, teacher_width) = projected.shape[-2:], teacher_features.shape[-2:]
    size = min(height, teacher_height), min(width, teacher_width)
    return mse_loss(adaptive_avg_pool2d(projected.float(), size), adaptive_avg_pool2d(teacher_features.float(), size))
