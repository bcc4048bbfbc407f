"""What adaptation gains on clips whose sharp frames it never sees."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from clearcall.core.errors import NothingToLearnError
from clearcall.core.files import TEACHER
from clearcall.data.clips import Clip
from clearcall.data.degrade.codecs import send
from clearcall.data.manifest import CLIP_FRAMES, Split
from clearcall.data.recordings import TRAIN_FRAMES, VALIDATION_FRAMES, RecordedFrame
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.metrics import luma_psnr_db
from clearcall.imaging.sizes import resized
from clearcall.models.inference import restore
from clearcall.models.weights import load_shipped
from clearcall.runtime.sharpener import Sharpener
from clearcall.training.adapt import adapt_to_frames, adapt_to_sharp, load_student, write_adapted

UPSCALED = "upscaled by 2"
_QPS = (27, 32)
_FACTOR = 2


@dataclass(frozen=True)
class AdaptationScore:
    """One clip at one setting: luma PSNR in dB of what arrives, and what each network adds to it.

    `seconds` is what adapting took on this machine. Without a teacher it was to sharp frames.
    """

    clip: str
    setting: str
    model: str
    teacher: str | None
    input_db: float
    general_db: float
    adapted_db: float
    teacher_db: float | None
    seconds: float


def measure_adaptation(
    files: Sequence[Path], read: Callable[[Path], Clip], model: str, teacher: str | None
) -> list[AdaptationScore]:
    """Adapt a shipped model to the first third of each clip at each setting, and measure it on the last half.

    Without a teacher it adapts to the sharp frames of the first third, as `adapt_to_camera` does, for calls alone.
    """
    scores = []
    for path in files:
        clip = read(path)
        height, width = (side // (2 * _FACTOR) * 2 for side in clip.frames[0].shape[:2])
        sharp = [resized(frame, (width, height)) for frame in clip.frames]
        small = [resized(frame, (width // _FACTOR, height // _FACTOR)) for frame in sharp]
        for qp in _QPS if teacher is None else (None, *_QPS):
            received = [resized(frame, (width, height)) for frame in (small if qp is None else send(small, "h264", qp))]
            setting = UPSCALED if qp is None else f"H.264 at half resolution, QP {qp}"
            scores.append(_measured(clip.name, setting, sharp, received, model, teacher, coded=qp is not None))
    return scores


def _measured(
    clip: str, setting: str, sharp: list[Frame], received: list[Frame], model: str, teacher: str | None, *, coded: bool
) -> AdaptationScore:
    count = TRAIN_FRAMES + VALIDATION_FRAMES
    numbers = np.unique(np.linspace(0, len(received) // 3 - 1, count).round().astype(int))
    source = sharp if teacher is None else received
    seen = [
        RecordedFrame(clip, number, source[number], coded, tuple(source[max(0, number - CLIP_FRAMES + 1) : number]))
        for number in numbers.tolist()
    ]
    every = count // VALIDATION_FRAMES
    held_back = seen[every - 1 :: every]
    begun = time.perf_counter()
    with TemporaryDirectory() as folder:
        adapted: str | Path = Path(folder) / "adapted.onnx"
        try:
            general = load_student(model)
            frames: dict[Split, list[RecordedFrame]] = {
                "train": [one for number, one in enumerate(seen, 1) if number % every],
                "validation": held_back,
            }
            done = (
                adapt_to_sharp(frames, model, general)
                if teacher is None
                else adapt_to_frames(frames, model, general, load_shipped(teacher))
            )
            write_adapted(done, Path(adapted))
        except NothingToLearnError:  # the general one is as good, or nothing is to be sharpened
            adapted = model
        seconds = time.perf_counter() - begun
        last = slice(len(received) // 2, None)

        def decibels(restorer: Restore) -> float:
            return float(np.mean([*map(luma_psnr_db, sharp[last], map(restorer, received[last]))]))

        def sharpener(network: str | Path) -> Sharpener:
            return Sharpener(network, "onnxruntime", video=True, coded=coded)

        arrived = decibels(lambda frame: frame)
        general_db, adapted_db = (decibels(sharpener(network)) - arrived for network in (model, adapted))
        teacher_db = None
        if teacher is not None:
            teaching = partial(restore, load_shipped(teacher)) if teacher == TEACHER else sharpener(teacher)
            teacher_db = decibels(teaching) - arrived
    return AdaptationScore(clip, setting, model, teacher, arrived, general_db, adapted_db, teacher_db, seconds)
