"""Exported graphs against torch at many sizes, files that are no graph, and how speed is summed up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearcall.core.errors import UserError
from clearcall.evaluation import speed as benchmark
from clearcall.evaluation.speed import make_frames, measure_latency, measure_peak_memory_mib, measure_throughput
from clearcall.params import BenchmarkFps, Params
from clearcall.runtime.graph import KIND_KEY, STRIDE_KEY, load_graph
from clearcall.runtime.sharpener import Choice, Sharpener

if TYPE_CHECKING:
    from torch import nn

    from clearcall.models.build import Kind

Frame = npt.NDArray[np.uint8]
SIZES = [(1, 1), (1, 2), (2, 1), (2, 2), (17, 31), (64, 64), (3, 500), (127, 241), (270, 480)]


def frame(height: int, width: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(params=["student_onnx", "teacher_onnx"])
def exported(request: pytest.FixtureRequest) -> "tuple[nn.Module, Path]":
    """Each of the two kinds of graph."""
    both: tuple[nn.Module, Path] = request.getfixturevalue(request.param)
    return both


def test_the_graph_equals_torch_at_any_size(exported: "tuple[nn.Module, Path]", photos: dict[str, Frame]) -> None:
    from clearcall.models.inference import restore

    model, path = exported
    sharpen = Sharpener(path, provider="onnxruntime")
    for height, width in SIZES:
        for image in (frame(height, width), np.tile(photos["chelsea"], (1, 2, 1))[:height, :width]):
            restored, expected = sharpen(image), restore(model, image)
            assert restored.shape == image.shape
            assert restored.dtype == np.uint8
            assert np.abs(restored.astype(np.int16) - expected).max() <= 1
    assert (expected != image).mean() > 0.1  # the network does something


def test_parity_says_how_far_apart_they_are(exported: "tuple[nn.Module, Path]", tmp_path: Path) -> None:
    from clearcall.models.export import check_parity

    model, path = exported
    copied = tmp_path / "model.onnx"
    copied.write_bytes(path.read_bytes())
    assert check_parity(model, copied, [frame(20, 30), frame(17, 31)], 1) in (0, 1)
    assert copied.exists()


def test_a_graph_of_another_network_fails_parity_and_is_removed(
    student_onnx: "tuple[nn.Module, Path]", teacher_onnx: "tuple[nn.Module, Path]", tmp_path: Path
) -> None:
    from clearcall.models.export import check_parity

    copied = tmp_path / "model.onnx"
    copied.write_bytes(teacher_onnx[1].read_bytes())
    with pytest.raises(UserError, match=r"differs from torch by \d+ 8-bit levels.*max_difference = 1"):
        check_parity(student_onnx[0], copied, [frame(64, 64)], 1)
    assert not copied.exists()


SWINIR = {"channels": 4, "blocks": 1, "layers": 2, "heads": 1, "window": 4, "upsampler": "pixelshuffledirect"}


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "stride"),
    [("students", "dncnn_student", {"channels": 4}, 1), ("teachers", "swinir", SWINIR, 8)],
)
def test_networks_of_rgb_are_exported_with_nothing_left_of_training(
    kind: "Kind", name: str, arguments: dict[str, Any], stride: int, tmp_path: Path, photos: dict[str, Frame]
) -> None:
    import torch

    from clearcall.models.build import build_model
    from clearcall.models.export import check_parity, export_onnx

    torch.manual_seed(0)
    model = build_model(kind, name, arguments).eval()
    with torch.no_grad():
        for value in [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]:
            value.add_(0.05 * torch.rand_like(value))
    path = tmp_path / f"{name}.onnx"
    export_onnx(model, path, 20)
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(path).graph.node)
    assert (load_graph(path).kind, load_graph(path).stride) == ("rgb", stride)
    frames = [photos["coffee"][:height, :width] for height, width in SIZES[:-1]]
    assert check_parity(model, path, frames, 1) <= 1
    sharpen = Sharpener(path, provider="onnxruntime")
    image = np.ascontiguousarray(frames[-1])
    assert (sharpen(image) != image).mean() > 0.1
    assert (sharpen(image[..., ::-1], "bgr")[..., ::-1] == sharpen(image)).all()


def test_the_graph_is_self_contained_and_of_dynamic_size(exported: "tuple[nn.Module, Path]") -> None:
    _, path = exported
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    luma = path.name == "student.onnx"
    assert metadata == {KIND_KEY: "luma" if luma else "rgb", STRIDE_KEY: "2"}
    values = [*model.graph.input, *model.graph.output]
    assert [value.type.tensor_type.elem_type for value in values] == [onnx.TensorProto.UINT8] * 2
    sizes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim] for value in values
    }
    assert sizes == (
        {"luma": [1, 1, "height", "width"], "sub_pixels": [1, 4, "rows", "columns"]}
        if luma
        else {"frame": [1, "height", "width", 3], "restored": [1, "height", "width", 3]}
    )
    assert not any(node.op_type == "DepthToSpace" for node in model.graph.node) or not luma  # the sharpener shuffles
    assert [opset.version for opset in model.opset_import if not opset.domain] == [20]


def test_the_graph_tells_nothing_of_the_machine_that_made_it(exported: "tuple[nn.Module, Path]") -> None:
    """torch notes stack traces at the nodes, with paths and source lines: a hash of them is one of the checkout too."""
    content = exported[1].read_bytes()
    for trace in (str(Path(__file__).parents[2]), "site-packages", 'File "', "stack_trace"):
        assert trace.encode() not in content


def test_exporting_twice_gives_the_same_bytes(student_onnx: "tuple[nn.Module, Path]", tmp_path: Path) -> None:
    """DVC stops where an output has not changed."""
    from clearcall.models.export import export_onnx

    model, path = student_onnx
    export_onnx(model, tmp_path / "again.onnx", 20)
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_graph_is_loaded_with_what_its_metadata_says(exported: "tuple[nn.Module, Path]") -> None:
    _, path = exported
    graph = load_graph(path)
    assert (graph.name, graph.kind, graph.stride) == (path.name, "luma" if path.name == "student.onnx" else "rgb", 2)
    assert graph.onnx == path.read_bytes()
    luma, colour = ((1, 1, 8, 12), (1, 4, 4, 6)), ((1, 8, 12, 3), (1, 8, 12, 3))
    assert graph.shapes(8, 12) == (luma if graph.kind == "luma" else colour)


@pytest.mark.parametrize("content", [b"hello", b"", b"\x08" * 100])
def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx is not a network that clearcall exported"):
        Sharpener(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "model.onnx", tmp_path):
        with pytest.raises(UserError, match=f"there is no model file {path}$"):
            load_graph(path)
        with pytest.raises(
            UserError, match=r"there is no model '.*': give one of|is a folder: name the ONNX file in it"
        ):
            Sharpener(path)


def test_a_file_too_large_for_a_network_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # sparse: it takes no room on the disk
    with pytest.raises(UserError, match=r"model\.onnx is larger than 1 GiB"):
        Sharpener(path)


def test_a_cut_graph_is_refused_by_name(student_onnx: "tuple[nn.Module, Path]", tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    content = student_onnx[1].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"model\.onnx is not a network"):
        Sharpener(path)


@pytest.mark.parametrize(
    "changes",
    [
        {KIND_KEY: None},
        {STRIDE_KEY: None},
        {KIND_KEY: "audio"},
        {STRIDE_KEY: "0"},
        {STRIDE_KEY: "-2"},
        {STRIDE_KEY: "two"},
        {STRIDE_KEY: ""},
        {STRIDE_KEY: "3"},  # of which 32, a luma frame's smallest side, is no multiple
        {STRIDE_KEY: "64"},
        {STRIDE_KEY: str(2**40)},
        {STRIDE_KEY: "9" * 10_000},
        {STRIDE_KEY: "\u0662"},  # 2 in Arabic
        {KIND_KEY: "rgb", STRIDE_KEY: "65"},
        {KIND_KEY: "a\n\x1b[31m" * 1000},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_another_programs_graph_is_refused(
    student_onnx: "tuple[nn.Module, Path]", tmp_path: Path, changes: dict[str, str | None]
) -> None:
    model = onnx.load(student_onnx[1])
    metadata = {entry.key: entry.value for entry in model.metadata_props} | changes
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in metadata.items() if value is not None})
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"foreign\.onnx is not a network that clearcall exported") as caught:
        Sharpener(tmp_path / "foreign.onnx")
    text = str(caught.value)
    assert text.isprintable() and len(text) < 1000


# Speed


def settings(committed: BenchmarkFps, **changes: float) -> BenchmarkFps:
    return BenchmarkFps.model_validate(committed.model_dump() | changes)


@pytest.fixture
def timing(committed: Params) -> BenchmarkFps:
    """Twelve frames in three blocks."""
    return settings(committed.benchmark_fps, frames=12, blocks=3, warmup_frames=2, slow_ms=30, slow_frames=2)


def test_the_summary_by_hand() -> None:
    """Block medians 10, 20 and 12: their median is 12 ms, 1000 / 12 = 83.33 frames a second.

    Of the nine sorted times (9 ... 20, 90) the 95th percentile lies 0.6 of the way from the eighth to the ninth.
    """
    summary = benchmark._summary([[9, 10, 11], [20, 20, 90], [12, 13, 11]])
    assert summary == {
        "median_ms": 12.0,
        "p95_ms": 62.0,
        "fps": 83.33,
        "block_median_ms_range": [10.0, 20.0],
        "frames": 9,
        "blocks": 3,
    }


@given(st.lists(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=6), min_size=1, max_size=6))
def test_the_summary_keeps_its_order(blocks: list[list[float]]) -> None:
    summary = benchmark._summary(blocks)
    low, high = summary["block_median_ms_range"]
    assert low <= summary["median_ms"] <= high
    assert summary["p95_ms"] <= round(max(max(block) for block in blocks), 3)
    assert summary["frames"] == sum(len(block) for block in blocks)


def test_contenders_take_turns_block_by_block(timing: BenchmarkFps) -> None:
    calls: list[tuple[str, int]] = []
    frames = [frame(4, 4, seed) for seed in range(3)]

    def contender(name: str) -> Callable[[Frame], Frame]:
        def restore(image: Frame) -> Frame:
            calls.append((name, next(index for index, known in enumerate(frames) if known is image)))
            return image

        return restore

    latency = measure_latency({"a": contender("a"), "b": contender("b")}, frames, timing)
    warm_up = 2 + 2  # two to see how slow it is, two to warm up
    assert [name for name, _ in calls] == ["a"] * warm_up + ["b"] * warm_up + (["a"] * 4 + ["b"] * 4) * 3
    assert [index for _, index in calls[2 * warm_up :]] == [0, 1, 2, 0] * 6  # the frames go round
    for name in ("a", "b"):
        assert latency[name]["frames"] == 12
        assert latency[name]["blocks"] == 3


def test_a_slow_contender_is_timed_on_a_few_frames_only(timing: BenchmarkFps) -> None:
    import time

    calls = []

    def slow(image: Frame) -> Frame:
        calls.append("slow")
        time.sleep(0.04)
        return image

    latency = measure_latency({"fast": lambda image: image, "slow": slow}, [frame(4, 4)], timing)
    assert len(calls) == 1 + 2  # the first one warms up
    assert (latency["slow"]["frames"], latency["slow"]["blocks"]) == (2, 2)
    assert latency["slow"]["median_ms"] >= 40
    assert latency["slow"]["fps"] <= 25
    assert latency["fast"]["frames"] == 12


@pytest.mark.parametrize(("width", "height"), [(192, 108), (33, 47), (640, 16)])
@pytest.mark.parametrize("size", [(48, 64), (200, 100), (16, 16)])
def test_frames_have_the_size_and_differ(width: int, height: int, size: tuple[int, int]) -> None:
    frames = make_frames(frame(*size), width, height)
    assert len(frames) > 1
    for one in frames:
        assert one.shape == (height, width, 3)
        assert one.dtype == np.uint8
        assert one.flags.c_contiguous
    assert len({one.tobytes() for one in frames}) == len(frames)


def test_throughput_and_memory_are_measured_on_the_real_graph(student_onnx: "tuple[nn.Module, Path]") -> None:
    sharpener = Sharpener(student_onnx[1], provider="onnxruntime", threads=1)
    assert measure_throughput(sharpener, [frame(32, 48)], in_flight=2, count=6) > 0
    memory = measure_peak_memory_mib(student_onnx[1], 64, 48, Choice("onnxruntime", 1, {}))
    assert 10 < memory < 4096


def test_memory_of_a_missing_graph_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.onnx"):
        measure_peak_memory_mib(tmp_path / "gone.onnx", 64, 48, Choice("onnxruntime", 1, {}))


def test_the_latency_can_be_written_as_json(timing: BenchmarkFps) -> None:
    latency = measure_latency({"same": lambda image: image}, [frame(4, 4)], timing)
    assert json.loads(json.dumps(latency, allow_nan=False)) == latency
