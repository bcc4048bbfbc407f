"""What the frames before have shown, laid over the frame that is here: a motion-compensated temporal filter.

A codec makes other faults in every frame of a scene that moves, and a frame made smaller has other pixels each time: so
a frame and those before it, moved to where they belong, know more than each alone. No frame that is still to come is
needed. Of motion only the camera's is followed (shift, turn and zoom of the whole frame); what moves otherwise is
recognised and left as it came, and so is a scene that stands still, of which earlier frames tell nothing new.
"""

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.metrics import Frame

_SMALLEST_SIDE = 64  # pixels: of less there is not enough to follow
_POINTS_ACROSS = 24  # places whose motion is looked for, in a row
_WINDOW, _LEVELS = 21, 3  # pixels of the half frame that are compared at each, and how often they are halved
_LEAST_POINTS, _LEAST_TEXTURE = 8, 1e-3
_OUTLIER_PIXELS = 0.5
_BLOCK = 8  # pixels of the frame
_NEIGHBOURHOOD = 9  # blocks
# The best weight of the past by how much coarse detail there is to fine detail (logarithm): a fit to frames of training
# photographs that pan and zoom, through H.264, VP8, VP9 and AV1 at QP 22 to 37, whole and at half size.
_WEIGHT_SLOPE, _WEIGHT_OFFSET, _MOST_WEIGHT = 0.9, -0.07, 0.85
# How much a frame has changed against how much detail it has, the median of its textured blocks: nothing is done below
# the first (it stands still, or has hardly any faults) and above the last (another scene), all between the middle ones.
_STILL, _MOVING, _STRANGE, _ANOTHER_SCENE = 0.1, 0.24, 1.0, 1.5
_TEXTURED = 1.0  # grey levels
# A block that has changed so many times as much as the median has moved otherwise; a pixel, by so many grey levels.
_USUAL, _UNUSUAL = 4.0, 6.0
_ALIKE, _OTHER = 8.0, 16.0

_Plane = npt.NDArray[np.float32]
_Motion = npt.NDArray[np.float64]


class TemporalFilter:
    """Filters the luma of a film's or a camera's frames, one after the other; a new size begins anew.

    Keeps the last frame it gave, and with it a fading memory of all before.
    """

    def __init__(self) -> None:
        self._past: tuple[Frame, Frame] | None = None  # and at half its size

    def __call__(self, luma: Frame) -> Frame:
        """Return the luma (height, width), uint8, with what earlier frames know of it: a new array, or the luma itself.

        Neither may change before the next call.
        """
        small = _halved(luma)
        known, known_small = luma, small
        if self._past is not None and self._past[0].shape == luma.shape and min(luma.shape) >= _SMALLEST_SIDE:
            known = _joined(luma, small, *self._past)
            known_small = small if known is luma else _halved(known)
        self._past = known, known_small
        return known

    def rgb(self, frame: Frame) -> Frame:
        """Return RGB (height, width, 3), uint8, to whose R, G and B is added alike what is added to its luma."""
        luma = cast(Frame, cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        added = cv2.subtract(self(luma), luma, dtype=cv2.CV_16S)
        return cast(Frame, cv2.add(frame, cv2.merge([added] * 3), dtype=cv2.CV_8U))


def camera_motion(frame: Frame, past: Frame) -> _Motion:
    """Return where the places of a frame were in an earlier one, (2, 3): shift, turn and zoom of most of the frame.

    Both are (height, width), uint8. Points of a grid are followed (Lucas and Kanade in a pyramid, Bouguet 2001); RANSAC
    finds the motion that most of them agree on. Where there are too few to follow, nothing moves.
    """
    height, width = frame.shape
    step = max(4, width // _POINTS_ACROSS)
    columns, rows = (np.arange(step // 2, side, step, dtype=np.float32) for side in (width, height))
    points = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 1, 2)
    found = np.empty_like(points)
    _, followed, _ = cv2.calcOpticalFlowPyrLK(
        frame, past, points, found, winSize=(_WINDOW, _WINDOW), maxLevel=_LEVELS, minEigThreshold=_LEAST_TEXTURE
    )
    here = np.asarray(followed).ravel() == 1
    motion = None
    if here.sum() >= _LEAST_POINTS:
        motion, _ = cv2.estimateAffinePartial2D(
            points[here], found[here], method=cv2.RANSAC, ransacReprojThreshold=_OUTLIER_PIXELS
        )
    return np.eye(2, 3) if motion is None else np.asarray(motion, np.float64)


def _joined(luma: Frame, small: Frame, past: Frame, small_past: Frame) -> Frame:
    motion = camera_motion(small, small_past)
    # From pixels of the half frame to those of the whole one, whose middles lie a quarter of a pixel off.
    motion[:, 2] = 2 * motion[:, 2] + 0.5 - motion[:, :2].sum(axis=1) / 2
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(past, motion, luma.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    weight = _weight(luma, small, _halved(cast(Frame, moved)))
    if weight is None:
        return luma
    weight = _resized(weight, luma)
    return cast(Frame, cv2.blendLinear(moved, luma, weight, 1 - weight))


def _weight(luma: Frame, small: Frame, small_moved: Frame) -> _Plane | None:
    """Return the weight of the past at each pixel of the half frame, 0 to 1; None if it is 0 everywhere.

    `small_moved` is the past, at half its size, moved to where it would be now.
    """
    change = cv2.absdiff(small, small_moved).astype(np.float32)
    changed, fine, coarse = (_blocks(plane, luma) for plane in (change, _detail(luma), _detail(small)))
    relative = (_mean(changed, 3) + 0.02) / (_mean(coarse, 3) + 0.5)
    textured = relative[coarse > _TEXTURED]
    median = np.median(textured if textured.size else relative)
    of_frame = _ramp(median, _STILL, _MOVING) * _ramp(median, _ANOTHER_SCENE, _STRANGE)
    if of_frame == 0:
        return None
    # Fine detail suffers when the past is moved by parts of a pixel; a frame that was enlarged has none.
    ratio = (_mean(coarse, _NEIGHBOURHOOD) + 0.1) / (_mean(fine, _NEIGHBOURHOOD) + 0.1)
    best = np.clip(_WEIGHT_SLOPE * np.log(ratio) + _WEIGHT_OFFSET, 0, _MOST_WEIGHT)
    moves_alike = cv2.erode(_ramp(relative / median, _UNUSUAL, _USUAL), np.ones((3, 3), np.uint8))
    weight = _resized(best * moves_alike * of_frame, small)
    return np.asarray(weight * _ramp(_mean(change, 3), _OTHER, _ALIKE), np.float32)


def _halved(frame: Frame) -> Frame:
    size = max(1, frame.shape[1] // 2), max(1, frame.shape[0] // 2)
    return cast(Frame, cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def _detail(frame: Frame) -> _Plane:
    """Return what sets each pixel off from its neighbours, in grey levels."""
    return np.asarray(cv2.absdiff(frame, cv2.blur(frame, (3, 3))), np.float32)


def _blocks(plane: _Plane, luma: Frame) -> _Plane:
    """Return the means over the blocks of a frame."""
    size = luma.shape[1] // _BLOCK, luma.shape[0] // _BLOCK
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _mean(plane: _Plane, side: int) -> _Plane:
    return np.asarray(cv2.blur(plane, (side, side)), np.float32)


def _resized(plane: _Plane, like: Frame) -> _Plane:
    return np.asarray(cv2.resize(plane, like.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _ramp(value: npt.ArrayLike, nothing: float, everything: float) -> _Plane:
    """Return 0 at `nothing` and beyond, 1 at `everything` and beyond, and a straight line between."""
    share = (np.asarray(value, np.float32) - nothing) / (everything - nothing)
    return np.asarray(np.clip(share, 0, 1), np.float32)
