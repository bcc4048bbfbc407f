"""What is trained: a network and its losses, each with a name and a weight."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from clearcall.losses.distillation import feature_affinity_loss
from clearcall.losses.reconstruction import charbonnier_loss, l1_loss, mse_loss, relative_mse_loss, ssim_loss
from clearcall.training.batches import Batch

PictureLoss = Callable[[Tensor, Tensor], Tensor]
# What a teacher makes of degraded pictures: the restored ones, and its last feature maps.
Teacher = Callable[[Tensor], tuple[Tensor, Tensor]]
SHARP_LOSSES: dict[str, PictureLoss] = {
    "l1": l1_loss,
    "mse": mse_loss,
    "charbonnier": charbonnier_loss,
    "ssim": ssim_loss,
}
# Against the sharp picture too, but needs to know how far off the input was.
RELATIVE = "relative_mse"
TEACHER_LOSSES: dict[str, PictureLoss] = {"teacher_l1": l1_loss, "teacher_mse": mse_loss}


def needs_teacher(weights: Mapping[str, float]) -> bool:
    """Return whether one of these losses looks at a teacher."""
    return any(name in TEACHER_LOSSES or name == "features" for name in weights)


def without_teacher(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the losses of the no-teacher twin: those against the sharp picture alone, or MSE if there are none."""
    return {name: weight for name, weight in weights.items() if name in SHARP_LOSSES or name == RELATIVE} or {
        "mse": 1.0
    }


class Task(Protocol):
    """A network to train and how to judge one batch."""

    model: nn.Module

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, and the weighted sum as `total`; all scalars."""
        ...


class RestorationTask:
    """Learn to restore: losses against the sharp picture, and against a teacher where one is given.

    The teacher's answers are taken from the batch if it holds them; otherwise the teacher answers here. They are used
    as they are, or rounded to whole grey levels if `round_teacher`.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, float],
        teacher: Teacher | None = None,
        *,
        round_teacher: bool = False,
    ) -> None:
        self.model = model
        self._weights = weights
        self._teacher = teacher
        self._round_teacher = round_teacher
        if teacher is None and needs_teacher(weights):
            raise ValueError(f"some of the losses {sorted(weights)} need a teacher")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, and the weighted sum as `total`; all scalars."""
        restored, features = self.model(batch.degraded)
        parts = {name: loss(restored, batch.sharp) for name, loss in SHARP_LOSSES.items() if name in self._weights}
        if RELATIVE in self._weights:
            parts[RELATIVE] = relative_mse_loss(restored, batch.sharp, batch.input_mse)
        if self._teacher is not None:
            target, teacher_features = batch.teacher_restored, features
            if target is None or "features" in self._weights:
                answer, teacher_features = self._teacher(batch.degraded)
                target = answer.float() if target is None else target
            if self._round_teacher:
                target = target.clamp(0, 1).mul(255).round().div(255)
            parts |= {name: loss(restored, target) for name, loss in TEACHER_LOSSES.items() if name in self._weights}
            if "features" in self._weights:
                parts["features"] = feature_affinity_loss(features, teacher_features)
        return {**parts, "total": torch.stack([self._weights[name] * part for name, part in parts.items()]).sum()}


class WithFeatures(nn.Module):
    """A network whose forward also returns its features; Fabric wraps forward alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps."""
        result: tuple[Tensor, Tensor] = self.network.forward_features(picture)  # type: ignore[operator]  # nn.Module hides methods
        return result
