"""Metrics between two 8-bit RGB images (height, width, 3)."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.imaging.luma import luma_of

_Plane = npt.NDArray[np.float64]
# Equal images have an infinite PSNR; in a mean they count with this.
MAX_PSNR_DB = 100.0

_K1, _K2, _PEAK = 0.01, 0.03, 255.0
_SIGMA, _RADIUS = 1.5, 5  # 11x11 window
_UNIFORM_SIDE = 7


def mse(sharp: Frame, other: Frame) -> float:
    """Return the mean squared error in squared 8-bit levels (0 to 65025)."""
    _check(sharp, other)
    return float(np.mean(np.square(sharp.astype(np.float64) - other)))


def psnr_db(sharp: Frame, other: Frame) -> float:
    """Return the peak signal-to-noise ratio in dB over all three channels; infinite for equal images."""
    error = mse(sharp, other)
    return float("inf") if error == 0 else float(10 * np.log10(_PEAK**2 / error))


def luma_psnr_db(sharp: Frame, other: Frame) -> float:
    """Return the PSNR in dB of 8-bit luma (BT.601) alone; infinite for equal luma."""
    return psnr_db(luma_of(sharp), luma_of(other))


def chroma_psnr_db(sharp: Frame, other: Frame) -> float:
    """Return the PSNR in dB of 8-bit Cb and Cr (BT.601) at half resolution, as 4:2:0 has them; infinite if equal."""
    return psnr_db(_chroma(sharp), _chroma(other))


def _chroma(frame: Frame) -> Frame:
    means = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(means, cv2.COLOR_RGB2YCrCb)[..., 1:], np.uint8)


def ssim(sharp: Frame, other: Frame) -> float:
    """Return SSIM as Wang et al. 2004 define it: Gaussian window of sigma 1.5, 11x11, mean over pixels and channels.

    The same figure as scikit-image's `structural_similarity(..., gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255)`, several times faster; the five pixels at each edge, where the
    window would leave the image, do not count.
    """

    def blur(plane: _Plane) -> _Plane:
        blurred: _Plane = cv2.GaussianBlur(plane, (2 * _RADIUS + 1,) * 2, _SIGMA)  # type: ignore[assignment]  # stubs lose the dtype
        return blurred[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]

    return _ssim(sharp, other, blur, 2 * _RADIUS + 1, 1.0)


def ssim_uniform(sharp: Frame, other: Frame) -> float:
    """Return SSIM with scikit-image's defaults, 7x7 uniform window and sample covariance; other reports print it."""
    margin, count = _UNIFORM_SIDE // 2, _UNIFORM_SIDE**2

    def blur(plane: _Plane) -> _Plane:
        blurred: _Plane = cv2.blur(plane, (_UNIFORM_SIDE, _UNIFORM_SIDE))  # type: ignore[assignment]  # stubs lose the dtype
        return blurred[margin:-margin, margin:-margin]

    return _ssim(sharp, other, blur, _UNIFORM_SIDE, count / (count - 1))


METRICS: dict[str, Callable[[Frame, Frame], float]] = {
    "ssim": ssim,
    "psnr_db": psnr_db,
    "ssim_uniform": ssim_uniform,
    "mse": mse,
}


def measure(sharp: Frame, other: Frame) -> dict[str, float]:
    """Return every metric by name."""
    return {name: metric(sharp, other) for name, metric in METRICS.items()}


def _check(sharp: Frame, other: Frame) -> None:
    if sharp.shape != other.shape or sharp.dtype != np.uint8 or other.dtype != np.uint8:
        raise ValueError(
            f"expected two 8-bit images of one shape, not {sharp.shape} {sharp.dtype} and {other.shape} {other.dtype}"
        )


def _ssim(sharp: Frame, other: Frame, blur: Callable[[_Plane], _Plane], side: int, correction: float) -> float:
    _check(sharp, other)
    if min(sharp.shape[:2]) < side:
        raise UserError(f"SSIM needs images of at least {side}x{side} pixels, not {sharp.shape[1]}x{sharp.shape[0]}")
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    means = []
    for channel in range(sharp.shape[2]):
        # float64: in float32 the differences of near-equal squares below cost the fourth decimal.
        x = sharp[..., channel].astype(np.float64)
        y = other[..., channel].astype(np.float64)
        mean_x, mean_y = blur(x), blur(y)
        variance_sum = correction * (blur(x * x + y * y) - mean_x**2 - mean_y**2)
        covariance = correction * (blur(x * y) - mean_x * mean_y)
        similarity = (
            (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variance_sum + c2))
        )
        means.append(float(similarity.mean()))
    return float(np.mean(means))
