"""Synthetic clips and images: softness, bends, lights that change, noise, pages of text."""

import cv2
import numpy as np
import pytest

from clearcall.data.synthetic import bent, enlarged, lit, text_page, with_noise
from clearcall.imaging.frame import Frame


@pytest.fixture
def image(photos: dict[str, Frame]) -> Frame:
    return photos["astronaut"][:200, 100:360].copy()


def test_an_enlarged_image_has_less_detail_in_the_same_places(image: Frame) -> None:
    soft = enlarged(image[:, :201], 2.0)  # an odd side too
    assert soft.shape == (200, 201, 3)
    assert cv2.Laplacian(soft, cv2.CV_32F).var() < 0.3 * cv2.Laplacian(image, cv2.CV_32F).var()
    sharp_green, soft_green = (np.asarray(frame[..., 1], np.float32) for frame in (image[:, :201], soft))
    assert cv2.phaseCorrelate(sharp_green, soft_green)[0] == pytest.approx((0, 0), abs=0.1)


def test_nothing_bends_by_nothing(image: Frame) -> None:
    for frame in bent([image] * 3, 0.0, np.random.default_rng(1)):
        np.testing.assert_array_equal(frame, image)


def test_what_bends_moves_by_pixels_and_smoothly() -> None:
    """Over a ramp of one 8-bit level a pixel, what a frame differs by is how far its places have moved across."""
    ramp = np.dstack([np.tile(np.arange(20, 236, dtype=np.uint8), (160, 1))] * 3)
    frames = bent([ramp] * 20, 2.0, np.random.default_rng(2))
    moved = np.stack([frame[20:-20, 20:-20, 0].astype(int) - ramp[20:-20, 20:-20, 0] for frame in frames])
    assert 0.5 < moved.std() < 4 and np.abs(moved).max() < 12
    assert np.abs(np.diff(moved, axis=0)).max() <= 4  # from frame to frame
    assert np.abs(np.diff(moved, axis=2)).mean() < 0.5  # from pixel to pixel


def test_lights_come_and_go_smoothly() -> None:
    grey, spread, over_all = np.full((120, 160, 3), 128, np.uint8), [], []
    for seed in range(30):
        changes = np.stack([frame.astype(int) - 128 for frame in lit([grey] * 20, 8.0, np.random.default_rng(seed))])
        assert (np.ptp(changes, axis=3) == 0).all()
        assert 0 < np.abs(np.diff(changes, axis=0)).max() <= 30  # from frame to frame
        assert max(np.abs(np.diff(changes, axis=axis)).max() for axis in (1, 2)) <= 6  # from pixel to pixel
        spread.append(changes.std())
        over_all.append(np.ptp(changes, axis=(1, 2)).max() == 0)
    assert 5 < np.mean(spread) < 10 and 0 < sum(over_all) < 15  # one light over all of it, at times


def test_lights_stay_within_bytes(image: Frame) -> None:
    for frame in lit([image] * 4, 200.0, np.random.default_rng(6)):
        assert frame.dtype == np.uint8 and frame.shape == image.shape


@pytest.mark.parametrize("level", [0.8, 3.0])
@pytest.mark.parametrize("grain", [0.3, 1.0])
def test_noise_has_its_level_and_is_another_in_each_frame(level: float, grain: float) -> None:
    grey = np.full((120, 160, 3), 128, np.uint8)
    first, second = (
        frame.astype(int) - 128 for frame in with_noise([grey] * 2, level, grain, np.random.default_rng(3))
    )
    for noise in (first, second):
        assert noise.std() == pytest.approx(np.hypot(level, np.sqrt(1 / 12)), rel=0.05)  # rounding adds its own
        assert abs(noise.mean()) < 0.2 and (np.ptp(noise, axis=2) == 0).all()
    assert abs(np.corrcoef(first[..., 0].ravel(), second[..., 0].ravel())[0, 1]) < 0.05


def test_noise_stays_within_bytes() -> None:
    black, white = (np.full((32, 32, 3), value, np.uint8) for value in (0, 255))
    dark, light = with_noise([black, white], 4.0, 0.5, np.random.default_rng(4))
    assert 0 < dark.max() < 40 and 215 < light.min() < 255


@pytest.mark.parametrize("seed", range(6))
def test_a_page_is_ink_on_paper(seed: int) -> None:
    page = text_page(200, 301, np.random.default_rng(seed))
    assert page.shape == (200, 301, 3) and page.dtype == np.uint8
    dark = (page < 128).mean()
    assert 0.03 < min(dark, 1 - dark) < 0.5
    assert (page == page[..., :1]).all()


def test_the_same_draws_give_the_same_page_and_others_another() -> None:
    first, again, other = (text_page(64, 80, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
