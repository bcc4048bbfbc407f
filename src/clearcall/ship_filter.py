"""Fit what says how much of the past each block of a frame gets: the temporal filter's perceptron, for the package.

Photographs pan and zoom, alone or with a piece of another before them that moves by itself; they are sent through all
codecs, whole and smaller. What each block's best weight would have been is known from the original, and learnt is what
leaves the least error, in dB, a frame. The filter works on what it gave before, so it is fitted anew with its own past.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from clearcall.console import ProgressBar, track
from clearcall.cores import available_cores
from clearcall.data.codecs import MAX_PAN, MAX_ZOOM, Transmission, pan_and_zoom, transmit_clip
from clearcall.data.single import read_rgb
from clearcall.errors import UserError
from clearcall.files import atomic_path, write_text
from clearcall.metrics import Frame
from clearcall.motion import find_motion
from clearcall.params import CallCodec
from clearcall.temporal import MOST_WEIGHT, Perceptron, TemporalFilter, halved, look, share_by_change

SIDE, FRAMES, LEARNT_FROM = 352, 10, (2, 5, 9)  # pixels; frames of a clip, and those that are learnt from
_CLIPS = 4  # of each photograph
_WITH_HEAD, _HEAD_PAN, _HEAD_SIDES = 0.35, 2.0, (0.12, 0.35)  # share of clips, pixels a frame, parts of the side
_QP, _FACTORS = (22, 37), (1.0, 1.0, 1.5, 2.0, 2.0)
_HIDDEN, _ROUNDS, _STEPS, _FRAMES_A_STEP, _RATE = (16, 8), 2, 3000, 48, 1e-2
_FEATURES = 12
_CAUTION = 8.0  # a decibel that a frame loses counts as many that others gain


_CARD = """# Card: the temporal filter's perceptron

It says how much of the past each block of a film's frame gets (`TemporalFilter`). Apache-2.0.

- **Made by** `make ship-filter PHOTOS=... LICENCE=...`.
- **Data**: {photographs} photographs, no part of this package, as clips that pan and zoom, a third of them with a piece
  of the photograph before them that moves by itself; H.264, VP8, VP9 and AV1, QP 22 to 37, whole and smaller by 1.5 and
  2. Licence: {licence}.
- **What it gains there**: {gain_db:+.3f} dB of luma, the mean of {frames} frames. On others: reports/calls.md.
- **Limits**: heads are ellipses, and rooms photographs; no film of a call was seen.
"""


@dataclass(frozen=True)
class _Card:
    """What the card tells."""

    photographs: int
    frames: int
    licence: str
    gain_db: float


@dataclass(frozen=True)
class Lesson:
    """The blocks of one frame: their features (rows, 12), and by how much a weight w of their past changes its error.

    The whole frame's squared error falls by the factor 1 + sum of `energy` w^2 - 2 `agreement` w, each (rows,).
    """

    features: Tensor
    energy: Tensor
    agreement: Tensor


def ship_filter(photographs: Sequence[Path], licence: str, target: Path, seed: int = 1) -> float:
    """Fit the perceptron on photographs and write it to `target`, and its card beside it.

    Return the mean gain in dB of luma that it reaches on what it learnt from. Raises UserError if there are too few
    large photographs.
    """
    weigh = Perceptron([(np.zeros((_FEATURES, 1), np.float32), np.zeros(1, np.float32))])
    for number in range(_ROUNDS):
        made = partial(_lessons, weigh=weigh, seed=seed)
        with ProcessPoolExecutor(available_cores(), mp_context=get_context("spawn")) as pool:
            name = f"clips, round {number + 1} of {_ROUNDS}"
            lessons = [one for some in track(pool.map(made, photographs), len(photographs), name) for one in some]
        if len(lessons) < _FRAMES_A_STEP:
            raise UserError(f"there are too few photographs with sides of {SIDE} pixels: give a folder of more")
        weigh, gain_db = fit(lessons, seed)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        weights = {f"weights_{index}": weights for index, (weights, _) in enumerate(weigh.layers)}
        biases = {f"biases_{index}": biases for index, (_, biases) in enumerate(weigh.layers)}
        np.savez(file, allow_pickle=False, **weights, **biases)
    write_text(target.with_suffix(".md"), _CARD.format(**vars(_Card(len(photographs), len(lessons), licence, gain_db))))
    return gain_db


def fit(lessons: Sequence[Lesson], seed: int) -> tuple[Perceptron, float]:
    """Return the perceptron that learnt most from lessons, and the mean gain in dB that it reaches on them."""
    torch.manual_seed(seed)
    features, energy, agreement = (
        torch.stack([getattr(lesson, name) for lesson in lessons]) for name in ("features", "energy", "agreement")
    )
    middle, spread = features.mean(dim=(0, 1)), features.std(dim=(0, 1)) + 1e-3
    widths = [_FEATURES, *_HIDDEN, 1]
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    optimizer = torch.optim.Adam([value for layer in layers for value in layer.parameters()], _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)

    def gains_db(chosen: Tensor) -> Tensor:
        signal = (features[chosen] - middle) / spread
        for index, layer in enumerate(layers):
            signal = layer(signal.relu() if index else signal)
        weight = MOST_WEIGHT * torch.sigmoid(signal[..., 0])
        left = 1 + (energy[chosen] * weight**2 - 2 * agreement[chosen] * weight).sum(dim=1)
        return -10 * torch.log10(left.clamp(min=1e-3))

    with ProgressBar("fitting", _STEPS) as bar:
        for _ in range(_STEPS):
            gains = gains_db(torch.randint(len(lessons), (_FRAMES_A_STEP,)))
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


def _lessons(path: Path, weigh: Perceptron, seed: int) -> list[Lesson]:
    """Return what there is to learn from clips of one photograph; nothing if it is too small."""
    cv2.setNumThreads(1)
    photograph = np.asarray(read_rgb(path, 1).convert("RGB"))
    scale = max(SIDE / min(photograph.shape[:2]), min(1.0, 720 / max(photograph.shape[:2])))
    if scale > 1:
        return []
    photograph = np.asarray(cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    draw = np.random.default_rng([seed, *path.name.encode()])
    lessons = []
    for _ in range(_CLIPS):
        x, y = draw.uniform(-MAX_PAN, MAX_PAN, 2).tolist()
        codecs = get_args(CallCodec)
        codec: CallCodec = codecs[int(draw.integers(len(codecs)))]
        qp, factor = int(draw.integers(*_QP, endpoint=True)), float(draw.choice(_FACTORS))
        sent = Transmission(codec, factor, qp, (x, y), float(draw.uniform(1 / MAX_ZOOM, MAX_ZOOM)), 0.0, 0)
        clip = pan_and_zoom(_cut(photograph, draw), FRAMES, sent.pan, sent.zoom)
        if draw.random() < _WITH_HEAD:
            clip = _with_head(clip, _cut(photograph, draw), draw)
        lessons += _watched(clip, transmit_clip(clip, sent), weigh)
    return lessons


def _watched(clip: Sequence[Frame], arrived: Sequence[Frame], weigh: Perceptron) -> list[Lesson]:
    """Let a filter see a clip as it arrived, and return what was to be learnt from some of its frames."""
    temporal, lessons = TemporalFilter(weigh), list[Lesson]()
    given = np.empty((0, 0), np.uint8)
    for index, (sharp, luma) in enumerate(zip(map(_luma, clip), map(_luma, arrived), strict=True)):
        if index in LEARNT_FROM:
            small = halved(luma)
            motion = find_motion(small, halved(given)).doubled()
            moved = motion.applied(given)
            small_moved = halved(moved)
            blocks = look(luma, small, moved, small_moved, motion.unsure)
            if blocks is not None:
                share = cv2.resize(share_by_change(small, small_moved), luma.shape[::-1])
                change = (moved.astype(np.float32) - luma) * share
                missing = sharp.astype(np.float32) - luma
                size = blocks.share.shape[::-1]
                energy, agreement = (
                    cv2.resize(product, size, interpolation=cv2.INTER_AREA) for product in (change**2, change * missing)
                )
                whole = float(np.square(missing).mean()) * blocks.share.size + 1e-6
                lessons.append(
                    Lesson(
                        torch.from_numpy(blocks.features.reshape(-1, _FEATURES)),
                        torch.from_numpy((energy * blocks.share**2 / whole).ravel()).float(),
                        torch.from_numpy((agreement * blocks.share / whole).ravel()).float(),
                    )
                )
        given = temporal(luma)
    return lessons


def _cut(photograph: Frame, draw: np.random.Generator) -> Frame:
    top, left = (int(draw.integers(side - SIDE + 1)) for side in photograph.shape[:2])
    return photograph[top : top + SIDE, left : left + SIDE]


def _with_head(clip: Sequence[Frame], other: Frame, draw: np.random.Generator) -> list[Frame]:
    """Lay an ellipse of another picture of the same size over a clip, in motion of its own."""
    pan = draw.uniform(-_HEAD_PAN, _HEAD_PAN, 2) * draw.choice([0.2, 1.0])
    middle, radii = draw.uniform(0.3, 0.7, 2) * SIDE, draw.uniform(*_HEAD_SIDES, 2) * SIDE
    ellipse = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(ellipse, (middle.tolist(), (2 * radii).tolist(), 0.0), 1.0, -1)
    ellipse = np.asarray(cv2.GaussianBlur(ellipse, (0, 0), 1.2), np.float32)  # no edge of a lens is a step
    layers = pan_and_zoom(
        np.dstack([other, np.rint(255 * ellipse)]).astype(np.uint8), len(clip), (float(pan[0]), float(pan[1])), 1.0
    )
    return [
        np.rint(frame * (1 - layer[..., 3:] / 255) + layer[..., :3] * (layer[..., 3:] / 255)).astype(np.uint8)
        for frame, layer in zip(clip, layers, strict=True)
    ]


def _luma(frame: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
