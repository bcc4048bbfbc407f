"""Fit the router of a student of experts on what each of its choices costs, and report what it loses to the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clearcall.console import track
from clearcall.data.pairs import PairReader, PairRecord, middle
from clearcall.metrics import Frame
from clearcall.models import collapsed
from clearcall.models.inference import to_tensor
from clearcall.models.students.routed import Routed

CLEAN = "clean"
_STEPS, _RATE, _DECAY, _BATCH = 2000, 5e-3, 1e-2, 256
# Of the fitted scores: frames unlike any in training are to be scored as their neighbours are.
_NOISE = 0.1
# The middle of a frame tells what each choice costs; its spectrum is taken from more of it.
_COST_SIDE_PX, _SPECTRUM_SIDE_PX = 256, 1024
# Rounding to 8 bits leaves this mean squared error, of pictures in [0, 1]: less is no gain that could be seen.
_ROUNDING_MSE = 1 / 12 / 255**2


@dataclass(frozen=True)
class CostTable:
    """What each choice of the router leaves of whole frames.

    `spectra` is (frames, numbers); `psnr_db` (frames, choices), capped at what rounding to 8 bits leaves; `labels` says
    how each frame was degraded, `clean` if not at all.
    """

    spectra: Tensor
    psnr_db: Tensor
    labels: list[str]


def fit_router(student: Routed, table: CostTable, seed: int) -> None:
    """Fit the router in place, so that the expected loss in dB against each frame's best choice is the least.

    The square of that loss counts too: a frame that loses 4 dB is worse than four that lose 1 dB. Degradations count
    alike, however many frames each has.
    """
    generator = torch.Generator().manual_seed(seed)
    router = student.router.requires_grad_(requires_grad=True)
    router.mean.copy_(table.spectra.mean(dim=0))
    router.deviation.copy_(table.spectra.std(dim=0).clamp(min=1e-3))
    _, numbers = np.unique(table.labels, return_inverse=True)
    counts = np.bincount(numbers)
    odds = torch.from_numpy(1 / counts[numbers])
    regret = table.psnr_db.amax(dim=1, keepdim=True) - table.psnr_db
    cost = regret + regret.square() / 4
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router.first.reset_parameters()
    nn.init.zeros_(router.last.weight)
    nn.init.zeros_(router.last.bias)
    optimizer = torch.optim.AdamW(router.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    target = torch.softmax(-4 * regret, dim=1)
    for step in range(_STEPS):
        chosen = torch.multinomial(odds, _BATCH, replacement=True, generator=generator)
        noise = torch.randn(_BATCH, table.spectra.shape[1], generator=generator)
        scores = router(table.spectra[chosen] + _NOISE * noise * router.deviation)
        expected = (scores.softmax(dim=1) * cost[chosen]).sum(dim=1).mean()
        # Expected cost alone learns slowly at first, and is what counts at the end.
        likelihood = -(target[chosen] * scores.log_softmax(dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        (expected + (1 - step / _STEPS) * likelihood).backward()
        optimizer.step()
        schedule.step()
    router.requires_grad_(requires_grad=False)


@torch.inference_mode()
def cost_table(student: Routed, pairs: Path, records: Sequence[PairRecord]) -> CostTable:
    """Measure every choice on every pair, and on every distinct sharp picture, which is best left alone."""
    student = cast(Routed, collapsed(student))  # each expert's kernels worked out once, not for each frame
    reader, seen = PairReader(pairs), set[tuple[str, int]]()
    spectra, scores, labels = [], [], []
    for record in track(records, len(records), "measuring the experts"):
        sharp = reader.sharp(record)
        frames = [(record.degradation, reader.degraded(record))]
        if (place := (record.sharp_shard, record.sharp_offset)) not in seen:
            seen.add(place)
            frames.append((CLEAN, sharp))
        for label, frame in frames:
            luma = student.padded_luma(to_tensor(middle(frame, _SPECTRUM_SIDE_PX))[None])
            spectra.append(student.router.spectrum(luma * 255))
            scores.append(_psnr_db(student, middle(frame, _COST_SIDE_PX), middle(sharp, _COST_SIDE_PX)))
            labels.append(label)
    return CostTable(torch.cat(spectra).clone(), torch.tensor(np.array(scores), dtype=torch.float32).clone(), labels)


def _psnr_db(student: Routed, frame: Frame, sharp: Frame) -> list[float]:
    picture, target = to_tensor(frame)[None], to_tensor(sharp)[None]
    errors = [
        float((student.restore_by(choice, picture).clamp(0, 1) - target).square().mean())
        for choice in range(len(student.names))
    ]
    return [-10 * float(np.log10(max(error, _ROUNDING_MSE))) for error in errors]


def routing_summary(student: Routed, table: CostTable) -> dict[str, dict[str, float]]:
    """Return for each label how its frames fare: share routed to the best choice, mean and worst loss to it in dB.

    `gain_db` is the mean gain over the input, `least_gain_db` that of the worst frame.
    """
    with torch.inference_mode():
        chosen = student.router(table.spectra).argmax(dim=1)
    got = table.psnr_db.gather(1, chosen[:, None])[:, 0]
    lost, gain = table.psnr_db.amax(dim=1) - got, got - table.psnr_db[:, 0]
    labels: npt.NDArray[np.str_] = np.array(table.labels)
    summary = {}
    for label in dict.fromkeys(table.labels):
        of = torch.from_numpy(labels == label)
        summary[label] = {
            "frames": int(of.sum()),
            "best_share": float((lost[of] < 1e-6).float().mean()),  # noqa: PLR2004  # rounding
            "mean_loss_db": float(lost[of].mean()),
            "largest_loss_db": float(lost[of].max()),
            "gain_db": float(gain[of].mean()),
            "least_gain_db": float(gain[of].min()),
        }
    return summary
