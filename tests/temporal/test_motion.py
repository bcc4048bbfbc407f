"""Motion estimation and compensation."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.make.images import grey_of as grey

from clearcall.data.synthetic import pan_and_zoom
from clearcall.imaging.frame import Frame
from clearcall.temporal.filter import MOST_WEIGHT
from clearcall.temporal.motion import _TAPS, Motion, _fitted, find_motion


@pytest.fixture(scope="module")
def face(photos: dict[str, Frame]) -> Frame:
    return photos["astronaut"][:256, 80:400].copy()


@pytest.mark.parametrize(
    ("pan", "zoom", "exact_to"), [((2.0, -3.0), 1.0, 0.01), ((0.4, 1.3), 1.006, 0.05), ((0.0, 0.0), 0.99, 0.02)]
)
def test_the_motion_of_the_camera_is_found(pan: tuple[float, float], zoom: float, exact_to: float, face: Frame) -> None:
    """A frame ago all lay by a zoom about the middle, and by -pan, elsewhere: by RANSAC alone to 0.025 pixels."""
    before, now = map(grey, pan_and_zoom(face, 2, pan, zoom))
    height, width = now.shape
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]])
    middle = np.array([[(width - 1) / 2], [(height - 1) / 2]])
    expected = middle + (corners[:2] - middle) / zoom - np.array(pan)[:, None]
    np.testing.assert_allclose(find_motion(now, before).camera @ corners, expected, atol=exact_to)


def test_what_has_moved_far_is_found_by_a_guess(photos: dict[str, Frame]) -> None:
    """A camera that goes on: each frame is found by how far the one before it was from the first."""
    first, *others = map(grey, pan_and_zoom(photos["astronaut"][:400], 13, (12.0, -8.0), 1.0))
    motion = None
    for step, now in enumerate(others, 1):
        motion = find_motion(now, first, motion)
        np.testing.assert_allclose(motion.camera[:, 2], (-12.0 * step, 8.0 * step), atol=0.1)
    assert np.abs(find_motion(now, first).camera[:, 2] - (-144.0, 96.0)).max() > 1  # too far without


def test_taps_by_hand() -> None:
    """Half way: sinc(1/2) sinc(1/6) = 0.6079, sinc(3/2) sinc(1/2) = -0.1351, sinc(5/2) sinc(5/6) = 0.0243."""
    near, far, farthest = np.array([0.6079, -0.1351, 0.0243]) / (2 * 0.4971)
    np.testing.assert_allclose(_TAPS[8], [farthest, far, near, near, far, farthest], atol=1e-4)
    np.testing.assert_allclose(_TAPS[0], [0, 0, 1, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(_TAPS.sum(axis=1), 1, rtol=1e-6)


def test_what_is_moved_hardly_becomes_stronger() -> None:
    """The reference's weight takes away more of it, or it would become stronger without end."""
    strongest = np.abs(np.fft.fft(_TAPS, 256, axis=1)).max()
    assert 1 <= strongest < 1.03 and MOST_WEIGHT * strongest**2 < 1


def test_distances_are_those_of_the_middles_of_cells() -> None:
    """By hand: a camera that moved by (3, 4) and one cell that moved by (-3, -4) besides; then a zoom by 1.1."""
    own = np.zeros((2, 3, 2), np.float32)
    own[1, 2] = -3, -4
    moved = Motion(np.array([[1.0, 0, 3], [0, 1, 4]]), own, 8).distances()
    np.testing.assert_allclose(moved, [[5, 5, 5], [5, 5, 0]], atol=1e-5)
    zoomed = Motion(np.array([[1.1, 0, 0], [0, 1.1, 0]]), np.zeros((1, 2, 2), np.float32), 8).distances()
    np.testing.assert_allclose(zoomed, [[0.35 * 2**0.5, np.hypot(1.15, 0.35)]], atol=1e-5)


def test_places_that_are_a_little_off_hardly_move_the_camera() -> None:
    """Of 16 places that a zoom and a shift move, one is off by 0.4 pixels, which RANSAC would let pass."""
    columns, rows = np.meshgrid(np.arange(4.0), np.arange(4.0))
    points = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2) * 50
    camera = np.array([[1.01, 0.002, 3.0], [-0.002, 1.01, -2.0]])
    found = points @ camera[:, :2].T + camera[:, 2]
    np.testing.assert_allclose(_fitted(points, found, np.eye(2, 3)), camera, atol=1e-9)
    found[5, 0] += 0.4, 0.0
    corner = np.array([150.0, 150.0, 1.0])
    fitted = _fitted(points, found, np.eye(2, 3))
    np.testing.assert_allclose(fitted @ corner, camera @ corner, atol=0.01)
    np.testing.assert_allclose(fitted[:, 2], camera[:, 2], atol=0.01)


def test_nothing_moves_where_there_is_nothing_to_follow() -> None:
    flat = np.full((96, 128), 90, np.uint8)
    motion = find_motion(flat, flat)
    np.testing.assert_array_equal(motion.camera, np.eye(2, 3))
    assert not motion.own.any()
    assert motion.applied(flat) is flat


def test_frames_are_moved_by_camera_and_own_motion() -> None:
    """By hand: a ramp along x, of 2 a pixel, shows where each pixel came from."""
    ramp = np.tile(np.arange(0, 128, 2, dtype=np.uint8), (48, 1))
    camera = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
    still = np.zeros((3, 4, 2), np.float32)
    np.testing.assert_array_equal(Motion(camera, still, 16).applied(ramp)[:, :61], ramp[:, 3:])
    own = still.copy()
    own[:, :2] = (2.0, 0.0)  # the left half moves by two pixels more, and between the middles of cells all is linear
    moved = Motion(camera, own, 16).applied(ramp)
    np.testing.assert_array_equal(moved[:, :24], ramp[:, 5:29])
    np.testing.assert_array_equal(moved[:, 40:61], ramp[:, 43:64])
    assert (np.diff(moved[0, 24:40].astype(int)) >= 1).all()


def test_a_motion_twice_as_large_is_the_same_motion() -> None:
    """The middle of a frame's first pixel is at 0, of the half frame's first at 0.5 pixels of the full one."""
    half = Motion(np.array([[1.01, 0.0, 1.5], [0.0, 1.01, -2.0]]), np.ones((2, 2, 2), np.float32), 8)
    full = half.doubled()
    x, y = 7.0, 11.0
    there = half.camera @ [x, y, 1]
    np.testing.assert_allclose(full.camera @ [2 * x + 0.5, 2 * y + 0.5, 1], 2 * there + 0.5)
    assert full.cell == 16 and (full.own == 2).all()


def places_by_hand(motion: Motion, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return where each pixel was, (height, width, 2), upscaled from the middles of the cells of all of the frame."""
    own = cv2.copyMakeBorder(motion.own, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    rows, columns = np.mgrid[-1 : own.shape[0] - 1, -1 : own.shape[1] - 1]
    middles = np.stack([columns, rows], axis=-1) * motion.cell + (motion.cell - 1) / 2
    places = (middles @ motion.camera[:, :2].T + motion.camera[:, 2] + own).astype(np.float32)
    large = cv2.resize(places, (own.shape[1] * motion.cell, own.shape[0] * motion.cell))
    return np.asarray(large[motion.cell :, motion.cell :][:height, :width], np.float32)


def moved_by_hand(motion: Motion, past: Frame) -> npt.NDArray[np.int64]:
    """Return a frame moved pixel by pixel, all at once."""
    places = places_by_hand(motion, *past.shape)
    exact = past.astype(np.float32)
    moved = cv2.remap(exact, places, np.empty(0, np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(np.rint(moved), 0, 255).astype(np.int64)


@pytest.mark.parametrize(
    ("camera", "own"),
    [
        ([[1, 0, 1.37], [0, 1, -2.61]], 0.0),
        ([[1.0001, 0, -40.2], [0, 1.0001, 7.5]], 0.0),
        ([[1.01, 0.002, 3.0], [-0.002, 1.01, -2.0]], 0.0),
        ([[1, 0, 0.25], [0, 1, 0.0]], 1.5),
        ([[1, 0, 900.0], [0, 1, 0.0]], 0.0),
    ],
    ids=["pan", "pan and slow zoom", "zoom and turn", "head before a pan", "far away"],
)
def test_tiles_are_moved_as_if_by_pixel(camera: list[list[float]], own: float, face: Frame) -> None:
    past = grey(face)[:231, :301]
    moves_itself = np.zeros((6, 7, 2), np.float32)
    moves_itself[2:4, 2:5] = own, -own
    motion = Motion(np.array(camera, np.float64), moves_itself, 43)
    difference = np.abs(motion.applied(past) - moved_by_hand(motion, past))
    assert difference.mean() < 0.5 and difference.max() <= 12  # a tile is at most 1/8 + 1/32 of a pixel off


@settings(max_examples=40)
@given(
    where=st.tuples(st.integers(0, 230), st.integers(1, 90), st.integers(0, 300), st.integers(1, 120)),
    far=st.tuples(st.floats(-60, 400), st.floats(-300, 60)),
    own=st.floats(-3, 3),
)
def test_a_part_is_moved_by_pixel_as_all_of_the_frame_is(
    where: tuple[int, int, int, int], far: tuple[float, float], own: float, face: Frame
) -> None:
    """But for some levels here and there: places are in 32nds of a pixel, and a few lie between two of them."""
    top, height, left, width = where
    past = grey(face)[:231, :301]
    moves_itself = np.random.default_rng(2).normal(0, 1, (5, 7, 2)).astype(np.float32) * own  # 215 of 231 rows
    motion = Motion(np.array([[1.02, 0.01, far[0]], [-0.01, 1.02, far[1]]]), moves_itself, 43)
    rows, columns = slice(top, min(231, top + height)), slice(left, min(301, left + width))
    part, expected = motion._by_pixel(past, rows, columns), moved_by_hand(motion, past)[rows, columns]
    difference = np.abs(part - expected)  # of the same shape, or this fails
    assert difference.max() <= 12 and difference.sum() <= 12 + 0.1 * part.size


def test_shifts_are_those_of_every_pixel(face: Frame) -> None:
    own = np.random.default_rng(1).normal(0, 1, (4, 5, 2)).astype(np.float32)  # of 64 x 80 of 70 x 90 pixels
    motion = Motion(np.array([[1.02, 0.01, 1.5], [-0.01, 1.02, -3.0]]), own, 16)
    columns, rows = np.arange(3, 90, 7, dtype=np.float32), np.arange(2, 70, 5, dtype=np.float32)
    x, y = np.meshgrid(columns, rows)
    expected = places_by_hand(motion, 70, 90)[2:70:5, 3:90:7] - np.stack([x, y], axis=-1)
    np.testing.assert_allclose(motion.shifts(columns, rows), expected, atol=0.05)
