"""The training objective: a network and its losses, each with a name and a weight."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from clearcall.core.errors import UserError
from clearcall.models.inference import output
from clearcall.training.batches import Batch
from clearcall.training.losses.feature_projection import feature_projection_loss
from clearcall.training.losses.reconstruction import (
    charbonnier_loss,
    chroma_gain_loss,
    l1_loss,
    luma_gain_loss,
    mse_loss,
    relative_mse_loss,
    ssim_loss,
)

ImageLoss = Callable[[Tensor, Tensor], Tensor]
SHARP_LOSSES: dict[str, ImageLoss] = {
    "l1": l1_loss,
    "mse": mse_loss,
    "charbonnier": charbonnier_loss,
    "ssim": ssim_loss,
}
# Against the sharp image too, but need to know how far off the input was.
RELATIVE = "relative_mse"
GAIN_LOSSES = {"luma_gain": luma_gain_loss, "chroma_gain": chroma_gain_loss}
TEACHER_LOSSES: dict[str, ImageLoss] = {"teacher_l1": l1_loss, "teacher_mse": mse_loss}
# Compares the inside of student and teacher, so that the teacher answers live.
PROJECTION = "feature_projection"


def needs_teacher(weights: Mapping[str, float]) -> bool:
    """Return whether one of these losses looks at a teacher."""
    return not weights.keys().isdisjoint({*TEACHER_LOSSES, PROJECTION})


def without_teacher(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the no-teacher baseline's losses: those against the sharp image, or MSE."""
    return {name: weight for name, weight in weights.items() if not needs_teacher({name: weight})} or {"mse": 1.0}


class Answer(NamedTuple):
    """A network's output, and the feature maps of some of its layers."""

    restored: Tensor
    layers: tuple[Tensor, ...]


# Answers RGB (N, 3, H, W), told each image's degradation.
Teacher = Callable[[Tensor, Sequence[str]], Answer]


def answer(network: nn.Module, image: Tensor, layers: Sequence[str] = (), degradations: Sequence[str] = ()) -> Answer:
    """Return a network's output and the feature maps of named layers, such as `body.3`.

    A conditioned network is told each image's degradation.
    Raises UserError if there is no such layer, or what it gives is no feature maps.
    """
    kept: dict[str, object] = {}
    modules = dict(network.named_modules()) if layers else {}
    if unknown := [name for name in layers if not name or name not in modules]:
        known = ", ".join(name for name in modules if name and name.count(".") <= 1)
        raise UserError(f"the network has no layer {', '.join(map(repr, unknown))}; it has {known} and what is in them")

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _module, _inputs, output: kept.__setitem__(name, output)

    hooks = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        restored = output(network, image, degradations)
    finally:
        for hook in hooks:
            hook.remove()
    return Answer(restored, tuple(_feature_maps(name, kept.get(name)) for name in layers))


def _feature_maps(name: str, output: object) -> Tensor:
    if isinstance(output, Tensor) and output.dim() == 4:  # noqa: PLR2004  # (N, C, h, w)
        return output
    raise UserError(f"the layer {name!r} gives no feature maps: name one whose result is (N, C, h, w)")


class Task(Protocol):
    """A network to train and how to judge one batch."""

    model: nn.Module

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, and the weighted sum as `total`; all scalars."""
        ...


class RestorationTask:
    """Restoration: losses against the sharp image, and against a teacher if given.

    The teacher's outputs are taken from the batch if it holds them; otherwise the teacher answers here. `perceptual` is
    the loss of that name, which brings a network of its own; `relative_floor` belongs to relative_mse and the gains.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, float],
        teacher: Teacher | None = None,
        *,
        perceptual: ImageLoss | None = None,
        relative_floor: float = 2e-3,
    ) -> None:
        self.model = model
        self._relative_floor = relative_floor
        self._weights = weights
        self._teacher = teacher
        self._sharp_losses = SHARP_LOSSES if perceptual is None else SHARP_LOSSES | {"perceptual": perceptual}
        if "perceptual" in weights and perceptual is None:
            raise ValueError("the loss perceptual needs its network")
        if teacher is None and needs_teacher(weights):
            raise ValueError(f"some of the losses {sorted(weights)} need a teacher")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, and the weighted sum as `total`; all scalars."""
        restored, projected = self.model(batch.degraded, batch.degradations)
        parts = {
            name: loss(restored, batch.sharp) for name, loss in self._sharp_losses.items() if name in self._weights
        }
        if RELATIVE in self._weights:
            parts[RELATIVE] = relative_mse_loss(restored, batch.sharp, batch.input_mse, self._relative_floor)
        for name, gain_loss in GAIN_LOSSES.items():
            if name in self._weights:
                parts[name] = gain_loss(restored, batch.sharp, batch.degraded, batch.input_mse, self._relative_floor)
        if self._teacher is not None:
            target, live = batch.teacher_restored, None
            if target is None or PROJECTION in self._weights:
                live = self._teacher(batch.degraded, batch.degradations)
                target = live.restored.float() if target is None else target
            parts |= {name: loss(restored, target) for name, loss in TEACHER_LOSSES.items() if name in self._weights}
            if live is not None and PROJECTION in self._weights:
                pairs = zip(projected, live.layers, strict=True)
                parts[PROJECTION] = torch.stack([feature_projection_loss(*pair) for pair in pairs]).mean()
        return {**parts, "total": torch.stack([self._weights[name] * part for name, part in parts.items()]).sum()}


class WithFeatures(nn.Module):
    """A network whose forward returns its whole answer; Fabric wraps forward alone.

    Feature maps of the named layers go through `projections`, which learn with the network and are no part of it.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = (), projections: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.network = network
        self.projections = nn.ModuleList(projections)
        self._layers = layers

    def forward(self, image: Tensor, degradations: Sequence[str] = ()) -> Answer:
        """Return the restored image and the projected feature maps."""
        restored, maps = answer(self.network, image, self._layers, degradations)
        projected = (project(one) for project, one in zip(self.projections, maps, strict=True))
        return Answer(restored, tuple(projected))
