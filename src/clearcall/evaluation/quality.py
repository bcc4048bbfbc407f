"""Quality on pairs: every contender on every test pair, and the unsharp mask tuned on validation beforehand."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from clearcall.core.console import track
from clearcall.core.errors import UserError
from clearcall.core.machine import available_cores
from clearcall.data.pairs import PairReader, PairRecord, middle, spread
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.metrics import MAX_PSNR_DB, METRICS, measure, psnr_db, ssim
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.params import Live

# To rank masks the middles of some validation pictures are enough: pixels, and pairs in all.
TUNING_SIDE, TUNING_PAIRS = 512, 60


@dataclass(frozen=True)
class UnsharpMask:
    """The mask with the highest mean SSIM on validation: sigma in pixels, amount as a factor, and its figures there."""

    radius: float
    amount: float
    validation_ssim: float
    validation_psnr_db: float

    def __call__(self, frame: Frame) -> Frame:
        """Sharpen one 8-bit picture."""
        return unsharp_mask(frame, self.radius, self.amount)


@dataclass(frozen=True)
class Score:
    """One contender's answer to one pair, against a reference (`sharp`, or `teacher` for student against teacher)."""

    image: str
    degradation: str
    variant: int
    contender: str
    reference: str
    ssim: float
    psnr_db: float
    ssim_uniform: float
    mse: float


def tune_unsharp_mask(
    pairs: Path, records: Sequence[PairRecord], radii: Iterable[float], amounts: Iterable[float]
) -> UnsharpMask:
    """Return the mask of a grid with the highest mean SSIM on the given pairs: the baseline that students face.

    Of many pairs 60 are used, as many of each degradation.
    """
    reader = PairReader(pairs)
    middles = [
        (middle(reader.sharp(record), TUNING_SIDE), middle(reader.degraded(record), TUNING_SIDE))
        for record in spread(records, TUNING_PAIRS)
    ]

    def score(setting: tuple[float, float]) -> UnsharpMask:
        restored = [(sharp, unsharp_mask(degraded, *setting)) for sharp, degraded in middles]
        return UnsharpMask(
            *setting,
            validation_ssim=float(np.mean([ssim(*pair) for pair in restored])),
            validation_psnr_db=float(np.mean([min(MAX_PSNR_DB, psnr_db(*pair)) for pair in restored])),
        )

    grid = list(product(radii, amounts))
    with ThreadPoolExecutor(available_cores()) as pool:  # OpenCV and NumPy release the interpreter lock
        tried = list(track(pool.map(score, grid), len(grid), "tuning the unsharp mask"))
    return max(tried, key=lambda mask: mask.validation_ssim)


def score_contenders(
    pairs: Path, records: Sequence[PairRecord], contenders: Mapping[str, Restore], *, shown: bool = True
) -> list[Score]:
    """Measure every contender on every pair, whole pictures, 8 bits in and out.

    Where there are a student and a teacher, the student is also measured against the teacher's answer. `shown`: with a
    progress bar.
    """
    reader = PairReader(pairs)
    scores: list[Score] = []
    for record in track(records, len(records), "evaluating") if shown else records:
        sharp, degraded = reader.sharp(record), reader.degraded(record)
        answers = {name: restore(degraded) for name, restore in contenders.items()}
        compared = [(name, "sharp", sharp, answer) for name, answer in answers.items()]
        if {"student", "teacher"} <= answers.keys():
            compared.append(("student", "teacher", answers["teacher"], answers["student"]))
        for name, reference, target, answer in compared:
            figures = measure(target, answer)
            figures["psnr_db"] = min(MAX_PSNR_DB, figures["psnr_db"])
            scores.append(Score(record.image, record.degradation, record.variant, name, reference, **figures))
    return scores


def mean_scores(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    """Return each metric's mean over pairs, by contender; the student against the teacher is `student_vs_teacher`."""
    grouped: dict[str, list[Score]] = {}
    for score in scores:
        name = score.contender if score.reference == "sharp" else f"{score.contender}_vs_{score.reference}"
        grouped.setdefault(name, []).append(score)
    return {
        name: {metric: float(np.mean([asdict(score)[metric] for score in group])) for metric in METRICS}
        for name, group in grouped.items()
    }


def least_gains_db(scores: Iterable[Score]) -> dict[str, float]:
    """Return what the worst pair of each contender has gained over its input, in dB: below 0 where it was harmed."""
    psnr_db: dict[tuple[str, str, int], dict[str, float]] = {}
    for score in scores:
        if score.reference == "sharp":
            psnr_db.setdefault((score.image, score.degradation, score.variant), {})[score.contender] = score.psnr_db
    names = dict.fromkeys(name for pair in psnr_db.values() for name in pair)
    return {name: min(pair[name] - pair["degraded"] for pair in psnr_db.values()) for name in names}


def clean_psnr_db(pairs: Path, records: Sequence[PairRecord], restore: Restore) -> float:
    """Return the mean PSNR in dB of sharp pictures after a restorer has touched them: it should leave them alone."""
    reader = PairReader(pairs)
    sharp = {record.image: reader.sharp(record) for record in records}
    return float(np.mean([min(MAX_PSNR_DB, psnr_db(picture, restore(picture))) for picture in sharp.values()]))


def surrounded(restore: Restore, live: Live) -> Restore:
    """Return a restorer of 8-bit RGB frames with what `live` asks for around it: the same one if that is nothing."""

    def restored(frame: Frame) -> Frame:
        answer = frame if live.model_size is None else _resized(frame, live.model_size)
        answer = restore(answer)
        if live.model_size is not None:
            answer = _resized(answer, frame.shape[:2])
        return unsharp_mask(answer, live.unsharp_radius, live.unsharp_amount) if live.unsharp_amount else answer

    return restore if live.model_size is None and not live.unsharp_amount else restored


def require_alone(live: Live) -> None:
    """Raise UserError if quality and speed are of more than the network, which is all that a model's file holds."""
    if live.model_size is not None or live.unsharp_amount:
        raise UserError(
            "what was measured is the student with what stands under `live` in params.yaml around it, and a model's "
            "file holds the student alone: set model_size to null and unsharp_amount to 0 there, and run `dvc repro`"
        )


def _resized(frame: Frame, size: tuple[int, ...]) -> Frame:
    height, width = size
    if (height, width) == frame.shape[:2]:
        return frame
    # Area: OpenCV's bicubic does not look at all pixels of a frame that becomes smaller.
    how = cv2.INTER_AREA if height * width < frame.shape[0] * frame.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (width, height), interpolation=how), np.uint8)
