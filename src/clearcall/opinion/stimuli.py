"""Make a study: degraded and restored crops of sharp images and videos, and study.json, which names them."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import numpy as np
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from clearcall.core.console import ProgressBar, warn
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_folder, sha256_of, write_json
from clearcall.data.clips import read_clip
from clearcall.data.degrade.codecs import MAX_QP, Transmission, transmit, transmit_clip
from clearcall.data.synthetic import MAX_PAN
from clearcall.imaging.decode import KINDS, SUFFIXES, read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import MOST_SIDE, Size, divided, resized
from clearcall.imaging.unsharp import unsharp_luma
from clearcall.media.compare import most_detailed
from clearcall.media.video.read import VIDEO_SUFFIXES, frame_at, opened, rate_of, video_stream
from clearcall.params import CallCodec
from clearcall.runtime.sharpener import Sharpener, shipped_models
from clearcall.temporal.filter import TemporalFilter

Method = Literal["acr", "pairs"]
STUDY, STIMULI, VOTES = "study.json", "stimuli", "votes.db"
REFERENCE, INPUT, UNSHARP = "reference", "input", "unsharp"
SYSTEMS = (INPUT, UNSHARP, "fast", "quality")
CONDITIONS = ("bicubic_x2", "h264_x2_qp32")
SCALES = {"clarity": "How clear is it?", "edges": "How good are the edges?", "naturalness": "How natural is it?"}
CATEGORIES = ("Bad", "Poor", "Fair", "Good", "Excellent")  # 1 to 5, ITU-T P.910
PREFERENCE = "preference"  # the scale of pairs, of which the scores are -1, 0 and 1
SIDES = ("first", "no difference", "second")
_MASK_RADIUS_PX, _MASK_AMOUNT = 1.0, 0.8
_ID_DIGITS = 16
_CONDITION = re.compile(r"(?:bicubic_x(?P<scale>[2-4])|(?P<codec>[a-z0-9]+)_x(?P<factor>[1-4])_qp(?P<qp>\d{1,2}))")


Clip = list[Frame]  # of an image, one frame
Restore = Callable[[Clip], Clip]
Degrade = Callable[[Clip, int], Clip]  # by a seed


@dataclass(frozen=True)
class Stimulus:
    """One file: which system made it of which source image under which condition ("" for a reference)."""

    id: Annotated[str, Field(pattern=f"^[0-9a-f]{{{_ID_DIGITS}}}$")]  # a file's name
    image: str
    condition: str
    system: str
    sha256: str
    training: bool
    suffix: Literal[".png", ".webp"] = ".png"  # the latter is a clip, lossless


@dataclass(frozen=True)
class Item:
    """What is rated at once: one stimulus, or a pair of them."""

    id: str
    stimuli: tuple[str, ...]
    training: bool


@dataclass(frozen=True)
class Study:
    """The content of study.json. `crop` is (width, height); `images` are the sources with their SHA-256."""

    format: Literal[1]
    method: Method
    seed: int
    crop: Size
    systems: tuple[str, ...]
    conditions: tuple[str, ...]
    scales: dict[str, tuple[str, ...]]
    unsharp_mask: dict[str, float]
    images: dict[str, str]
    stimuli: dict[str, Stimulus]
    items: dict[str, Item]
    folder: Annotated[Path, Field(exclude=True)] = Path()

    @property
    def rated(self) -> list[Item]:
        """The items whose votes count."""
        return [item for item in self.items.values() if not item.training]

    def read_stimulus(self, name: str) -> bytes:
        """Return a stimulus file's content; raise KeyError if unknown, UserError if it is not as it was made."""
        stimulus = self.stimuli[name]
        path = self.folder / STIMULI / f"{stimulus.id}{stimulus.suffix}"
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != stimulus.sha256:
            raise UserError(f"{path} is missing or has changed since `clearcall opinion create`: create the study anew")
        return content


def load_study(folder: Path) -> Study:
    """Read a study; raise UserError if there is none."""
    path = folder / STUDY
    if not path.is_file():
        raise UserError(f"{folder} holds no {STUDY}: make it by `clearcall opinion create`")
    try:
        return replace(TypeAdapter(Study).validate_json(path.read_bytes()), folder=folder)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} cannot be used ({where} {first['msg']}): create the study anew") from None


def create_study(
    source: Path,
    output: Path,
    *,
    systems: Sequence[str] = SYSTEMS,
    conditions: Sequence[str] = CONDITIONS,
    method: Method = "acr",
    crop: Size = (512, 512),
    seconds: float = 2.0,
    seed: int = 0,
    overwrite: bool = False,
) -> Study:
    """Write a study of the sharp images and videos of a folder; all is determined by these, options and `seed`.

    Of each image, and of the first `seconds` of each video, the most detailed part of `crop` (width, height) is
    degraded and restored, videos with the temporal filter. Raises UserError for
    unknown systems or conditions, a folder without usable images, and an output that exists.
    """
    systems, conditions = [*dict.fromkeys(systems)], [*dict.fromkeys(conditions)]
    restorers, degraders = _restorers(systems), {name: _degrader(name) for name in conditions}
    _check_output(output, overwrite=overwrite)
    images = _usable_images(source, crop)
    stimuli = list[Stimulus]()
    with (
        atomic_folder(output) as folder,
        ProgressBar("stimuli", (len(images) + 1) * (1 + len(systems) * len(conditions))) as bar,
    ):
        (folder / STIMULI).mkdir()

        def add(clip: Clip, image: str, condition: str, system: str, *, training: bool) -> None:
            name = _digest(seed, "training" if training else "rated", image, condition, system)
            suffix: Literal[".png", ".webp"] = ".png" if len(clip) == 1 else ".webp"
            path = folder / STIMULI / f"{name}{suffix}"
            first, *others = map(Image.fromarray, clip)
            # Without loss, by the fastest of the methods for that.
            options = {"duration": frame_ms, "loop": 0, "lossless": True, "quality": 0, "method": 0}
            first.save(path, None, save_all=bool(others), append_images=others, **options)
            stimuli.append(Stimulus(name, image, condition, system, sha256_of(path), training, suffix))
            bar.advance()

        for index, path in enumerate([images[0], *images]):
            training = index == 0
            sharp, frame_ms = _cropped(path, crop, seconds, training=training)
            add(sharp, path.name, "", REFERENCE, training=training)
            for condition, degrade in degraders.items():
                degraded = degrade(sharp, int(_digest(seed, path.name, condition), 16))
                for system, restore in restorers.items():
                    if isinstance(restore, _Network):
                        restore.coded = not condition.startswith("bicubic")
                    add(restore(degraded), path.name, condition, system, training=training)
        items = _single_items(stimuli) if method == "acr" else _paired_items(stimuli, seed)
        used = {one for item in items for one in item.stimuli}
        for unused in [one for one in stimuli if one.id not in used]:
            (folder / STIMULI / f"{unused.id}{unused.suffix}").unlink()
            stimuli.remove(unused)
        study = Study(
            format=1,
            method=method,
            seed=seed,
            crop=crop,
            systems=tuple(systems),
            conditions=tuple(conditions),
            scales=dict.fromkeys(SCALES, CATEGORIES) if method == "acr" else {PREFERENCE: SIDES},
            unsharp_mask={"radius_px": _MASK_RADIUS_PX, "amount": _MASK_AMOUNT},
            images={path.name: sha256_of(path) for path in images},
            stimuli={one.id: one for one in sorted(stimuli, key=lambda one: one.id)},
            items={one.id: one for one in sorted(items, key=lambda one: one.id)},
        )
        write_json(folder / STUDY, TypeAdapter(Study).dump_python(study, mode="json"))
    return load_study(output)


def _check_output(output: Path, *, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise UserError(f"{output} exists: name another folder for the study, or --overwrite to replace it")
    if not (output / STUDY).is_file():
        raise UserError(f"{output} is no study, and is not replaced: name another folder")
    if (output / VOTES).exists():
        raise UserError(f"{output} holds {VOTES}, and is not replaced: name another folder, or move that file away")


def _usable_images(source: Path, crop: Size) -> list[Path]:
    """Return the images and videos of a folder that can be read and hold the crop."""
    if not source.is_dir():
        raise UserError(f"there is no folder {source}: give one of sharp images ({KINDS}) or videos")
    usable = []
    for path in sorted(one for one in source.iterdir() if one.suffix.lower() in {*SUFFIXES, *VIDEO_SUFFIXES}):
        try:
            image = read_rgb(path, 1) if path.suffix.lower() in SUFFIXES else frame_at(path, 0)
        except UserError as error:
            warn(f"{error}; left out")
            continue
        if image.width < crop[0] or image.height < crop[1]:
            warn(f"{path} is {image.width}x{image.height}, smaller than the crop of {crop[0]}x{crop[1]}; left out")
            continue
        usable.append(path)
    if not usable:
        size = f"{crop[0]}x{crop[1]}"
        raise UserError(
            f"{source} holds no image ({KINDS}) or video of at least {size}: add some, or choose a smaller --crop"
        )
    return usable


class _Network:
    """Sharpens as `clearcall sharpen` does, in one thread of one runtime: `auto` may choose another the next time."""

    def __init__(self, name: str) -> None:
        self._sharpener, self.coded = Sharpener(name, "onnxruntime", 1, video=True), False

    def __call__(self, clip: Clip) -> Clip:
        self._sharpener.begin_video(coded=self.coded)
        temporal = TemporalFilter()  # which leaves a single image as it is
        return [self._sharpener(temporal.rgb(frame)) for frame in clip]


def _restorers(systems: Sequence[str]) -> dict[str, Restore]:
    known = [INPUT, UNSHARP, *shipped_models()]
    if unknown := [name for name in systems if name not in known]:
        raise UserError(f"unknown system {', '.join(unknown)}: choose from {', '.join(known)}")
    if not systems:
        raise UserError(f"no system is named: choose from {', '.join(known)}")
    fixed: dict[str, Restore] = {
        INPUT: list,
        UNSHARP: lambda clip: [unsharp_luma(frame, _MASK_RADIUS_PX, _MASK_AMOUNT) for frame in clip],
    }
    return {name: fixed.get(name) or _Network(name) for name in systems}


def _degrader(condition: str) -> Degrade:
    """Return a function of frames and a seed for a condition such as bicubic_x2 or h264_x2_qp32."""
    found = _CONDITION.fullmatch(condition)
    if found and found["scale"]:
        return partial(_bicubic, factor=int(found["scale"]))
    if found and found["codec"] in get_args(CallCodec) and int(found["qp"]) <= MAX_QP:
        codec = cast(CallCodec, found["codec"])
        return partial(_sent, codec=codec, factor=int(found["factor"]), qp=int(found["qp"]))
    codecs = ", ".join(get_args(CallCodec))
    raise UserError(
        f"unknown condition {condition}: give bicubic_x2 to bicubic_x4, or CODEC_xFACTOR_qpQP such as h264_x2_qp32 "
        f"with a codec of {codecs}, a factor from 1 to 4 and a QP from 0 to {MAX_QP}"
    )


def _bicubic(sharp: Clip, _seed: int, factor: int) -> Clip:
    size = sharp[0].shape[1], sharp[0].shape[0]
    return [np.ascontiguousarray(resized(resized(frame, divided(size, factor)), size)) for frame in sharp]


def _sent(sharp: Clip, seed: int, codec: CallCodec, factor: int, qp: int) -> Clip:
    """Return frames after encoding and decoding; of an image the last frame of a short clip that pans over it."""
    x, y = np.random.default_rng(seed).uniform(-MAX_PAN, MAX_PAN, 2).tolist()
    sent = Transmission(codec, factor, qp, pan=(x, y), zoom=1.0, loss_rate=0.0, seed=seed)
    arrived = transmit_clip(sharp, sent) if len(sharp) > 1 else [transmit(sharp[0], sent)]
    return [*map(np.ascontiguousarray, arrived)]


def _cropped(path: Path, crop: Size, seconds: float, *, training: bool) -> tuple[Clip, int]:
    """Return the most detailed part of an image or of a video's first frames, and how long a frame is shown, in ms.

    For training it is the corner farthest from it.
    """
    rate = Fraction(1)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        frames = [np.asarray(read_rgb(path, min(crop)))]
    else:
        with opened(path) as video:
            rate = rate_of(video_stream(video, path))
        frames = read_clip(path, max(2, round(seconds * rate)), MOST_SIDE).frames
    columns, rows = crop
    height, width = frames[0].shape[:2]
    top, left = most_detailed(frames[0], rows, columns)
    if training:
        top = height - rows if top < (height - rows) / 2 else 0
        left = width - columns if left < (width - columns) / 2 else 0
    return [np.ascontiguousarray(one[top : top + rows, left : left + columns]) for one in frames], round(1000 / rate)


def _single_items(stimuli: Sequence[Stimulus]) -> list[Item]:
    rated = [Item(one.id, (one.id,), training=False) for one in stimuli if not one.training]
    # The best, the worst that is given, and the last system's: the range that a rater will see.
    trained = [one for one in stimuli if one.training]
    return [*rated, *(Item(one.id, (one.id,), training=True) for one in {trained[0], trained[-1], _worst(trained)})]


def _paired_items(stimuli: Sequence[Stimulus], seed: int) -> list[Item]:
    """Return all pairs of systems, the reference among them, of each image and condition; two of training."""
    trained = [one for one in stimuli if one.training]
    pairs = [(trained[0], _worst(trained)), (trained[0], trained[-1])]
    references = {one.image: one for one in stimuli if one.system == REFERENCE and not one.training}
    groups: dict[tuple[str, str], list[Stimulus]] = {}
    for one in stimuli:
        if not one.training and one.system != REFERENCE:
            groups.setdefault((one.image, one.condition), [references[one.image]]).append(one)
    pairs += [pair for group in groups.values() for pair in combinations(group, 2)]
    found = dict[str, Item]()
    for first, second in pairs:
        name = _digest(seed, "pair", first.id, second.id)
        found[name] = Item(name, (first.id, second.id), first.training)
    return [*found.values()]


def _worst(trained: Sequence[Stimulus]) -> Stimulus:
    """Return the first system's stimulus under the last condition."""
    last = trained[-1].condition
    return next(one for one in trained if one.condition == last)


def _digest(*parts: object) -> str:
    """Return a hash as hexadecimal digits: a file name of it tells nothing of what it stands for."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:_ID_DIGITS]
