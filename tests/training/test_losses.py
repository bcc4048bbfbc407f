"""The losses, each by hand on tiny tensors."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.training.losses import perceptual
from clearcall.training.losses.feature_projection import feature_projection_loss
from clearcall.training.losses.perceptual import Vgg19, load_vgg19, perceptual_loss, vgg19_trunk
from clearcall.training.losses.reconstruction import (
    charbonnier_loss,
    l1_loss,
    luma_gain_loss,
    mse_loss,
    relative_mse_loss,
    ssim_loss,
)

Frame = npt.NDArray[np.uint8]
Loss = Callable[[Tensor, Tensor], Tensor]
RECONSTRUCTION = [l1_loss, mse_loss, charbonnier_loss]


def row(*values: float) -> Tensor:
    """Return an image of one row, (1, 1, 1, n)."""
    return torch.tensor(values).view(1, 1, 1, -1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("loss", "restored", "target", "expected"),
    [
        (l1_loss, row(0, 0.5, 1), row(0.25, 0, 1), 0.25),
        (mse_loss, row(0, 0.5, 1), row(0.5, 0, 1), 0.5 / 3),
        (charbonnier_loss, row(0.003, 1), row(0, 1), (math.sqrt(0.003**2 + 0.001**2) + 0.001) / 2),
    ],
    ids=["l1", "mse", "charbonnier"],
)
def test_reconstruction_losses_by_hand(loss: Loss, restored: Tensor, target: Tensor, expected: float) -> None:
    assert loss(restored, target).item() == pytest.approx(expected, rel=1e-4)


def test_relative_mse_by_hand() -> None:
    # Two images with mean squared differences of 0.01 and 0.04, from inputs of 0.008 and none at all.
    restored, target = (
        torch.cat([row(0.1, 0.4), row(0.5, 0.5)]),
        torch.cat([row(0.2, 0.5), row(0.3, 0.7)]),
    )
    expected = (0.01 / (0.008 + 0.002) + 0.04 / 0.002) / 2
    assert relative_mse_loss(restored, target, torch.tensor([0.008, 0.0]), 0.002).item() == pytest.approx(expected)


def test_luma_gain_by_hand() -> None:
    """Half of a green image is right again, and a grey one, which was right, is 0.1 off."""
    green = torch.tensor([0.0, 0.2, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    black, grey = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)
    degraded, restored = torch.cat([green, black]), torch.cat([green * torch.tensor([0.0, 1.0]), grey])
    gained, lost = 0.5 * (0.587 * 0.2) ** 2 / (0.03 + 0.01), 0.1**2 / 0.01
    loss = luma_gain_loss(restored, torch.zeros(2, 3, 2, 2), degraded, torch.tensor([0.03, 0.0]), 0.01)
    assert loss.item() == pytest.approx((lost - gained) / 2, rel=1e-5)


def test_luma_gain_sees_no_colour() -> None:
    """0.299 R + 0.114 B is the same in both, though red and blue are far off."""
    target = torch.full((1, 3, 2, 2), 0.5)
    restored = target + torch.tensor([0.114, 0.0, -0.299]).view(1, 3, 1, 1)
    assert luma_gain_loss(restored, target, target, torch.zeros(1), 1e-3).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", RECONSTRUCTION)
def test_reconstruction_losses_are_symmetric_scalars(loss: Loss) -> None:
    one, other = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    assert loss(one, other).shape == ()
    assert loss(one, other).item() == pytest.approx(loss(other, one).item())
    assert loss(one, other) > loss(one, (one + other) / 2) > loss(one, one)


@pytest.mark.parametrize("loss", RECONSTRUCTION)
def test_gradients_are_finite_and_point_to_the_target_even_at_it(loss: Loss) -> None:
    restored = row(0.2, 0.5, 0.8).requires_grad_()
    loss(restored, row(0.5, 0.5, 0.5)).backward()  # type: ignore[no-untyped-call]
    assert restored.grad is not None
    assert restored.grad.flatten().sign().tolist() == [-1, 0, 1]
    assert restored.grad.isfinite().all()


def test_ssim_of_constant_images_by_hand() -> None:
    """Without variance: 1 - (2ab + c1) / (a² + b² + c1), with c1 = 0.01²."""
    one, other = torch.full((1, 3, 16, 16), 0.4), torch.full((1, 3, 16, 16), 0.6)
    expected = 1 - (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    assert ssim_loss(one, other).item() == pytest.approx(expected, rel=1e-3)


def test_ssim_is_the_metric_that_is_reported(photos: dict[str, Frame]) -> None:
    from clearcall.imaging.metrics import ssim
    from clearcall.imaging.unsharp import unsharp_mask
    from clearcall.models.inference import to_tensor

    sharp = np.stack([photo[100:148, 100:160] for photo in photos.values()])
    blurred = np.stack([unsharp_mask(image, 1.5, -0.9) for image in sharp])
    expected = 1 - np.mean([ssim(one, other) for one, other in zip(sharp, blurred, strict=True)])
    assert 0.01 < expected < 0.9
    assert ssim_loss(to_tensor(blurred), to_tensor(sharp)).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("target", [noise(2, 3, 16, 16), torch.zeros(1, 3, 16, 16)], ids=["noise", "black"])
def test_ssim_of_equal_images_is_zero_with_a_finite_gradient(target: Tensor) -> None:
    restored = target.clone().requires_grad_()
    loss = ssim_loss(restored, target)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert restored.grad is not None
    assert restored.grad.isfinite().all()


def test_feature_projection_by_hand() -> None:
    """Maps of 2 x 2 are averaged to the other's single place: 1.5 against 1, and 0 against 2, so (0.25 + 4) / 2."""
    projected = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    teacher = torch.tensor([[[[1.0]], [[2.0]]]])
    assert feature_projection_loss(projected, teacher).item() == pytest.approx(2.125)
    assert feature_projection_loss(teacher, projected).item() == pytest.approx(2.125)
    assert feature_projection_loss(projected, projected).item() == 0


def test_feature_projection_has_gradients_for_the_student() -> None:
    projected = noise(2, 4, 8, 8).requires_grad_()
    feature_projection_loss(projected, noise(2, 4, 4, 4, seed=1)).backward()  # type: ignore[no-untyped-call]
    assert projected.grad is not None
    assert projected.grad.isfinite().all()
    assert projected.grad.abs().sum() > 0


# The perceptual loss, with random weights where it says so


def test_the_trunk_of_vgg19_has_as_many_parameters_as_published() -> None:
    """143,667,240 in all, of which three linear layers on 512 x 7 x 7 values to 4096, 4096 and 1000 are not built."""
    head = (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in vgg19_trunk().parameters()) == 143_667_240 - head


def test_vgg19_is_looked_at_after_its_third_layer_of_the_third_stage() -> None:
    """Names as published: the convolutions of `features` are 0, 2, 5, 7, 10, 12, 14, 16 and so on."""
    network = Vgg19()
    weights = [name for name in network.state_dict() if name.endswith("weight")]
    assert weights == [f"features.{number}.weight" for number in (0, 2, 5, 7, 10, 12, 14)]
    seen = network(noise(2, 3, 16, 20))
    assert seen.shape == (2, 256, 4, 5)
    assert (seen < 0).any()
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_perceptual_loss_by_hand() -> None:
    """A network that doubles what it sees: the squared difference of 0.5 becomes 1, of 0 stays 0."""
    loss = perceptual_loss(row(0.5, 0.25), row(0, 0.25), torch.nn.Upsample(scale_factor=1))
    assert loss.item() == pytest.approx(0.125)

    class Doubled(torch.nn.Module):
        def forward(self, seen: Tensor) -> Tensor:
            return 2 * seen

    assert perceptual_loss(row(0.5, 0.25), row(0, 0.25), Doubled()).item() == pytest.approx(0.5)


def test_vgg19_sees_images_as_it_was_trained() -> None:
    """Grey of ImageNet's mean is nothing to it: only the biases of the first layer are seen."""
    network = Vgg19()
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    first = network.features[0]
    assert isinstance(first, torch.nn.Conv2d) and first.bias is not None
    seen: list[Tensor] = []
    first.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network(grey)
    assert torch.allclose(seen[0], first.bias.view(1, -1, 1, 1).expand_as(seen[0]), atol=1e-6)


def test_the_perceptual_loss_has_gradients_for_the_image_alone() -> None:
    torch.manual_seed(0)
    network, restored = Vgg19(), noise(1, 3, 16, 16).requires_grad_()
    target = noise(1, 3, 16, 16, seed=1)
    assert perceptual_loss(target, target, network).item() == 0
    perceptual_loss(restored, target, network).backward()  # type: ignore[no-untyped-call]
    assert restored.grad is not None
    assert restored.grad.isfinite().all()
    assert restored.grad.abs().sum() > 0


def test_the_published_weights_are_asked_for_and_never_made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert perceptual.VGG19_URL.endswith(f"-{perceptual.VGG19_SHA256[:8]}.pth")  # the name tells how the hash begins
    torch.manual_seed(1)
    published = Vgg19().state_dict()
    path = tmp_path / "vgg19.pth"

    def offer(state: dict[str, Tensor]) -> None:
        torch.save(state, path)
        monkeypatch.setattr(perceptual, "VGG19_URL", str(path))
        monkeypatch.setattr(perceptual, "VGG19_SHA256", sha256_of(path))

    offer(published | {"features.34.bias": torch.zeros(512), "classifier.0.bias": torch.zeros(4096)})
    loaded = load_vgg19()
    assert all(torch.equal(tensor, published[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training
    offer({name: tensor for name, tensor in published.items() if name != "features.5.bias"})
    with pytest.raises(UserError, match=r"does not hold the weights of VGG-19.*features\.5\.bias"):
        load_vgg19()
    offer(published | {"features.0.bias": torch.zeros(3)})
    with pytest.raises(UserError, match=r"does not hold the weights of VGG-19"):
        load_vgg19()
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="has the SHA-256"):
        load_vgg19()
