"""The steps of a degradation; a degradation is a list of steps in params.yaml."""

from collections.abc import Callable, Sequence

import albumentations
import numpy as np
import numpy.typing as npt

from clearcall.data.degrade.codecs import Transmission, transmit
from clearcall.data.synthetic import MAX_PAN, MAX_ZOOM
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Filter, divided, resized
from clearcall.params import AsGiven, Codec, DegradationStep, Downscale, GaussianBlur, Jpeg, MotionBlur, Noise, Upscale


class PillowResize(albumentations.ImageOnlyTransform):  # type: ignore[misc]  # the library ships no types
    """Resize to (width, height) by Pillow: OpenCV's resize is not antialiased."""

    def __init__(self, width: int, height: int, filter_name: Filter) -> None:
        super().__init__(p=1)
        self.width, self.height, self.filter_name = width, height, filter_name

    def apply(self, img: Frame, *_args: object, **_params: object) -> Frame:
        """Return the resized image."""
        return resized(img, (self.width, self.height), self.filter_name)


class RoundedNoise(albumentations.ImageOnlyTransform):  # type: ignore[misc]  # the library ships no types
    """Gaussian noise of a sigma in 8-bit levels, rounded; albumentations truncates it."""

    def __init__(self, sigma_range: tuple[float, float]) -> None:
        super().__init__(p=1)
        self.sigma_range = sigma_range

    def get_params_dependent_on_data(self, params: object, data: dict[str, Frame]) -> dict[str, object]:  # noqa: ARG002  # given by name
        """Draw sigma and the noise of one image."""
        sigma = self.random_generator.uniform(*self.sigma_range)
        return {"noise": self.random_generator.normal(0, sigma, data["image"].shape)}

    def apply(self, img: Frame, noise: npt.NDArray[np.float64], **_params: object) -> Frame:
        """Return the noisy image."""
        return np.clip(np.rint(img + noise), 0, 255).astype(np.uint8)


class Call(albumentations.ImageOnlyTransform):  # type: ignore[misc]  # the library ships no types
    """A video call through a real encoder: of the frames `before`, or of a still that moves."""

    def __init__(self, step: Codec, before: Sequence[Frame]) -> None:
        super().__init__(p=1)
        self.step, self.before = step, before

    def get_params(self) -> dict[str, object]:
        """Draw what happens to one image."""
        draw, step = self.random_generator, self.step
        x, y = draw.uniform(-MAX_PAN, MAX_PAN, 2).tolist()
        sent = Transmission(
            codec=step.codecs[draw.integers(len(step.codecs))],
            factor=float(draw.choice(step.factors)),
            qp=int(draw.integers(*step.qp_range, endpoint=True)),
            pan=(x, y),
            zoom=float(draw.uniform(1 / MAX_ZOOM, MAX_ZOOM)),
            loss_rate=float(draw.choice(step.loss_rates)),
            seed=int(draw.integers(2**32)),
            filtered=bool(draw.random() < step.temporal_filter),
            upscale_filter=step.upscale_filters[draw.integers(len(step.upscale_filters))],
        )
        return {"sent": sent}

    def apply(self, img: Frame, sent: Transmission, **_params: object) -> Frame:
        """Return the image as the other side sees it."""
        return transmit(img, sent, self.before)


def build_degradation(
    steps: Sequence[DegradationStep], width: int, height: int, seed: int, before: Sequence[Frame] = ()
) -> Callable[[Frame], Frame]:
    """Return a function that degrades an 8-bit RGB image of (height, width, 3) and keeps its size.

    All randomness comes from `seed`; the same seed gives the same image. Where the steps begin with `as_given`, it is
    the given image that the function must get. `before` are the frames before the image in its video, of the same
    size, for the first codec: what the steps before it do to the image is done to them too, with the same draws.
    """
    sent = next((index for index, step in enumerate(steps) if isinstance(step, Codec)), 0)
    if sent:  # built anew for each: one that is used again draws on
        before = [build_degradation(steps[:sent], width, height, seed)(frame) for frame in before]
    computed = [
        _transform(step, width, height, before if index == sent else ())
        for index, step in enumerate(steps)
        if not isinstance(step, AsGiven)
    ]
    compose = albumentations.Compose(computed, seed=seed)

    def degrade(sharp: Frame) -> Frame:
        degraded: Frame = compose(image=sharp)["image"]
        return degraded

    return degrade


def _transform(  # noqa: PLR0911  # one return a step
    step: DegradationStep, width: int, height: int, before: Sequence[Frame]
) -> albumentations.BasicTransform:
    match step:
        case Downscale():
            return PillowResize(*divided((width, height), step.factor), step.filter)
        case Upscale():
            return PillowResize(width, height, step.filter)
        case GaussianBlur():
            return albumentations.GaussianBlur(blur_limit=0, sigma_limit=step.sigma_range, p=1)
        case MotionBlur():
            return albumentations.MotionBlur(blur_limit=step.length_range, allow_shifted=False, p=1)
        case Noise():
            return RoundedNoise(step.sigma_range)
        case Codec():
            return Call(step, before)
        case Jpeg():
            return albumentations.ImageCompression(compression_type="jpeg", quality_range=step.quality_range, p=1)
