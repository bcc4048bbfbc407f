"""The losses, each by hand on tiny tensors."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from clearcall.losses.distillation import GRID, feature_affinity_loss
from clearcall.losses.reconstruction import charbonnier_loss, l1_loss, mse_loss, relative_mse_loss, ssim_loss

Frame = npt.NDArray[np.uint8]
Loss = Callable[[Tensor, Tensor], Tensor]
RECONSTRUCTION = [l1_loss, mse_loss, charbonnier_loss]


def picture(*values: float) -> Tensor:
    """Return a picture of one row, (1, 1, 1, n)."""
    return torch.tensor(values).view(1, 1, 1, -1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_l1_by_hand() -> None:
    assert l1_loss(picture(0, 0.5, 1), picture(0.25, 0, 1)).item() == pytest.approx(0.25)


def test_mse_by_hand() -> None:
    assert mse_loss(picture(0, 0.5, 1), picture(0.5, 0, 1)).item() == pytest.approx(0.5 / 3)


def test_charbonnier_by_hand() -> None:
    expected = (math.sqrt(0.003**2 + 0.001**2) + 0.001) / 2
    assert charbonnier_loss(picture(0.003, 1), picture(0, 1)).item() == pytest.approx(expected, rel=1e-4)


def test_relative_mse_by_hand() -> None:
    # Two pictures with mean squared differences of 0.01 and 0.04, from inputs of 0.008 and none at all.
    restored, target = (
        torch.cat([picture(0.1, 0.4), picture(0.5, 0.5)]),
        torch.cat([picture(0.2, 0.5), picture(0.3, 0.7)]),
    )
    expected = (0.01 / (0.008 + 0.002) + 0.04 / 0.002) / 2
    assert relative_mse_loss(restored, target, torch.tensor([0.008, 0.0])).item() == pytest.approx(expected)


def test_charbonnier_is_l1_far_from_zero() -> None:
    one, other = picture(0.9, 0.1), picture(0.1, 0.9)
    assert charbonnier_loss(one, other).item() == pytest.approx(l1_loss(one, other).item(), rel=1e-5)


@pytest.mark.parametrize("loss", RECONSTRUCTION)
def test_reconstruction_losses_are_symmetric_scalars(loss: Loss) -> None:
    one, other = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    assert loss(one, other).shape == ()
    assert loss(one, other).item() == pytest.approx(loss(other, one).item())
    assert loss(one, other) > loss(one, (one + other) / 2) > loss(one, one)


@pytest.mark.parametrize("loss", RECONSTRUCTION)
def test_gradients_are_finite_and_point_to_the_target_even_at_it(loss: Loss) -> None:
    restored = picture(0.2, 0.5, 0.8).requires_grad_()
    loss(restored, picture(0.5, 0.5, 0.5)).backward()  # type: ignore[no-untyped-call]
    assert restored.grad is not None
    assert restored.grad.flatten().sign().tolist() == [-1, 0, 1]
    assert restored.grad.isfinite().all()


def test_ssim_of_constant_pictures_by_hand() -> None:
    """Without variance: 1 - (2ab + c1) / (a² + b² + c1), with c1 = 0.01²."""
    one, other = torch.full((1, 3, 16, 16), 0.4), torch.full((1, 3, 16, 16), 0.6)
    expected = 1 - (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    assert ssim_loss(one, other).item() == pytest.approx(expected, rel=1e-3)


def test_ssim_is_the_metric_that_is_reported(photos: dict[str, Frame]) -> None:
    from clearcall.classical import unsharp_mask
    from clearcall.metrics import ssim
    from clearcall.models.inference import to_tensor

    sharp = np.stack([photo[100:148, 100:160] for photo in photos.values()])
    blurred = np.stack([unsharp_mask(picture, 1.5, -0.9) for picture in sharp])
    expected = 1 - np.mean([ssim(one, other) for one, other in zip(sharp, blurred, strict=True)])
    assert 0.01 < expected < 0.9
    assert ssim_loss(to_tensor(blurred), to_tensor(sharp)).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_of_equal_pictures_is_zero_with_a_finite_gradient() -> None:
    target = noise(2, 3, 16, 16)
    restored = target.clone().requires_grad_()
    loss = ssim_loss(restored, target)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert restored.grad is not None
    assert restored.grad.isfinite().all()


def test_ssim_of_flat_black_pictures_has_a_finite_gradient() -> None:
    restored = torch.zeros(1, 3, 16, 16, requires_grad=True)
    ssim_loss(restored, torch.zeros(1, 3, 16, 16)).backward()  # type: ignore[no-untyped-call]
    assert restored.grad is not None
    assert restored.grad.isfinite().all()


def test_affinity_of_a_network_with_itself_is_zero() -> None:
    features = noise(2, 5, 24, 24)
    assert feature_affinity_loss(features, features).item() == 0
    # A cosine: how strong the features are does not matter.
    assert feature_affinity_loss(features, 7 * features).item() == pytest.approx(0, abs=1e-6)


def test_affinity_by_hand() -> None:
    """Twelve by twelve places, one channel pair: half the places look along x, half along y, against all along x.

    Within a half the cosine is 1, between the halves 0; the teacher's is 1 everywhere. So half of the entries of the
    affinity matrix differ, each by 1.
    """
    student = torch.zeros(1, 2, GRID, GRID)
    student[:, 0, : GRID // 2] = 3
    student[:, 1, GRID // 2 :] = 5
    teacher = torch.zeros(1, 4, GRID, GRID)  # another width needs no projection
    teacher[:, 2] = 1
    assert feature_affinity_loss(student, teacher).item() == pytest.approx(0.5)


def test_affinity_takes_maps_of_other_sizes() -> None:
    """Constant blocks survive the pooling: the same places at twice the size have the same affinities."""
    small = noise(1, 3, GRID, GRID)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)
    assert feature_affinity_loss(small, large).item() == pytest.approx(0, abs=1e-6)


def test_affinity_has_finite_gradients_even_where_features_are_zero() -> None:
    student = torch.zeros(1, 3, 16, 16)
    student[..., 8:] = noise(1, 3, 16, 8)
    student.requires_grad_()
    feature_affinity_loss(student, noise(1, 6, 16, 16, seed=2)).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def test_affinity_is_computed_in_fp32() -> None:
    features = noise(1, 8, 12, 12)
    loss = feature_affinity_loss(features.bfloat16(), features)
    assert loss.dtype == torch.float32
    assert loss.item() < 0.01
