"""The teacher's outputs to the training pairs, computed once, in 16 bits."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from lightning_fabric import Fabric
from torch import nn

from clearcall.core.console import track
from clearcall.core.files import atomic_path
from clearcall.data.pairs import PairReader, PairRecord
from clearcall.models.inference import restore_unrounded


class TeacherOutputs:
    """The restored images, one after the other in a memory-mapped file, as 0 to 65535."""

    PEAK: ClassVar[float] = 65535.0

    def __init__(self, path: Path, records: Sequence[PairRecord]) -> None:
        self._records = records
        sizes = [record.height * record.width * 3 for record in records]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._values = np.memmap(path, np.uint16, mode="r", shape=(int(self._offsets[-1]),))

    def restored(self, index: int) -> npt.NDArray[np.uint16]:
        """Return the teacher's output to a pair as a read-only view (height, width, 3)."""
        record = self._records[index]
        flat = self._values[self._offsets[index] : self._offsets[index + 1]]
        return flat.reshape(record.height, record.width, 3)


def compute_teacher_outputs(
    path: Path, teacher: nn.Module, pairs: Path, records: Sequence[PairRecord], fabric: Fabric
) -> TeacherOutputs:
    """Run the teacher on every pair and write its outputs to `path`, unless it exists."""
    if not path.exists() and fabric.is_global_zero:
        teacher = teacher.to(fabric.device)
        reader = PairReader(pairs)
        with atomic_path(path) as temporary, temporary.open("wb") as file, fabric.autocast():
            for record in track(records, len(records), "teacher's answers"):
                answer = restore_unrounded(teacher, reader.degraded(record), record.degradation)
                restored = answer.movedim(0, -1).cpu().numpy()
                file.write(np.rint(restored * TeacherOutputs.PEAK).astype(np.uint16).tobytes())
    fabric.barrier()
    return TeacherOutputs(path, records)
