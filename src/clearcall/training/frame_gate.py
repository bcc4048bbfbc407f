"""Fit the gate of a student of two networks: which of the mix's two degradations a whole frame has been through.

It is fitted before the networks are trained, since it needs none of them; what it does near the border is set after.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn

from clearcall.console import track
from clearcall.data.pairs import PairReader, PairRecord, degradations_of
from clearcall.errors import UserError
from clearcall.metrics import Frame
from clearcall.models.inference import to_tensor

_STEPS, _RATE, _DECAY = 1500, 1e-2, 1e-3
# Taken for the other kind, a frame may lose two decibels: so few of the second kind's may get some of the first's, and
# none of little evidence. The ramp is long, since recordings of a camera, which are soft by themselves, lie on it when
# they arrive enlarged.
_TAKEN_WRONGLY, _LEAST, _RAMP = 0.02, 2.0, 1.25  # share of frames, evidence


class HasGate(Protocol):
    """A student of two networks, one for each degradation of the mix, as luma_strided with `experts` is.

    In training its `forward_features` is given the degradations' numbers beside the pictures.
    """

    @property
    def gate(self) -> nn.Module:
        """Return what is fitted on whole frames."""
        ...

    @property
    def first(self) -> nn.Module:
        """Return the network for the first degradation, which restores RGB by itself, too."""
        ...

    @property
    def second(self) -> nn.Module:
        """Return the network for the second degradation, likewise."""
        ...

    def amplify(self, first: float, second: float) -> None:
        """Make what each network adds so many times what it was."""
        ...

    def look(self, picture: Tensor) -> Tensor:
        """Return what the gate goes by, (N, numbers), of RGB (N, 3, H, W) in [0, 1]."""
        ...

    def opinions(self, looks: Tensor) -> Tensor:
        """Return several opinions of what the evidence is, (N, several): it is their mean, and each is fitted."""
        ...

    def evidence(self, looks: Tensor) -> Tensor:
        """Return the logarithm of the odds that pictures of such looks are of the first degradation, (N,)."""
        ...


def has_gate(network: nn.Module) -> TypeGuard[HasGate]:
    """Return whether a student has a gate to fit."""
    return all(
        hasattr(network, name) for name in ("gate", "first", "second", "amplify", "look", "opinions", "evidence")
    )


def fit_gate(network: HasGate, pairs: Path, records: Sequence[PairRecord]) -> None:
    """Fit the network's gate on pairs; their sharp pictures count as of the second degradation.

    It learns from no picture that was enlarged before it was sent: whether it was sent smaller too cannot be seen.
    Raises UserError unless the pairs are of two degradations.
    """
    names = degradations_of(records)
    if len(names) != 2:  # noqa: PLR2004  # the networks
        raise UserError(
            f"experts are a network for each of two degradations, and the mix has {len(names)} "
            f"({', '.join(names)}): name two in degrade_pairs.mix"
        )
    reader, looks, for_first = PairReader(pairs), list[Tensor](), list[float]()
    last_sharp = None
    crisp = [record for record in records if record.enlarged == 1]
    for record in track(crisp, len(crisp), "looking at frames"):
        looks.append(_look(network, reader.degraded(record)))
        for_first.append(float(record.degradation == names[0]))
        sharp = record.sharp_shard, record.sharp_offset
        if sharp != last_sharp:  # pairs of one sharp picture follow each other
            looks.append(_look(network, reader.sharp(record)))
            for_first.append(0.0)
            last_sharp = sharp
    _fit(network, torch.cat(looks), torch.tensor(for_first))


def _fit(network: HasGate, looks: Tensor, for_first: Tensor) -> None:
    gate = network.gate.requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(gate.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        opinions = network.opinions(looks)
        loss = nn.functional.binary_cross_entropy_with_logits(opinions, for_first[:, None].expand_as(opinions))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
        schedule.step()
    gate.requires_grad_(requires_grad=False)


def find_gate_zone(network: HasGate, pairs: Path, records: Sequence[PairRecord]) -> list[float]:
    """Return the `gate_zone` by the pairs of the second degradation, of which next to none may reach it."""
    reader, second = PairReader(pairs), degradations_of(records)[1]
    chosen = [record for record in records if record.degradation == second and record.enlarged == 1]
    looks = [_look(network, reader.degraded(record)) for record in chosen]
    with torch.inference_mode():
        evidence = network.evidence(torch.cat(looks))
    low = max(_LEAST, float(torch.quantile(evidence, 1 - _TAKEN_WRONGLY)))
    return [float(f"{level:.4g}") for level in (low, low + _RAMP)]


@torch.inference_mode()
def _look(network: HasGate, frame: Frame) -> Tensor:
    network.gate.eval()  # looks as it will in use
    return network.look(to_tensor(frame)[None])
