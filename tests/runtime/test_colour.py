"""Chroma restored beside luma: what a network sees of it, what it adds, and what each runtime makes of it."""

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tests.make.networks import disturb, with_router_bias
from torch import Tensor

from clearcall import Sharpener
from clearcall.core.errors import UserError
from clearcall.evaluation.cost import count_macs
from clearcall.imaging.frame import CHROMA_TO_RGB, Frame
from clearcall.models.build import build_model
from clearcall.models.export import export_onnx
from clearcall.models.inference import restore, to_tensor
from clearcall.models.students.luma_strided import LumaStrided
from clearcall.models.students.routed import Routed
from clearcall.runtime.engines import Provider, compile_graph
from clearcall.runtime.graph import load_graph
from clearcall.runtime.sharpener import PixelFormat
from clearcall.training.losses.reconstruction import BT601, chroma_gain_loss

COLOURED, PLAIN = ({"channels": 4, "body_layers": 1, "expansion": 6, "colour": colour} for colour in (True, False))
_MOST_LEVELS = 2  # of rounding luma's and chroma's change apart, in 8-bit levels


def disturbed(arguments: dict[str, Any]) -> LumaStrided:
    """Return a network whose layers all do something."""
    network = disturb(build_model("students", "luma_strided", arguments), 0.05)
    assert isinstance(network, LumaStrided)
    return network


@pytest.fixture(scope="module")
def single() -> LumaStrided:
    """A network that restores chroma too."""
    return disturbed(COLOURED)


@pytest.fixture(scope="module")
def single_onnx(single: LumaStrided, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("colour") / "student.onnx"
    export_onnx(single, path, 20)
    return path


@pytest.fixture(scope="module")
def mixed() -> Routed:
    """An expert for luma and chroma, and one for luma alone."""
    network = disturb(build_model("students", "routed", {"experts": {"all": COLOURED, "luma": PLAIN}}), 0.05)
    assert isinstance(network, Routed)
    return network


@pytest.fixture(scope="module")
def mixed_onnx(mixed: Routed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixed") / "student.onnx"
    export_onnx(mixed, path, 20)
    return path


def favouring(mixed: Routed, mixed_onnx: Path, choice: int, folder: Path) -> tuple[Routed, Path]:
    """Return a copy of the experts, and its graph, whose router always makes one choice."""
    network = copy.deepcopy(mixed)
    network.router.last.bias[choice] += 50
    return network, with_router_bias(mixed_onnx, network.router.last.bias.tolist(), folder / "student.onnx")


@pytest.fixture(scope="module")
def face(photos: dict[str, Frame]) -> Frame:
    """A face of odd sides."""
    return photos["astronaut"][60:161, 180:301]


def chroma_of(rgb: Frame) -> Frame:
    """Return Cb and Cr at half resolution by OpenCV alone, (2, rows, columns)."""
    means = cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(means, cv2.COLOR_RGB2YCrCb)[..., [2, 1]].transpose(2, 0, 1), np.uint8)


def test_chroma_is_opencvs(single: LumaStrided, photos: dict[str, Frame]) -> None:
    """Level by level, so that training sees what the runtime will feed."""
    image = photos["coffee"][:200, :300]
    levels = single.chroma(to_tensor(image)[None])[0] * 255
    assert np.array_equal(levels.round().byte().numpy(), chroma_of(image))


def test_what_is_added_to_chroma_leaves_luma_as_it_is() -> None:
    """And a level of Cr adds 1.4 to red, one of Cb 1.8 to blue, as BT.601 has it."""
    added = torch.tensor(CHROMA_TO_RGB)
    assert torch.allclose(torch.tensor(BT601) @ added, torch.zeros(2), atol=1e-3)
    assert added[0].tolist() == pytest.approx([0, 1.402], abs=2e-3)
    assert added[2].tolist() == pytest.approx([1.772, 0], abs=2e-3)


def test_chroma_gain_by_hand() -> None:
    """Blue that is 0.4 off costs 0.2 in Cb and 0.0325 in Cr; grey that is off costs nothing."""
    target = torch.zeros(2, 3, 2, 2)
    degraded, restored = target.clone(), target.clone()
    degraded[0, 2], degraded[1] = 0.4, 0.7
    restored[1] = 0.1
    loss = chroma_gain_loss(restored, target, degraded, torch.tensor([0.03, 0.0]), 0.01)
    of_blue = (0.2**2 + (0.4 * 0.081312) ** 2) / 2
    assert loss.item() == pytest.approx(-of_blue / 0.04 / 2, rel=1e-4)


def test_a_network_for_luma_alone_gains_no_chroma(face: Frame) -> None:
    """So the loss is 0, whatever it does to luma."""
    image = to_tensor(face[:100, :120])[None]
    loss = chroma_gain_loss(disturbed(PLAIN)(image), image * 0.9, image, torch.tensor([0.0]), 0.01)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_colour_needs_features_of_the_resolution_of_chroma() -> None:
    """At stride 4 it has not."""
    with pytest.raises(UserError, match="colour needs the stride 2"):
        build_model("students", "luma_strided", COLOURED | {"stride": 4})


@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("choice", [None, 0, 1, 2])
def test_the_graph_restores_what_torch_does(
    choice: int | None,
    provider: Provider,
    face: Frame,
    single: LumaStrided,
    single_onnx: Path,
    mixed: Routed,
    mixed_onnx: Path,
    tmp_path: Path,
) -> None:
    """A single network, the identity, and experts with and without colour, of one graph."""
    pytest.importorskip(provider)
    network: torch.nn.Module = single
    path = single_onnx
    if choice is not None:
        network, path = favouring(mixed, mixed_onnx, choice, tmp_path)
    sharpener = Sharpener(path, provider, 1)
    expected = restore(network, face).astype(int)
    assert np.abs(expected - face).max() > 10 or choice == 0
    most = _MOST_LEVELS + (provider == "openvino")
    assert np.abs(sharpener(face) - expected).max() <= most
    assert np.array_equal(sharpener(face[..., ::-1], "bgr")[..., ::-1], sharpener(face))


@pytest.mark.parametrize("pixel_format", ["i420", "nv12"])
@pytest.mark.parametrize("sides", [(64, 96), (20, 24)])
def test_planes_get_what_the_graph_adds_to_each(
    sides: tuple[int, int], pixel_format: PixelFormat, photos: dict[str, Frame], single_onnx: Path
) -> None:
    """Half of it at half the strength; small frames are padded by their last rows and columns."""
    height, width = sides
    rgb = photos["coffee"][100 : 100 + height, 200 : 200 + width]
    luma, chroma = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), chroma_of(rgb)
    engine = compile_graph(load_graph(single_onnx), "onnxruntime", max(32, height), max(32, width), 1)
    inputs = (engine.input[0, 0], engine.chroma[0, 0], engine.chroma[0, 1])
    for plane, given in zip(inputs, (luma, *chroma), strict=True):
        missing = [(0, big - small) for big, small in zip(plane.shape, given.shape, strict=True)]
        plane[:] = np.pad(given, missing, "edge")
    engine.run()
    added = engine.output[0, 4:, : height // 2, : width // 2].astype(float) - 128
    assert np.abs(added).max() > 5
    interleaved = chroma.transpose(1, 2, 0) if pixel_format == "nv12" else chroma
    frame = np.concatenate([luma.reshape(-1), interleaved.reshape(-1)]).reshape(-1, width)
    for strength in (0.5, 1.0):
        sharpener = Sharpener(single_onnx, "onnxruntime", 1, strength)
        both = sharpener(frame, pixel_format)[height:].reshape(interleaved.shape)
        restored = both.transpose(2, 0, 1) if pixel_format == "nv12" else both
        expected = np.clip(np.round(chroma + strength * added), 0, 255)
        assert np.abs(restored - expected).max() <= (0 if strength == 1 else 1)
        in_place = frame.copy()
        sharpener(in_place, pixel_format, in_place)
        assert np.array_equal(in_place, sharpener(frame, pixel_format))


def test_luma_alone_is_sharpened_as_that_of_a_grey_frame(face: Frame, single_onnx: Path) -> None:
    """Whatever chroma the frame before had."""
    sharpener = Sharpener(single_onnx, "onnxruntime", 1)
    sharpener(face)
    luma = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.uint8)[:100, :120]
    grey = np.concatenate([luma, np.full((50, 120), 128, np.uint8)])
    assert np.array_equal(sharpener(luma, "gray"), sharpener(grey, "i420")[:100])


def test_a_graph_names_its_experts_for_colour(mixed: Routed, mixed_onnx: Path, tmp_path: Path) -> None:
    """An expert for luma leaves chroma alone, bit for bit."""
    _, path = favouring(mixed, mixed_onnx, 2, tmp_path)
    graph = load_graph(path)
    assert graph.coloured == ("all",)
    assert [graph.restores_chroma(choice) for choice in range(3)] == [False, True, False]
    frame = np.random.default_rng(2).integers(0, 256, (96, 64), np.uint8)
    out = Sharpener(path, "onnxruntime", 1)(frame, "i420")
    assert np.array_equal(out[64:], frame[64:])
    assert not np.array_equal(out[:64], frame[:64])


def test_the_students_output_is_differentiable_in_chroma(face: Frame) -> None:
    """Chroma's layers learn."""
    network = disturbed(COLOURED).train().requires_grad_()
    image = to_tensor(face[:100, :120])[None]
    loss: Tensor = chroma_gain_loss(network(image), image * 0.9, image, torch.tensor([0.0]), 0.01)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    assert network.chroma_stem is not None
    assert all(parameter.grad is not None for parameter in network.chroma_stem.parameters())


def test_colour_costs_its_two_layers(single_onnx: Path, tmp_path: Path) -> None:
    """A 3x3 layer on two planes at half resolution before, and two planes more after: at 4 channels 72 + 8 for each."""
    plain = tmp_path / "plain.onnx"
    export_onnx(disturbed(PLAIN), plain, 20)
    assert count_macs(single_onnx, 64, 96) - count_macs(plain, 64, 96) == 32 * 48 * (72 + 8)
