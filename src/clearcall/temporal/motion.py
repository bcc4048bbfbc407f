"""Motion estimation between luma frames (camera plus local motion), and motion compensation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.imaging.frame import Frame

# Motion is estimated at half resolution; pixels here are those of the half frame.
_POINTS_ACROSS = 24  # tracked points in a row
_WINDOW, _LEVELS = 17, 2  # side of a point's window in pixels, and levels of the pyramid
_SEARCH = (
    cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS,
    10,
    0.03,
)  # most steps, and pixels of the last
_LEAST_POINTS, _LEAST_TEXTURE, _LEAST_CELL = 8, 1e-3, 4
_OUTLIER_PIXELS = 0.5
_ROUNDS, _DOUBT_PIXELS = 4, 0.1  # of the robust fit, in which a residual of so many pixels counts half
# A point has local motion if its residual exceeds the first times the median residual, fully from the second times on;
# residuals below so many pixels are chance. Medians are over so many points in a row.
_CHANCE, _OWN_MOTION, _CHANCE_PIXELS, _NEIGHBOURS = 0.5, 1.0, 0.2, 5
# A frame is moved in tiles of so many pixels, each by one shift in such parts of a pixel: in the first tile size with
# which so large a part of the tiles can be. A tile whose shifts differ by more than so many pixels is moved pixel by
# pixel.
_TILES, _MOST_TILES, _PARTS, _UNEVEN_PIXELS = (64, 32), 0.9, 16, 1 / 4
_FARTHEST = 128  # pixels: larger shifts are done pixel by pixel too, and need no margin

_Plane = npt.NDArray[np.float32]
_EDGES = cv2.BORDER_REPLICATE
_ONE_MAP = np.empty(0, np.float32)  # x and y are in one array


@dataclass(frozen=True)
class Motion:
    """Backward motion: where the pixels of a frame were in an earlier one.

    `camera`, (2, 3), maps (x, y, 1) there: shift, rotation and zoom of most of the frame. `own`, (rows, columns, 2), is
    the local motion besides, (x, y) in pixels, of the centres of cells of `cell` x `cell` pixels. `unsure` is the
    median distance of the points from the camera's motion in pixels: codecs let some stand still and others jump.
    """

    camera: npt.NDArray[np.float64]
    own: _Plane
    cell: int
    unsure: float = 0.0

    def doubled(self) -> "Motion":
        """Return the motion in a frame of twice the size, whose pixel centres lie a quarter of a pixel off."""
        camera = self.camera.copy()
        camera[:, 2] = 2 * camera[:, 2] + 0.5 - camera[:, :2].sum(axis=1) / 2
        return Motion(camera, 2 * self.own, 2 * self.cell, 2 * self.unsure)

    def shifts(self, columns: _Plane, rows: _Plane) -> _Plane:
        """Return the displacement at these pixels, (rows, columns, 2), as (x, y) in pixels."""
        x, y = np.meshgrid(columns, rows)
        places = np.stack([x, y], axis=-1)
        at = ((places - (self.cell - 1) / 2) / self.cell).astype(np.float32)
        own = cv2.remap(self.own, at, _ONE_MAP, cv2.INTER_LINEAR, borderMode=_EDGES)
        return np.asarray(places @ (self.camera[:, :2] - np.eye(2)).T + self.camera[:, 2] + own, np.float32)

    def distances(self) -> _Plane:
        """Return the length of the displacement at each cell's centre, (rows, columns), in pixels."""
        rows, columns = (np.arange(count, dtype=np.float32) * self.cell for count in self.own.shape[:2])
        middle = np.float32(self.cell - 1) / 2
        return np.asarray(np.linalg.norm(self.shifts(columns + middle, rows + middle), axis=-1), np.float32)

    def largest_of_camera(self, shape: tuple[int, ...]) -> float:
        """Return how far the camera's motion moves a corner of a frame (height, width), in pixels; most of the four."""
        height, width = shape
        corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], np.float64)
        return float(np.linalg.norm(corners @ self.camera.T - corners[:, :2], axis=1).max())

    def applied(self, past: Frame) -> Frame:
        """Return an earlier frame (height, width), uint8, warped to the present one; itself if nothing has moved.

        Tiles by Lanczos interpolation with three lobes; single pixels by cubic interpolation (Keys 1981, a = -0.75, as
        in OpenCV). Both amplify a frequency by less than 3 % in each direction.
        """
        height, width = past.shape
        for tile in _TILES:
            parts, as_whole = self._by_tile(height, width, tile)
            if as_whole.mean() >= _MOST_TILES:
                break
        if as_whole.all() and not parts.any():
            return past
        parts[~as_whole] = 0
        margin = int(np.abs(parts).max()) // _PARTS + _TAPS.shape[1]
        padded = cast(Frame, cv2.copyMakeBorder(past, margin, margin, margin, margin, _EDGES))
        moved = np.empty(past.shape, np.uint8)
        exact = np.zeros((tile, width), np.float32)  # of a row of tiles
        for row in range(len(parts)):
            rows = slice(row * tile, min(height, (row + 1) * tile))
            strip = exact[: rows.stop - rows.start]
            # Neighbours of one shift are one run: a panning frame takes a few filters.
            new = np.flatnonzero((np.diff(parts[row], axis=0) != 0).any(axis=1) | np.diff(as_whole[row])) + 1
            runs = [*pairwise([0, *new.tolist(), len(parts[row])])]
            for first, last in runs:
                if as_whole[row, first]:
                    left, right = first * tile, min(width, last * tile)
                    place = margin + rows.start, margin + left
                    _move_as_whole(padded, place, parts[row, first].tolist(), strip[:, left:right])
            # uint8 to float32 to uint8: OpenCV takes three times as long to filter uint8 directly.
            _to_bytes(strip, moved[rows])
            for first, last in runs:
                if not as_whole[row, first]:
                    columns = slice(first * tile, min(width, last * tile))
                    moved[rows, columns] = self._by_pixel(past, rows, columns)
        return moved

    def _by_tile(self, height: int, width: int, tile: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the shift of each tile, (rows, columns, 2), in parts of a pixel, and which tiles it suffices for."""
        shifts = self.shifts(*(np.arange(0, side + tile, tile, dtype=np.float32) for side in (width, height)))
        corners = np.stack([shifts[:-1, :-1], shifts[1:, :-1], shifts[:-1, 1:], shifts[1:, 1:]])
        parts = np.rint(corners.mean(axis=0) * _PARTS).astype(np.int64)
        as_whole = np.ptp(corners, axis=0).max(axis=-1) <= _UNEVEN_PIXELS
        return parts, as_whole & (np.abs(parts).max(axis=-1) <= _FARTHEST * _PARTS)

    def _by_pixel(self, past: Frame, rows: slice, columns: slice) -> Frame:
        """Return rows and columns of the frame warped as by `applied`, pixel by pixel."""
        height, width = past.shape
        places = self._places(rows, columns)
        # The part of the reference that they lie in, as float32: OpenCV is faster with it than with uint8.
        least, most = (cv2.reduce(cv2.reduce(places, 0, how), 1, how) for how in (cv2.REDUCE_MIN, cv2.REDUCE_MAX))
        x, y = np.clip(least.ravel().astype(int) - 2, 0, (width - 1, height - 1)).tolist()
        last_x, last_y = np.maximum(most.ravel().astype(int) + 4, (x + 1, y + 1))
        exact = past[y:last_y, x:last_x].astype(np.float32)
        # NumPy takes twenty times as long.
        cv2.subtract(places, (x, y, 0, 0), dst=places)  # type: ignore[call-overload]  # it takes numbers too
        moved = cv2.remap(exact, places, _ONE_MAP, cv2.INTER_CUBIC, borderMode=_EDGES)
        answer = np.empty(moved.shape, np.uint8)
        _to_bytes(np.asarray(moved, np.float32), answer)
        return answer

    def _places(self, rows: slice, columns: slice) -> _Plane:
        """Return where the pixels of some rows and columns were, (height, width, 2): linear between cell centres."""
        at = (np.arange(rows.start, rows.stop) + (self.cell + 1) / 2) / self.cell  # in rows of cells
        above = np.minimum(at.astype(int), len(self._places_by_column) - 2)
        share = (at - above).astype(np.float32)[:, None, None]
        near = self._places_by_column[:, columns]
        return np.asarray(near[above] * (1 - share) + near[above + 1] * share, np.float32)

    @cached_property
    def _places_by_column(self) -> _Plane:
        """Where each column was at the centre of each row of cells, (rows + 2, columns, 2).

        The grid of cells, which may end before the frame does, is extended by one cell beyond each edge.
        """
        own = cv2.copyMakeBorder(self.own, 1, 1, 1, 1, _EDGES)
        rows, columns = np.mgrid[-1 : own.shape[0] - 1, -1 : own.shape[1] - 1]
        middles = np.stack([columns, rows], axis=-1) * self.cell + (self.cell - 1) / 2
        places = (middles @ self.camera[:, :2].T + self.camera[:, 2] + own).astype(np.float32)
        size = len(places[0]) * self.cell, len(places)
        return np.asarray(cv2.resize(places, size, interpolation=cv2.INTER_LINEAR)[:, self.cell :], np.float32)


def find_motion(frame: Frame, past: Frame, guess: Motion | None = None) -> Motion:
    """Return the motion of a frame since an earlier one; both are (height, width), uint8.

    `guess` is an initial estimate, without which large motion is not found. Points of a grid are tracked (pyramidal
    Lucas-Kanade, Bouguet 2001); RANSAC and a robust fit give the camera's motion, and medians of neighbouring residuals
    the local motion. Points that cannot be tracked move with the camera; with too few points nothing moves.
    """
    height, width = frame.shape
    cell = max(_LEAST_CELL, min(width // _POINTS_ACROSS, height))
    columns, rows = (np.arange((cell - 1) / 2, side, cell, dtype=np.float32) for side in (width, height))
    points = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 1, 2)
    found = points if guess is None else points + guess.shifts(columns, rows).reshape(-1, 1, 2)
    window = _WINDOW, _WINDOW
    how = cv2.OPTFLOW_USE_INITIAL_FLOW
    found, followed, _ = cv2.calcOpticalFlowPyrLK(
        frame, past, points, found.copy(), None, None, window, _LEVELS, _SEARCH, how, _LEAST_TEXTURE
    )
    here = np.asarray(followed).ravel() == 1
    camera = None
    if here.sum() >= _LEAST_POINTS:
        camera, _ = cv2.estimateAffinePartial2D(
            points[here], found[here], method=cv2.RANSAC, ransacReprojThreshold=_OUTLIER_PIXELS
        )
    if camera is None:
        return Motion(np.eye(2, 3), np.zeros((len(rows), len(columns), 2), np.float32), cell)
    camera = _fitted(points[here], found[here], camera)
    off = found[:, 0] - points[:, 0] @ camera[:, :2].T - camera[:, 2]
    off[~here] = 0
    planes = (plane.astype(np.float32).reshape(len(rows), len(columns)) for plane in off.T)
    own = np.stack([cv2.medianBlur(plane, _NEIGHBOURS) for plane in planes], axis=-1)
    length = np.linalg.norm(own, axis=-1, keepdims=True)
    unsure = float(np.median(length))
    least = _CHANCE * max(unsure, _CHANCE_PIXELS)
    share = np.clip((length - least) / (_OWN_MOTION / _CHANCE - 1) / least, 0, 1)
    return Motion(camera, np.asarray(own * share, np.float32), cell, unsure)


def _fitted(points: _Plane, found: _Plane, camera: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the camera's motion refined on points (number, 1, 2) and where they were found.

    Iteratively reweighted least squares with Cauchy weights. x and y are one complex number, so that rotation and zoom
    are one product.
    """
    here, there = (places[:, 0] @ np.array([1, 1j]) for places in (points, found))
    turn, shift = camera[:, [0, 2]].T @ np.array([1, 1j])
    for _ in range(_ROUNDS):
        weights = 1 / (1 + (np.abs(turn * here + shift - there) / _DOUBT_PIXELS) ** 2)
        from_middle = here - np.average(here, weights=weights)
        turn = np.vdot(weights * from_middle, there) / np.vdot(weights * from_middle, from_middle)
        shift = np.average(there - turn * here, weights=weights)
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _move_as_whole(padded: Frame, place: tuple[int, int], parts: Sequence[int], moved: _Plane) -> None:
    """Write the frame from (row, column) `place` on, shifted by (x, y) parts of a pixel, to `moved` (height, width).

    Four to six times as fast as a lookup for every pixel.
    """
    height, width = moved.shape
    (x, x_part), (y, y_part) = (divmod(part, _PARTS) for part in parts)
    taps = _TAPS.shape[1]
    top, left = place[0] + y - _BEFORE, place[1] + x - _BEFORE
    source = padded[top : top + height + taps - 1, left : left + width + taps - 1]
    filtered = cv2.sepFilter2D(source, cv2.CV_32F, _TAPS[x_part], _TAPS[y_part])
    moved[:] = filtered[taps // 2 : taps // 2 + height, taps // 2 : taps // 2 + width]


def _to_bytes(exact: _Plane, answer: Frame) -> None:
    """Round `exact`, clipped to 0 to 255, into `answer` of the same size; changes `exact`."""
    cv2.threshold(exact, 0, 0, cv2.THRESH_TOZERO, dst=exact)  # convertScaleAbs takes absolute values
    cv2.convertScaleAbs(exact, dst=answer)


def _lanczos_taps(part: float) -> _Plane:
    """Return the six taps of Lanczos interpolation, sinc(x) sinc(x / 3), at `part` of a pixel past the third."""
    at = np.arange(-_BEFORE, _BEFORE + 2) - part
    taps = np.sinc(at) * np.sinc(at / 3)
    return np.asarray(taps / taps.sum(), np.float32)


_BEFORE = 2  # taps before the pixel that a position lies behind
_TAPS = np.array([_lanczos_taps(part / _PARTS) for part in range(_PARTS)], np.float32)
