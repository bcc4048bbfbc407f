"""Losses between a student and its teacher, beside those that compare their pictures as they are."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from clearcall.training.losses.reconstruction import mse_loss

GRID = 12


def feature_affinity_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean absolute difference of the two networks' affinity matrices (He et al., FAKD, 2020).

    Features are (N, C, h, w), with channels that may differ. Both are pooled to a 12x12 grid; the affinity of two
    places is the cosine between their feature vectors, so that no projection between the widths has to be learned.
    """
    return (_affinity(student_features) - _affinity(teacher_features)).abs().mean()


def feature_projection_loss(projected: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean squared difference of two networks' feature maps (Romero et al., FitNets, 2015).

    Both are (N, C, h, w); the student's have been brought to the teacher's width by a learned 1x1 layer, and what is
    larger is averaged down to the size of the other.
    """
    (height, width), (teacher_height, teacher_width) = projected.shape[-2:], teacher_features.shape[-2:]
    size = min(height, teacher_height), min(width, teacher_width)
    return mse_loss(adaptive_avg_pool2d(projected.float(), size), adaptive_avg_pool2d(teacher_features.float(), size))


def teacher_residual_loss(restored: Tensor, teacher_restored: Tensor, degraded: Tensor) -> Tensor:
    """Return the mean squared difference of what student and teacher add to the same degraded picture.

    As the picture cancels out, this is the mean squared difference of the two answers, up to rounding. The two would
    differ where answers were clipped after the addition: here the student's is not, and a teacher's that is kept in a
    file is, so that the residual it stands for never leads beyond black and white.
    """
    return mse_loss(restored - degraded, teacher_restored - degraded)


def _affinity(features: Tensor) -> Tensor:
    places = normalize(adaptive_avg_pool2d(features.float(), GRID).flatten(2), dim=1)
    return torch.bmm(places.transpose(1, 2), places)
