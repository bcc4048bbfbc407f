"""Fit the gate of `luma_experts`: which of the mix's two degradations a whole frame has been through.

It is fitted before the networks are trained, since it needs none of them; what it does near the border is set after.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from clearcall.console import track
from clearcall.data.pairs import PairReader, PairRecord, degradations_of
from clearcall.errors import UserError
from clearcall.metrics import Frame
from clearcall.models.inference import to_tensor
from clearcall.models.students.luma_experts import LumaExperts

_STEPS, _RATE, _DECAY = 1500, 1e-2, 1e-3
# Taken for the other kind, a frame may lose whole decibels: so few of the second kind's may get some of the first's.
_TAKEN_WRONGLY, _RAMP = 0.005, 2.0  # share of frames, evidence


@torch.enable_grad()
def fit_gate(network: LumaExperts, pairs: Path, records: Sequence[PairRecord]) -> None:
    """Fit the network's gate on pairs; their sharp pictures count as of the second degradation.

    Raises UserError unless the pairs are of two degradations.
    """
    names = degradations_of(records)
    if len(names) != 2:  # noqa: PLR2004  # the networks
        raise UserError(
            f"luma_experts has a network for each of two degradations, and the mix has {len(names)} "
            f"({', '.join(names)}): name two in degrade_pairs.mix"
        )
    reader, levels, for_first = PairReader(pairs), list[Tensor](), list[float]()
    last_sharp = None
    for record in track(records, len(records), "looking at frames"):
        levels.append(_levels(network, reader.degraded(record)))
        for_first.append(float(record.degradation == names[0]))
        sharp = record.sharp_shard, record.sharp_offset
        if sharp != last_sharp:  # pairs of one sharp picture follow each other
            levels.append(_levels(network, reader.sharp(record)))
            for_first.append(0.0)
            last_sharp = sharp
    _fit(network, torch.cat(levels), torch.tensor(for_first))


def _fit(network: LumaExperts, levels: Tensor, for_first: Tensor) -> None:
    gate = network.gate.requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(gate.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        loss = nn.functional.binary_cross_entropy_with_logits(gate.numbers(levels)[:, 0], for_first)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
        schedule.step()
    gate.requires_grad_(requires_grad=False)


def find_gate_zone(network: LumaExperts, pairs: Path, records: Sequence[PairRecord]) -> list[float]:
    """Return the `gate_zone` by the pairs of the second degradation, of which next to none may reach it."""
    reader, second = PairReader(pairs), degradations_of(records)[1]
    levels = [_levels(network, reader.degraded(record)) for record in records if record.degradation == second]
    with torch.inference_mode():
        evidence = network.gate.numbers(torch.cat(levels))[:, 0]
    low = max(0.0, float(torch.quantile(evidence, 1 - _TAKEN_WRONGLY)))
    return [float(f"{level:.4g}") for level in (low, low + _RAMP)]


@torch.inference_mode()
def _levels(network: LumaExperts, frame: Frame) -> Tensor:
    gate = network.gate.eval()  # looks as it will in use
    return gate.levels(network.first.padded_luma(to_tensor(frame)[None]) * 255).clone()
