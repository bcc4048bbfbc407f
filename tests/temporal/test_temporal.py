"""The temporal filter blends moving frames with a reference frame, and leaves all others as they are."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.make.images import grey_of as grey

from clearcall.core.errors import UserError
from clearcall.data.clips import Clip
from clearcall.data.synthetic import pan_and_zoom
from clearcall.evaluation.calls import Setting, receive
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db
from clearcall.temporal import filter as temporal_module
from clearcall.temporal import motion as motion_module
from clearcall.temporal.filter import (
    Perceptron,
    Reference,
    TemporalFilter,
    _blended,
    _blocks,
    _likeness,
    follow,
    halved,
    weight_by_change,
)
from clearcall.temporal.motion import Motion


@pytest.fixture(scope="module")
def face(photos: dict[str, Frame]) -> Frame:
    return photos["astronaut"][:256, 80:400].copy()


@pytest.mark.parametrize(
    ("frames", "pan", "qp", "factor", "least_db"),
    [(10, (1.7, -1.2), 37, 1, 0.9), (10, (1.7, -1.2), 37, 2, 0.4), (41, (0.25, 0.1), 27, 1, 0.9)],
)
def test_half_of_the_reference_brings_a_moving_camera_nearer_to_the_original(
    frames: int, pan: tuple[float, float], qp: int, factor: int, least_db: float, face: Frame
) -> None:
    """With a fixed weight, so that this is of the motion compensation, not of the shipped weights."""
    temporal = TemporalFilter(Perceptron([(np.zeros((26, 1), np.float32), np.zeros(1, np.float32))]))
    sharp, gains = pan_and_zoom(face, frames, pan, 1.0), []
    for original, frame in zip(sharp, receive(Clip("face", sharp), Setting("h264", qp, factor)), strict=True):
        luma, target = grey(frame), grey(original)
        gains.append(psnr_db(target, temporal(luma)) - psnr_db(target, luma))
    assert np.mean(gains[5:]) > least_db, gains


@pytest.mark.parametrize(("change", "share"), [(4, 255), (12, 255), (18, 128), (24, 0), (30, 0)])
def test_a_pixel_that_has_changed_much_gets_less_of_the_reference(change: int, share: int) -> None:
    """By hand: all up to 12 levels, nothing from 24 on."""
    here, before = (np.full((64, 64), level, np.uint8) for level in (100, 100 + change))
    assert (weight_by_change(here, before) == share).all()


def test_the_weight_is_limited_where_the_light_changes(face: Frame) -> None:
    """By hand: a level lighter all over is another light, but after six frames 0.2 x 6 levels may be drift."""
    sharp = pan_and_zoom(face, 4, (1.7, -1.2), 1.0)
    first, *_, last = map(grey, receive(Clip("face", sharp), Setting("h264", 27, 1)))

    def share(luma: Frame, scene_age: int) -> float | None:
        *_, blocks = follow(luma, halved(luma), Reference(first, halved(first), scene_age=scene_age))
        return blocks and blocks.share

    assert share(last, 0) == 1
    lighter = (np.minimum(last, 254) + 1).astype(np.uint8)
    assert share(lighter, 6) == 1 and not share(lighter, 0)
    assert share(first[::-1].copy(), 6) is None


def test_a_reference_is_replaced_when_its_weight_falls_or_it_is_old(face: Frame) -> None:
    """By hand: six tenths of what was taken at most are 0.36; and a twentieth is the least of all."""
    luma = grey(face)
    reference = Reference(luma, luma[::2, ::2], scene_age=20)
    assert [reference.after(share) for share in (0.5, None, 0.6, 0.37, 0.35)] == [True] * 4 + [False]
    assert (reference.age, reference.scene_age, reference.most) == (5, 25, 0.6)
    assert not Reference(luma, luma[::2, ::2]).after(0.04)
    other = Reference(luma, luma[::2, ::2])
    assert [other.after(share) for share in [0.4, None] * 6] == [True] * 11 + [False]


def test_a_camera_that_stands_still_is_looked_at_in_one_frame_of_four(
    face: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches, find = [], motion_module.find_motion

    def counted(*arguments: Any) -> Motion:
        searches.append(1)
        return find(*arguments)

    monkeypatch.setattr(temporal_module, "find_motion", counted)
    temporal, noise = TemporalFilter(), np.random.default_rng(0)
    still = [np.clip(grey(face) + noise.normal(0, 3, face.shape[:2]), 0, 255).astype(np.uint8) for _ in range(9)]
    for luma in still:
        np.testing.assert_array_equal(temporal(luma), luma)
    assert len(searches) == 2  # the first frame has none before it; then frames 1 and 5
    # Once the camera moves, it is noticed within four frames.
    moving = [np.roll(still[-1], 3 * step, axis=1) for step in range(1, 9)]
    changed = [(temporal(luma) != luma).any() for luma in moving]
    assert any(changed) and len(searches) >= 4


@pytest.mark.parametrize("event", ["nothing", "a level more light", "another scene"])
def test_weights_are_predicted_for_one_frame_in_four_and_where_frames_differ(
    event: str, photos: dict[str, Frame], face: Frame
) -> None:
    asked = list[int]()

    def weigh(features: npt.NDArray[np.float32], _: object) -> npt.NDArray[np.float32]:
        asked.append(index)
        return np.full(features.shape[:2], 0.5, np.float32)

    sharp = pan_and_zoom(face, 10, (1.7, -1.2), 1.0)
    frames = [grey(frame) for frame in receive(Clip("face", sharp), Setting("h264", 32, 1))]
    if event == "a level more light":
        frames[7:] = [np.minimum(frame, 253) + np.uint8(2) for frame in frames[7:]]
    if event == "another scene":
        frames[7:] = [grey(photos["coffee"][: len(face), : len(face[0])])] * 3
    temporal = TemporalFilter(weigh)
    for index, luma in enumerate(frames):
        filtered = temporal(luma)
        if event == "another scene" and index == 7:
            np.testing.assert_array_equal(filtered, luma)
    # The first frame has none before it, the next one has an age of 0. A lighter scene is another one, and begins anew.
    assert asked == {"nothing": [1, 5, 9], "a level more light": [1, 5, 8], "another scene": [1, 5]}[event]


def test_how_far_a_cameras_motion_moves_a_corner() -> None:
    """By hand: a zoom of 1 % moves the far corner of 101 x 51 pixels by (1, 0.5), and the shift adds (0, 1)."""
    camera = np.array([[1.01, 0, 0], [0, 1.01, 1]])
    motion = Motion(camera, np.zeros((1, 1, 2), np.float32), 4)
    assert motion.largest_of_camera((51, 101)) == pytest.approx(np.hypot(1, 1.5))


@pytest.mark.parametrize("shape", [(63, 63), (1, 3), (2, 2)])
def test_small_frames_come_back_as_they_are(shape: tuple[int, int]) -> None:
    temporal = TemporalFilter()
    for _ in range(3):
        luma = np.zeros(shape, np.uint8)
        luma[:, -1] = np.random.default_rng(shape[0]).integers(0, 255)
        np.testing.assert_array_equal(temporal(luma), luma)
        np.testing.assert_array_equal(temporal(luma[::-1, ::-1]), luma[::-1, ::-1])


def test_a_video_that_moves_does_not_become_sharper_without_end(face: Frame) -> None:
    always = Perceptron([(np.zeros((26, 1), np.float32), np.full(1, 20, np.float32))])  # the largest weight
    temporal = TemporalFilter(always)
    sharp = pan_and_zoom(face, 60, (0.5, 0.5), 1.0)
    *_, (luma, known) = (
        (grey(frame), temporal(grey(frame))) for frame in receive(Clip("", sharp), Setting("h264", 32, 1))
    )
    inner = np.s_[40:-40, 40:-40]
    detail = [cv2.Laplacian(frame, cv2.CV_32F)[inner].var() for frame in (luma, known)]
    assert (known != luma).any() and 0.5 < detail[1] / detail[0] < 1.1  # 1.37 with taps that sharpen by 0.02


@pytest.mark.parametrize(("weight", "expected"), [(0, 100), (51, 110), (255, 150)])
def test_a_part_of_the_reference_is_blended_in(weight: int, expected: int) -> None:
    """By hand: a fifth of the way from 100 to 150 is 110, from 150 to 100 140; of odd rows and columns too."""
    luma, past = (np.full((241, 135), level, np.uint8) for level in (100, 150))
    of_past = np.full((120, 67), weight, np.uint8)
    assert (_blended(luma, past, of_past) == expected).all()
    assert (_blended(past, luma, of_past) == 250 - expected).all()


def test_each_pixel_is_blended_by_the_weight_of_its_place() -> None:
    luma, past = np.random.default_rng(3).integers(0, 256, (2, 301, 141), np.uint8)
    of_past = np.zeros((150, 70), np.uint8)
    of_past[90:] = 255
    mixed = _blended(luma, past, of_past)
    np.testing.assert_array_equal(mixed[:178], luma[:178])
    np.testing.assert_array_equal(mixed[182:], past[182:])


@pytest.mark.parametrize("side", [4, 8])
def test_blocks_know_how_much_they_have_changed_and_how_much_detail_they_have(side: int) -> None:
    """More rows of them than are looked at in one go; what is left over to the right and below is nobody's."""
    rows, columns = 37, 5
    frame, moved = np.random.default_rng(4).integers(60, 120, (2, rows * side + 3, columns * side + 1), np.uint8)
    changed, detail = _blocks(frame, moved, side)
    of_blocks, moved = frame[: rows * side, : columns * side], moved[: rows * side, : columns * side]
    for found, other in ((changed, moved), (detail, cv2.blur(of_blocks, (3, 3)))):
        apart = np.abs(of_blocks.astype(int) - other)
        np.testing.assert_allclose(found, apart.reshape(rows, side, columns, side).mean(axis=(1, 3)), rtol=1e-6)


def test_a_change_is_told_by_its_likeness_to_detail() -> None:
    """By hand: a chessboard of 104 and 96, of which a blur leaves 100, and a past of 100: d = h = +-4, and p = 0.

    So the correlation of d and h and its slope are 16 / 16.1, p's energy is 0.1 to 16.1, and h and p have no relation.
    Of the same past as the frame d is 0, and h and p correlate by 16 / 16.1.
    """
    rows, columns = np.indices((150, 75))
    board, flat = np.where((rows + columns) % 2, 96, 104).astype(np.uint8), np.full((150, 75), 100, np.uint8)
    much, inside = 16 / 16.1, np.s_[2:-2, 2:-2]
    for past, expected in ((flat, (much, much, np.log(0.1 / 16.1), 0)), (board, (0, 0, 0, much))):
        for plane, value in zip(_likeness(board, past), expected, strict=True):
            np.testing.assert_allclose(plane[inside], value, atol=1e-5)


@pytest.mark.parametrize("shape", [(150, 75), (61, 64), (123, 201)])
def test_likeness_is_the_same_wherever_a_strip_ends(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    board, past = np.random.default_rng(5).integers(60, 120, (2, *shape), np.uint8)
    in_strips = _likeness(board, past)
    monkeypatch.setattr(temporal_module, "_STRIP", 1000)
    np.testing.assert_allclose(in_strips, _likeness(board, past), atol=1e-5)
    assert in_strips.shape == (4, shape[0] // 4, shape[1] // 4)


def test_the_first_frame_and_a_still_scene_stay_as_they_are(face: Frame) -> None:
    still, temporal = [face] * 4, TemporalFilter()
    for frame in receive(Clip("face", still), Setting("h264", 32, 2)):
        np.testing.assert_array_equal(temporal(grey(frame)), grey(frame))


def test_another_scene_and_another_size_begin_anew(photos: dict[str, Frame], face: Frame) -> None:
    temporal = TemporalFilter()
    for frame in pan_and_zoom(face, 3, (2.0, 0.0), 1.0):
        temporal(grey(frame))
    other = grey(photos["coffee"][:256, :320])
    np.testing.assert_array_equal(temporal(other), other)
    smaller = grey(face)[:200]
    np.testing.assert_array_equal(temporal(smaller), smaller)


def test_a_frame_that_is_shown_again_is_answered_again(face: Frame) -> None:
    """It was taken for a scene that stands still and given back as it came, so that every second frame lost detail."""
    sharp = pan_and_zoom(face, 6, (1.7, -1.2), 1.0)
    temporal, changed = TemporalFilter(), 0
    for frame in receive(Clip("face", sharp), Setting("h264", 37, 2)):
        luma = grey(frame)
        first = temporal(luma)
        np.testing.assert_array_equal(temporal(luma.copy()), first)
        changed += int((first != luma).any())
    assert changed >= 4


def test_the_reference_cannot_be_written_to_and_takes_nothing_but_luma(face: Frame) -> None:
    temporal = TemporalFilter()
    known = temporal(grey(face))
    with pytest.raises(ValueError, match="read-only"):
        known[0, 0] = 1
    with pytest.raises(UserError, match=r"a luma must be uint8 of \(height, width\), not uint8 of \(256, 320, 3\)"):
        temporal(face)
    with pytest.raises(UserError, match="not float32"):
        temporal(grey(face).astype(np.float32))
    with pytest.raises(UserError, match=r"a frame must be uint8 of \(height, width, 3\), not uint8 of \(256, 320\)"):
        temporal.rgb(grey(face))


def test_of_rgb_all_three_change_alike(face: Frame) -> None:
    sharp = pan_and_zoom(face, 5, (1.7, -1.2), 1.0)
    arrived = receive(Clip("face", sharp), Setting("h264", 37, 2))
    colour, luma = TemporalFilter(), TemporalFilter()
    for frame in arrived:
        added = luma(grey(frame)).astype(int) - grey(frame)
        expected = np.clip(frame + added[..., None], 0, 255)
        np.testing.assert_array_equal(colour.rgb(frame), expected)
    assert np.abs(added).max() > 2


def test_the_same_frames_give_the_same_result_and_stay_as_they_are(face: Frame) -> None:
    sharp = pan_and_zoom(face, 5, (1.7, -1.2), 1.0)
    arrived = [grey(frame) for frame in receive(Clip("face", sharp), Setting("vp8", 30, 2))]
    before = [frame.copy() for frame in arrived]
    first, second = TemporalFilter(), TemporalFilter()
    given_back = []
    for frame, kept in zip(arrived, before, strict=True):
        given_back.append(first(frame))
        np.testing.assert_array_equal(frame, kept)
        # A caller may use the frame's memory again, as video and camera do.
        np.testing.assert_array_equal(second(scratch := kept.copy()), given_back[-1])
        scratch[:] = 0


@settings(max_examples=25)
@example(height=64, width=3200, seed=0)
@example(height=3200, width=64, seed=0)
@given(height=st.integers(1, 90), width=st.integers(1, 140), seed=st.integers(0, 99))
def test_any_size_is_taken(height: int, width: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    temporal = TemporalFilter()
    for _ in range(3):
        luma = draw.integers(0, 256, (height, width), dtype=np.uint8)
        known = temporal(luma)
        assert known.shape == luma.shape and known.dtype == np.uint8


@pytest.mark.parametrize("height", [121, 120, 241])
def test_the_last_row_of_an_odd_height_is_blended_too(height: int, face: Frame) -> None:
    """A strip of one row alone had no weights: the filter failed on it."""
    sharp = [frame[:height] for frame in pan_and_zoom(face, 4, (1.7, -1.2), 1.0)]
    arrived = receive(Clip("face", sharp), Setting("h264", 37, 2))
    temporal = TemporalFilter()
    *_, last = map(temporal, map(grey, arrived))
    assert (last[-1] != grey(arrived[-1])[-1]).any()
