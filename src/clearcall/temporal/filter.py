"""Motion-compensated temporal filter.

A codec makes other errors in every frame of a moving scene, so a frame blended with a reference frame, an earlier one
moved to its place, is closer to the original than either. The reference stays the same for several frames, since each
interpolation blurs. No later frame is used, so there is no delay. A small perceptron predicts the blending weight of
each block; `make ship-filter` fits it on photographs and pages of text that pan and zoom, some of which bend, are noisy
or change their light. Frames of a camera that stands still, frames that cannot be followed and frames whose light
changes fast are returned unchanged. On a talking head before a still camera the filter gained 0.01 dB at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.imaging.luma import luma_of
from clearcall.temporal.motion import Motion, find_motion

_SMALLEST_SIDE = 64  # pixels; smaller frames have too little texture to track
_BLOCK = 8  # pixels of the frame
_STRIP = 15  # rows of blocks processed at once: half the time, since they fit the cache
_NEIGHBOURHOOD = 9  # blocks
_EVERY = np.s_[::2, ::2]  # subsample of the blocks for a frame's medians: exact enough and faster
MOST_WEIGHT = 0.94  # of the reference: interpolation gains up to 1.03^2, so feedback stays below 1
# Change relative to detail, the median over textured blocks. The weight is 0 below the first (a still scene or hardly
# any errors) and above the last (another scene), and not limited between the middle two.
_STILL, _MOVING, _STRANGE, _ANOTHER_SCENE = 0.08, 0.12, 1.0, 1.5
_TEXTURED = 1.0  # 8-bit levels
_LITTLE = 15  # percentile of the cells' motion: what stands still
_LEAST_SIGNAL = -80.0  # a sigmoid of it is 0; less would overflow the exponential in float32
# Mean change of brightness around most blocks, in 8-bit levels: errors of a codec average out, a change of light does
# not.
_SAME_LIGHT, _OTHER_LIGHT = 0.5, 1.0
# Rounding lets frames drift: allowed 8-bit levels a frame since the scene began, and how many frames count.
_DRIFT, _DRIFTING = 0.2, 10
# Change of a pixel at half resolution, in 8-bit levels: full weight up to the first, none from the second on.
_ALIKE, _OTHER = 12.0, 24.0

# Motion of the camera since the reference, in pixels at half resolution, below which it stands still; it is then looked
# for in one frame of so many.
_STANDING, _LOOK_EVERY = 0.25, 4

# A reference frame is replaced after so many frames, or when the mean weight falls below this part of its maximum, or
# below the least weight of all.
_LONGEST, _WANING, _LEAST_SHARE = 12, 0.6, 0.05
# Weights are predicted for one frame in so many, and for each that is less like the reference than this part.
_WEIGH_EVERY, _STILL_ALIKE = 4, 0.9
_OLDEST_SCENE = 24  # frames: the longest clip that the perceptron was fitted on

_Plane = npt.NDArray[np.float32]
WEIGHTS = Path(__file__).parent / "weights.npz"


# From features of blocks (rows, columns, 11) and of the frame (15,) to blending weights (rows, columns), 0 to 1.
Weigh = Callable[[_Plane, _Plane], _Plane]


class Blocks(NamedTuple):
    """Features of a frame's blocks of 8 x 8 pixels, and an upper limit of their blending weights, 0 to 1.

    `features` are (rows, columns, 11), `of_frame` are global frame statistics (15,). Both are empty where the limit
    `share` is 0, since the frame has hardly changed.
    """

    features: _Plane
    of_frame: _Plane
    share: float


@dataclass(frozen=True)
class Perceptron:
    """Perceptron: weights (inputs, outputs) and biases (outputs,), ReLU between layers, a sigmoid at the end."""

    layers: Sequence[tuple[_Plane, _Plane]]

    def __call__(self, features: _Plane, of_frame: _Plane) -> _Plane:
        """Return weights (rows, columns), 0 to 1, of block features (rows, columns, m) and frame features (n,).

        The first layer takes the m + n features in this order. Rows are computed one strip at a time: one large matrix
        product would start threads of BLAS, which spin while they wait and take cores from the network.
        """
        (first, biases), *others = self.layers
        each = features.shape[-1]
        shared = of_frame @ first[each:] + biases
        answer = np.empty(features.shape[:-1], np.float32)
        for top in range(0, len(features), _STRIP):
            signal = features[top : top + _STRIP] @ first[:each]
            signal += shared
            for weights, biases in others:
                plane = signal.reshape(len(signal), -1)
                cv2.threshold(plane, 0, 0, cv2.THRESH_TOZERO, dst=plane)  # ReLU, quicker than NumPy's
                signal = signal @ weights
                signal += biases
            answer[top : top + _STRIP] = signal[..., 0]
        np.maximum(answer, _LEAST_SIGNAL, out=answer)
        return np.asarray(1 / (1 + np.exp(-answer)), np.float32)


@cache
def shipped_weigher() -> Perceptron:
    """Return the shipped perceptron, which predicts blending weights; `make ship-filter` fits it."""
    with np.load(WEIGHTS) as arrays:
        return Perceptron(
            [(arrays[f"weights_{index}"], arrays[f"biases_{index}"]) for index in range(len(arrays) // 2)]
        )


class Weights(NamedTuple):
    """Blending weights of a frame's blocks, uint8 (rows, columns), 255 for 1, and what the frame was like.

    `alike` is the mean of `weight_by_change`, `light` the mean change of brightness in 8-bit levels.
    """

    of_blocks: Frame
    alike: float
    light: float

    def have_changed(self, alike: Frame, light: float) -> bool:
        """Return whether a later frame is so different that it needs weights of its own."""
        return cv2.mean(alike)[0] < _STILL_ALIKE * self.alike or abs(light - self.light) > _SAME_LIGHT


@dataclass
class Reference:
    """Reference frame: a filtered luma (height, width), uint8, and the same at half resolution.

    `motion` is its motion to the last frame at half resolution, None at first. `age` counts the frames since, without
    repeated ones, and `scene_age` those since the scene began. `most` is the largest mean blending weight so far,
    `weights` are those predicted last.
    """

    luma: Frame
    small: Frame
    motion: Motion | None = None
    age: int = 0
    scene_age: int = 0
    most: float = 0.0
    weights: Weights | None = None

    def after(self, share: float | None) -> bool:
        """Count one more frame; return whether to keep this reference frame.

        `share` is the mean blending weight of the frame, None if it had hardly changed and was not blended.
        """
        self.age += 1
        self.scene_age += 1
        if share is None:
            return self.age < _LONGEST
        self.most = max(self.most, share)
        return self.age < _LONGEST and share >= max(_LEAST_SHARE, _WANING * self.most)


class TemporalFilter:
    """Filters the luma of consecutive frames of a video or camera; a new size starts over.

    `reference` is an earlier result that is kept as the reference frame while it helps.
    """

    def __init__(self, weigh: Weigh | None = None) -> None:
        self.reference: Reference | None = None
        self._weigh = weigh or shipped_weigher()
        self._came = self._given = np.empty((0, 0), np.uint8)  # the last frame at half resolution, and its result
        self._unchanged = 0  # frames in a row that were not blended since the camera stands still

    def __call__(self, luma: Frame) -> Frame:
        """Return the filtered luma (height, width), uint8, read-only since it may become the reference frame.

        Raises UserError for anything but a uint8 luma.
        """
        if luma.ndim != 2 or luma.dtype != np.uint8 or not luma.size:  # noqa: PLR2004  # height and width
            raise UserError(f"a luma must be uint8 of (height, width), not {luma.dtype} of {luma.shape}; RGB has rgb()")
        small, reference, mixed = halved(luma), self.reference, None
        if reference is not None and reference.luma.shape == luma.shape and min(luma.shape) >= _SMALLEST_SIDE:
            if np.array_equal(self._came, small):  # a repeated frame, as cameras send in the dark
                return self._given
            if self._unchanged % _LOOK_EVERY:
                mixed = _Mixed(luma.copy(), None)
            else:
                mixed = _mixed(luma, small, reference, self._weigh)
            self._unchanged = self._unchanged + 1 if mixed is not None and mixed.share is None else 0
        self._came = small
        self._given = luma.copy() if reference is None or mixed is None else mixed.luma
        self._given.flags.writeable = False
        if reference is None or mixed is None:
            self.reference = Reference(self._given, small)
        elif not reference.after(mixed.share):
            self.reference = Reference(self._given, halved(self._given), scene_age=reference.scene_age)
        return self._given

    def rgb(self, frame: Frame) -> Frame:
        """Return RGB (height, width, 3), uint8, with the change of its luma added to R, G and B alike."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:  # noqa: PLR2004  # height, width, RGB
            raise UserError(f"a frame must be uint8 of (height, width, 3), not {frame.dtype} of {frame.shape}")
        luma = luma_of(frame)
        added = cv2.subtract(self(luma), luma, dtype=cv2.CV_16S)
        return cast(Frame, cv2.add(frame, cv2.merge([added] * 3), dtype=cv2.CV_8U))


class _Mixed(NamedTuple):
    luma: Frame
    share: float | None  # mean blending weight; None if the frame was not blended


def _mixed(luma: Frame, small: Frame, reference: Reference, weigh: Weigh) -> _Mixed | None:
    """Return a luma blended with the reference frame; None if the reference does not match it."""
    reference.motion = find_motion(small, reference.small, reference.motion)
    if reference.motion.largest_of_camera(small.shape) < _STANDING:
        return _Mixed(luma.copy(), None)
    motion = reference.motion.doubled()
    moved, small_moved = _moved(reference, motion)
    alike = weight_by_change(small, small_moved)
    light = cv2.mean(small)[0] - cv2.mean(small_moved)[0]
    weights = reference.weights
    if weights is None or not reference.age % _WEIGH_EVERY or weights.have_changed(alike, light):
        blocks = block_features(luma, small, moved, small_moved, motion, reference)
        if blocks is None:
            return None
        if not blocks.features.size:
            reference.weights = None
            return _Mixed(luma.copy(), None)
        # Weights are uint8 from here on, 255 for 1: twice as fast as float32.
        most = MOST_WEIGHT * blocks.share
        of_blocks = cv2.convertScaleAbs(weigh(blocks.features, blocks.of_frame), alpha=most * 255)
        reference.weights = weights = Weights(cast(Frame, of_blocks), cv2.mean(alike)[0], light)
    weight = cv2.multiply(cv2.resize(weights.of_blocks, small.shape[::-1]), alike, scale=1 / 255)
    return _Mixed(_blended(luma, moved, cast(Frame, weight)), cv2.mean(weight)[0] / 255)


def follow(luma: Frame, small: Frame, reference: Reference) -> tuple[Frame, Frame, Blocks | None]:
    """Return the motion-compensated reference frame, the same at half resolution, and the features of the blocks.

    The reference frame is returned itself if nothing has moved; features are None if it does not match the luma.
    `small` is the luma at half resolution; the motion is stored in `reference`.
    """
    reference.motion = find_motion(small, reference.small, reference.motion)
    motion = reference.motion.doubled()
    moved, small_moved = _moved(reference, motion)
    return moved, small_moved, block_features(luma, small, moved, small_moved, motion, reference)


def _moved(reference: Reference, motion: Motion) -> tuple[Frame, Frame]:
    moved = motion.applied(reference.luma)
    return moved, reference.small if moved is reference.luma else halved(moved)


def _blended(luma: Frame, past: Frame, weight: Frame) -> Frame:
    """Return a luma blended with the reference by `weight`, uint8 at half resolution: 255 is the reference alone."""
    height, width = luma.shape
    mixed = np.empty(luma.shape, np.uint8)
    for top in range(0, height, _STRIP * _BLOCK):
        rows = slice(top, min(height, top + _STRIP * _BLOCK))
        half = weight[min(top // 2, len(weight) - 1) : -(-rows.stop // 2)]  # an odd last row has no weights of its own
        of_past = cv2.resize(half, (width, rows.stop - top), interpolation=cv2.INTER_LINEAR)
        lighter = cv2.multiply(cv2.subtract(past[rows], luma[rows]), of_past, scale=1 / 255)
        darker = cv2.multiply(cv2.subtract(luma[rows], past[rows]), of_past, scale=1 / 255)
        cv2.subtract(cv2.add(luma[rows], lighter), darker, dst=mixed[rows])
    return mixed


def block_features(
    luma: Frame, small: Frame, moved: Frame, small_moved: Frame, motion: Motion, reference: Reference
) -> Blocks | None:
    """Return the features of a luma and of the reference frame moved by `motion`, both also at half resolution.

    Of `reference` only the ages are read. Returns None if it does not match: another scene, or another light.
    """
    changed, fine = _blocks(luma, moved, _BLOCK)
    changed_half, coarse = _blocks(small, small_moved, _BLOCK // 2)
    signed = np.asarray(cv2.subtract(halved(small), halved(small_moved), dtype=cv2.CV_32F), np.float32)
    lighter = np.asarray(cv2.resize(signed, changed.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    some = (coarse > _TEXTURED)[_EVERY]
    some = some if some.any() else ~some
    relative = (_mean(changed_half, 3) + 0.02) / (_mean(coarse, 3) + 0.5)
    median = np.median(relative[_EVERY][some])
    light = np.median(np.abs(_mean(lighter, _NEIGHBOURHOOD))[_EVERY])
    drift = _DRIFT * min(reference.scene_age, _DRIFTING)
    same = _ramp(median, _ANOTHER_SCENE, _STRANGE) * _ramp(light, _OTHER_LIGHT + drift, _SAME_LIGHT + drift)
    if same == 0:
        return None
    much = same * _ramp(median, _STILL, _MOVING)
    if much == 0:
        return Blocks(np.empty(0, np.float32), np.empty(0, np.float32), 0.0)
    near = np.log(np.stack([_mean(plane, 3) for plane in (changed, changed_half, fine, coarse)]) + 0.1)
    around = np.log(np.stack([_mean(plane, _NEIGHBOURHOOD) for plane in (fine, coarse)]) + 0.1)
    ratio = around[1] - around[0]  # an upscaled frame has coarse detail alone
    detail = _likeness(small, small_moved)
    distances = np.log(motion.distances() + 0.05)
    # Approximation: treats the cells as if their grid ended where the frame does.
    distance = cv2.resize(distances, changed.shape[::-1], interpolation=cv2.INTER_LINEAR)
    of_all = (near[0], near[1], near[0] - near[2], near[1] - near[3], ratio)
    of_frame = [
        *(np.median(plane[_EVERY][some]) for plane in of_all),
        np.log(motion.unsure + 0.05),
        np.log(light + 0.1),
        np.log(1 + reference.age),
        np.log(1 + min(reference.scene_age, _OLDEST_SCENE)),
        *np.median(detail[:, *_EVERY], axis=(1, 2)),
        *np.percentile(distances, [50, _LITTLE]),  # of most cells, and of those that stand still
    ]
    features = np.stack([*near, around[0], ratio, *detail, distance], axis=-1)
    return Blocks(features, np.array(of_frame, np.float32), float(much))


def _likeness(small: Frame, small_moved: Frame) -> _Plane:
    """Return statistics of the change between both frames at half resolution, (4, rows, columns) by blocks.

    With h and p the high-pass detail of the frame and of the reference (each minus its 3 x 3 mean), and d = frame -
    reference: the correlation of d and h, the slope of d on h, the log of p's energy over h's, and the correlation of h
    and p. They tell detail that the reference lacks, such as noise and bending, from errors of an encoder.
    """
    side = _BLOCK // 2
    rows, columns = (length // side for length in small.shape)
    frame, past = (plane[: rows * side, : columns * side] for plane in (small, small_moved))
    sums = np.empty((5, rows, columns), np.float32)
    for top in range(0, rows, _STRIP):
        strip = slice(top, min(rows, top + _STRIP))
        every = slice(top * side, strip.stop * side, 2)  # second row: exact enough and faster
        h, p = (
            cv2.subtract(plane[every], _blurred(plane, every.start, every.stop)[::2], dtype=cv2.CV_32F)
            for plane in (frame, past)
        )
        d = cv2.subtract(frame[every], past[every], dtype=cv2.CV_32F)
        for index, (one, other) in enumerate(((d, h), (h, h), (d, d), (p, p), (h, p))):
            sums[index, strip] = cv2.resize(
                cv2.multiply(one, other), (columns, strip.stop - top), interpolation=cv2.INTER_AREA
            )
    dh, hh, dd, pp, hp = (_mean(plane, 3) for plane in sums)
    hh, dd, pp = hh + 0.1, dd + 0.1, pp + 0.1
    return np.stack([dh / np.sqrt(hh * dd), dh / hh, np.log(pp / hh), hp / np.sqrt(hh * pp)])


def weight_by_change(small: Frame, small_moved: Frame) -> Frame:
    """Return the upper limit of each pixel's blending weight at half resolution, 255 for 1, by how much it changed."""
    shares = np.rint(255 * _ramp(np.arange(256), _OTHER, _ALIKE)).astype(np.uint8)
    return cast(Frame, cv2.LUT(cv2.blur(cv2.absdiff(small, small_moved), (3, 3)), shares))


def halved(frame: Frame) -> Frame:
    """Return a luma at half height and width (area mean), in which motion is estimated."""
    height, width = (max(1, side // 2) for side in frame.shape)
    return cast(Frame, cv2.resize(frame[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA))


def _blocks(frame: Frame, moved: Frame, side: int) -> tuple[_Plane, _Plane]:
    """Return the mean absolute difference of blocks to the reference, and to a 3 x 3 mean of themselves.

    Blocks have `side` pixels a side. Both are in 8-bit levels, (rows, columns); incomplete blocks at the right and
    bottom are left out.
    """
    rows, columns = (length // side for length in frame.shape)
    frame, moved = (plane[: rows * side, : columns * side] for plane in (frame, moved))
    changed, detail = np.empty((2, rows, columns), np.float32)
    for top in range(0, rows, _STRIP):
        strip = slice(top, min(rows, top + _STRIP))
        first, last = top * side, strip.stop * side
        changed[strip] = _block_means(cv2.absdiff(frame[first:last], moved[first:last]), side)
        detail[strip] = _block_means(cv2.absdiff(frame[first:last], _blurred(frame, first, last)), side)
    return changed, detail


def _blurred(frame: Frame, first: int, last: int) -> Frame:
    """Return rows `first` to `last` of the 3 x 3 mean of a frame; the rows next to them count too."""
    above = max(0, first - 1)
    return cast(Frame, cv2.blur(frame[above : last + 1], (3, 3))[first - above :][: last - first])


def _block_means(plane: npt.NDArray[Any], side: int) -> _Plane:
    """Return the means over blocks of 4 or 8 pixels a side of a uint8 plane.

    By repeated halving, which OpenCV is fastest at; the first step in uint8, as quarters of an 8-bit level: exact, but
    values above 63 count as 63.
    """
    rows, columns = (length // side for length in plane.shape)
    twice = cv2.add(plane, plane)
    means: npt.NDArray[Any] = cv2.add(twice, twice)  # convertScaleAbs takes twice as long
    while side := side // 2:
        means = cv2.resize(means, (side * columns, side * rows), interpolation=cv2.INTER_AREA)
        means = means.astype(np.float32, copy=False)
    return np.asarray(means / 4, np.float32)


def _mean(plane: _Plane, side: int) -> _Plane:
    return np.asarray(cv2.blur(plane, (side, side)), np.float32)


def _ramp(value: npt.ArrayLike, nothing: float, everything: float) -> _Plane:
    """Return 0 at `nothing` and beyond, 1 at `everything` and beyond, linear between."""
    share = (np.asarray(value, np.float32) - nothing) / (everything - nothing)
    return np.asarray(np.clip(share, 0, 1), np.float32)
