"""Clips sent at fixed QPs and sharpened on arrival: quality, flicker, and how many frames got worse."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np

from clearcall.core.console import track
from clearcall.core.machine import available_cores
from clearcall.core.processes import worker_pool
from clearcall.data.clips import Clip
from clearcall.data.degrade.codecs import send
from clearcall.evaluation.quality import best_setting
from clearcall.evaluation.vmaf import vmaf, vmaf_program
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.looks import Look
from clearcall.imaging.metrics import MAX_PSNR_DB, chroma_psnr_db, luma_psnr_db, psnr_db, ssim
from clearcall.imaging.sizes import resized
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.params import CallCodec
from clearcall.runtime.sharpener import Sharpener
from clearcall.temporal.filter import TemporalFilter

QPS = (22, 27, 32, 37)  # of the common test conditions of H.264's successors
FACTORS = (1, 2)  # by which frames are downscaled before they are encoded
WORSE_DB = 0.1
INPUT, NATURAL, CRISP, ALONE, MASK = "input", "natural", "crisp", "frame by frame", "unsharp mask"
MASK_RADIUS = 1.0  # sigma in pixels
MASK_AMOUNTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Setting:
    """How a clip is sent: codec, QP on H.264's scale, and the factor by which it is downscaled."""

    codec: CallCodec
    qp: int
    factor: int


@dataclass(frozen=True)
class Score:
    """What one contender made of one clip: means over frames, and the frames it left worse than they arrived.

    `psnr_db` and `ssim` are of RGB, `luma_psnr_db` of 8-bit luma (BT.601) alone, `chroma_psnr_db` of Cb and Cr at half
    resolution. `vmaf` and `vmaf_neg` are None where no program computes them. `flicker` is in 8-bit levels, `worst_db`
    the lowest gain of a frame's PSNR over the input.
    """

    clip: str
    codec: CallCodec
    qp: int
    factor: int
    contender: str
    frames: int
    psnr_db: float
    luma_psnr_db: float
    chroma_psnr_db: float
    ssim: float
    vmaf: float | None
    vmaf_neg: float | None
    flicker: float
    worst_db: float
    worse_frames: int


@dataclass(frozen=True)
class Filmstrip:
    """The frames of one clip at one setting: as sent, and by contender."""

    clip: str
    setting: Setting
    rows: Mapping[str, Sequence[Frame]]


def flicker(sharp: Sequence[Frame], other: Sequence[Frame]) -> float:
    """Return the mean absolute difference between the errors of consecutive frames, in 8-bit levels.

    Errors are signed: a constant error does not flicker, and neither does motion in the clip itself.
    """
    errors = [other_frame.astype(np.int16) - frame for frame, other_frame in zip(sharp, other, strict=True)]
    return float(np.mean([np.abs(after - before).mean() for before, after in pairwise(errors)]))


def receive(clip: Clip, setting: Setting) -> list[Frame]:
    """Return the clip as it arrives, at its own resolution."""
    height, width = clip.frames[0].shape[:2]
    size = max(1, round(width / setting.factor)), max(1, round(height / setting.factor))
    arrived = send([resized(frame, size) for frame in clip.frames], setting.codec, setting.qp)
    return [resized(frame, (width, height)) for frame in arrived]


def _as_video(restore: Restore, frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames of one video restored, by a Sharpener as those of a new one."""
    if isinstance(restore, Sharpener):
        restore.begin_video(coded=True)
    return [*map(restore, frames)]


def measure_clips(
    files: Sequence[Path],
    read: Callable[[Path], Clip],
    codecs: Iterable[CallCodec],
    looks: Mapping[Look, Callable[[], Restore]],
    jobs: int | None = None,
) -> tuple[list[Score], list[Filmstrip]]:
    """Send what `read` makes of every file at every setting, and score what arrives, an unsharp mask and a model.

    `looks` opens the model in both looks. It gets frames as in a video, through the temporal filter, and in the look
    natural also without, as `frame by frame`. The filmstrips are of the first and the last clip at the first codec's
    third QP, sent at half resolution. So many `jobs` run at a time, None: one a core; they do not change the result.
    """
    settings = [Setting(*values) for values in product(codecs, QPS, FACTORS)]
    shown = next(s for s in settings if s.qp == QPS[2] and s.factor == FACTORS[-1])
    units = [(path, s, s == shown and path in (files[0], files[-1])) for path in files for s in settings]
    with worker_pool(jobs or available_cores(), None, threads=True) as pool:
        measured = pool.map(partial(_measure, read, looks), *zip(*units, strict=True))
        scores, strips = zip(*track(measured, len(units), "calls"), strict=True)
    return [*chain.from_iterable(scores)], [strip for strip in strips if strip is not None]


def _measure(
    read: Callable[[Path], Clip],
    looks: Mapping[Look, Callable[[], Restore]],
    path: Path,
    setting: Setting,
    shown: bool,  # noqa: FBT001  # of a map
) -> tuple[list[Score], Filmstrip | None]:
    """Return the scores of one clip at one setting, and its filmstrip if that is shown."""
    clip = read(path)
    arrived = receive(clip, setting)
    filtered = [*map(TemporalFilter().rgb, arrived)]
    natural, crisp = looks["natural"](), looks["crisp"]()
    answers = {
        INPUT: arrived,
        NATURAL: _as_video(natural, filtered),
        CRISP: _as_video(crisp, filtered),
        ALONE: _as_video(natural, arrived),
        MASK: [*map(_best_mask(clip.frames[0], arrived[0]), arrived)],
    }
    strip = Filmstrip(clip.name, setting, {"as sent": clip.frames, **answers}) if shown else None
    return _scores(clip, setting, answers), strip


def _scores(clip: Clip, setting: Setting, answers: Mapping[str, Sequence[Frame]]) -> list[Score]:
    decibels = {name: np.array([*map(_psnr_db, clip.frames, answer)]) for name, answer in answers.items()}
    program = vmaf_program()
    perceived = {name: vmaf(clip.frames, answer, program) if program else None for name, answer in answers.items()}
    return [
        Score(
            clip=clip.name,
            codec=setting.codec,
            qp=setting.qp,
            factor=setting.factor,
            contender=name,
            frames=len(answer),
            psnr_db=float(decibels[name].mean()),
            luma_psnr_db=float(np.minimum(MAX_PSNR_DB, [*map(luma_psnr_db, clip.frames, answer)]).mean()),
            chroma_psnr_db=float(np.minimum(MAX_PSNR_DB, [*map(chroma_psnr_db, clip.frames, answer)]).mean()),
            ssim=float(np.mean([*map(ssim, clip.frames, answer)])),
            vmaf=seen and seen.vmaf,
            vmaf_neg=seen and seen.neg,
            flicker=flicker(clip.frames, answer),
            worst_db=float((decibels[name] - decibels[INPUT]).min()),
            worse_frames=int((decibels[name] < decibels[INPUT] - WORSE_DB).sum()),
        )
        for (name, answer), seen in zip(answers.items(), perceived.values(), strict=True)
    ]


def _best_mask(sharp: Frame, arrived: Frame) -> Restore:
    """Return the unsharp mask whose amount gives a clip's first frame the highest SSIM: tuned as no call could."""
    masks = {amount: partial(unsharp_mask, radius=MASK_RADIUS, amount=amount) for amount in MASK_AMOUNTS}
    return masks[best_setting(masks, [(sharp, arrived)])]


def _psnr_db(sharp: Frame, other: Frame) -> float:
    return min(MAX_PSNR_DB, psnr_db(sharp, other))
