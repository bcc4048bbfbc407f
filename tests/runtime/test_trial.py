"""Trials of networks in real processes: crashes, wrong results, too large constants, and what is remembered."""

import importlib.metadata
import io
import json
import pickle
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from clearcall.core.errors import UserError
from clearcall.runtime import engines, trial
from clearcall.runtime.engines import answers, compile_graph, installed_providers
from clearcall.runtime.graph import KIND_KEY, STRIDE_KEY, Graph, load_graph
from clearcall.runtime.sharpener import Choice, Sharpener
from clearcall.runtime.trial import Precision, Verdict, settle, try_out

if TYPE_CHECKING:
    from torch import nn

Frame = npt.NDArray[np.uint8]
LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is bounded on Linux alone")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, as on a machine that never tried a network."""
    monkeypatch.setenv("CLEARCALL_CACHE", str(tmp_path / "cache"))
    forget(monkeypatch)
    monkeypatch.setattr(engines, "try_out", try_out)
    return tmp_path / "cache"


@pytest.fixture
def student(student_onnx: "tuple[nn.Module, Path]") -> Graph:
    """A small network that changes its frames."""
    return load_graph(student_onnx[1])


@pytest.fixture
def other(student: Graph) -> Graph:
    """The same network with other weights: what a processor gives that computes it wrongly."""
    model = onnx.load_from_string(student.onnx)
    for weights in model.graph.initializer:
        if len(weights.dims) == 4:
            weights.CopyFrom(numpy_helper.from_array(-3 * numpy_helper.to_array(weights), weights.name))
    return Graph("other.onnx", model.SerializeToString(), student.kind, student.stride)


def run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let trials run another program; it finds the modules `os`, `signal`, `time` and `trial`."""
    monkeypatch.setattr(
        trial, "_PROGRAM", ("-c", f"import os, signal, time\nfrom clearcall.runtime import trial\n{program}")
    )


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process knows, as a new one would."""
    monkeypatch.setattr(trial, "_known", {})


def verdicts(cache: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in (cache / "trials").glob("*")]


def text_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


def dies(after: str, by: str) -> str:
    """Return a program that comes as far as a trial that works, and is then ended by a signal."""
    return f"print(trial._STARTED, {after}, sep='\\n', flush=True)\nos.kill(os.getpid(), signal.{by})"


AFTER_ONNXRUNTIME, AFTER_START = "trial._RAN", "''"
FRAME = np.random.default_rng(0).integers(0, 256, (18, 30, 3), np.uint8)


# Results


def test_the_first_precision_that_is_close_enough_is_taken() -> None:
    expected = [np.array([10, 20], np.uint8), np.array([250, 0], np.uint8)]

    def off_by(levels: dict[Precision, int]) -> Verdict:
        def answer(precision: Precision) -> list[Frame]:
            return [expected[0], expected[1] - np.array([levels[precision], 0], np.uint8)]

        return settle(expected, answer, ("bf16", "f32"))

    assert off_by({"bf16": 1, "f32": 0}) == Verdict("", "bf16")
    assert off_by({"bf16": 3, "f32": 1}) == Verdict("", "f32")
    reason = "its results differ from onnxruntime's by 250 in bf16 and 3 in f32 8-bit levels"
    assert off_by({"bf16": 250, "f32": 3}) == Verdict("", None, reason)


def test_results_may_be_off_by_an_rms_of_one_and_a_half_and_by_sixteen_anywhere() -> None:
    """By hand: 100 of 10,000 sub-pixels that are off by 15 levels have an RMS of 1.5."""
    expected = [np.full((100, 100), 10, np.uint8)]

    def off_by(levels: int, sub_pixels: int) -> Verdict:
        answer = expected[0].copy()
        answer.reshape(-1)[:sub_pixels] += levels
        return settle(expected, lambda _: [answer], ("bf16",))

    assert off_by(levels=15, sub_pixels=100).precision == "bf16"
    assert off_by(levels=15, sub_pixels=101).precision is None
    assert off_by(levels=16, sub_pixels=1).precision == "bf16"
    assert off_by(levels=17, sub_pixels=1).precision is None


def test_a_really_wrong_graph_is_left_out_and_a_right_one_is_not(student: Graph, other: Graph) -> None:
    pytest.importorskip("openvino")
    size, frames = trial._size(student), trial._frames(student)
    expected = answers(student, "onnxruntime", *size, frames)

    def verdict(graphs: dict[Precision, Graph]) -> Verdict:
        return settle(
            expected,
            lambda precision: answers(graphs[precision], "openvino", *size, frames, precision),
            ("bf16", "f32"),
        )

    assert verdict({"bf16": student, "f32": other}).precision == "bf16"
    assert verdict({"bf16": other, "f32": student}).precision == "f32"
    assert verdict({"bf16": other, "f32": other}).precision is None


WRONG = """
from clearcall.runtime import engines
class Wrong(engines._Openvino):
    def __init__(self, graph, height, width, threads, precision):
        super().__init__(graph, height, width, threads, precision)
        self.wrong = precision in {wrong}
    def run(self, *choice):
        super().run(*choice)
        if self.wrong:
            self.output[:] = 255 - self.output
engines._Openvino = Wrong
engines.openvino_precisions = lambda: ("bf16", "f32")
trial.main()
"""


@pytest.mark.parametrize(
    ("wrong", "precision"), [([], "bf16"), (["bf16"], "f32"), (["bf16", "f32"], None)], ids=["none", "bf16", "both"]
)
def test_a_processor_that_computes_wrongly_is_found_in_a_trial(
    student: Graph, wrong: list[str], precision: str | None, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    run_instead(monkeypatch, WRONG.replace("{wrong}", str(wrong)))
    assert try_out(student).precision == precision
    (kept,) = verdicts(cache_folder)
    assert kept["precision"] == precision


def test_openvino_computes_in_the_precision_of_the_verdict(
    student: Graph, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    run_instead(monkeypatch, WRONG.replace("{wrong}", "['bf16']"))
    engine = compile_graph(student, "openvino", 16, 16, 1)
    compiled = engine._expert(0).get_compiled_model()  # type: ignore[attr-defined]  # openvino's
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


# Crashes


@pytest.mark.parametrize("by", ["SIGFPE", "SIGILL", "SIGSEGV"])
def test_where_openvino_ends_its_process_auto_goes_on_without_it_and_says_so_once(
    student_onnx: "tuple[nn.Module, Path]",
    by: str,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("openvino")
    run_instead(monkeypatch, dies(AFTER_ONNXRUNTIME, by))
    sharpen = Sharpener(student_onnx[1], threads=1)
    expected = Sharpener(student_onnx[1], "onnxruntime", threads=1)(FRAME)
    assert (sharpen(FRAME) == expected).all()
    sharpen(FRAME[:8])  # another size
    assert sharpen.choice == Choice("onnxruntime", 1, {})
    line = f"openvino cannot be used for student.onnx: its trial ended by {by}"
    assert capfd.readouterr().err == f"warning: {line}: the frames go to onnxruntime\n"
    assert text_of(lambda: Sharpener(student_onnx[1], "openvino", threads=1)(FRAME)) == line
    (kept,) = verdicts(cache_folder)
    assert kept == {"problem": "", "precision": None, "reason": f"its trial ended by {by}"}


def test_a_network_that_ends_onnxruntimes_process_is_refused(
    student_onnx: "tuple[nn.Module, Path]", monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_instead(monkeypatch, dies(AFTER_START, "SIGSEGV"))
    for provider in ("auto", *installed_providers()):
        sharpen = Sharpener(student_onnx[1], provider)  # type: ignore[arg-type]  # one of them
        assert text_of(lambda: sharpen(FRAME)) == "student.onnx cannot be used: its trial ended by SIGSEGV"  # noqa: B023  # called at once
    assert capfd.readouterr().err == ""


def test_a_trial_that_takes_too_long_is_ended_and_not_remembered(
    student: Graph, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_TIMEOUT_S", 2.0)
    run_instead(monkeypatch, "print(trial._STARTED, flush=True)\ntime.sleep(60)")
    assert try_out(student) == Verdict("its trial took more than 2 s", None)
    assert not cache_folder.exists()


@pytest.mark.parametrize("program", ["", "raise ImportError('no clearcall')", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_where_no_trial_can_be_made_onnxruntime_goes_on_alone(
    student: Graph, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    run_instead(monkeypatch, program)
    verdict = try_out(student)
    assert (verdict.problem, verdict.precision) == ("", None)
    assert not cache_folder.exists()


def test_without_a_python_to_start_onnxruntime_goes_on_alone(student: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    verdict = try_out(student)
    assert (verdict.problem, verdict.precision) == ("", None)
    assert "could not be started" in verdict.reason


def test_nothing_of_the_current_folder_is_imported(
    student: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "json", "onnxruntime", "cv2"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert not try_out(student).problem
    assert verdicts(tmp_path / "cache")


# What is remembered


def test_a_network_is_tried_once_on_a_machine(
    student: Graph, other: Graph, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = try_out(student)
    assert not verdict.problem
    run_instead(monkeypatch, dies(AFTER_START, "SIGSEGV"))  # none is run from now on
    forget(monkeypatch)
    assert try_out(student) == verdict
    assert try_out(other).problem  # a network of its own
    assert len(verdicts(cache_folder)) == 2


@pytest.mark.parametrize("changed", ["machine", "onnxruntime", "openvino", "clearcall", "instructions"])
def test_another_machine_or_version_tries_anew(
    student: Graph, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(trial, "_run_trial", lambda _graph: (Verdict("", None), True))
    real = importlib.metadata.version
    trial._machine.cache_clear()
    try_out(student)
    if changed == "machine":
        monkeypatch.setattr(trial, "machine_id", lambda: "another")
    elif changed == "instructions":
        monkeypatch.setattr(trial, "processor", lambda: ("", "sse2"))
    elif changed == "clearcall":
        monkeypatch.setattr(trial, "__version__", "another")
    else:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "another" if name == changed else real(name))
    trial._machine.cache_clear()
    try:
        try_out(student)
    finally:
        trial._machine.cache_clear()
    assert len(verdicts(cache_folder)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"problem": "", "precision": "fp4"}',
        b'{"problem": 1, "precision": null}',
        b'{"problem": "", "precision": ["bf16"]}',
        b'{"problem": "", "precision": null, "more": 1}',
    ],
)
def test_a_corrupt_verdict_is_replaced(
    student: Graph, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    verdict = Verdict("", None, "its trial ended by SIGFPE")
    monkeypatch.setattr(trial, "_run_trial", lambda _graph: (verdict, True))
    assert try_out(student) == verdict
    (path,) = (cache_folder / "trials").iterdir()
    path.write_bytes(content)
    forget(monkeypatch)
    assert try_out(student) == verdict
    assert Verdict(**json.loads(path.read_text(encoding="utf-8"))) == verdict
    assert [*path.parent.iterdir()] == [path]


def test_a_cache_that_cannot_be_written_costs_only_time(
    student: Graph, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_folder.write_text("a file where a folder should be")
    run_instead(monkeypatch, dies(AFTER_ONNXRUNTIME, "SIGFPE"))
    verdict = try_out(student)
    run_instead(monkeypatch, dies(AFTER_START, "SIGFPE"))
    assert try_out(student) is verdict  # known to this process


# Crafted networks


def crafted(folder: Path, nodes: list[NodeProto], **changes: Any) -> Path:
    """Write a network `luma` (8-bit) to `sub_pixels` of these nodes, some parts of it exchanged."""
    constants = changes.pop("constants", {})
    luma = ("luma", TensorProto.UINT8, (1, 1, "height", "width"))
    parts = {"inputs": [luma], "outputs": [("sub_pixels", *luma[1:])]} | changes
    graph = helper.make_graph(
        nodes,
        "crafted",
        [helper.make_tensor_value_info(*value) for value in parts["inputs"]],
        [helper.make_tensor_value_info(*value) for value in parts["outputs"]],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {KIND_KEY: "luma", STRIDE_KEY: "1"})
    path = folder / "crafted.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


def adding(nodes: list[NodeProto]) -> list[NodeProto]:
    """Return nodes that add the largest number of `big` to the frame."""
    return [
        *nodes,
        node("ReduceMax", ["big"], "largest", keepdims=0),
        node("Cast", ["largest"], "level", to=TensorProto.UINT8),
        node("Add", ["luma", "level"], "sub_pixels"),
    ]


COLUMN = np.ones((50_000, 1), np.float32)
BOMBS: dict[str, tuple[list[NodeProto], dict[str, npt.NDArray[Any]]]] = {
    "ConstantOfShape": ([node("ConstantOfShape", ["shape"], "big")], {"shape": np.array([2**32])}),
    "Expand": ([node("Expand", ["one", "shape"], "big")], {"one": COLUMN[:1, 0], "shape": np.array([2**31])}),
    "Tile": ([node("Tile", ["row", "times"], "big")], {"row": COLUMN[:, 0], "times": np.array([50_000])}),
    "broadcasting": ([node("Add", ["row", "column"], "big")], {"row": COLUMN.T.copy(), "column": COLUMN}),
    "several": (
        [
            *(node("ConstantOfShape", ["shape"], f"part{index}") for index in range(6)),
            node("Concat", [f"part{index}" for index in range(6)], "big", axis=0),
        ],
        {"shape": np.array([2**26])},
    ),
}


@LINUX
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_of_gigabytes_is_refused_before_it_is_run_here(bomb: str, tmp_path: Path) -> None:
    import resource

    nodes, constants = BOMBS[bomb]
    path = crafted(tmp_path, adding(nodes), constants=constants)
    assert path.stat().st_size < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = text_of(lambda: Sharpener(path, threads=1)(FRAME))
    assert text.startswith("crafted.onnx cannot be used: onnxruntime cannot run it: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10


@pytest.mark.parametrize(
    ("nodes", "changes"),
    [
        ([node("Foo", ["luma"], "sub_pixels", domain="custom")], {}),
        ([node("Cast", ["luma"], "sub_pixels", to=TensorProto.FLOAT)], {"outputs": [("sub_pixels", 1, None)]}),
        ([node("Concat", ["luma", "luma"], "sub_pixels", axis=2)], {"outputs": [("sub_pixels", 2, None)]}),
        ([node("Flatten", ["luma"], "sub_pixels")], {"outputs": [("sub_pixels", 2, (1, "pixels"))]}),
        ([node("Cast", ["luma"], "sub_pixels", to=TensorProto.STRING)], {"outputs": [("sub_pixels", 8, None)]}),
        ([node("Constant", [], "sub_pixels", value_ints=[1])], {"inputs": [], "outputs": [("sub_pixels", 7, (1,))]}),
        (
            [node("Add", ["luma", "more"], "sub_pixels")],
            {"inputs": [(name, 2, (1, 1, "height", "width")) for name in ("luma", "more")]},
        ),
        ([node("Identity", ["luma"], "sub_pixels")], {"inputs": [("luma", 2, (1, 1, 64, 64))]}),
        ([node("Identity", ["gone"], "sub_pixels")], {}),
        ([], {"outputs": []}),
    ],
    ids=["custom", "float", "size", "rank", "text", "no input", "two inputs", "fixed size", "open", "empty"],
)
def test_a_graph_of_another_form_is_refused_in_one_line(
    nodes: list[NodeProto], changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trials run here: a process for each takes seconds."""

    def run_here(graph: Graph) -> tuple[Verdict, bool]:
        out = io.StringIO()
        with redirect_stdout(out), mock.patch.object(sys, "stdin", mock.Mock(buffer=io.BytesIO(pickle.dumps(graph)))):
            trial.main()
        return Verdict(**json.loads(out.getvalue().splitlines()[-1])), False

    for bound in ("_bound_memory", "end_with_parent"):
        monkeypatch.setattr(trial, bound, lambda *_: None)
    monkeypatch.setattr(trial, "_run_trial", run_here)
    path = crafted(tmp_path, nodes, **changes)
    for provider in ("auto", *installed_providers()):
        sharpen = Sharpener(path, provider, threads=1)  # type: ignore[arg-type]  # one of them
        text = text_of(lambda: sharpen(FRAME))  # noqa: B023  # called at once
        assert text.startswith("crafted.onnx cannot be used: onnxruntime cannot run it: ")


def test_a_graph_that_fails_at_some_sizes_alone_says_so_in_one_line(tmp_path: Path) -> None:
    nodes = [  # a frame is padded to 32 pixels, which have no row 40
        node("Gather", ["luma", "forty"], "row", axis=2),
        node("Max", ["luma", "row"], "sub_pixels"),
    ]
    path = crafted(tmp_path, nodes, constants={"forty": np.array([40])})
    sharpen, large, small = Sharpener(path, "onnxruntime", 1), np.zeros((64, 64), np.uint8), np.zeros((9, 10), np.uint8)
    sharpen(large, "gray")
    text = text_of(lambda: sharpen(small, "gray"))
    assert "crafted.onnx" in text and "10x9" in text
