"""Which frames a student had better leave alone: found on whole frames, once it is trained.

Patches teach it how much a frame needs on average. What a frame loses that needs nothing hardly counts there, but it is
what people would notice: so below a threshold, found here, nothing is added.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearcall.console import track
from clearcall.data.pairs import PairReader, PairRecord
from clearcall.metrics import Frame
from clearcall.models.inference import to_tensor

# A decibel that a frame loses counts as many that others gain.
CAUTION = 20.0
_STEPS = 40  # from no need to the largest

Numbers = npt.NDArray[np.float64]


# From RGB of (N, 3, H, W) in [0, 1] to a number for each picture, (N,): the more it needs, the higher.
Need = Callable[[Tensor], Tensor]
RestoreRgb = Callable[[Tensor], Tensor]


def find_dead_zone(restore: RestoreRgb, need: Need, pairs: Path, records: Sequence[PairRecord]) -> list[float] | None:
    """Return the zone of `need` that serves a trained network without one best on these pairs; None if none does.

    Best is the highest mean gain in PSNR of RGB, in which decibels lost count `CAUTION` times.
    """
    reader = PairReader(pairs)
    measured = [
        _measure(restore, need, reader.sharp(record), reader.degraded(record))
        for record in track(records, len(records), "finding the dead zone")
        if record.psnr_db < np.inf  # what arrives as it was sent has no gain to speak of
    ]
    needs, *means = np.array(measured).reshape(-1, 4).T
    return best_zone(needs, *means)


def best_zone(needs: Numbers, input_mse: Numbers, agreement: Numbers, energy: Numbers) -> list[float] | None:
    """Return [low, high] of frames' needs, or None, by what becomes of frames, an array of (frames,) each.

    Of residuals r and what is missing from the input m, `input_mse` is the mean of m^2, `agreement` of r m and `energy`
    of r^2: a residual times s leaves a mean squared error of input_mse - 2 s agreement + s^2 energy.
    """

    def worth(share: Numbers | float) -> float:
        left = input_mse - 2 * share * agreement + np.square(share) * energy
        gain_db = -10 * np.log10(left / input_mse)
        return float(np.mean(np.where(gain_db < 0, CAUTION * gain_db, gain_db)))

    if not needs.size:
        return None
    levels = np.linspace(0, needs.max(), _STEPS + 1).tolist()
    worths = {(low, high): worth(np.clip((needs - low) / (high - low), 0, 1)) for low, high in combinations(levels, 2)}
    # Of equal ones the widest: from frame to frame it flickers least.
    best = max(worths, key=lambda zone: (round(worths[zone], 6), zone[1] - zone[0]))
    return [float(f"{level:.4g}") for level in best] if worths[best] > worth(1.0) else None


@torch.inference_mode()
def _measure(restore: RestoreRgb, need: Need, sharp: Frame, degraded: Frame) -> list[float]:
    """Return the need of a frame, and the three means of `best_zone`."""
    picture = to_tensor(degraded)[None]
    missing, residual = to_tensor(sharp)[None] - picture, restore(picture) - picture
    means = ((missing**2).mean(), (residual * missing).mean(), (residual**2).mean())
    return [float(need(picture)), *map(float, means)]
