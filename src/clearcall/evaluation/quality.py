"""Quality on pairs: every contender on every test pair, and the unsharp mask tuned on validation beforehand."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import TypeVar

import numpy as np

from clearcall.core.console import track
from clearcall.core.machine import available_cores
from clearcall.data.pairs import PairReader, PairRecord, middle, spread
from clearcall.imaging.frame import Contender, Frame, Restore
from clearcall.imaging.metrics import MAX_PSNR_DB, METRICS, measure, psnr_db, ssim
from clearcall.imaging.unsharp import unsharp_mask

# To rank masks the middles of some validation images are enough: pixels, and pairs in all.
TUNING_SIDE, TUNING_PAIRS = 512, 60
Setting = TypeVar("Setting")


@dataclass(frozen=True)
class UnsharpMask:
    """The mask with the highest mean SSIM on validation: sigma in pixels, amount as a factor, and its figures there."""

    radius: float
    amount: float
    validation_ssim: float
    validation_psnr_db: float

    def __call__(self, frame: Frame) -> Frame:
        """Sharpen one 8-bit image."""
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


def mean_ssim(restore: Restore, pairs: Sequence[tuple[Frame, Frame]]) -> float:
    """Return the mean SSIM of restored frames over pairs of a sharp and a degraded one."""
    return float(np.mean([ssim(sharp, restore(degraded)) for sharp, degraded in pairs]))


def best_setting(
    settings: Mapping[Setting, Restore], pairs: Sequence[tuple[Frame, Frame]], description: str = ""
) -> Setting:
    """Return the setting with the highest mean SSIM on pairs of sharp and degraded; progress under `description`."""
    with ThreadPoolExecutor(available_cores()) as pool:  # OpenCV, NumPy and FFmpeg release the interpreter lock
        values = pool.map(partial(mean_ssim, pairs=pairs), settings.values())
        scores = dict(zip(settings, track(values, len(settings), description) if description else values, strict=True))
    return max(scores, key=scores.__getitem__)


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
    grid = {
        (radius, amount): partial(unsharp_mask, radius=radius, amount=amount)
        for radius, amount in product(radii, amounts)
    }
    radius, amount = best_setting(grid, middles, "tuning the unsharp mask")
    mask = grid[radius, amount]
    decibels = [min(MAX_PSNR_DB, psnr_db(sharp, mask(degraded))) for sharp, degraded in middles]
    return UnsharpMask(radius, amount, mean_ssim(mask, middles), float(np.mean(decibels)))


def score_contenders(
    pairs: Path, records: Sequence[PairRecord], contenders: Mapping[str, Contender], pool: Executor | None = None
) -> list[Score]:
    """Measure every contender on every pair, full frames, 8 bits in and out.

    Where there are a student and a teacher, the student is also measured against the teacher's answer. With a `pool` by
    its workers, and with a progress bar.
    """
    score = partial(_score_pair, pairs, contenders)
    of_each = map(score, records) if pool is None else track(pool.map(score, records), len(records), "evaluating")
    return [*chain.from_iterable(of_each)]


def _score_pair(pairs: Path, contenders: Mapping[str, Contender], record: PairRecord) -> list[Score]:
    reader = PairReader(pairs)
    sharp, degraded = reader.sharp(record), reader.degraded(record)
    answers = {name: restore(degraded, record.degradation) for name, restore in contenders.items()}
    compared = [(name, "sharp", sharp, answer) for name, answer in answers.items()]
    if {"student", "teacher"} <= answers.keys():
        compared.append(("student", "teacher", answers["teacher"], answers["student"]))
    scores = []
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
    """Return the lowest gain in PSNR over the input of each contender, in dB: below 0 where a pair got worse."""
    psnr_db: dict[tuple[str, str, int], dict[str, float]] = {}
    for score in scores:
        if score.reference == "sharp":
            psnr_db.setdefault((score.image, score.degradation, score.variant), {})[score.contender] = score.psnr_db
    names = dict.fromkeys(name for pair in psnr_db.values() for name in pair)
    return {name: min(pair[name] - pair["degraded"] for pair in psnr_db.values()) for name in names}


def clean_psnr_db(
    pairs: Path, records: Sequence[PairRecord], contenders: Mapping[str, Contender], pool: Executor | None = None
) -> dict[str, float]:
    """Return each contender's mean PSNR in dB on sharp images, which it should leave alone; `pool` as above."""
    images = {record.image: record for record in records}.values()
    of_each = (map if pool is None else pool.map)(partial(_clean_psnr_db, pairs, contenders), images)
    table = [*of_each]
    return {name: float(np.mean([found[name] for found in table])) for name in contenders}


def _clean_psnr_db(pairs: Path, contenders: Mapping[str, Contender], record: PairRecord) -> dict[str, float]:
    sharp = PairReader(pairs).sharp(record)
    return {name: min(MAX_PSNR_DB, psnr_db(sharp, restore(sharp, ""))) for name, restore in contenders.items()}
