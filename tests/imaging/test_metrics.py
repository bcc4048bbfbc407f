"""The metrics against figures worked out by hand and against scikit-image."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from clearcall.core.errors import UserError
from clearcall.imaging.metrics import METRICS, measure, mse, psnr_db, ssim, ssim_uniform
from clearcall.imaging.unsharp import unsharp_mask

Frame = npt.NDArray[np.uint8]


def constant(value: int, height: int = 16, width: int = 20) -> Frame:
    return np.full((height, width, 3), value, np.uint8)


def noise(height: int, width: int, seed: int) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def skimage_ssim(sharp: Frame, other: Frame, *, gaussian: bool) -> float:
    from skimage import metrics

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    structural_similarity: Callable[..., float] = metrics.structural_similarity
    return float(structural_similarity(sharp, other, channel_axis=-1, **(options if gaussian else {})))


@pytest.mark.parametrize(
    ("difference", "squared", "decibels"),
    [(1, 1, 48.1308036), (10, 100, 28.1308036), (255, 65025, 0.0), (0, 0, math.inf)],
)
def test_mse_and_psnr_of_a_constant_difference(difference: int, squared: float, decibels: float) -> None:
    """20 log10(255 / difference)."""
    for sharp, other in [(0, difference), (difference, 0)]:
        assert mse(constant(sharp), constant(other)) == squared
        assert psnr_db(constant(sharp), constant(other)) == pytest.approx(decibels, abs=1e-6)


def test_psnr_is_over_all_three_channels_together() -> None:
    sharp, other = constant(100), constant(100)
    other[..., 0] = 130  # 30² in one channel of three: 300
    assert mse(sharp, other) == 300
    assert psnr_db(sharp, other) == pytest.approx(10 * math.log10(65025 / 300))


def test_ssim_of_constant_images_is_its_luminance_term() -> None:
    """Without variance SSIM is (2ab + c1) / (a² + b² + c1), with c1 = (0.01 * 255)²."""
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert expected == pytest.approx(0.9230923)
    assert ssim(constant(100), constant(150)) == pytest.approx(expected, abs=1e-9)
    assert ssim_uniform(constant(100), constant(150)) == pytest.approx(expected, abs=1e-9)
    assert ssim(constant(0), constant(255)) == pytest.approx(6.5025 / (255**2 + 6.5025), abs=1e-9)


def test_ssim_of_channels_is_their_mean() -> None:
    sharp, other = noise(20, 30, 1), noise(20, 30, 1)
    other[..., 2] = 255 - other[..., 2]
    one = ssim(np.repeat(sharp[..., 2:], 3, axis=2), np.repeat(other[..., 2:], 3, axis=2))
    assert ssim(sharp, other) == pytest.approx((1 + 1 + one) / 3)


@pytest.mark.parametrize("name", ["astronaut", "chelsea"])
def test_ssim_equals_scikit_image_on_a_photograph(photos: dict[str, Frame], name: str) -> None:
    photo = photos[name]
    degraded = np.asarray(unsharp_mask(photo, 2.0, -0.8), np.uint8)
    assert mse(photo, degraded) > 5
    assert ssim(photo, degraded) == pytest.approx(skimage_ssim(photo, degraded, gaussian=True), abs=1e-7)
    assert ssim_uniform(photo, degraded) == pytest.approx(skimage_ssim(photo, degraded, gaussian=False), abs=1e-7)


@examples(max_examples=25)
@given(
    height=st.integers(11, 40), width=st.integers(11, 40), seed=st.integers(0, 2**32 - 1), strength=st.integers(0, 100)
)
def test_ssim_equals_scikit_image_at_any_size(height: int, width: int, seed: int, strength: int) -> None:
    sharp, change = noise(height, width, seed), noise(height, width, seed + 1)
    other = np.asarray(np.clip(sharp + (change / 255 - 0.5) * strength, 0, 255), np.uint8)
    assert ssim(sharp, other) == pytest.approx(skimage_ssim(sharp, other, gaussian=True), abs=1e-7)
    assert ssim_uniform(sharp, other) == pytest.approx(skimage_ssim(sharp, other, gaussian=False), abs=1e-7)


@examples(max_examples=25)
@given(st.integers(11, 30), st.integers(11, 30), st.integers(0, 2**32 - 1))
def test_equal_images_are_perfect(height: int, width: int, seed: int) -> None:
    image = noise(height, width, seed)
    figures = measure(image, image.copy())
    assert figures == {
        "ssim": pytest.approx(1, abs=1e-12),
        "psnr_db": math.inf,
        "ssim_uniform": pytest.approx(1, abs=1e-12),
        "mse": 0,
    }


def test_views_that_are_not_contiguous_give_the_same() -> None:
    one, other = noise(30, 40, 3), noise(30, 40, 4)
    views = one[::-1, ::2], other[::-1, ::2]
    assert measure(*views) == measure(views[0].copy(), views[1].copy())


@pytest.mark.parametrize("name", list(METRICS))
def test_images_of_other_types_or_shapes_are_refused(name: str) -> None:
    metric, image = METRICS[name], noise(16, 16, 1)
    for other in [image[:-1], image[..., :1], image.astype(np.float32), image.astype(np.int16)]:
        with pytest.raises(ValueError, match="two 8-bit images of one shape"):
            metric(image, other)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(ValueError, match="two 8-bit images of one shape"):
            metric(other, image)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(("metric", "side"), [(ssim, 11), (ssim_uniform, 7)])
def test_images_smaller_than_the_window_are_refused(metric: object, side: int) -> None:
    measure_ssim = METRICS["ssim" if metric is ssim else "ssim_uniform"]
    assert measure_ssim(noise(side, side, 1), noise(side, side, 1)) == pytest.approx(1)
    for height, width in [(side - 1, 40), (40, side - 1)]:
        with pytest.raises(UserError, match=f"at least {side}x{side} pixels, not {width}x{height}"):
            measure_ssim(noise(height, width, 1), noise(height, width, 1))


def test_the_unsharp_mask_leaves_a_flat_image_alone_and_amount_zero_everything() -> None:
    assert (unsharp_mask(constant(77), 1.5, 2.0) == 77).all()
    image = noise(20, 30, 5)
    assert (unsharp_mask(image, 1.0, 0.0) == image).all()


def test_the_unsharp_mask_is_the_image_plus_what_the_blur_took() -> None:
    """An impulse far from the edges; a Gaussian of sigma 1 has 0.3989 / ... of its mass in the middle pixel."""
    image = constant(100, 21, 21)
    image[10, 10] = 200
    taps = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    taps /= taps.sum()
    blurred_middle, blurred_beside = 100 + 100 * taps[3] ** 2, 100 + 100 * taps[3] * taps[2]
    sharpened = unsharp_mask(image, 1.0, 0.5)
    assert sharpened[10, 10, 0] == pytest.approx(200 + 0.5 * (200 - blurred_middle), abs=1)
    assert sharpened[10, 11, 1] == pytest.approx(100 + 0.5 * (100 - blurred_beside), abs=1)
    assert sharpened[0, 0, 2] == 100
    assert unsharp_mask(image, 1.0, 3.0)[10, 10, 0] == 255  # clipped, not wrapped
