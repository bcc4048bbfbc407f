"""The degradations: seeds, sizes, and the very pixels that each gave when its library was chosen."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter

from clearcall.imaging.metrics import mse, psnr_db, ssim
from clearcall.params import DegradationStep, Params, load_params

Frame = npt.NDArray[np.uint8]
STEP: TypeAdapter[DegradationStep] = TypeAdapter(DegradationStep)
RANDOM: list[dict[str, Any]] = [
    {"op": "gaussian_blur", "sigma_range": [0.8, 2.0]},
    {"op": "motion_blur", "length_range": [5, 13]},
    {"op": "noise", "sigma_range": [2.0, 8.0]},
    {"op": "jpeg", "quality_range": [30, 70]},
]


def degrade(image: Frame, steps: list[dict[str, Any]], seed: int = 1) -> Frame:
    from clearcall.data.degrade.degradations import build_degradation

    height, width = image.shape[:2]
    return build_degradation([STEP.validate_python(step) for step in steps], width, height, seed)(image)


def synthetic(height: int = 40, width: int = 56) -> Frame:
    """Return a image of slopes, stripes and an edge, from integer arithmetic alone."""
    row, column = np.mgrid[:height, :width]
    planes = [(row * 5 + column * 3) % 256, (row * column) % 251, np.where(column + row < 48, 30, 220)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def test_the_default_mix_takes_the_test_photographs_to_the_known_ssim(
    photos: dict[str, Frame], committed: Params
) -> None:
    """Figures worked out independently when the task was designed; mean over the six degradations."""
    from clearcall.data.degrade.degradations import build_degradation

    params = committed.degrade_pairs
    for name, expected in {"astronaut": 0.9323, "chelsea": 0.9104, "coffee": 0.8718}.items():
        photo = photos[name]
        height, width = photo.shape[:2]
        degradations = [build_degradation(params.degradations[mix], width, height, 1) for mix in params.mix]
        found = float(np.mean([ssim(photo, degradation(photo)) for degradation in degradations]))
        assert round(found, 4) == expected, name


@pytest.mark.parametrize("step", RANDOM, ids=lambda step: step["op"])
def test_the_seed_alone_decides(step: dict[str, Any]) -> None:
    image = synthetic()
    before = image.copy()
    first, second = degrade(image, [step], 5), degrade(image, [step], 5)
    assert (first == second).all()
    # With five seeds, motion blur draws one direction and length more than once; that all are equal is no chance.
    assert any((degrade(image, [step], seed) != first).any() for seed in range(6, 11))
    assert (image == before).all()
    assert (first != image).any()


def test_other_use_of_random_numbers_changes_nothing() -> None:
    image = synthetic()
    np.random.seed(1)  # noqa: NPY002  # the global generator is what must not matter
    first = degrade(image, RANDOM)
    np.random.seed(2)  # noqa: NPY002  # see above
    assert (degrade(image, RANDOM) == first).all()


# SHA-256 of each transform on the synthetic image: another version of a library that draws or computes differently
# makes pairs that cannot be compared with those before. If one changes on purpose, say so in the changelog.
GOLDEN = {
    "gaussian_blur": "a2904579c9f0c0a6",
    "motion_blur": "f40578504f76d910",
    "noise": "b7ffce8419913675",
    "jpeg": "bff1516796156cf7",
    "webcam": "9782141dd0c11e88",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_pixels_are_those_of_the_version_that_was_chosen(committed: Params, name: str) -> None:
    from clearcall.data.degrade.degradations import build_degradation

    image = synthetic()
    height, width = image.shape[:2]
    degraded = build_degradation(committed.degrade_pairs.degradations[name], width, height, 7)(image)
    assert degraded.dtype == np.uint8
    assert hashlib.sha256(degraded.tobytes()).hexdigest()[:16] == GOLDEN[name]


def test_every_degradation_keeps_odd_sizes_and_is_uint8(committed: Params) -> None:
    from clearcall.data.degrade.degradations import build_degradation

    @examples(max_examples=12)
    @given(height=st.integers(16, 70), width=st.integers(16, 70), seed=st.integers(0, 2**32 - 1))
    def check(height: int, width: int, seed: int) -> None:
        image = synthetic(height, width)
        for steps in committed.degrade_pairs.degradations.values():
            degraded = build_degradation(steps, width, height, seed)(image)
            assert degraded.shape == image.shape
            assert degraded.dtype == np.uint8

    check()


def test_clean_is_the_image_itself(committed: Params) -> None:
    from clearcall.data.degrade.degradations import build_degradation

    image = synthetic()
    degraded = build_degradation(committed.degrade_pairs.degradations["clean"], 56, 40, 1)(image)
    assert (degraded == image).all()


@pytest.mark.parametrize(
    ("name", "resample"),
    [
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
        ("lanczos", Image.Resampling.LANCZOS),
    ],
)
def test_resizing_is_pillows_and_antialiased(name: str, resample: Image.Resampling) -> None:
    """41 x 57 by 1.7: Python rounds 41 / 1.7 = 24.1 to 24 and 57 / 1.7 = 33.5 to 34."""
    import cv2

    image = synthetic(41, 57)
    degraded = degrade(image, [{"op": "downscale", "factor": 1.7, "filter": name}, {"op": "upscale", "filter": name}])
    small = Image.fromarray(image).resize((34, 24), resample)
    assert (degraded == np.asarray(small.resize((57, 41), resample))).all()
    interpolation = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "lanczos": cv2.INTER_LANCZOS4}[name]
    opencv = cv2.resize(cv2.resize(image, (34, 24), interpolation=interpolation), (57, 41))
    assert mse(np.asarray(opencv, np.uint8), degraded) > 1


def test_downscaling_never_reaches_zero_pixels() -> None:
    steps: list[dict[str, Any]] = [
        {"op": "downscale", "factor": 16, "filter": "bilinear"},
        {"op": "upscale", "filter": "bilinear"},
    ]
    image = synthetic(3, 5)
    assert degrade(image, steps).shape == (3, 5, 3)


@pytest.mark.parametrize("sigma", [1, 6])
def test_noise_has_the_sigma_that_was_asked_for(sigma: int) -> None:
    """Nothing clips on mid grey; rounding to 8-bit levels adds a variance of 1/12. 120 000 values: within 2 %."""
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = degrade(grey, [{"op": "noise", "sigma_range": [sigma, sigma]}]).astype(float) - 128
    assert noisy.std() == pytest.approx((sigma**2 + 1 / 12) ** 0.5, rel=0.02)
    assert abs(noisy.mean()) < 0.1
    assert abs(np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1]) < 0.05  # channels are independent


def test_gaussian_blur_has_the_sigma_that_was_asked_for() -> None:
    """The variance of a blurred impulse is sigma²."""
    impulse = np.zeros((41, 41, 3), np.uint8)
    impulse[20, 20] = 255
    spread = degrade(impulse, [{"op": "gaussian_blur", "sigma_range": [1.5, 1.5]}])[..., 0].astype(float)
    row = np.arange(41) - 20
    assert (spread.sum(axis=1) * row**2).sum() / spread.sum() == pytest.approx(1.5**2, rel=0.1)


def test_motion_blur_is_a_line_through_the_middle() -> None:
    impulse = np.zeros((41, 41, 3), np.uint8)
    impulse[20, 20] = 255
    for seed in range(5):
        touched = np.argwhere(degrade(impulse, [{"op": "motion_blur", "length_range": [9, 9]}], seed)[..., 0])
        assert 5 <= len(touched) <= 12
        assert np.abs(touched - 20).max() <= 4
        assert np.linalg.matrix_rank(touched - touched.mean(axis=0), tol=2.5) == 1


def test_jpeg_gets_worse_with_lower_quality(photos: dict[str, Frame]) -> None:
    cut = photos["chelsea"][100:164, 100:180]
    decibels = [
        psnr_db(cut, degrade(cut, [{"op": "jpeg", "quality_range": [quality, quality]}])) for quality in (10, 50, 95)
    ]
    assert decibels == sorted(decibels)
    assert decibels[2] - decibels[0] > 6


def test_params_of_this_file_are_the_committed_ones(project: Path) -> None:
    """The random steps above are those that params.yaml offers, so that the golden pixels are of what is in use."""
    degradations = load_params(project / "params.yaml").degrade_pairs.degradations
    for step in RANDOM:
        assert degradations[step["op"]] == (STEP.validate_python(step),)
