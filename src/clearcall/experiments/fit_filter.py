"""Fit the temporal filter's perceptron, which predicts the blending weight of each block, for the package.

Training clips are photographs and synthetic pages of text that pan and zoom, or stand still, some with a moving
foreground. Some are warped, noisy, change in brightness or were encoded before: the result is the original. All codecs
transmit them, at full resolution and downscaled. The loss is the error of a blended frame against its original, in dB.
The filter's input is its own earlier output, so a second round fits it on that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clearcall.core.console import ProgressBar, track
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, write_text
from clearcall.core.machine import available_cores
from clearcall.core.processes import worker_pool
from clearcall.data.degrade.codecs import Transmission, send, transmit_clip
from clearcall.data.synthetic import (
    MAX_BEND,
    MAX_PAN,
    MAX_ZOOM,
    SOFTNESS,
    bent,
    enlarged,
    lit,
    pan_and_zoom,
    text_page,
    with_noise,
)
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.luma import luma_of
from clearcall.params import CallCodec
from clearcall.temporal.filter import MOST_WEIGHT, Perceptron, TemporalFilter, follow, halved, weight_by_change

SIDE = 352  # pixels
FRAMES, LONG_FRAMES, _LONG = 13, 26, 0.2  # of a clip; of a longer one; share of longer ones
LEARNT_FROM = (1, 2, 3, 5, 8, 12, 13, 16, 20, 25)  # indices of training frames
_CLIPS = (3, 9)  # of each photograph, in each round
_WITH_HEAD, _HEAD_PAN, _HEAD_SIDES = 0.35, 2.0, (0.12, 0.35)  # share of clips, pixels a frame, parts of the side
_STILL, _WITH_HEAD_IF_STILL = 0.3, 0.8  # share of clips; and of those
_BENT, _BENT_IF_STILL, _LEAST_BEND = 0.2, 0.8, 0.2  # shares of those that move and that stand still; pixels
_NOISY, _NOISE_LEVELS, _GRAIN = 0.4, (0.3, 4.0), (0.3, 1.0)  # share of clips, 8-bit levels, pixels
_LIT, _LIGHT_LEVELS = 0.3, (0.5, 12.0)  # share of clips, 8-bit levels
_ENCODED, _ENCODED_QP = 0.15, (14, 26)  # share of clips, QP
_PAGES = 0.1  # share of clips
_SOFT = 0.3  # share of clips
_QP, _FACTORS = (22, 37), (1.0, 1.0, 1.5, 2.0, 2.0)
_H264 = 0.25  # share of clips that all codecs do not share
_HIDDEN, _STEPS, _FRAMES_A_STEP, _RATE = (48, 16), 4000, 48, 1e-2
_FEATURES = 26  # of a block and its frame
_CAUTION = 8.0  # weight of a loss in PSNR relative to a gain
# Standard deviation of noise added to a frame's features in each step, in units of their spread: other videos differ
# from all training clips.
_JITTER = 0.06
_Plane = npt.NDArray[np.float32]

_CARD = """# Card: the temporal filter's perceptron

It predicts the blending weight of each block of a video's frame (`TemporalFilter`). Apache-2.0.

- **Made by** `make ship-filter PHOTOS=... LICENCE=...`.
- **Data**: {photographs} photographs, no part of this package, as clips that pan and zoom, or stand still. A tenth are
  synthetic pages of text instead, a third are upscaled, a third and most of the still ones have a foreground that moves
  by itself. Most of the still ones and some others are warped, two fifths have sensor noise, a third change in
  brightness, a few were encoded before. H.264, twice as often as VP8, VP9 or AV1, QP 22 to 37, full resolution and
  downscaled by 1.5 and 2. Licence of the photographs: {licence}.
- **Gain on these**: {gain_db:+.3f} dB of luma, the mean of {frames} frames. On other videos: reports/calls.md.
- **Limits**: heads are warped ellipses, and rooms photographs; there was no recording of a call.
"""


@dataclass(frozen=True)
class Lesson:
    """The blocks of one frame: their features, and how a blending weight w changes the frame's error.

    Features are (blocks, 11) and (15,) as in `temporal.Blocks`; blending multiplies the frame's squared error by 1 +
    sum of `energy` w^2 - 2 `agreement` w, each (blocks,).
    """

    # No tensors: each needs an open file when it is passed between processes.
    features: _Plane
    of_frame: _Plane
    energy: _Plane
    agreement: _Plane


def ship_filter(photographs: Sequence[Path], licence: str, target: Path, seed: int = 1) -> float:
    """Fit the perceptron on photographs and write it to `target`, with its card beside it.

    Return the mean gain in luma PSNR on the training clips, in dB. Raises UserError if there are too few large
    photographs.
    """
    weigh = Perceptron([(np.zeros((_FEATURES, 1), np.float32), np.zeros(1, np.float32))])
    for number, clips in enumerate(_CLIPS):
        made = partial(_lessons, clips=clips, weigh=weigh, seed=seed)
        with worker_pool(available_cores()) as pool:
            name = f"clips, round {number + 1} of {len(_CLIPS)}"
            of_each = [*track(pool.map(made, photographs), len(photographs), name)]
        lessons = [lesson for some in of_each for lesson in some]
        if len(lessons) < _FRAMES_A_STEP:
            raise UserError(f"there are too few photographs with sides of {SIDE} pixels: give a folder of more")
        weigh, gain_db = fit(lessons, seed)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        weights = {f"weights_{index}": weights for index, (weights, _) in enumerate(weigh.layers)}
        biases = {f"biases_{index}": biases for index, (_, biases) in enumerate(weigh.layers)}
        np.savez(file, allow_pickle=False, **weights, **biases)
    used = sum(map(bool, of_each))
    card = _CARD.format(photographs=used, frames=len(lessons), licence=licence, gain_db=gain_db)
    write_text(target.with_suffix(".md"), card)
    return gain_db


def fit(lessons: Sequence[Lesson], seed: int) -> tuple[Perceptron, float]:
    """Return the perceptron fitted on lessons, and its mean gain on them in dB."""
    torch.manual_seed(seed)
    features, of_frame, energy, agreement = (
        torch.from_numpy(np.stack([getattr(lesson, name) for lesson in lessons]))
        for name in ("features", "of_frame", "energy", "agreement")
    )
    middle = torch.cat([features.mean(dim=(0, 1)), of_frame.mean(dim=0)])
    spread = torch.cat([features.std(dim=(0, 1)), of_frame.std(dim=0)]) + 1e-3
    widths = [_FEATURES, *_HIDDEN, 1]
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    optimizer = torch.optim.Adam([value for layer in layers for value in layer.parameters()], _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)

    def gains_db(chosen: Tensor, jitter: float = 0.0) -> Tensor:
        shared = of_frame[chosen, None].expand(-1, features.shape[1], -1)
        signal = (torch.cat([features[chosen], shared], dim=2) - middle) / spread
        signal = signal + jitter * torch.randn(len(chosen), 1, len(spread))
        for index, layer in enumerate(layers):
            signal = layer(signal.relu() if index else signal)
        weight = MOST_WEIGHT * torch.sigmoid(signal[..., 0])
        left = 1 + (energy[chosen] * weight**2 - 2 * agreement[chosen] * weight).sum(dim=1)
        return -10 * torch.log10(left.clamp(min=1e-3))

    with ProgressBar("fitting", _STEPS) as bar:
        for _ in range(_STEPS):
            gains = gains_db(torch.randint(len(lessons), (_FRAMES_A_STEP,)), _JITTER)
            loss = -(gains + (_CAUTION - 1) * gains.clamp(max=0)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            schedule.step()
            bar.advance()
    with torch.no_grad():
        parts = [gains_db(torch.arange(first, min(first + 100, len(lessons)))) for first in range(0, len(lessons), 100)]
        gain_db = float(torch.cat(parts).mean())
        layers[0].bias.sub_(layers[0].weight @ (middle / spread))
        layers[0].weight.div_(spread)
    arrays = [(layer.weight.detach().T.numpy().copy(), layer.bias.detach().numpy().copy()) for layer in layers]
    return Perceptron(arrays), gain_db


def _lessons(path: Path, clips: int, weigh: Perceptron, seed: int) -> list[Lesson]:
    """Return the lessons of one photograph's clips; none if it is too small."""
    cv2.setNumThreads(1)
    return [lesson for clip, arrived in _sent(path, clips, seed) for lesson in _watched(clip, arrived, weigh)]


def _sent(path: Path, clips: int, seed: int) -> Iterator[tuple[list[Frame], list[Frame]]]:
    """Yield clips of one photograph, original and transmitted; none if it is too small."""
    photograph = np.asarray(read_rgb(path, 1).convert("RGB"))
    scale = max(SIDE / min(photograph.shape[:2]), min(1.0, 720 / max(photograph.shape[:2])))
    if scale > 1:
        return
    photograph = np.asarray(cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    draw = np.random.default_rng([seed, *path.name.encode()])
    for _ in range(clips):
        frames = LONG_FRAMES if draw.random() < _LONG else FRAMES
        (x, y), zoom = draw.uniform(-MAX_PAN, MAX_PAN, 2).tolist(), float(draw.uniform(1 / MAX_ZOOM, MAX_ZOOM))
        if still := draw.random() < _STILL:
            x, y, zoom = 0.0, 0.0, 1.0
        codec = "h264" if draw.random() < _H264 else _any_codec(draw)
        qp, factor = int(draw.integers(*_QP, endpoint=True)), float(draw.choice(_FACTORS))
        sent = Transmission(codec, factor, qp, (x, y), zoom, 0.0, 0)
        image = text_page(SIDE, SIDE, draw) if draw.random() < _PAGES else _cut(photograph, draw)
        if draw.random() < _SOFT:
            image = enlarged(image, draw.uniform(*SOFTNESS))
        clip = pan_and_zoom(image, frames, sent.pan, sent.zoom)
        if draw.random() < (_WITH_HEAD_IF_STILL if still else _WITH_HEAD):
            clip = _with_head(clip, _cut(photograph, draw), draw)
        clip = _recorded(clip, _BENT_IF_STILL if still else _BENT, draw)
        yield clip, transmit_clip(clip, sent)


def _recorded(clip: list[Frame], bent_share: float, draw: np.random.Generator) -> list[Frame]:
    """Return a clip with the defects of a recording, or without; the result counts as the original."""
    if draw.random() < bent_share:
        clip = bent(clip, draw.uniform(_LEAST_BEND, MAX_BEND), draw)
    if draw.random() < _LIT:
        clip = lit(clip, np.exp(draw.uniform(*np.log(_LIGHT_LEVELS))), draw)
    if draw.random() < _NOISY:
        clip = with_noise(clip, np.exp(draw.uniform(*np.log(_NOISE_LEVELS))), draw.uniform(*_GRAIN), draw)
    if draw.random() < _ENCODED:
        qp = int(draw.integers(*_ENCODED_QP, endpoint=True))
        clip = send(clip, _any_codec(draw), qp)
    return clip


def _watched(clip: Sequence[Frame], arrived: Sequence[Frame], weigh: Perceptron) -> list[Lesson]:
    """Filter a transmitted clip and return the lessons of some of its frames."""
    temporal, lessons = TemporalFilter(weigh), list[Lesson]()
    for index, (sharp, luma) in enumerate(zip(map(luma_of, clip), map(luma_of, arrived), strict=True)):
        if index in LEARNT_FROM and temporal.reference:
            small = halved(luma)
            moved, small_moved, blocks = follow(luma, small, replace(temporal.reference))
            if blocks is not None and blocks.features.size:
                share = cv2.resize(weight_by_change(small, small_moved), luma.shape[::-1]) / np.float32(255)
                change = (moved.astype(np.float32) - luma) * (share * blocks.share)
                missing = sharp.astype(np.float32) - luma
                rows, columns, each = blocks.features.shape
                energy, agreement = (
                    cv2.resize(product, (columns, rows), interpolation=cv2.INTER_AREA).ravel()
                    for product in (change**2, change * missing)
                )
                whole = np.float32(np.square(missing).mean() * rows * columns + 1e-6)
                lessons.append(
                    Lesson(blocks.features.reshape(-1, each), blocks.of_frame, energy / whole, agreement / whole)
                )
        temporal(luma)
    return lessons


def _any_codec(draw: np.random.Generator) -> CallCodec:
    codecs: tuple[CallCodec, ...] = get_args(CallCodec)
    return codecs[int(draw.integers(len(codecs)))]


def _cut(photograph: Frame, draw: np.random.Generator) -> Frame:
    top, left = (int(draw.integers(side - SIDE + 1)) for side in photograph.shape[:2])
    return photograph[top : top + SIDE, left : left + SIDE]


def _with_head(clip: Sequence[Frame], other: Frame, draw: np.random.Generator) -> list[Frame]:
    """Overlay an ellipse of another image of the same size on a clip, with its own motion."""
    pan = draw.uniform(-_HEAD_PAN, _HEAD_PAN, 2) * draw.choice([0.2, 1.0])
    middle, radii = draw.uniform(0.3, 0.7, 2) * SIDE, draw.uniform(*_HEAD_SIDES, 2) * SIDE
    ellipse = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(ellipse, (middle.tolist(), (2 * radii).tolist(), 0.0), 1.0, -1)
    ellipse = np.asarray(cv2.GaussianBlur(ellipse, (0, 0), 1.2), np.float32)  # lenses soften edges
    layers = pan_and_zoom(
        np.dstack([other, np.rint(255 * ellipse)]).astype(np.uint8), len(clip), (float(pan[0]), float(pan[1])), 1.0
    )
    return [
        np.rint(frame * (1 - layer[..., 3:] / 255) + layer[..., :3] * (layer[..., 3:] / 255)).astype(np.uint8)
        for frame, layer in zip(clip, layers, strict=True)
    ]
