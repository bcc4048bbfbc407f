"""What is trained: a network and its losses, each with a name and a weight."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from clearcall.losses.distillation import feature_affinity_loss
from clearcall.losses.reconstruction import charbonnier_loss, l1_loss, mse_loss, ssim_loss
from clearcall.training.batches import Batch

PictureLoss = Callable[[Tensor, Tensor], Tensor]
SHARP_LOSSES: dict[str, PictureLoss] = {
    "l1": l1_loss,
    "mse": mse_loss,
    "charbonnier": charbonnier_loss,
    "ssim": ssim_loss,
}
TEACHER_LOSSES: dict[str, PictureLoss] = {"teacher_l1": l1_loss, "teacher_mse": mse_loss}


class Task(Protocol):
    """A network to train and how to judge one batch."""

    model: nn.Module

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, and the weighted sum as `total`; all scalars."""
        ...


class RestorationTask:
    """Learn to restore: losses against the sharp picture, and against a teacher where one is given."""

    def __init__(self, model: nn.Module, weights: Mapping[str, float], teacher: nn.Module | None = None) -> None:
        self.model = model
        self._weights = weights
        self._teacher = teacher
        if "features" in weights and teacher is None:
            raise ValueError("the loss `features` needs a teacher")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, and the weighted sum as `total`; all scalars."""
        restored, features = self.model(batch.degraded)
        parts = {name: loss(restored, batch.sharp) for name, loss in SHARP_LOSSES.items() if name in self._weights}
        for name, loss in TEACHER_LOSSES.items():
            if name in self._weights:
                if batch.teacher_restored is None:
                    raise ValueError(f"the loss {name} needs the teacher's answers in the batch")
                parts[name] = loss(restored, batch.teacher_restored)
        if "features" in self._weights and self._teacher is not None:
            with torch.no_grad():
                _, teacher_features = self._teacher.forward_features(batch.degraded)  # type: ignore[operator]  # nn.Module hides methods
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
