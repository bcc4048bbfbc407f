"""What the frames before have shown, laid over the frame that is here: a motion-compensated temporal filter.

A codec makes other faults in every frame of a scene that moves, and coarser ones than in the first, which was sent as a
whole; and a frame made smaller has other pixels each time. So a frame and an earlier one, moved to where it belongs,
know more than each alone. It is the same earlier one for a while: a picture that is moved again and again becomes soft.
No frame that is still to come is needed. How much of the past each block of a frame gets, a small perceptron says,
which learnt it from photographs and pages of text that pan and zoom, some of which bend, have noise or change their
light (ship_filter.py). A scene that stands still comes back as it is, since its earlier frames tell nothing new; so
does whatever cannot be followed, and a scene whose light changes fast.
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
from clearcall.temporal.motion import Motion, find_motion

_SMALLEST_SIDE = 64  # pixels: of less there is not enough to follow
_BLOCK = 8  # pixels of the frame
_STRIP = 15  # rows of blocks: parts that stay near the processor take half the time
_NEIGHBOURHOOD = 9  # blocks
_EVERY = np.s_[::2, ::2]  # of the blocks, for a frame's medians: enough, and quicker
MOST_WEIGHT = 0.94  # of the past: what is moved becomes stronger by (1.03)^2 at most, and must not without end
# How much a frame has changed against how much detail it has, the median of its textured blocks: nothing is done below
# the first (it stands still, or has hardly any faults) and above the last (another scene), all between the middle ones.
_STILL, _MOVING, _STRANGE, _ANOTHER_SCENE = 0.08, 0.12, 1.0, 1.5
_TEXTURED = 1.0  # grey levels
_LITTLE = 15  # per cent of a frame
_LEAST_SIGNAL = -80.0  # of which a sigmoid gives nothing: less would be too much for a float's exponential
# How much lighter or darker a frame has become around most of its blocks, in grey levels: faults of a codec are as
# often too light as too dark, and a change of light is not.
_SAME_LIGHT, _OTHER_LIGHT = 0.5, 1.0
# But by rounding, frames may drift one way: so far from a scene's first with every frame, of which so many count.
_DRIFT, _DRIFTING = 0.2, 10
# A pixel of the half frame that has changed by fewer grey levels may have all of the past, by more than the other none.
_ALIKE, _OTHER = 12.0, 24.0

# A memory is given up after so many frames, or when less than so large a part of the most is taken from it, or of all.
_LONGEST, _WANING, _LEAST_SHARE = 12, 0.6, 0.05
_OLDEST_SCENE = 24  # frames, as far as learning saw

_Plane = npt.NDArray[np.float32]
WEIGHTS = Path(__file__).parent / "weights.npz"


# From features of blocks (rows, columns, 11) and of their frame (15,) to how much of the past, 0 to 1: (rows, columns).
Weigh = Callable[[_Plane, _Plane], _Plane]


class Blocks(NamedTuple):
    """What is to be seen of a frame's blocks of 8 x 8 pixels, and how much of the past they may have at all, 0 to 1.

    Features are (rows, columns, 11) of the blocks and (15,) of the whole frame; there are none where none may have any,
    since the frame has hardly changed.
    """

    features: _Plane
    of_frame: _Plane
    share: float


@dataclass(frozen=True)
class Perceptron:
    """A small network of layers of (inputs, outputs) and (outputs,), ReLU between them and a sigmoid at the end."""

    layers: Sequence[tuple[_Plane, _Plane]]

    def __call__(self, features: _Plane, of_frame: _Plane) -> _Plane:
        """Return a number from 0 to 1, (rows, columns), for features (rows, columns, m) and (n,) that all share.

        They are the m + n inputs of the first layer, in this order.

        Row by row: a product of all at once would take more threads than one, which wait for work by spinning and take
        the cores from the network.
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
    """Return what says how much of the past a block gets, as `make ship-filter` has fitted it."""
    with np.load(WEIGHTS) as arrays:
        return Perceptron(
            [(arrays[f"weights_{index}"], arrays[f"biases_{index}"]) for index in range(len(arrays) // 2)]
        )


@dataclass
class Memory:
    """What the filter remembers of a scene: a luma (height, width), uint8, and that at half its size.

    `motion` is how the half frame has moved until the last frame, None if that is this one; `age` is how many frames
    came since, but for those that were shown again, `scene_age` how many since the scene began, and `most` how much of
    those that came since was taken from it at most, as a mean over the frame, 0 to 1.
    """

    luma: Frame
    small: Frame
    motion: Motion | None = None
    age: int = 0
    scene_age: int = 0
    most: float = 0.0

    def after(self, share: float | None) -> bool:
        """Count one more frame; return whether the memory is still worth it.

        `share` is how much the frame took from here, None if it had hardly changed and had no need.
        """
        self.age += 1
        self.scene_age += 1
        if share is None:
            return self.age < _LONGEST
        self.most = max(self.most, share)
        return self.age < _LONGEST and share >= max(_LEAST_SHARE, _WANING * self.most)


class TemporalFilter:
    """Filters the luma of a film's or a camera's frames, one after the other; a new size begins anew.

    `memory` is a frame that it gave, which it keeps for as long as that tells much of those that follow.
    """

    def __init__(self, weigh: Weigh | None = None) -> None:
        self.memory: Memory | None = None
        self._weigh = weigh or shipped_weigher()
        self._came = self._given = np.empty((0, 0), np.uint8)  # the last frame, at half its size, and as it was given

    def __call__(self, luma: Frame) -> Frame:
        """Return the luma (height, width), uint8, with what earlier frames know of it.

        The result may be what the filter remembers, so it cannot be written to. Raises UserError for what is no luma.
        """
        if luma.ndim != 2 or luma.dtype != np.uint8 or not luma.size:  # noqa: PLR2004  # height and width
            raise UserError(f"a luma must be uint8 of (height, width), not {luma.dtype} of {luma.shape}; RGB has rgb()")
        small, memory, mixed = halved(luma), self.memory, None
        if memory is not None and memory.luma.shape == luma.shape and min(luma.shape) >= _SMALLEST_SIDE:
            if np.array_equal(self._came, small):  # shown once more, as a camera in the dark does
                return self._given
            mixed = _mixed(luma, small, memory, self._weigh)
        self._came = small
        self._given = luma.copy() if memory is None or mixed is None else mixed.luma
        self._given.flags.writeable = False
        if memory is None or mixed is None:
            self.memory = Memory(self._given, small)
        elif not memory.after(mixed.share):
            self.memory = Memory(self._given, halved(self._given), scene_age=memory.scene_age)
        return self._given

    def rgb(self, frame: Frame) -> Frame:
        """Return RGB (height, width, 3), uint8, to whose R, G and B is added alike what is added to its luma."""
        luma = cast(Frame, cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        added = cv2.subtract(self(luma), luma, dtype=cv2.CV_16S)
        return cast(Frame, cv2.add(frame, cv2.merge([added] * 3), dtype=cv2.CV_8U))


class _Mixed(NamedTuple):
    luma: Frame
    share: float | None  # of the past, the mean over the frame; None if there was no need of any


def _mixed(luma: Frame, small: Frame, memory: Memory, weigh: Weigh) -> _Mixed | None:
    """Return a luma mixed with the past where that helps; None if the past is of no use for it."""
    moved, small_moved, blocks = follow(luma, small, memory)
    if blocks is None:
        return None
    if not blocks.features.size:
        return _Mixed(luma.copy(), None)
    # Weights are bytes from here on, 255 for 1, which takes half as long as floats.
    most = MOST_WEIGHT * blocks.share
    of_blocks = cv2.convertScaleAbs(weigh(blocks.features, blocks.of_frame), alpha=most * 255)
    weight = cv2.multiply(cv2.resize(of_blocks, small.shape[::-1]), share_by_change(small, small_moved), scale=1 / 255)
    return _Mixed(_blended(luma, moved, cast(Frame, weight)), cv2.mean(weight)[0] / 255)


def follow(luma: Frame, small: Frame, memory: Memory) -> tuple[Frame, Frame, Blocks | None]:
    """Return the past moved to where it would be now, itself if nothing has moved; that at half its size; and a look.

    The look is at the luma beside it, and None if the past is of no use for it. `small` is the luma at half its
    size. The memory is told the motion.
    """
    memory.motion = find_motion(small, memory.small, memory.motion)
    motion = memory.motion.doubled()
    moved = motion.applied(memory.luma)
    small_moved = memory.small if moved is memory.luma else halved(moved)
    return moved, small_moved, look(luma, small, moved, small_moved, motion, memory)


def _blended(luma: Frame, past: Frame, weight: Frame) -> Frame:
    """Return a luma with as much of the past as `weight`, of the half frame, says: 255 is all."""
    height, width = luma.shape
    mixed = np.empty(luma.shape, np.uint8)
    for top in range(0, height, _STRIP * _BLOCK):
        rows = slice(top, min(height, top + _STRIP * _BLOCK))
        half = weight[min(top // 2, len(weight) - 1) : -(-rows.stop // 2)]  # an odd last row has none of its own
        of_past = cv2.resize(half, (width, rows.stop - top), interpolation=cv2.INTER_LINEAR)
        lighter = cv2.multiply(cv2.subtract(past[rows], luma[rows]), of_past, scale=1 / 255)
        darker = cv2.multiply(cv2.subtract(luma[rows], past[rows]), of_past, scale=1 / 255)
        cv2.subtract(cv2.add(luma[rows], lighter), darker, dst=mixed[rows])
    return mixed


def look(luma: Frame, small: Frame, moved: Frame, small_moved: Frame, motion: Motion, memory: Memory) -> Blocks | None:
    """Look at a luma and at the past, moved by `motion` to where it would be now, both also at half their size.

    `memory` is only asked for its ages. Return None if the past is of no use: of another scene, or in another light.
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
    drift = _DRIFT * min(memory.scene_age, _DRIFTING)
    same = _ramp(median, _ANOTHER_SCENE, _STRANGE) * _ramp(light, _OTHER_LIGHT + drift, _SAME_LIGHT + drift)
    if same == 0:
        return None
    much = same * _ramp(median, _STILL, _MOVING)
    if much == 0:
        return Blocks(np.empty(0, np.float32), np.empty(0, np.float32), 0.0)
    near = np.log(np.stack([_mean(plane, 3) for plane in (changed, changed_half, fine, coarse)]) + 0.1)
    around = np.log(np.stack([_mean(plane, _NEIGHBOURHOOD) for plane in (fine, coarse)]) + 0.1)
    ratio = around[1] - around[0]  # a frame that was enlarged has coarse detail alone
    detail = _likeness(small, small_moved)
    distances = np.log(motion.distances() + 0.05)
    # As if its cells ended where the frame does, which is nearly so.
    distance = cv2.resize(distances, changed.shape[::-1], interpolation=cv2.INTER_LINEAR)
    of_all = (near[0], near[1], near[0] - near[2], near[1] - near[3], ratio)
    of_frame = [
        *(np.median(plane[_EVERY][some]) for plane in of_all),
        np.log(motion.unsure + 0.05),
        np.log(light + 0.1),
        np.log(1 + memory.age),
        np.log(1 + min(memory.scene_age, _OLDEST_SCENE)),
        *np.median(detail[:, *_EVERY], axis=(1, 2)),
        *np.percentile(distances, [50, _LITTLE]),  # most of it, and what stands still
    ]
    features = np.stack([*near, around[0], ratio, *detail, distance], axis=-1)
    return Blocks(features, np.array(of_frame, np.float32), float(much))


def _likeness(small: Frame, small_moved: Frame) -> _Plane:
    """Tell what a change is made of, (4, rows, columns) by blocks, both frames being at half their size.

    With h and p the fine detail of the frame and of the past, by which each differs from a blur of itself, and d = the
    frame - the past: the correlation of d and h, the slope of d on h, log of p's energy over h's, and the correlation
    of h and p. A camera's noise and what bends are detail that the past has not; faults of an encoder are not like
    that.
    """
    side = _BLOCK // 2
    rows, columns = (length // side for length in small.shape)
    frame, past = (whole[: rows * side, : columns * side] for whole in (small, small_moved))
    sums = np.empty((5, rows, columns), np.float32)
    for top in range(0, rows, _STRIP):
        strip = slice(top, min(rows, top + _STRIP))
        every = slice(top * side, strip.stop * side, 2)  # second row: enough, and quicker
        h, p = (
            cv2.subtract(whole[every], _blurred(whole, every.start, every.stop)[::2], dtype=cv2.CV_32F)
            for whole in (frame, past)
        )
        d = cv2.subtract(frame[every], past[every], dtype=cv2.CV_32F)
        for index, (one, other) in enumerate(((d, h), (h, h), (d, d), (p, p), (h, p))):
            sums[index, strip] = cv2.resize(
                cv2.multiply(one, other), (columns, strip.stop - top), interpolation=cv2.INTER_AREA
            )
    dh, hh, dd, pp, hp = (_mean(plane, 3) for plane in sums)
    hh, dd, pp = hh + 0.1, dd + 0.1, pp + 0.1
    return np.stack([dh / np.sqrt(hh * dd), dh / hh, np.log(pp / hh), hp / np.sqrt(hh * pp)])


def share_by_change(small: Frame, small_moved: Frame) -> Frame:
    """Return how much of the past each pixel of the half frame may have, 255 for all, by how much it has changed."""
    shares = np.rint(255 * _ramp(np.arange(256), _OTHER, _ALIKE)).astype(np.uint8)
    return cast(Frame, cv2.LUT(cv2.blur(cv2.absdiff(small, small_moved), (3, 3)), shares))


def halved(frame: Frame) -> Frame:
    """Return a luma at half its height and width, in which motion is looked for."""
    height, width = (max(1, side // 2) for side in frame.shape)
    return cast(Frame, cv2.resize(frame[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA))


def _blocks(frame: Frame, moved: Frame, side: int) -> tuple[_Plane, _Plane]:
    """Return how much the blocks of so many pixels a side differ from the past, and from a blur of themselves.

    Both are means in grey levels, (rows, columns); what is left over to the right and below belongs to no block.
    """
    rows, columns = (length // side for length in frame.shape)
    frame, moved = (whole[: rows * side, : columns * side] for whole in (frame, moved))
    changed, detail = np.empty((2, rows, columns), np.float32)
    for top in range(0, rows, _STRIP):
        strip = slice(top, min(rows, top + _STRIP))
        first, last = top * side, strip.stop * side
        changed[strip] = _block_means(cv2.absdiff(frame[first:last], moved[first:last]), side)
        detail[strip] = _block_means(cv2.absdiff(frame[first:last], _blurred(frame, first, last)), side)
    return changed, detail


def _blurred(frame: Frame, first: int, last: int) -> Frame:
    """Return some rows of a frame, each pixel the mean of 3 x 3: also of the rows above and below these."""
    above = max(0, first - 1)
    return cast(Frame, cv2.blur(frame[above : last + 1], (3, 3))[first - above :][: last - first])


def _block_means(plane: npt.NDArray[Any], side: int) -> _Plane:
    """Return the means over blocks of a plane of bytes, which are 4 or 8 pixels a side.

    By halves, which OpenCV is quickest with, and the first in bytes, as quarters of a grey level: exact, but that
    what is above 63 levels counts as 63.
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
    """Return 0 at `nothing` and beyond, 1 at `everything` and beyond, and a straight line between."""
    share = (np.asarray(value, np.float32) - nothing) / (everything - nothing)
    return np.asarray(np.clip(share, 0, 1), np.float32)
