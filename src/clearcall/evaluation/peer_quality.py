"""Quality of every contender on a folder of images, degraded by bicubic x2 and by a codec at half size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from clearcall.core.console import ProgressBar, track, warn
from clearcall.core.errors import UserError
from clearcall.data.clips import read_clip
from clearcall.data.degrade.codecs import send
from clearcall.data.manifest import CLIP_FRAMES
from clearcall.data.pairs import middle
from clearcall.evaluation.peer_runtimes import FFMPEG_FILTERS, FfmpegFilter, has_filter
from clearcall.evaluation.quality import best_setting
from clearcall.imaging.decode import KINDS, SUFFIXES
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.metrics import MAX_PSNR_DB, luma_psnr_db, psnr_db, ssim
from clearcall.imaging.sizes import resized
from clearcall.imaging.unsharp import unsharp_luma, unsharp_mask
from clearcall.params import CallCodec

MAX_HEIGHT_PX = 1080  # images above are downscaled
_TUNING_IMAGES, _TUNING_SIDE_PX = 20, 256
_RADII_PX, _AMOUNTS = (0.5, 0.75, 1.0, 1.5), (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_MATRIX_SIDES_PX, _CAS_STRENGTHS = (3, 5), (0.0, 0.25, 0.5, 0.75, 1.0)
_METRICS: dict[str, Callable[[Frame, Frame], float]] = {
    "ssim": ssim,
    "psnr_db": psnr_db,
    "luma_psnr_db": luma_psnr_db,
}


# One contender at each of its settings, of which the best on other images counts.
Tunable = Mapping[str, Restore]


@dataclass(frozen=True)
class Degradation:
    """How an image gets to half its height and width: bicubic, and then through a codec at a QP if one is named."""

    name: str
    codec: CallCodec | None = None
    qp: int = 0


# The first is the one whose PSNR stands beside the speed.
DEGRADATIONS = (
    Degradation("bicubic x2"),
    Degradation("H.264 QP 27", "h264", 27),
    Degradation("H.264 QP 32", "h264", 32),
)


@dataclass(frozen=True)
class Pair:
    """A sharp image, the half-size one that arrives, and that at full size, bicubic."""

    sharp: Frame
    small: Frame
    degraded: Frame


@dataclass(frozen=True)
class Candidate:
    """A contender: `restore` gets the half-size image if `upscales`, else the degraded one at full size.

    `restore_coded`, where there is one, takes its place for what comes from a codec, which a decoder would know.
    """

    restore: Restore
    upscales: bool = False
    restore_coded: Restore | None = None


def tunable_filters() -> dict[str, Tunable]:
    """Return the classical sharpeners by name, each at all settings that are tried."""
    masks = {"unsharp": unsharp_mask, "unsharp_luma": unsharp_luma}
    arguments: dict[str, list[str]] = {
        "unsharp": [
            f"luma_msize_x={side}:luma_msize_y={side}:luma_amount={amount:g}"
            for side, amount in product(_MATRIX_SIDES_PX, _AMOUNTS)
        ],
        "cas": [f"strength={strength:g}" for strength in _CAS_STRENGTHS],
    }
    filters: dict[str, Tunable] = {
        name: {
            f"radius {radius:g} px, amount {amount:g}": partial(mask, radius=radius, amount=amount)
            for radius, amount in product(_RADII_PX, _AMOUNTS)
        }
        for name, mask in masks.items()
    }
    for name, ffmpeg_name in FFMPEG_FILTERS.items():
        if has_filter(ffmpeg_name):
            filters[name] = {text: FfmpegFilter(ffmpeg_name, text) for text in arguments[ffmpeg_name]}
    return filters


@dataclass(frozen=True)
class ImageFolder:
    """The images that are reported, those on which filters are tuned, and where these come from, in words."""

    name: str
    reported: Sequence[Path]
    tuning: Sequence[Path]
    told: str


def split_images(folder: Path) -> ImageFolder:
    """Split a folder of images; raise UserError if it holds too few.

    `test` and, beside it, `validation` or else `train` are taken where they are; else every other image is tuned on.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give one of images ({KINDS})")
    if (folder / "test").is_dir():
        for name in ("validation", "train"):
            if (folder / name).is_dir():
                told = f"tuned on its folder `{name}`, reported on `test`"
                return ImageFolder(folder.resolve().name, _listed(folder / "test", 1), _listed(folder / name, 1), told)
    images = _listed(folder, 2)
    return ImageFolder(
        folder.resolve().name, images[1::2], images[::2], "tuned on every other image, reported on the rest"
    )


def _listed(folder: Path, least: int) -> list[Path]:
    images = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    if len(images) < least:
        raise UserError(f"{folder} holds {len(images)} images ({KINDS}), at least {least} needed: put more there")
    return images


def read_pairs(path: Path) -> dict[str, Pair]:
    """Return an image under every degradation; raise UserError if it cannot be read.

    A codec gets a clip that pans and zooms gently, and its last frame counts, as in a call.
    """
    # Even sides, so that twice the half is the whole.
    clip = [
        frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
        for frame in read_clip(path, CLIP_FRAMES, MAX_HEIGHT_PX).frames
    ]
    sharp = np.ascontiguousarray(clip[-1])
    height, width = sharp.shape[:2]
    halves = [resized(frame, (width // 2, height // 2)) for frame in clip]
    pairs = {}
    for degradation in DEGRADATIONS:
        small = halves[-1] if degradation.codec is None else send(halves, degradation.codec, degradation.qp)[-1]
        small = np.ascontiguousarray(small)
        pairs[degradation.name] = Pair(sharp, small, resized(small, (width, height)))
    return pairs


def measure_quality(
    images: ImageFolder, candidates: Mapping[str, Candidate], filters: Mapping[str, Tunable]
) -> dict[str, Any]:
    """Return mean SSIM, PSNR of RGB and of luma of every contender, by name and degradation, and what was measured.

    Filters are tuned for each degradation. Images that cannot be read are skipped with a warning.
    """
    chosen = _tune(images.tuning, filters)
    coded = {degradation.name: degradation.codec is not None for degradation in DEGRADATIONS}
    sums: dict[tuple[str, str], dict[str, float]] = {}
    count = 0
    with ProgressBar("quality", len(images.reported) * len(DEGRADATIONS)) as bar:
        for path in images.reported:
            pairs = _pairs_or_warn(path)
            if not pairs:
                bar.advance(len(DEGRADATIONS))
                continue
            count += 1
            for degradation, pair in pairs.items():
                tuned = {name: Candidate(filters[name][setting]) for name, setting in chosen[degradation].items()}
                for name, candidate in {**candidates, **tuned}.items():
                    bar.note(f"{degradation}: {name}")
                    restore = (coded[degradation] and candidate.restore_coded) or candidate.restore
                    answer = restore(pair.small if candidate.upscales else pair.degraded)
                    scores = sums.setdefault((name, degradation), dict.fromkeys(_METRICS, 0.0))
                    for metric, value in score(pair.sharp, answer).items():
                        scores[metric] += value
                bar.advance()
    if not count:
        raise UserError(
            f"none of the {len(images.reported)} images in {images.reported[0].parent} can be read: replace them"
        )
    means: dict[str, dict[str, dict[str, float | str]]] = {}
    for (name, degradation), scores in sums.items():
        figures: dict[str, float | str] = {metric: round(value / count, 4) for metric, value in scores.items()}
        if name in filters:
            figures["setting"] = chosen[degradation][name]
        means.setdefault(name, {})[degradation] = figures
    return {
        "folder": images.name,
        "images": count,
        "skipped": len(images.reported) - count,
        "split": images.told,
        "degradations": [degradation.name for degradation in DEGRADATIONS],
        "scores": means,
    }


def score(sharp: Frame, restored: Frame) -> dict[str, float]:
    """Return every metric by name; equal images count with 100 dB."""
    return {name: min(MAX_PSNR_DB, metric(sharp, restored)) for name, metric in _METRICS.items()}


def _pairs_or_warn(path: Path) -> dict[str, Pair]:
    """Return an image under every degradation; none, with a warning, if it cannot be read."""
    try:
        return read_pairs(path)
    except UserError as error:
        warn(f"skipped: {error}")
        return {}


def _tune(images: Sequence[Path], filters: Mapping[str, Tunable]) -> dict[str, dict[str, str]]:
    """Return the setting with the highest mean SSIM by degradation and filter, on the middles of some images."""
    few = images[:: -(-len(images) // _TUNING_IMAGES)]
    middles: dict[str, list[tuple[Frame, Frame]]] = {degradation.name: [] for degradation in DEGRADATIONS}
    for path in track(few, len(few), "reading images to tune filters"):
        for degradation, pair in _pairs_or_warn(path).items():
            sharp, degraded = (middle(frame, _TUNING_SIDE_PX) for frame in (pair.sharp, pair.degraded))
            middles[degradation].append((sharp.copy(), degraded.copy()))
    if not all(middles.values()):
        raise UserError(f"none of {len(few)} images in {few[0].parent} can be used: replace them")
    return {
        degradation: {
            name: best_setting(settings, pairs, f"tuning {name} for {degradation}")
            for name, settings in filters.items()
        }
        for degradation, pairs in middles.items()
    }
