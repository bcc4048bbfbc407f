"""Fit the router on the cost of each choice for each frame."""

import copy
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clearcall.core.console import track
from clearcall.data.pairs import PairReader, PairRecord, middle
from clearcall.imaging.frame import Frame
from clearcall.models.inference import to_tensor
from clearcall.models.students.routed import Routed, Router

CLEAN = "clean"
_MOST_STEPS, _LEAST_STEPS, _STEPS_A_FRAME = 24_000, 400, 8
_RATE, _DECAY, _BATCH = 3e-3, 1e-2, 256
_FITS = 4  # seeds; they differ by up to 0.3 dB on a degradation
# Of the fitted scores: frames unlike any in training are to be scored as their neighbours are.
_NOISE = 0.05
# Weight of what a frame loses against its input, beside what it loses against its best choice.
_HARM = 3.0
# The middle of a frame tells what each choice costs; its spectrum is taken from more of it.
_COST_SIDE_PX, _SPECTRUM_SIDE_PX = 256, 1024
# Rounding to 8 bits leaves this mean squared error, of luma in [0, 1]: less is no gain that could be seen.
_ROUNDING_MSE = 1 / 12 / 255**2
_CHUNK = 20  # pairs that a process measures at once

_Floats = npt.NDArray[np.float32]
_Measured = tuple[_Floats, _Floats, str]  # a row of the table


@dataclass(frozen=True)
class CostTable:
    """What each choice of the router leaves of whole frames.

    `spectra` is (frames, views, numbers): of the frame and of parts of it, which had the same done to them; `psnr_db`
    (frames, choices) of luma, capped at what rounding to 8 bits leaves; `labels` says how each frame was degraded,
    `clean` if not at all.
    """

    spectra: Tensor
    psnr_db: Tensor
    labels: list[str]


def fit_router(student: Routed, table: CostTable, held_out: CostTable, seed: int) -> None:
    """Fit the router in place: minimise the expected loss in dB against each frame's best choice.

    A loss against the input counts four times. Degradations count alike, however many frames each has. Of several fits
    the one with the lowest cost on held-out frames is kept.
    """
    student.router.mean.copy_(table.spectra[:, 0].mean(dim=0))
    student.router.deviation.copy_(table.spectra[:, 0].std(dim=0).clamp(min=1e-3))
    fits = [_fitted(student.router, table, seed + number) for number in range(_FITS)]
    student.router.load_state_dict(min(fits, key=lambda router: _mean_cost(router, held_out)).state_dict())


def _costs(table: CostTable) -> Tensor:
    """Return what each choice costs on each frame, in dB, (frames, choices)."""
    regret = table.psnr_db.amax(dim=1, keepdim=True) - table.psnr_db
    return regret + _HARM * (table.psnr_db[:, :1] - table.psnr_db).clamp(min=0)


def _odds(table: CostTable) -> Tensor:
    """Return how often each frame counts, so that degradations count alike."""
    _, kinds = np.unique(table.labels, return_inverse=True)
    odds = torch.from_numpy(1 / np.bincount(kinds)[kinds])
    return odds / odds.sum()


@torch.inference_mode()
def _mean_cost(router: Router, table: CostTable) -> float:
    chosen = router(table.spectra[:, 0]).argmax(dim=1, keepdim=True)
    return float((_odds(table) * _costs(table).gather(1, chosen)[:, 0]).sum())


def _fitted(start: Router, table: CostTable, seed: int) -> Router:
    """Return a router fitted to a table, with the normalisation of `start`."""
    generator = torch.Generator().manual_seed(seed)
    router = copy.deepcopy(start).requires_grad_(requires_grad=True)
    views, numbers = table.spectra.shape[1:]
    odds, cost = _odds(table), _costs(table)
    regret = table.psnr_db.amax(dim=1, keepdim=True) - table.psnr_db
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router.first.reset_parameters()
    nn.init.zeros_(router.last.weight)
    nn.init.zeros_(router.last.bias)
    optimizer = torch.optim.AdamW(router.parameters(), _RATE, weight_decay=_DECAY)
    steps = min(_MOST_STEPS, max(_LEAST_STEPS, _STEPS_A_FRAME * len(table.labels)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    target = torch.softmax(-4 * regret, dim=1)
    for step in range(steps):
        chosen = torch.multinomial(odds, _BATCH, replacement=True, generator=generator)
        view = torch.randint(views, (_BATCH,), generator=generator)
        noise = torch.randn(_BATCH, numbers, generator=generator)
        scores = router(table.spectra[chosen, view] + _NOISE * noise * router.deviation)
        expected = (scores.softmax(dim=1) * cost[chosen]).sum(dim=1).mean()
        # Expected cost alone learns slowly at first, and is what counts at the end.
        likelihood = -(target[chosen] * scores.log_softmax(dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        (expected + (1 - step / steps) * likelihood).backward()
        optimizer.step()
        schedule.step()
    return router.requires_grad_(requires_grad=False)


def cost_table(student: Routed, pairs: Path, records: Sequence[PairRecord], pool: Executor | None = None) -> CostTable:
    """Measure every choice on every pair, and on every distinct sharp image.

    With a `pool` by its processes.
    """
    first = {(record.sharp_shard, record.sharp_offset): record for record in reversed(records)}
    chunks = [
        [
            (record, first[record.sharp_shard, record.sharp_offset] is record)
            for record in records[start : start + _CHUNK]
        ]
        for start in range(0, len(records), _CHUNK)
    ]
    measured = (map if pool is None else pool.map)(partial(_measure, student, pairs), chunks)
    rows = [row for chunk in track(measured, len(chunks), "measuring the experts") for row in chunk]
    spectra, psnr_db, labels = zip(*rows, strict=True)
    return CostTable(torch.from_numpy(np.array(spectra)), torch.from_numpy(np.array(psnr_db)), list(labels))


@torch.inference_mode()
def _measure(student: Routed, pairs: Path, records: Sequence[tuple[PairRecord, bool]]) -> list[_Measured]:
    """Return a row for each pair, and one for its sharp image where that is asked for."""
    reader, rows = PairReader(pairs), []
    for record, with_sharp in records:
        sharp = reader.sharp(record)
        for label, frame in [(record.degradation, reader.degraded(record)), (CLEAN, sharp)][: 1 + with_sharp]:
            luma = student.padded_luma(to_tensor(middle(frame, _SPECTRUM_SIDE_PX))[None]) * 255
            spectra = torch.cat([student.router.spectrum(view) for view in _views(luma)]).numpy()
            rows.append((spectra, _psnr_db(student, middle(frame, _COST_SIDE_PX), middle(sharp, _COST_SIDE_PX)), label))
    return rows


def _views(luma: Tensor) -> list[Tensor]:
    """Return luma (1, 1, H, W) and its four quarters, at least as large as a window."""
    height, width = (max(Router.TAPS, side // 2) for side in luma.shape[-2:])
    corners = product((slice(height), slice(-height, None)), (slice(width), slice(-width, None)))
    return [luma, *(luma[..., rows, columns] for rows, columns in corners)]


def _psnr_db(student: Routed, frame: Frame, sharp: Frame) -> _Floats:
    image, target = to_tensor(frame)[None], student.luma(to_tensor(sharp)[None])
    errors = [
        float((student.luma(student.restore_by(choice, image).clamp(0, 1)) - target).square().mean())
        for choice in range(len(student.names))
    ]
    return np.array([-10 * np.log10(max(error, _ROUNDING_MSE)) for error in errors], np.float32)


def routing_summary(student: Routed, table: CostTable) -> dict[str, dict[str, float]]:
    """Return by label the share of best choices, the losses against them and the gains in dB.

    `gain_db` is the mean gain over the input, `least_gain_db` that of the worst frame.
    """
    with torch.inference_mode():
        chosen = student.router(table.spectra[:, 0]).argmax(dim=1)
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
