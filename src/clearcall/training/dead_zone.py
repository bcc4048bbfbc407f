"""Which frames a student had better leave alone, or do less to: found on whole frames, once it is trained.

Patches teach it how much a frame needs on average. What a frame loses that needs nothing hardly counts there, but it is
what people would notice: so below a threshold, found here, nothing is added; and where no threshold tells such frames
from others, less is added to all; or more, if a network that has learnt to be careful of patches is too much so.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Protocol

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
_STEPS = 40  # from no input's gain to the largest; to a factor of 1
_LARGEST_FACTOR = 3
_LEAST_LEFT = 1e-9  # of the error, by rounding of what leaves none

Numbers = npt.NDArray[np.float64]


class LooksAtFrame(Protocol):
    """A student that looks at the whole frame first, as luma_strided with `frame_gain` does."""

    def __call__(self, picture: Tensor) -> Tensor:
        """Restore RGB of shape (N, 3, H, W) in [0, 1]."""
        ...

    def input_gain(self, picture: Tensor) -> Tensor:
        """Return what the luma of each such picture is multiplied by, (N,): the more it needs, the higher."""
        ...


def find_dead_zone(student: LooksAtFrame, pairs: Path, records: Sequence[PairRecord]) -> list[float] | None:
    """Return the `dead_zone` that serves a trained student without one best on these pairs; None if none does.

    Best is the highest mean gain in PSNR of RGB, in which decibels lost count `CAUTION` times.
    """
    reader = PairReader(pairs)
    measured = [
        _measure(student, reader.sharp(record), reader.degraded(record))
        for record in track(records, len(records), "finding the dead zone")
        if record.psnr_db < np.inf  # what arrives as it was sent has no gain to speak of
    ]
    input_gain, *gain_of = np.array(measured).reshape(-1, 4).T
    return best_zone(input_gain, *gain_of)


def best_zone(input_gain: Numbers, input_mse: Numbers, agreement: Numbers, energy: Numbers) -> list[float] | None:
    """Return [low, high] of input gains, or None, by what becomes of frames, an array of (frames,) each.

    Of residuals r and what is missing from the input m, `input_mse` is the mean of m^2, `agreement` of r m and `energy`
    of r^2: a residual times s leaves a mean squared error of input_mse - 2 s agreement + s^2 energy.
    """

    def worth(share: Numbers | float) -> float:
        return _worth(share, input_mse, agreement, energy)

    if not input_gain.size:
        return None
    levels = np.linspace(0, input_gain.max(), _STEPS + 1).tolist()
    worths = {
        (low, high): worth(np.clip((input_gain - low) / (high - low), 0, 1)) for low, high in combinations(levels, 2)
    }
    # Of equal ones the widest: from frame to frame it flickers least.
    best = max(worths, key=lambda zone: (round(worths[zone], 6), zone[1] - zone[0]))
    return [float(f"{level:.4g}") for level in best] if worths[best] > worth(1.0) else None


def find_factor(restore: Callable[[Tensor], Tensor], pairs: Path, records: Sequence[PairRecord]) -> float:
    """Return how many times what a trained network adds to RGB of (N, 3, H, W) in [0, 1] serves pairs best, 0 to 3.

    Best is the highest mean gain in PSNR of RGB, in which decibels lost count `CAUTION` times.
    """
    reader = PairReader(pairs)
    measured = [
        _means(restore, reader.sharp(record), reader.degraded(record))
        for record in track(records, len(records), "finding how much is added")
        if record.psnr_db < np.inf
    ]
    return best_factor(*np.array(measured).reshape(-1, 3).T)


def best_factor(input_mse: Numbers, agreement: Numbers, energy: Numbers) -> float:
    """Return how many times its residual serves frames best, 0 to 3; the arrays, (frames,) each, are as in `best_zone`.

    Of no frames it is 1.
    """
    if not input_mse.size:
        return 1.0
    factors = np.linspace(0, _LARGEST_FACTOR, _LARGEST_FACTOR * _STEPS + 1).tolist()
    return float(max(factors, key=lambda factor: _worth(factor, input_mse, agreement, energy)))


def _worth(factor: Numbers | float, input_mse: Numbers, agreement: Numbers, energy: Numbers) -> float:
    left = 1 - (2 * factor * agreement - np.square(factor) * energy) / input_mse
    gain_db = -10 * np.log10(np.maximum(left, _LEAST_LEFT))
    return float(np.mean(np.where(gain_db < 0, CAUTION * gain_db, gain_db)))


@torch.inference_mode()
def _measure(student: LooksAtFrame, sharp: Frame, degraded: Frame) -> list[float]:
    """Return the input's gain of a frame, and the three means of `best_zone`."""
    return [float(student.input_gain(to_tensor(degraded)[None])), *_means(student, sharp, degraded)]


@torch.inference_mode()
def _means(restore: Callable[[Tensor], Tensor], sharp: Frame, degraded: Frame) -> list[float]:
    picture = to_tensor(degraded)[None]
    missing, residual = to_tensor(sharp)[None] - picture, restore(picture) - picture
    return [float((missing**2).mean()), float((residual * missing).mean()), float((residual**2).mean())]
