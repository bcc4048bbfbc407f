"""How the places of a film have moved from frame to frame, and an earlier frame moved to where it would be now."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.metrics import Frame

# Motion is looked for in the frame at half its size, and these are its pixels.
_POINTS_ACROSS = 24  # places whose motion is looked for, in a row
_WINDOW, _LEVELS = 17, 2  # pixels that are compared at each, and how often they are halved
_SEARCH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)  # steps at most, and pixels of the last
_LEAST_POINTS, _LEAST_TEXTURE, _LEAST_CELL = 8, 1e-3, 4
_OUTLIER_PIXELS = 0.5
_ROUNDS, _DOUBT_PIXELS = 4, 0.1  # of the fit to those that agree, in which a point so far off counts half
# A place moves by itself if it is off by more than the first times what most are off, wholly by the second times; below
# so many pixels it is chance. Medians are over so many places in a row.
_CHANCE, _OWN_MOTION, _CHANCE_PIXELS, _NEIGHBOURS = 0.5, 1.0, 0.2, 5
# A frame is moved in tiles of so many pixels, each as a whole, by a multiple of so small a part of a pixel; where one
# part of a tile moves further than another by more than this, pixel by pixel.
_TILE, _PARTS, _UNEVEN_PIXELS = 64, 16, 1 / 8
# What is finest becomes stronger by so much along each side, which must stay below what the past's weight takes away:
# (1 + 4 x 0.02)^2 x 0.85 < 1, or a film whose camera goes from pixel to pixel would become sharper without end.
_SHARPER = np.array([-0.02, 1.04, -0.02], np.float32)
_FARTHEST = 128  # pixels: what has moved further is moved pixel by pixel too, and needs no margin

_Plane = npt.NDArray[np.float32]
_EDGES = cv2.BORDER_REPLICATE
_ONE_MAP = np.empty(0, np.float32)  # x and y are in one array


@dataclass(frozen=True)
class Motion:
    """Where the places of a frame were in an earlier one.

    `camera`, (2, 3), takes (x, y, 1) there: a shift, turn and zoom of most of the frame. `own`, (rows, columns, 2), is
    what the middles of as many cells of `cell` x `cell` pixels have moved besides, as (x, y) in pixels. `unsure` is how
    far places are off the camera's motion, the median in pixels: codecs let some stand and others jump.
    """

    camera: npt.NDArray[np.float64]
    own: _Plane
    cell: int
    unsure: float = 0.0

    def doubled(self) -> "Motion":
        """Return the motion in a frame of twice the size, whose pixels' middles lie a quarter of a pixel off."""
        camera = self.camera.copy()
        camera[:, 2] = 2 * camera[:, 2] + 0.5 - camera[:, :2].sum(axis=1) / 2
        return Motion(camera, 2 * self.own, 2 * self.cell, 2 * self.unsure)

    def shifts(self, columns: _Plane, rows: _Plane) -> _Plane:
        """Return how far what is at these pixels was from there, (rows, columns, 2), as (x, y)."""
        x, y = np.meshgrid(columns, rows)
        places = np.stack([x, y], axis=-1)
        at = ((places - (self.cell - 1) / 2) / self.cell).astype(np.float32)
        own = cv2.remap(self.own, at, _ONE_MAP, cv2.INTER_LINEAR, borderMode=_EDGES)
        return np.asarray(places @ (self.camera[:, :2] - np.eye(2)).T + self.camera[:, 2] + own, np.float32)

    def distances(self) -> _Plane:
        """Return how far what is in the middle of each cell was from there, (rows, columns), in pixels."""
        rows, columns = (np.arange(count, dtype=np.float32) * self.cell for count in self.own.shape[:2])
        middle = np.float32(self.cell - 1) / 2
        return np.asarray(np.linalg.norm(self.shifts(columns + middle, rows + middle), axis=-1), np.float32)

    def applied(self, past: Frame) -> Frame:
        """Return an earlier frame (height, width) moved to where it would be now; itself if nothing has moved.

        By cubic interpolation (Keys 1981 with a = -0.75, as OpenCV has it), and a little sharper: a picture that is
        moved again and again becomes soft.
        """
        height, width = past.shape
        shifts = self.shifts(*(np.arange(0, side + _TILE, _TILE, dtype=np.float32) for side in (width, height)))
        corners = np.stack([shifts[:-1, :-1], shifts[1:, :-1], shifts[:-1, 1:], shifts[1:, 1:]])
        parts = np.rint(corners.mean(axis=0) * _PARTS).astype(np.int64)
        as_whole = np.ptp(corners, axis=0).max(axis=-1) <= _UNEVEN_PIXELS
        as_whole &= np.abs(parts).max(axis=-1) <= _FARTHEST * _PARTS
        if as_whole.all() and not parts.any():
            return past
        parts[~as_whole] = 0
        margin = int(np.abs(parts).max()) // _PARTS + _TAPS.shape[1]
        padded = cast(Frame, cv2.copyMakeBorder(past, margin, margin, margin, margin, _EDGES))
        moved = np.empty(past.shape, np.uint8)
        for row in range(len(parts)):
            rows = slice(row * _TILE, min(height, (row + 1) * _TILE))
            # Neighbours that move alike are one: a frame that pans takes a few filters.
            new = np.flatnonzero((np.diff(parts[row], axis=0) != 0).any(axis=1) | np.diff(as_whole[row])) + 1
            for first, last in zip([0, *new], [*new, len(parts[row])], strict=True):
                columns = slice(first * _TILE, min(width, last * _TILE))
                if as_whole[row, first]:
                    top, left = margin + rows.start, margin + columns.start
                    _move_as_whole(padded, top, left, parts[row, first], moved[rows, columns])
                else:
                    moved[rows, columns] = self._by_pixel(past, rows, columns)
        return moved

    def _by_pixel(self, past: Frame, rows: slice, columns: slice) -> Frame:
        """Return rows and columns of a frame that is moved as by `applied`, each pixel by itself."""
        height, width = past.shape
        # A row and a column more on each side, at which sharpening looks.
        top, bottom = max(0, rows.start - 1), min(height, rows.stop + 1)
        left, right = max(0, columns.start - 1), min(width, columns.stop + 1)
        places = self._places(slice(top, bottom), slice(left, right))
        # What of the past they lie in, as floats: OpenCV is quicker with these than with bytes.
        least, most = (cv2.reduce(cv2.reduce(places, 0, how), 1, how) for how in (cv2.REDUCE_MIN, cv2.REDUCE_MAX))
        x, y = np.clip(least.ravel().astype(int) - 2, 0, (width - 1, height - 1)).tolist()
        last_x, last_y = np.maximum(most.ravel().astype(int) + 4, (x + 1, y + 1))
        exact = past[y:last_y, x:last_x].astype(np.float32)
        # NumPy takes twenty times as long for this.
        cv2.subtract(places, (x, y, 0, 0), dst=places)  # type: ignore[call-overload]  # it takes numbers too
        moved = cv2.remap(exact, places, _ONE_MAP, cv2.INTER_CUBIC, borderMode=_EDGES)
        sharper = cv2.sepFilter2D(moved, cv2.CV_8U, _SHARPER, _SHARPER, borderType=_EDGES)
        return cast(Frame, sharper[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left])

    def _places(self, rows: slice, columns: slice) -> _Plane:
        """Return where each pixel of some rows and columns was, (height, width, 2): linear between cells' middles."""
        at = (np.arange(rows.start, rows.stop) + (self.cell + 1) / 2) / self.cell  # in rows of cells
        above = np.minimum(at.astype(int), len(self._places_by_column) - 2)
        share = (at - above).astype(np.float32)[:, None, None]
        near = self._places_by_column[:, columns]
        return np.asarray(near[above] * (1 - share) + near[above + 1] * share, np.float32)

    @cached_property
    def _places_by_column(self) -> _Plane:
        """Where each column was in the middle of each row of cells, (rows + 2, columns, 2).

        With a row and a column of cells more beyond each edge of their grid, which may end before the frame does.
        """
        own = cv2.copyMakeBorder(self.own, 1, 1, 1, 1, _EDGES)
        rows, columns = np.mgrid[-1 : own.shape[0] - 1, -1 : own.shape[1] - 1]
        middles = np.stack([columns, rows], axis=-1) * self.cell + (self.cell - 1) / 2
        places = (middles @ self.camera[:, :2].T + self.camera[:, 2] + own).astype(np.float32)
        size = len(places[0]) * self.cell, len(places)
        return np.asarray(cv2.resize(places, size, interpolation=cv2.INTER_LINEAR)[:, self.cell :], np.float32)


def find_motion(frame: Frame, past: Frame) -> Motion:
    """Return how the places of a frame have moved since an earlier one; both are (height, width), uint8.

    Points of a grid are followed (Lucas and Kanade in a pyramid, Bouguet 2001); RANSAC, and a fit after it, find the
    motion of the camera, on which most of them agree, and medians of neighbours find what moves by itself. What cannot
    be followed moves with the camera, and if there is too little to follow, nothing moves.
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
    """Return a camera's motion that takes points, (number, 1, 2), more exactly to where they were found.

    By least squares in which a point counts the less the farther off it is (Cauchy's weights), its x and y as one
    complex number: a turn and zoom is a product then.
    """
    here, there = (places[:, 0] @ np.array([1, 1j]) for places in (points, found))
    turn, shift = camera[:, [0, 2]].T @ np.array([1, 1j])
    for _ in range(_ROUNDS):
        weights = 1 / (1 + (np.abs(turn * here + shift - there) / _DOUBT_PIXELS) ** 2)
        from_middle = here - np.average(here, weights=weights)
        turn = np.vdot(weights * from_middle, there) / np.vdot(weights * from_middle, from_middle)
        shift = np.average(there - turn * here, weights=weights)
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _move_as_whole(padded: Frame, top: int, left: int, parts: npt.NDArray[np.int64], moved: Frame) -> None:
    """Write to `moved`, (height, width), what is there from a row and column on, moved by (x, y) sixteenths of a pixel.

    It is a third of the work of looking for every pixel's place.
    """
    height, width = moved.shape
    taps = _TAPS.shape[1]
    (x, x_part), (y, y_part) = (divmod(int(part), _PARTS) for part in parts)
    source = padded[top + y - taps // 2 + 1 :, left + x - taps // 2 + 1 :][: height + taps - 1, : width + taps - 1]
    # From bytes to bytes by way of floats: OpenCV takes three times as long to do it at once.
    filtered = cv2.sepFilter2D(source, cv2.CV_32F, _TAPS[x_part], _TAPS[y_part])
    filtered = filtered[taps // 2 :, taps // 2 :][:height, :width]
    cv2.threshold(filtered, 0, 0, cv2.THRESH_TOZERO, dst=filtered)  # the next takes absolute values
    cv2.convertScaleAbs(filtered, dst=moved)


def _cubic_taps(part: float, a: float = -0.75) -> _Plane:
    """Return the four taps of Keys' cubic interpolation at a part of a pixel beyond the second, from 0 to 1."""
    near, far = np.abs([part, 1 - part]), np.abs([1 + part, 2 - part])
    near_taps = (a + 2) * near**3 - (a + 3) * near**2 + 1
    far_taps = a * far**3 - 5 * a * far**2 + 8 * a * far - 4 * a
    return np.array([far_taps[0], near_taps[0], near_taps[1], far_taps[1]], np.float32)


_TAPS = np.array([np.convolve(_cubic_taps(part / _PARTS), _SHARPER) for part in range(_PARTS)], np.float32)
