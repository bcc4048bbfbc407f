"""Quality on the validation pairs during training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from clearcall.data.pairs import PairReader, PairRecord, middle
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import MAX_PSNR_DB, psnr_db, ssim
from clearcall.models.inference import restore

# The middle of a photograph is enough to compare two moments of one training; the report measures whole images.
MIDDLE_SIDE = 256
# A restored image that differs by less than this (mean, in 8-bit levels) from its input has not been restored.
DEAD_LEVELS = 0.01


@dataclass(frozen=True)
class Quality:
    """Means over the validation pairs; `change` is the mean change of the input in 8-bit levels."""

    ssim: float
    psnr_db: float
    change: float


class Validator:
    """Measures a network on the middles of the validation pairs, rounded to 8 bits."""

    def __init__(self, pairs: Path, records: Sequence[PairRecord]) -> None:
        self._reader, self._records = PairReader(pairs), records

    def degraded_quality(self) -> Quality:
        """Return the quality of the input."""
        return self._mean([(sharp, degraded, degraded) for sharp, degraded, _ in self._middles()])

    def quality(self, model: nn.Module) -> Quality:
        """Return the quality of a network's answers, computed in fp32 as they will be in use."""
        return self._mean(
            [(sharp, degraded, restore(model, degraded, name)) for sharp, degraded, name in self._middles()]
        )

    def sample(self, model: nn.Module) -> Frame:
        """Return the first input, a network's answer and the sharp image, side by side."""
        sharp, degraded, name = self._middle(self._records[0])
        return np.concatenate([degraded, restore(model, degraded, name), sharp], axis=1)

    def _middles(self) -> list[tuple[Frame, Frame, str]]:
        return [self._middle(record) for record in self._records]

    def _middle(self, record: PairRecord) -> tuple[Frame, Frame, str]:
        sharp, degraded = (
            middle(image, MIDDLE_SIDE) for image in (self._reader.sharp(record), self._reader.degraded(record))
        )
        return sharp, degraded, record.degradation

    @staticmethod
    def _mean(triples: Sequence[tuple[Frame, Frame, Frame]]) -> Quality:
        return Quality(
            ssim=float(np.mean([ssim(sharp, restored) for sharp, _, restored in triples])),
            psnr_db=float(np.mean([min(MAX_PSNR_DB, psnr_db(sharp, restored)) for sharp, _, restored in triples])),
            change=float(
                np.mean([np.abs(restored.astype(np.int16) - degraded).mean() for _, degraded, restored in triples])
            ),
        )
