"""The networks, their registry, their weights on disk, and images to tensors and back."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from tests.make.networks import disturb
from torch import Tensor, nn

import clearcall.models.layers
from clearcall.core.errors import UserError
from clearcall.imaging.sizes import SMALLEST_SIDE, SizeContract
from clearcall.models.build import Kind, build_model, known_models
from clearcall.models.inference import restore, restore_unrounded, to_frame, to_tensor
from clearcall.models.layers import CollapsibleConv, collapsed, halved, he_, pad_to, parameter_count
from clearcall.models.students.routed import Routed
from clearcall.models.weights import load_weights, save_weights
from clearcall.params import Model, Params

Frame = npt.NDArray[np.uint8]
TINY: dict[tuple[Kind, str], dict[str, Any]] = {
    ("students", "clearsight_imdn"): {"channels": 4, "blocks": 1},
    ("students", "compact_resnet"): {"channels": 4},
    ("students", "dncnn_student"): {"channels": 4, "convs": 4},
    ("students", "imdn"): {"channels": 16, "blocks": 1},
    ("students", "luma_strided"): {"channels": 4, "body_layers": 1, "expansion": 6},
    ("students", "luminous_student"): {"channels": 4},
    ("students", "plain_cnn"): {"channels": 4},
    ("students", "routed"): {
        "experts": {"one": {"channels": 4, "body_layers": 1}, "two": {"channels": 6, "body_layers": 0}}
    },
    ("teachers", "conditioned"): {"degradations": ["a", "b"], "channels": 4, "blocks": 2},
    ("teachers", "dncnn"): {"channels": 4, "convs": 4},
    ("teachers", "residual_blocks"): {"channels": 4, "blocks": 1},
    ("teachers", "residual_cnn"): {"channels": 32},
    ("teachers", "restormer"): {"channels": 4, "blocks": [1, 1, 1, 1, 1]},
    ("teachers", "swinir"): {"channels": 4, "blocks": 1, "layers": 2, "heads": 2, "window": 4},
    ("teachers", "unet"): {"channels": 4, "levels": 2},
    ("teachers", "unshuffle_resnet"): {"channels": 4, "blocks": 2, "unshuffle": 2},
}
KINDS: list[Kind] = ["teachers", "students"]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def frame(height: int, width: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tiny(kind: Kind, name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(kind, name, TINY[kind, name])


def disturbed(model: nn.Module) -> nn.Module:
    """Give every layer, the zeroed one too, a small random push: a network that does something."""
    disturb(model, 0.02)
    if isinstance(model, Routed):
        model.router.last.bias[0] = -100  # never the identity, which does nothing
    return model


def test_the_folders_listing_is_the_registry() -> None:
    top = Path(clearcall.models.layers.__file__).parent
    for kind in KINDS:
        files = sorted(path.stem for path in (top / kind).glob("*.py") if path.stem != "__init__")
        assert known_models(kind) == files
        assert files


def test_every_known_model_is_tried_here() -> None:
    """A new architecture needs its smallest arguments in TINY; then all the tests below hold for it too."""
    assert {(kind, name) for kind in KINDS for name in known_models(kind)} == set(TINY)


@pytest.mark.parametrize(("kind", "name"), TINY)
class TestEveryNetwork:
    @examples(max_examples=4)
    @given(height=st.integers(1, 45), width=st.integers(1, 45), count=st.integers(1, 2))
    def test_untrained_it_returns_its_input_at_any_size(
        self, kind: Kind, name: str, height: int, width: int, count: int
    ) -> None:
        image = noise(count, 3, height, width)
        assert torch.equal(tiny(kind, name).eval()(image), image)

    @pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 31), (1, 1), (2, 5)])
    def test_trained_it_keeps_the_size(self, kind: Kind, name: str, height: int, width: int) -> None:
        image = noise(2, 3, height, width)
        model = disturbed(tiny(kind, name))
        restored = model(image)
        assert restored.shape == image.shape
        assert restored.dtype == torch.float32
        assert restored.isfinite().all()
        assert not torch.equal(restored, image)

    def test_images_of_one_batch_do_not_mix(self, kind: Kind, name: str) -> None:
        model, images = disturbed(tiny(kind, name)), noise(3, 3, 16, 16)
        alone = torch.cat([model(image[None]) for image in images])
        assert torch.allclose(model(images), alone, atol=1e-6)

    def test_odd_sizes_agree_with_the_padded_image(self, kind: Kind, name: str) -> None:
        model, image = disturbed(tiny(kind, name)), noise(1, 3, 15, 17)
        padded = pad_to(image, SizeContract(int(model.stride)))  # type: ignore[arg-type]  # every network has it
        assert torch.equal(model(image), model(padded)[..., :15, :17])

    def test_weights_come_back_as_they_were(self, kind: Kind, name: str, tmp_path: Path) -> None:
        model, folder = disturbed(tiny(kind, name)), tmp_path / "weights"
        save_weights(folder, kind, Model(name=name, arguments=TINY[kind, name]), model.state_dict())
        loaded = load_weights(folder)
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        state = loaded.state_dict()
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        image = noise(1, 3, 17, 16)
        assert torch.equal(loaded(image), model(image))
        again = tmp_path / "again"
        save_weights(again, kind, Model(name=name, arguments=TINY[kind, name]), loaded.state_dict())
        assert [path.read_bytes() for path in sorted(again.iterdir())] == [
            path.read_bytes() for path in sorted(folder.iterdir())
        ]


@pytest.mark.parametrize(("kind", "name"), [network for network in TINY if network[1] != "routed"])
class TestEverySingleNetwork:
    """Not the student that consists of others: tests/models/test_routed.py."""

    def test_every_parameter_can_learn(self, kind: Kind, name: str) -> None:
        model = disturbed(tiny(kind, name)).train().requires_grad_()
        (model(noise(2, 3, 16, 16)) * noise(2, 3, 16, 16, seed=1)).sum().backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0

    def test_an_argument_out_of_range_is_refused(self, kind: Kind, name: str) -> None:
        with pytest.raises(UserError, match=r"channels.* must be at least \d"):
            build_model(kind, name, TINY[kind, name] | {"channels": 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 4, "chanels": 3}, r"takes \(channels: int.*chanels"),
        ({}, "missing a required argument: 'channels'"),
        ({"channels": "48"}, "channels"),
        ({"channels": 2.5}, "channels"),
        ({"channels": None}, "channels"),
    ],
)
def test_missing_unknown_and_mistyped_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model("teachers", "unshuffle_resnet", {"blocks": 1, "unshuffle": 2} | arguments)


def test_a_conditioned_teacher_weighs_its_channels_by_the_degradation() -> None:
    model, images = disturbed(tiny("teachers", "conditioned")), noise(2, 3, 8, 12)
    told = model(images, ["a", "b"])
    assert torch.allclose(told[0], model(images[:1], ["a"])[0], atol=1e-6)
    assert torch.allclose(told[1], model(images[1:], ["b"])[0], atol=1e-6)
    assert not torch.allclose(told[1], model(images[1:], ["a"])[0], atol=1e-6)
    assert torch.equal(model(images, ["", "elsewhere"]), model(images))  # not known
    with torch.no_grad():
        model.get_parameter("conditions")[1, 1:] = -1.0  # of `a`, after the shift: every block's answer is weighed by 0
        shallow = model.get_submodule("head")(images[:1] - 0.5)
        shift = model.get_parameter("conditions")[1, 0][:, None, None]
        expected = images[:1] + model.get_submodule("tail")(2 * shallow + shift)
    assert torch.allclose(model(images[:1], ["a"]), expected, atol=1e-6)


def test_a_collapsible_convolution_is_one_convolution() -> None:
    torch.manual_seed(3)
    layer, features = CollapsibleConv(3, 5, 3, width=16, stride=2, padding=1), noise(2, 3, 9, 12)
    assert layer.project.bias is not None
    two_steps = layer.project(layer.expand(features))
    assert torch.allclose(layer(features), two_steps, atol=1e-6)
    assert torch.allclose(layer.collapsed()(features), two_steps, atol=1e-6)
    assert parameter_count(layer.collapsed()) == 9 * 3 * 5 + 5


def test_a_collapsible_convolution_between_equals_starts_from_a_shortcut() -> None:
    layer, features = CollapsibleConv(4, 4, 3, width=8, padding=1), noise(1, 4, 6, 7)
    with torch.no_grad():
        layer.project.weight.zero_()
        torch.nn.init.zeros_(layer.project.bias)  # type: ignore[arg-type]  # it has one
    assert torch.equal(layer(features), features)
    assert torch.allclose(layer.collapsed()(features), features)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_collapsed_student_does_the_same_with_fewer_parameters(stride: int) -> None:
    arguments = {"channels": 4, "body_layers": 2, "stride": stride, "expansion": 16}
    model, image = disturbed(build_model("students", "luma_strided", arguments)), noise(1, 3, 17, 22)
    plain = collapsed(model)
    assert torch.allclose(plain(image), model(image), atol=1e-5)
    assert not torch.equal(plain(image), image)
    side = stride + 4
    stem, body, tail = side**2 * 4 + 4, 2 * (9 * 16 + 4), stride**2 * 4 + stride**2
    assert parameter_count(plain) == stem + body + tail
    assert parameter_count(model) > parameter_count(plain)


def test_a_stride_that_is_not_built_is_refused() -> None:
    with pytest.raises(UserError, match="stride must be 2 or 4"):
        build_model("students", "luma_strided", {"channels": 4, "body_layers": 1, "stride": 3})


@pytest.mark.parametrize(("channels", "layers"), [(1, 0), (4, 1), (16, 1), (12, 3)])
def test_parameters_of_the_luma_student_by_hand(channels: int, layers: int) -> None:
    stem = 6 * 6 * 1 * channels + channels
    body = layers * (3 * 3 * channels * channels + channels)
    tail = channels * 4 + 4
    model = build_model("students", "luma_strided", {"channels": channels, "body_layers": layers})
    assert parameter_count(model) == stem + body + tail


@pytest.mark.parametrize(("channels", "blocks", "unshuffle"), [(1, 1, 1), (4, 2, 2), (8, 3, 4)])
def test_parameters_of_the_teacher_by_hand(channels: int, blocks: int, unshuffle: int) -> None:
    planes = 3 * unshuffle**2
    head = 9 * planes * channels + channels
    body = blocks * 2 * (9 * channels * channels + channels)
    tail = 9 * channels * planes + planes
    arguments = {"channels": channels, "blocks": blocks, "unshuffle": unshuffle}
    assert parameter_count(build_model("teachers", "unshuffle_resnet", arguments)) == head + body + tail


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "parameters"),
    [
        # As counted from the published file and, rounded, as printed in the paper (11.8 M) and elsewhere (910 K).
        ("teachers", "swinir", {"channels": 180, "blocks": 6, "upsampler": "pixelshuffle"}, 11_752_487),
        ("teachers", "swinir", {"channels": 60, "blocks": 4, "upsampler": "pixelshuffledirect"}, 910_152),
        # The same trunk; in place of 180 -> 64 -> 256, 64 -> 3 a layer 180 -> 3.
        (
            "teachers",
            "swinir",
            {"channels": 180, "blocks": 6},
            11_752_487 - (9 * (180 * 64 + 64 * 256 + 64 * 3) + 64 + 256 + 3) + 9 * 180 * 3 + 3,
        ),
        ("teachers", "residual_cnn", {"channels": 384}, 2_561_187),  # the notebook's print
        # 3x3 layers 3 -> 64, fifteen 64 -> 64 with two values a channel of normalisation, 64 -> 3.
        ("teachers", "dncnn", {"channels": 64}, 9 * (3 * 64 + 15 * 64**2 + 64 * 3) + 64 + 15 * 2 * 64 + 3),
        # The known 31,030,593 for one channel in and one out; a 3x3 and a 1x1 layer have two channels more.
        ("teachers", "unet", {"channels": 64}, 31_030_593 + 9 * 2 * 64 + 2 * 64 + 2),
        ("teachers", "residual_blocks", {"channels": 64, "blocks": 16}, 9 * (2 * 3 * 64 + 33 * 64**2) + 34 * 64 + 3),
        ("teachers", "restormer", {"channels": 48}, 26_126_644),
        # Those for x2 are counted in test_comparison.py; at full size the last layer alone is smaller.
        ("students", "imdn", {"channels": 64, "blocks": 6, "scale": 1}, 694_404 - (9 * 64 + 1) * (12 - 3)),
        ("students", "plain_cnn", {"channels": 32, "convs": 4}, 11_011 + 9 * 32**2 + 32),
    ],
)
def test_parameters_of_published_networks(kind: Kind, name: str, arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):  # nothing is allocated
        assert parameter_count(build_model(kind, name, arguments)) == parameters


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "message"),
    [
        ("students", "imdn", {"channels": 24, "blocks": 1}, "a multiple of it"),
        ("students", "imdn", {"channels": 16, "blocks": 1, "scale": 3}, "scale must be 1 or 2"),
        ("students", "clearsight_imdn", {"channels": 6, "blocks": 1}, "a multiple of it"),
        ("students", "clearsight_imdn", {"channels": 4, "blocks": 1, "scale": 0}, "scale must be 1 or 2"),
        ("teachers", "restormer", {"channels": 4, "blocks": [1, 1, 1]}, "five numbers"),
        ("teachers", "swinir", {"channels": 10, "blocks": 1, "heads": 4}, "10 is not of 4"),
        ("teachers", "swinir", {"channels": 4, "blocks": 1, "heads": 2, "window": 5}, "window must be even"),
        ("teachers", "swinir", {"channels": 4, "blocks": 1, "heads": 2, "upsampler": "bicubic"}, "'pixelshuffle'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kind: Kind, name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(kind, name, arguments)


def test_a_signal_neither_fades_nor_grows_through_layers_drawn_for_relu() -> None:
    """Its mean square stays near one; by torch's usual draw each layer and ReLU keep about a sixth of it."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(layer for _ in range(6) for layer in (nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))))
    signal = torch.randn(1, 64, 32, 32)
    assert layers(signal).square().mean() < 0.05
    he_(layers)
    assert 0.3 < layers(signal).square().mean() < 2


# Networks that enlarge


@pytest.mark.parametrize("height", [40, 96])
def test_half_an_image_is_pillows(height: int, photos: dict[str, Frame]) -> None:
    """Away from the borders, where Pillow cuts its kernel, and but for its rounding after each direction."""
    photo = photos["astronaut"][:height, 100:180]
    expected = np.asarray(Image.fromarray(photo).resize((40, height // 2), Image.Resampling.BICUBIC))
    found = to_frame(halved(to_tensor(photo)[None])[0])
    assert found.shape == expected.shape
    assert np.abs(found[2:-2, 2:-2].astype(int) - expected[2:-2, 2:-2]).max() <= 1


@pytest.mark.parametrize("name", ["imdn", "clearsight_imdn"])
@pytest.mark.parametrize("scale", [1, 2])
def test_an_enlarging_student_adds_what_it_makes_of_its_smaller_image(name: str, scale: int) -> None:
    model = disturbed(build_model("students", name, {**TINY["students", name], "scale": scale}))
    image = noise(1, 3, 12, 18)
    small = image if scale == 1 else halved(image)
    enlarged = model.enlarge(small)  # type: ignore[operator]  # nn.Module hides methods
    assert enlarged.shape == image.shape
    assert torch.equal(model(image), image + enlarged)


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
def test_swinir_for_x2_restores_from_half_the_size(upsampler: str) -> None:
    model = disturbed(build_model("teachers", "swinir", {**TINY["teachers", "swinir"], "upsampler": upsampler}))
    image = noise(1, 3, 16, 24)
    enlarged = model.enlarge(halved(image))  # type: ignore[operator]  # nn.Module hides methods
    assert torch.equal(model(image), enlarged)
    assert enlarged.shape == image.shape
    assert model(noise(2, 3, 17, 9)).shape == (2, 3, 17, 9)


@torch.no_grad()
@pytest.mark.parametrize(("shifted", "reached"), [(False, range(4)), (True, range(2))])
def test_the_attention_of_swinir_stays_within_its_windows(*, shifted: bool, reached: range) -> None:
    """Windows of four: a change in the corner reaches the first of them, and half of one where all are shifted."""
    swinir = importlib.import_module("clearcall.models.teachers.swinir")
    torch.manual_seed(0)
    layer = swinir._Layer(4, 2, 4, 2.0, shifted=shifted)
    for parameter in layer.parameters():
        parameter.normal_()
    features = noise(1, 8, 12, 4)
    changed = features.clone()
    changed[0, 0, 0] = noise(4, seed=1)
    mask = swinir._mask(8, 12, 4, torch.device("cpu"))
    differs = (layer(features, mask) - layer(changed, mask)).abs().amax(dim=(0, 3)) > 1e-4
    assert {(int(row), int(column)) for row, column in differs.nonzero()} == {(y, x) for y in reached for x in reached}


def test_the_relative_places_of_a_window_by_hand() -> None:
    """A window of 2: nine ways to lie to each other, three a row; a place to itself is the middle one, number 4."""
    swinir = importlib.import_module("clearcall.models.teachers.swinir")
    index = swinir._Attention(2, 1, 2).relative_position_index
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_published_names_of_swinir_are_ours_and_masks_are_left_out() -> None:
    model = tiny("teachers", "swinir")
    state = model.state_dict()
    layer = "layers.0.residual_group.blocks.1"
    assert {
        "conv_first.weight",
        "patch_embed.norm.weight",
        f"{layer}.norm1.weight",
        f"{layer}.attn.relative_position_bias_table",
        f"{layer}.attn.relative_position_index",
        f"{layer}.attn.qkv.bias",
        f"{layer}.attn.proj.weight",
        f"{layer}.norm2.bias",
        f"{layer}.mlp.fc1.weight",
        f"{layer}.mlp.fc2.weight",
        "layers.0.conv.weight",
        "norm.weight",
        "conv_after_body.bias",
        "conv_last.weight",
    } <= state.keys()
    published = {**state, f"{layer}.attn_mask": torch.zeros(256, 16, 16)}
    model.load_state_dict(published, strict=True)
    assert f"{layer}.attn_mask" in published
    for upsampler, names in (
        ("pixelshuffledirect", {"upsample.0.weight"}),
        ("pixelshuffle", {"conv_before_upsample.0.weight", "upsample.0.weight", "conv_last.weight"}),
    ):
        other = build_model("teachers", "swinir", {**TINY["teachers", "swinir"], "upsampler": upsampler})
        assert {name for name in other.state_dict() if "weight" in name} - state.keys() == names - {"conv_last.weight"}


# Batch normalisation


@pytest.mark.parametrize(("kind", "name"), [("students", "dncnn_student"), ("teachers", "dncnn")])
def test_normalisations_become_part_of_the_convolutions_before_them(kind: Kind, name: str) -> None:
    model, image = disturbed(tiny(kind, name)), noise(1, 3, 12, 16)
    plain = collapsed(model)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert torch.allclose(plain(image), model(image), atol=1e-6)
    assert not torch.equal(plain(image), image)


def test_the_published_student_is_normalised_after_its_third_and_its_sixth_layer() -> None:
    layers = list(build_model("students", "dncnn_student", {"channels": 32}).modules())
    convs = 0
    normalised = []
    for layer in layers:
        convs += isinstance(layer, nn.Conv2d)
        if isinstance(layer, nn.BatchNorm2d):
            normalised.append(convs)
    assert (convs, normalised) == (8, [3, 6])


def test_the_committed_architectures_can_be_built(committed: Params) -> None:
    models: list[tuple[Kind, Model]] = [
        ("teachers", committed.train_teacher.model),
        ("students", committed.distill_student.model),
    ]
    for kind, model in models:
        assert parameter_count(build_model(kind, model.name, model.arguments)) > 0


def test_the_luma_student_leaves_chroma_alone() -> None:
    image = noise(1, 3, 16, 16)
    added = disturbed(tiny("students", "luma_strided"))(image) - image
    assert added.abs().max() > 0
    assert torch.allclose(added[:, 0], added[:, 1], atol=1e-6)
    assert torch.allclose(added[:, 0], added[:, 2], atol=1e-6)


def test_a_small_frame_is_continued_as_far_as_the_router_needs() -> None:
    model, image = disturbed(tiny("students", "luma_strided")), noise(1, 3, 3, 5)
    continued = torch.nn.functional.pad(image, (0, SMALLEST_SIDE - 5, 0, SMALLEST_SIDE - 3), mode="replicate")
    assert torch.equal(model(image), model(continued)[..., :3, :5])


def test_an_unknown_model_is_refused_with_the_known() -> None:
    with pytest.raises(UserError, match=r"there is no student named 'unshuffle_resnet'; known: .*luma_strided"):
        build_model("students", "unshuffle_resnet", {})


def test_padding_repeats_the_last_row_and_column() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to(image, SizeContract(4))
    assert padded[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert pad_to(padded, SizeContract(4)) is padded
    assert pad_to(padded, SizeContract(2, minimum=6)).shape == (1, 1, 6, 6)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    model = Model(name="luma_strided", arguments=TINY["students", "luma_strided"])
    save_weights(folder, "students", model, tiny("students", "luma_strided").state_dict())
    return folder


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing holds no trained network.*dvc repro"):
        load_weights(tmp_path / "nothing")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "removed"])
def test_damaged_weights_are_refused(weights: Path, damage: str) -> None:
    path = weights / "model.safetensors"
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-10])
        case "garbage":
            path.write_bytes(b"\xff" * 500)
        case "empty":
            path.write_bytes(b"")
        case _:
            path.unlink()
    with pytest.raises(UserError, match="holds no trained network"):
        load_weights(weights)


@pytest.mark.parametrize("text", ["{", "", "[]", '{"kind": "students"}', '{"kind": "pupils", "name": "x"}'])
def test_a_damaged_description_of_the_architecture_is_refused(weights: Path, text: str) -> None:
    (weights / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="weights"):
        load_weights(weights)


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    description = json.loads((weights / "model.json").read_text(encoding="utf-8"))
    description["arguments"]["body_layers"] = 2
    (weights / "model.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(UserError, match="not of its architecture"):
        load_weights(weights)


def test_to_tensor_moves_channels_first_and_scales_to_one() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = [255, 51, 0]
    tensor = to_tensor(image)
    assert tensor.shape == (3, 2, 3)
    assert tensor.dtype == torch.float32
    assert tensor[:, 1, 2].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert tensor.sum().item() == pytest.approx(1.2)
    assert to_tensor(np.stack([image, image])).shape == (2, 3, 2, 3)


def test_to_tensor_copies_so_that_a_read_only_view_stays_as_it_is() -> None:
    image = frame(4, 5)
    image.flags.writeable = False
    before = image.copy()
    to_tensor(image).zero_()
    assert (image == before).all()


def test_to_frame_rounds_and_clips() -> None:
    levels = [-300.0, -0.4, 0.4, 0.6, 1.4, 127.6, 254.4, 254.6, 255.4, 900.0]
    image = (torch.tensor(levels) / 255).expand(3, 1, -1)
    answer = to_frame(image)
    assert answer.dtype == np.uint8
    assert answer.shape == (1, len(levels), 3)
    assert answer[0, :, 0].tolist() == [0, 0, 0, 1, 1, 128, 254, 255, 255, 255]


def test_every_8_bit_level_survives_the_way_to_a_tensor_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 7)], axis=-1)[None]
    assert (to_frame(to_tensor(image)) == image).all()


def test_restore_of_an_untrained_network_is_the_frame() -> None:
    image = frame(13, 22)
    assert (restore(tiny("students", "luma_strided"), image) == image).all()


def test_restore_clips_before_rounding() -> None:
    model, image = disturbed(tiny("teachers", "unshuffle_resnet")).requires_grad_(), frame(16, 16)
    with torch.no_grad():
        wide = model(to_tensor(image)[None])[0]
    unrounded = restore_unrounded(model, image)
    assert (wide < 0).any() or (wide > 1).any()
    assert torch.equal(unrounded, wide.clamp(0, 1))
    assert (restore(model, image) == to_frame(wide)).all()
    assert not unrounded.requires_grad
