"""Training patches, drawn from memory-mapped pairs by seed, step and rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearcall.data.pairs import BLOCK_PX, PairReader, PairRecord
from clearcall.models.inference import to_tensor
from clearcall.training.teacher_outputs import TeacherOutputs

_Value = TypeVar("_Value", np.uint8, np.uint16)


@dataclass(frozen=True)
class Batch:
    """RGB patches, float32 (N, 3, side, side) in [0, 1], with the teacher's outputs if known.

    `degradations` are their names for a conditioned network, empty where it is not to be told.
    `input_mse`, (N,), is the mean squared difference between the whole images that the patches were cut from: that
    of a patch alone says more about how flat it is than about how it was degraded.
    """

    degraded: Tensor
    sharp: Tensor
    input_mse: Tensor
    teacher_restored: Tensor | None
    degradations: Sequence[str] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device, channels last, as the convolutions want it."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, memory_format=torch.channels_last)

        teacher = None if self.teacher_restored is None else move(self.teacher_restored)
        return Batch(move(self.degraded), move(self.sharp), self.input_mse.to(device), teacher, self.degradations)


class PatchSampler:
    """Random patches, turned, mirrored and recoloured; in a share of them the input is sharp.

    Pairs are drawn alike often, or by their `weights`. Stateless: batch number `step` of rank `rank` is always the
    same, so that a resumed run needs no random state. The batches of all ranks, one after the other, are the batch that
    a single process with as many samples draws.
    """

    def __init__(
        self,
        pairs: Path,
        records: Sequence[PairRecord],
        *,
        batch_size: int,
        patch_size: int,
        clean_fraction: float,
        recolour: bool,
        seed: int,
        untold_fraction: float = 0.0,
        teacher_outputs: TeacherOutputs | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._reader = PairReader(pairs)
        self._records = records
        self._bounds = None if weights is None else np.cumsum(weights) / np.sum(weights)
        self._batch_size, self._side = batch_size, patch_size
        self._clean_fraction, self._recolour, self._seed = clean_fraction, recolour, seed
        self._untold_fraction, self._teacher_outputs = untold_fraction, teacher_outputs

    def batch(self, step: int, rank: int) -> Batch:
        """Return the batch of one step on one process."""
        generator = np.random.default_rng([self._seed, step, 0])  # a zero: single processes draw what they always drew
        degraded, sharp, input_mse, teacher, names = [], [], [], [], []
        for number in range((rank + 1) * self._batch_size):
            index = self._draw(generator)
            record = self._records[index]
            clean = generator.random() < self._clean_fraction
            top, left = (
                BLOCK_PX * int(generator.integers(max(1, (side - self._side) // BLOCK_PX + 1)))
                for side in (record.height, record.width)
            )
            where = _Where(
                top,
                left,
                self._side,
                turns=int(generator.integers(4)),
                flip=bool(generator.integers(2)),
                channels=[int(channel) for channel in generator.permutation(3)] if self._recolour else [0, 1, 2],
                negative=self._recolour and bool(generator.integers(2)),
            )
            untold = clean or (self._untold_fraction > 0 and generator.random() < self._untold_fraction)
            if number < rank * self._batch_size:  # a sample of a lower rank
                continue
            sharp_patch = _cut(self._reader.sharp(record), where)
            sharp.append(sharp_patch)
            degraded.append(sharp_patch if clean else _cut(self._reader.degraded(record), where))
            input_mse.append(0.0 if clean else 10 ** (-record.psnr_db / 10))
            names.append("" if untold else record.degradation)
            if self._teacher_outputs is not None:
                # A clean image needs no teacher: the truth is known.
                teacher.append(
                    sharp_patch.astype(np.float32) / 255
                    if clean
                    else _cut(self._teacher_outputs.restored(index), where).astype(np.float32) / TeacherOutputs.PEAK
                )
        return Batch(
            to_tensor(np.stack(degraded)),
            to_tensor(np.stack(sharp)),
            torch.tensor(input_mse),
            torch.from_numpy(np.stack(teacher)).movedim(-1, -3) if teacher else None,
            names,
        )

    def _draw(self, generator: np.random.Generator) -> int:
        if self._bounds is None:
            return int(generator.integers(len(self._records)))
        return int(np.searchsorted(self._bounds, generator.random(), side="right"))


@dataclass(frozen=True)
class _Where:
    """A square patch: its place, quarter turns, mirroring, channel order, negative.

    Blur knows neither colour nor sign: six photographs taught the teacher 0.4 dB more when both varied.
    """

    top: int
    left: int
    side: int
    turns: int
    flip: bool
    channels: list[int]
    negative: bool


def _cut(image: npt.NDArray[_Value], where: _Where) -> npt.NDArray[_Value]:
    patch = image[where.top : where.top + where.side, where.left : where.left + where.side]
    missing = where.side - patch.shape[0], where.side - patch.shape[1]
    if max(missing) > 0:  # a photograph smaller than the patch is continued by its mirror image
        patch = np.pad(patch, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    patch = np.rot90(patch, where.turns)[..., where.channels]
    patch = patch[:, ::-1] if where.flip else patch
    return np.iinfo(patch.dtype).max - patch if where.negative else patch
