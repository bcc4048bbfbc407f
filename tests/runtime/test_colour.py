"""Chroma restored beside luma: what a network sees of it, what it adds, and what each runtime makes of it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
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
from clearcall.runtime.engines import compile_graph
from clearcall.runtime.graph import load_graph
from clearcall.training.losses.reconstruction import BT601, chroma_gain_loss

COLOURED, PLAIN = ({"channels": 4, "body_layers": 1, "expansion": 6, "colour": colour} for colour in (True, False))
_MOST_LEVELS = 2  # of rounding luma's and chroma's change apart, in 8-bit levels


def disturbed(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network whose layers all do something, in evaluation mode."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network.eval()


def single() -> LumaStrided:
    """Return a network that restores chroma too."""
    network = disturbed(build_model("students", "luma_strided", COLOURED))
    assert isinstance(network, LumaStrided)
    return network


def mixed(favourite: int) -> Routed:
    """Return an expert for all of a frame and one for luma alone, and a router that always picks one by its number."""
    network = disturbed(build_model("students", "routed", {"experts": {"all": COLOURED, "luma": PLAIN}}))
    assert isinstance(network, Routed)
    with torch.no_grad():
        network.router.last.bias[favourite] += 50
    return network


@pytest.fixture(scope="module")
def face(photos: dict[str, Frame]) -> Frame:
    """A face of odd sides."""
    return photos["astronaut"][60:161, 180:301]


def chroma_of(rgb: Frame) -> Frame:
    """Return Cb and Cr at half resolution by OpenCV alone, (2, rows, columns)."""
    means = cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(means, cv2.COLOR_RGB2YCrCb)[..., [2, 1]].transpose(2, 0, 1), np.uint8)


def test_chroma_is_opencvs(photos: dict[str, Frame]) -> None:
    """Level by level, so that training sees what the runtime will feed."""
    picture = photos["coffee"][:200, :300]
    levels = single().chroma(to_tensor(picture)[None])[0] * 255
    assert np.array_equal(levels.round().byte().numpy(), chroma_of(picture))


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
    picture = to_tensor(face[:100, :120])[None]
    network = disturbed(build_model("students", "luma_strided", PLAIN))
    loss = chroma_gain_loss(network(picture), picture * 0.9, picture, torch.tensor([0.0]), 0.01)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_colour_needs_features_of_the_resolution_of_chroma() -> None:
    """At stride 4 it has not."""
    with pytest.raises(UserError, match="colour needs the stride 2"):
        build_model("students", "luma_strided", COLOURED | {"stride": 4})


@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("choice", [None, 0, 1, 2])
def test_the_graph_restores_what_torch_does(choice: int | None, provider: str, face: Frame, tmp_path: Path) -> None:
    """A single network, the identity, and experts with and without colour, of one graph."""
    if provider == "openvino":
        pytest.importorskip("openvino")
    network = single() if choice is None else mixed(choice)
    export_onnx(network, tmp_path / "student.onnx", 20)
    sharpener = Sharpener(tmp_path / "student.onnx", provider, 1)  # type: ignore[arg-type]  # one of both
    expected = restore(network, face).astype(int)
    assert np.abs(expected - face).max() > 10 or choice == 0
    most = _MOST_LEVELS + (provider == "openvino")
    assert np.abs(sharpener(face) - expected).max() <= most
    assert np.array_equal(sharpener(face[..., ::-1], "bgr")[..., ::-1], sharpener(face))


@pytest.mark.parametrize("pixel_format", ["i420", "nv12"])
@pytest.mark.parametrize("sides", [(64, 96), (20, 24)])
def test_planes_get_what_the_graph_adds_to_each(
    sides: tuple[int, int], pixel_format: str, photos: dict[str, Frame], tmp_path: Path
) -> None:
    """Half of it at half the strength; small frames are continued by their last rows and columns."""
    path, (height, width) = tmp_path / "student.onnx", sides
    export_onnx(single(), path, 20)
    rgb = photos["coffee"][100 : 100 + height, 200 : 200 + width]
    luma, chroma = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), chroma_of(rgb)
    engine = compile_graph(load_graph(path), "onnxruntime", max(32, height), max(32, width), 1)
    for plane, given in (
        (engine.input[0, 0], luma),
        (engine.chroma[0, 0], chroma[0]),
        (engine.chroma[0, 1], chroma[1]),
    ):
        plane[:] = np.pad(
            given, [(0, big - small) for big, small in zip(plane.shape, given.shape, strict=True)], "edge"
        )
    engine.run()
    added = engine.output[0, 4:, : height // 2, : width // 2].astype(float) - 128
    assert np.abs(added).max() > 5
    interleaved = chroma.transpose(1, 2, 0) if pixel_format == "nv12" else chroma
    frame = np.concatenate([luma.reshape(-1), interleaved.reshape(-1)]).reshape(-1, width)
    for strength in (0.5, 1.0):
        sharpener = Sharpener(path, "onnxruntime", 1, strength)
        both = sharpener(frame, pixel_format)[height:].reshape(interleaved.shape)  # type: ignore[arg-type]  # one of both
        restored = both.transpose(2, 0, 1) if pixel_format == "nv12" else both
        expected = np.clip(np.round(chroma + strength * added), 0, 255)
        assert np.abs(restored - expected).max() <= (0 if strength == 1 else 1)
        in_place = frame.copy()
        sharpener(in_place, pixel_format, in_place)  # type: ignore[arg-type]  # one of both
        assert np.array_equal(in_place, sharpener(frame, pixel_format))  # type: ignore[arg-type]  # one of both


def test_luma_alone_is_sharpened_as_that_of_a_grey_frame(face: Frame, tmp_path: Path) -> None:
    """Whatever chroma the frame before had."""
    export_onnx(single(), tmp_path / "student.onnx", 20)
    sharpener = Sharpener(tmp_path / "student.onnx", "onnxruntime", 1)
    sharpener(face)
    luma = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.uint8)[:100, :120]
    grey = np.concatenate([luma, np.full((50, 120), 128, np.uint8)])
    assert np.array_equal(sharpener(luma, "gray"), sharpener(grey, "i420")[:100])


def test_a_graph_names_its_experts_for_colour(tmp_path: Path) -> None:
    """An expert for luma leaves chroma alone, bit for bit."""
    export_onnx(mixed(2), tmp_path / "student.onnx", 20)
    graph = load_graph(tmp_path / "student.onnx")
    assert graph.coloured == ("all",)
    assert [graph.restores_chroma(choice) for choice in range(3)] == [False, True, False]
    frame = np.random.default_rng(2).integers(0, 256, (96, 64), np.uint8)
    out = Sharpener(tmp_path / "student.onnx", "onnxruntime", 1)(frame, "i420")
    assert np.array_equal(out[64:], frame[64:])
    assert not np.array_equal(out[:64], frame[:64])


def test_the_students_output_is_differentiable_in_chroma(face: Frame) -> None:
    """Chroma's layers learn."""
    network = single().train()
    picture = to_tensor(face[:100, :120])[None]
    loss: Tensor = chroma_gain_loss(network(picture), picture * 0.9, picture, torch.tensor([0.0]), 0.01)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    assert network.chroma_stem is not None
    assert all(parameter.grad is not None for parameter in network.chroma_stem.parameters())


def test_colour_costs_its_two_layers(tmp_path: Path) -> None:
    """A 3x3 layer on two planes at half resolution before, and two planes more after: at 4 channels 72 + 8 for each."""
    for name, arguments in (("coloured", COLOURED), ("plain", PLAIN)):
        export_onnx(disturbed(build_model("students", "luma_strided", arguments)), tmp_path / f"{name}.onnx", 20)
    costs = [count_macs(tmp_path / f"{name}.onnx", 64, 96) for name in ("coloured", "plain")]
    assert costs[0] - costs[1] == 32 * 48 * (72 + 8)
