"""Losses between a student's inside and its teacher's."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

GRID = 12


def feature_affinity_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the mean absolute difference of the two networks' affinity matrices (He et al., FAKD, 2020).

    Features are (N, C, h, w), with channels that may differ. Both are pooled to a 12x12 grid; the affinity of two
    places is the cosine between their feature vectors, so that no projection between the widths has to be learned.
    """
    return (_affinity(student_features) - _affinity(teacher_features)).abs().mean()


def _affinity(features: Tensor) -> Tensor:
    places = normalize(adaptive_avg_pool2d(features.float(), GRID).flatten(2), dim=1)
    return torch.bmm(places.transpose(1, 2), places)
