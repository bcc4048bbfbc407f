"""Exported graphs against torch at many sizes, the runtime's refusals, and how speed is summed up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from clearcall.deploy import benchmark
from clearcall.deploy.benchmark import make_frames, measure_latency, measure_peak_memory_mib, measure_throughput
from clearcall.deploy.session import KIND_KEY, STRIDE_KEY, Session
from clearcall.errors import UserError
from clearcall.params import BenchmarkFps, Params

if TYPE_CHECKING:
    from torch import nn

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
    session = Session(path)
    for height, width in SIZES:
        for picture in (frame(height, width), np.tile(photos["chelsea"], (1, 2, 1))[:height, :width]):
            restored, expected = session(picture), restore(model, picture)
            assert restored.shape == picture.shape
            assert restored.dtype == np.uint8
            assert np.abs(restored.astype(np.int16) - expected).max() <= 1
    assert (expected != picture).mean() > 0.1  # the network does something


def test_parity_says_how_far_apart_they_are(exported: "tuple[nn.Module, Path]", tmp_path: Path) -> None:
    from clearcall.deploy.export import check_parity

    model, path = exported
    copied = tmp_path / "model.onnx"
    copied.write_bytes(path.read_bytes())
    assert check_parity(model, copied, [frame(20, 30), frame(17, 31)], 1) in (0, 1)
    assert copied.exists()


def test_a_graph_of_another_network_fails_parity_and_is_removed(
    student_onnx: "tuple[nn.Module, Path]", teacher_onnx: "tuple[nn.Module, Path]", tmp_path: Path
) -> None:
    from clearcall.deploy.export import check_parity

    copied = tmp_path / "model.onnx"
    copied.write_bytes(teacher_onnx[1].read_bytes())
    with pytest.raises(UserError, match=r"differs from torch by \d+ grey levels.*max_difference = 1"):
        check_parity(student_onnx[0], copied, [frame(64, 64)], 1)
    assert not copied.exists()


def test_the_graph_is_self_contained_and_of_dynamic_size(exported: "tuple[nn.Module, Path]") -> None:
    _, path = exported
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    luma = path.name == "student.onnx"
    assert metadata == {KIND_KEY: "luma" if luma else "rgb", STRIDE_KEY: "2"}
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        sizes = [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        assert sizes == ([1, 1, "height", "width"] if luma else [1, "height", "width", 3])
    assert [opset.version for opset in model.opset_import if not opset.domain] == [20]


def test_the_graph_tells_nothing_of_the_machine_that_made_it(exported: "tuple[nn.Module, Path]") -> None:
    """torch notes stack traces at the nodes, with paths and source lines: a hash of them is one of the checkout too."""
    content = exported[1].read_bytes()
    for trace in (str(Path(__file__).parents[1]), "site-packages", 'File "', "stack_trace"):
        assert trace.encode() not in content


def test_exporting_twice_gives_the_same_bytes(student_onnx: "tuple[nn.Module, Path]", tmp_path: Path) -> None:
    """DVC stops where an output has not changed."""
    from clearcall.deploy.export import export_onnx

    model, path = student_onnx
    export_onnx(model, tmp_path / "again.onnx", 20)
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["students", "teachers"])
def test_an_untrained_network_returns_the_frame_unchanged(kind: str, tmp_path: Path) -> None:
    from clearcall.deploy.export import export_onnx
    from clearcall.models import build_model

    model = (
        build_model("students", "luma_strided", {"channels": 2, "body_layers": 0})
        if kind == "students"
        else build_model("teachers", "unshuffle_resnet", {"channels": 2, "blocks": 1, "unshuffle": 2})
    )
    export_onnx(model.eval(), tmp_path / "model.onnx", 20)
    session = Session(tmp_path / "model.onnx", threads=1)

    @examples(max_examples=20)
    @given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 1000))
    def check(height: int, width: int, seed: int) -> None:
        picture = frame(height, width, seed)
        assert (session(picture) == picture).all()

    check()
    every_level = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (session(np.stack([every_level] * 3, axis=-1)) == every_level[..., None]).all()


def test_a_frame_that_is_a_view_gives_the_same(exported: "tuple[nn.Module, Path]") -> None:
    """Frames from OpenCV are often BGR views turned round."""
    session = Session(exported[1])
    for picture in (frame(20, 30)[..., ::-1], frame(21, 31)[::-1], frame(40, 60)[::2, ::3]):
        assert (session(picture) == session(np.ascontiguousarray(picture))).all()
        picture.flags.writeable = False
        session(picture)


def test_a_frame_is_not_changed_and_the_answer_is_ones_own(exported: "tuple[nn.Module, Path]") -> None:
    session, picture = Session(exported[1]), frame(21, 31)
    before = picture.copy()
    first = session(picture)
    kept = first.copy()
    session(frame(21, 31, seed=9))
    assert (picture == before).all()
    assert (first == kept).all()
    first[:] = 0  # writable


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((16, 16, 3), np.float32),
        np.zeros((16, 16, 3), np.uint16),
        np.zeros((16, 16), np.uint8),
        np.zeros((16, 16, 4), np.uint8),
        np.zeros((3, 16, 16), np.uint8),
        np.zeros((1, 16, 16, 3), np.uint8),
        np.zeros((0, 16, 3), np.uint8),
        np.zeros((16, 0, 3), np.uint8),
    ],
    ids=lambda wrong: f"{wrong.dtype}{wrong.shape}",
)
def test_a_frame_of_the_wrong_form_is_refused_with_its_form(
    exported: "tuple[nn.Module, Path]", wrong: npt.NDArray[np.generic]
) -> None:
    with pytest.raises(UserError, match="8-bit RGB of shape") as caught:
        Session(exported[1])(wrong)  # type: ignore[arg-type]  # that is the point
    assert str(wrong.shape) in str(caught.value)
    assert str(wrong.dtype) in str(caught.value)


@pytest.mark.parametrize("content", [b"hello", b"", None, b"\x08" * 100])
def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx is not a network that clearcall exported"):
        Session(path)


def test_a_cut_graph_is_refused_by_name(student_onnx: "tuple[nn.Module, Path]", tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    content = student_onnx[1].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"model\.onnx is not a network"):
        Session(path)


@pytest.mark.parametrize("missing", [KIND_KEY, STRIDE_KEY])
def test_another_programs_graph_is_refused(
    student_onnx: "tuple[nn.Module, Path]", tmp_path: Path, missing: str
) -> None:
    model = onnx.load(student_onnx[1])
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != missing}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"foreign\.onnx is not a network that clearcall exported"):
        Session(tmp_path / "foreign.onnx")


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
        def restore(picture: Frame) -> Frame:
            calls.append((name, next(index for index, known in enumerate(frames) if known is picture)))
            return picture

        return restore

    latency = measure_latency({"a": contender("a"), "b": contender("b")}, frames, timing)
    warm_up = 3 + 2  # three to see how slow it is, two to warm up
    assert [name for name, _ in calls] == ["a"] * warm_up + ["b"] * warm_up + (["a"] * 4 + ["b"] * 4) * 3
    assert [index for _, index in calls[2 * warm_up :]] == [0, 1, 2, 0] * 6  # the frames go round
    for name in ("a", "b"):
        assert latency[name]["frames"] == 12
        assert latency[name]["blocks"] == 3


def test_a_slow_contender_is_timed_on_a_few_frames_only(timing: BenchmarkFps) -> None:
    import time

    calls = []

    def slow(picture: Frame) -> Frame:
        calls.append("slow")
        time.sleep(0.04)
        return picture

    latency = measure_latency({"fast": lambda picture: picture, "slow": slow}, [frame(4, 4)], timing)
    assert len(calls) == 3 + 2
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
    path = student_onnx[1]
    assert measure_throughput(path, [frame(32, 48)], in_flight=2, count=6) > 0
    memory = measure_peak_memory_mib(path, 64, 48, threads=1)
    assert 10 < memory < 4096


def test_memory_of_a_missing_graph_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.onnx"):
        measure_peak_memory_mib(tmp_path / "gone.onnx", 64, 48, threads=None)


def test_the_latency_can_be_written_as_json(timing: BenchmarkFps) -> None:
    latency = measure_latency({"same": lambda picture: picture}, [frame(4, 4)], timing)
    assert json.loads(json.dumps(latency, allow_nan=False)) == latency
