"""What the frames before have shown, laid over the frame that is here: a motion-compensated temporal filter.

A codec makes other faults in every frame of a scene that moves, and a frame made smaller has other pixels each time: so
a frame and those before it, moved to where they belong, know more than each alone. No frame that is still to come is
needed. A scene of which most stands still comes back as it is, since its earlier frames tell nothing new; so does
whatever cannot be followed, and a scene whose light changes.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.errors import UserError
from clearcall.metrics import Frame

_SMALLEST_SIDE = 64  # pixels: of less there is not enough to follow
# Motion is looked for in the frame at half its size, and these are its pixels.
_POINTS_ACROSS = 24  # places whose motion is looked for, in a row
_WINDOW, _LEVELS = 17, 2  # pixels that are compared at each, and how often they are halved
_SEARCH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)  # steps at most, and pixels of the last
_LEAST_POINTS, _LEAST_TEXTURE, _LEAST_CELL = 8, 1e-3, 4
_OUTLIER_PIXELS = 0.5
_NO_MOTION_PIXELS = 1 / 32  # what OpenCV moves pictures by at least
# A place moves by itself if it is off by more than the first times what most are off, wholly by the second times; below
# so many pixels it is chance.
_CHANCE, _OWN_MOTION, _CHANCE_PIXELS = 0.5, 1.0, 0.12
_BLOCK = 8  # pixels of the frame
_NEIGHBOURHOOD = 9  # blocks
# The best weight of the past by how much coarse detail there is to fine detail (logarithm): a fit to frames of training
# photographs that pan and zoom, through H.264, VP8, VP9 and AV1 at QP 22 to 37, whole and at half size.
_WEIGHT_SLOPE, _WEIGHT_OFFSET, _MOST_WEIGHT = 0.9, -0.02, 0.85
# How much a frame has changed against how much detail it has, the median of its textured blocks: nothing is done below
# the first (it stands still, or has hardly any faults) and above the last (another scene), all between the middle ones.
_STILL, _MOVING, _STRANGE, _ANOTHER_SCENE = 0.1, 0.25, 1.0, 1.5
_TEXTURED = 1.0  # grey levels
# How much lighter or darker a frame has become around most of its blocks, in grey levels: faults of a codec are as
# often too light as too dark, and a change of light is not.
_SAME_LIGHT, _OTHER_LIGHT = 0.5, 1.0
# A block that has changed so many times as much as the median is something else; a pixel, by so many grey levels.
_USUAL, _UNUSUAL = 4.0, 6.0
_ALIKE, _OTHER = 8.0, 16.0

_Plane = npt.NDArray[np.float32]
_EDGES = cv2.BORDER_REPLICATE
_ONE_MAP = np.empty(0, np.float32)  # x and y are in one array


class TemporalFilter:
    """Filters the luma of a film's or a camera's frames, one after the other; a new size begins anew.

    Keeps the last frame it gave, and with it a fading memory of all before.
    """

    def __init__(self) -> None:
        # The last frame as it came, at half its size; as it was given; and as it was given, at half its size.
        self._came = self._given = self._small_given = np.empty((0, 0), np.uint8)

    def __call__(self, luma: Frame) -> Frame:
        """Return the luma (height, width), uint8, with what earlier frames know of it.

        The result is what the filter remembers, so it cannot be written to. Raises UserError for anything but a luma.
        """
        if luma.ndim != 2 or luma.dtype != np.uint8 or not luma.size:  # noqa: PLR2004  # height and width
            raise UserError(f"a luma must be uint8 of (height, width), not {luma.dtype} of {luma.shape}; RGB has rgb()")
        small, mixed = _halved(luma), None
        if self._given.shape == luma.shape and min(luma.shape) >= _SMALLEST_SIDE:
            if np.array_equal(self._came, small):  # shown once more, as a camera in the dark does
                return self._given
            mixed = _mixed(luma, small, self._given, self._small_given)
        self._came = small
        self._given, self._small_given = (luma.copy(), small) if mixed is None else (mixed, _halved(mixed))
        self._given.flags.writeable = False
        return self._given

    def rgb(self, frame: Frame) -> Frame:
        """Return RGB (height, width, 3), uint8, to whose R, G and B is added alike what is added to its luma."""
        luma = cast(Frame, cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        added = cv2.subtract(self(luma), luma, dtype=cv2.CV_16S)
        return cast(Frame, cv2.add(frame, cv2.merge([added] * 3), dtype=cv2.CV_8U))


@dataclass(frozen=True)
class Motion:
    """Where the places of a frame were in an earlier one.

    `camera`, (2, 3), takes (x, y, 1) there: a shift, turn and zoom of most of the frame. `own`, (rows, columns, 2), is
    what the middles of as many cells of `cell` x `cell` pixels have moved besides, as (x, y) in pixels.
    """

    camera: npt.NDArray[np.float64]
    own: _Plane
    cell: int

    def doubled(self) -> "Motion":
        """Return the motion in a frame of twice the size, whose pixels' middles lie a quarter of a pixel off."""
        camera = self.camera.copy()
        camera[:, 2] = 2 * camera[:, 2] + 0.5 - camera[:, :2].sum(axis=1) / 2
        return Motion(camera, 2 * self.own, 2 * self.cell)

    def applied(self, past: Frame) -> Frame:
        """Return an earlier frame (height, width) moved to where it would be now; itself if nothing has moved."""
        height, width = past.shape
        if self.own.any():
            places = self._places(height, width)
            return cast(Frame, cv2.remap(past, places, _ONE_MAP, cv2.INTER_CUBIC, borderMode=_EDGES))
        corners = np.array([[0, width, 0], [0, 0, height], [1, 1, 1]])
        if np.abs((self.camera - np.eye(2, 3)) @ corners).max() < _NO_MOTION_PIXELS:
            return past
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cast(Frame, cv2.warpAffine(past, self.camera, (width, height), flags=flags, borderMode=_EDGES))

    def _places(self, height: int, width: int) -> _Plane:
        """Return where each pixel was, (height, width, 2): linear between the cells and one cell beyond the last."""
        own = cv2.copyMakeBorder(self.own, 1, 1, 1, 1, _EDGES)
        rows, columns = np.mgrid[-1 : own.shape[0] - 1, -1 : own.shape[1] - 1]
        middles = np.stack([columns, rows], axis=-1) * self.cell + (self.cell - 1) / 2
        places = middles @ self.camera[:, :2].T + self.camera[:, 2] + own
        size = own.shape[1] * self.cell, own.shape[0] * self.cell
        large = cv2.resize(places.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(large[self.cell : self.cell + height, self.cell : self.cell + width], np.float32)


def find_motion(frame: Frame, past: Frame) -> Motion:
    """Return how the places of a frame have moved since an earlier one; both are (height, width), uint8.

    Points of a grid are followed (Lucas and Kanade in a pyramid, Bouguet 2001); RANSAC finds the motion of the camera,
    on which most of them agree, and medians of neighbours find what moves by itself. What cannot be followed moves with
    the camera, and if there is too little to follow, nothing moves.
    """
    height, width = frame.shape
    cell = max(_LEAST_CELL, min(width // _POINTS_ACROSS, height))
    columns, rows = (np.arange((cell - 1) / 2, side, cell, dtype=np.float32) for side in (width, height))
    points = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 1, 2)
    found = np.empty_like(points)
    window = _WINDOW, _WINDOW
    _, followed, _ = cv2.calcOpticalFlowPyrLK(
        frame, past, points, found, None, None, window, _LEVELS, _SEARCH, minEigThreshold=_LEAST_TEXTURE
    )
    here = np.asarray(followed).ravel() == 1
    camera = None
    if here.sum() >= _LEAST_POINTS:
        camera, _ = cv2.estimateAffinePartial2D(
            points[here], found[here], method=cv2.RANSAC, ransacReprojThreshold=_OUTLIER_PIXELS
        )
    if camera is None:
        return Motion(np.eye(2, 3), np.zeros((len(rows), len(columns), 2), np.float32), cell)
    off = found[:, 0] - points[:, 0] @ camera[:, :2].T - camera[:, 2]
    off[~here] = 0
    planes = (plane.astype(np.float32).reshape(len(rows), len(columns)) for plane in off.T)
    own = np.stack([cv2.medianBlur(plane, 3) for plane in planes], axis=-1)
    length = np.linalg.norm(own, axis=-1, keepdims=True)
    share = _ramp(length / max(float(np.median(length)), _CHANCE_PIXELS), _CHANCE, _OWN_MOTION)
    return Motion(np.asarray(camera, np.float64), np.asarray(own * share, np.float32), cell)


def _mixed(luma: Frame, small: Frame, past: Frame, small_past: Frame) -> Frame | None:
    """Return a luma mixed with the past where that helps; None if the frame as a whole is to be left alone."""
    moved = find_motion(small, small_past).doubled().applied(past)
    weight = _weight(luma, small, small_past if moved is past else _halved(moved))
    if weight is None:
        return None
    return cast(Frame, cv2.blendLinear(moved, luma, _resized(weight, luma), _resized(1 - weight, luma)))


def _weight(luma: Frame, small: Frame, small_moved: Frame) -> _Plane | None:
    """Return the weight of the past at each pixel of the half frame, 0 to 1; None if it is 0 for the whole frame.

    `small_moved` is the past, at half its size, moved to where it would be now.
    """
    lighter = np.asarray(cv2.subtract(small, small_moved, dtype=cv2.CV_32F), np.float32)
    change = cv2.absdiff(small, small_moved)
    changed, fine, coarse = (
        _blocks(plane, luma) for plane in (change.astype(np.float32), _detail(luma), _detail(small))
    )
    relative = (_mean(changed, 3) + 0.02) / (_mean(coarse, 3) + 0.5)
    textured = relative[coarse > _TEXTURED]
    median = np.median(textured if textured.size else relative)
    of_frame = _ramp(median, _STILL, _MOVING) * _ramp(median, _ANOTHER_SCENE, _STRANGE)
    of_frame *= _ramp(np.median(np.abs(_mean(_blocks(lighter, luma), _NEIGHBOURHOOD))), _OTHER_LIGHT, _SAME_LIGHT)
    if of_frame == 0:
        return None
    # Fine detail suffers when the past is moved by parts of a pixel; a frame that was enlarged has none.
    ratio = (_mean(coarse, _NEIGHBOURHOOD) + 0.1) / (_mean(fine, _NEIGHBOURHOOD) + 0.1)
    best = np.clip(_WEIGHT_SLOPE * np.log(ratio) + _WEIGHT_OFFSET, 0, _MOST_WEIGHT)
    moves_alike = cv2.erode(_ramp(relative / median, _UNUSUAL, _USUAL), np.ones((3, 3), np.uint8))
    weight = _resized(best * moves_alike * of_frame, small)
    return cast(_Plane, cv2.multiply(weight, cv2.LUT(cv2.blur(change, (3, 3)), _SHARE_BY_CHANGE)))


def _halved(frame: Frame) -> Frame:
    height, width = (max(1, side // 2) for side in frame.shape)
    return cast(Frame, cv2.resize(frame[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA))


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


_SHARE_BY_CHANGE = _ramp(np.arange(256), _OTHER, _ALIKE)  # of a pixel, by grey levels
