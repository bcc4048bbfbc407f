"""Exported graphs on the runtimes that are installed, compiled for one frame size, with fixed input and output buffers.

A graph is a luma network (`luma` uint8 (1, 1, H, W) to `sub_pixels` uint8 (1, stride^2, H / stride, W / stride)) or an
RGB network (`frame` uint8 (1, H, W, 3) to `restored` of the same form); H and W are multiples of `stride` and, for a
luma network, at least `SMALLEST_SIDE`. A luma network may take chroma, too, and may consist of experts: it then takes
the number of one beside the frame, and gives the router's `scores` (see `clearcall.deploy.export`).
"""

import importlib.util
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from clearcall.colour import CHROMA_PLANES, NEUTRAL
from clearcall.deploy.lanes import fill_lanes, has_wide_lanes
from clearcall.deploy.onnx_file import read_metadata
from clearcall.deploy.trial import Precision, try_out
from clearcall.errors import UserError
from clearcall.metrics import Frame

Kind = Literal["luma", "rgb"]
Provider = Literal["onnxruntime", "openvino"]
Scores = npt.NDArray[np.float32]
IDENTITY = 0  # in place of an expert's number
KIND_KEY, STRIDE_KEY = "clearcall.kind", "clearcall.stride"
EXPERTS_KEY, CODED_KEY, COLOURED_KEY = "clearcall.experts", "clearcall.coded", "clearcall.coloured"
ITSELF = "itself"  # names a single network under COLOURED_KEY
# Of a luma network's frame: the router's filters have as many taps. A multiple of all strides.
SMALLEST_SIDE = 32
NOTHING_TO_ADD = 128  # in `sub_pixels`
_MAX_STRIDE = 64  # of an RGB network; a luma network's divides SMALLEST_SIDE
_MAX_EXPERTS = 256
_KEPT_EXPERTS = 3  # compiled by OpenVINO for one frame size, each with buffers of its own
_MAX_MODEL_BYTES = 2**30
_SHORT = 300  # characters of a runtime's message or of a value
_CPU = "CPUExecutionProvider"
# onnxruntime's errors have no common base of their own.
_ORT_ERRORS = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(getattr(ort.capi.onnxruntime_pybind11_state, name) for name in _ORT_ERRORS),
    RuntimeError,
    LookupError,
    MemoryError,
    ValueError,
)


@dataclass(frozen=True)
class Graph:
    """An exported network: its bytes as ONNX, and what its metadata says of it."""

    name: str
    onnx: bytes
    kind: Kind
    stride: int
    choices: tuple[str, ...] = ()  # of the router: the identity and each expert; none for a single network
    coded: tuple[str, ...] = ()  # of these, the experts that have learnt from what encoders leave of a frame
    coloured: tuple[str, ...] = ()  # of these, the experts that restore chroma too; ITSELF, if a single network does

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of input and output for a frame whose sides are multiples of the stride."""
        if self.kind == "rgb":
            return (1, height, width, 3), (1, height, width, 3)
        planes = self.stride**2 + (CHROMA_PLANES if self.coloured else 0)
        return (1, 1, height, width), (1, planes, height // self.stride, width // self.stride)

    def restores_chroma(self, choice: int) -> bool:
        """Return whether a choice by its number, or a single network, restores chroma too."""
        return (self.choices[choice] if self.choices else ITSELF) in self.coloured


class Engine(Protocol):
    """A graph compiled for one frame size: fill `input`, call `run`, read `output`; both stay where they are.

    `chroma`, uint8 (1, 2, rows, columns), is a second input where the graph restores it, and empty where not. `scores`,
    float32 (choices,), are the router's of the last run in which it took part; none for a single network.
    """

    input: Frame
    chroma: Frame
    output: Frame
    scores: Scores

    def run(self, choice: int = IDENTITY) -> None:
        """Compute `output` from the inputs, of a graph with experts by the number of a choice.

        IDENTITY only scores the frame, and its output adds nothing. A single network takes any number.
        """
        ...


def installed_providers() -> list[Provider]:
    """Return the runtimes that can be imported here; onnxruntime is always one of them."""
    return [name for name in get_args(Provider) if importlib.util.find_spec(name) is not None]


def load_graph(path: Path) -> Graph:
    """Read an exported network; raise UserError if the file is not one."""
    try:
        if path.stat().st_size > _MAX_MODEL_BYTES:
            raise UserError(f"{path} is larger than 1 GiB: that is no network of clearcall's")
        onnx = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"there is no model file {path}") from None
    try:
        metadata = read_metadata(onnx)
    except ValueError as error:
        raise UserError(f"{path} is not a network that clearcall exported: {error}") from None
    kind, stride = metadata.get(KIND_KEY, ""), metadata.get(STRIDE_KEY, "")
    if kind not in get_args(Kind) or not _is_stride(stride, kind):
        raise UserError(
            f"{path} is not a network that clearcall exported: its metadata says {KIND_KEY} = {shorten(kind)!r}, "
            f"{STRIDE_KEY} = {shorten(stride)!r}"
        )
    choices, coded, coloured = (
        _names(path, key, metadata.get(key, "")) for key in (EXPERTS_KEY, CODED_KEY, COLOURED_KEY)
    )
    return Graph(path.name, onnx, cast(Kind, kind), int(stride), choices, coded, coloured)


def _names(path: Path, key: str, text: str) -> tuple[str, ...]:
    """Return the names that an entry of a graph's metadata lists."""
    try:
        names = json.loads(text) if text else []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > _MAX_EXPERTS:
            raise ValueError("no list of at most 256 names")  # noqa: TRY301  # the same message as for other damage
    except ValueError as error:
        raise UserError(
            f"{path} is not a network that clearcall exported: its metadata says {key} = {shorten(text)!r} ({error})"
        ) from None
    return tuple(names)


def _is_stride(text: str, kind: str) -> bool:
    known = [stride for stride in range(1, _MAX_STRIDE + 1) if kind == "rgb" or SMALLEST_SIDE % stride == 0]
    return text in map(str, known)


def shorten(said: object) -> str:
    """Return a runtime's message as one short line."""
    line = " ".join(str(said).split())
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}..."


def compile_graph(graph: Graph, provider: Provider, height: int, width: int, threads: int) -> Engine:
    """Compile a graph for one frame size on one runtime with as many threads; raise UserError if it cannot be.

    A graph that is new on this machine is tried first.
    """
    verdict = try_out(graph)
    if verdict.problem:
        raise UserError(f"{graph.name} cannot be used: {verdict.problem}")
    if provider == "openvino" and verdict.precision is None:
        raise UserError(f"openvino cannot be used for {graph.name}: {verdict.reason}")
    try:
        return _make(graph, provider, height, width, threads, verdict.precision)
    except RUNTIME_ERRORS as error:
        raise UserError(
            f"{provider} cannot compile {graph.name} for {width}x{height} frames: {shorten(error)}"
        ) from None


def answers(
    graph: Graph, provider: Provider, height: int, width: int, inputs: list[Frame], precision: Precision | None = None
) -> list[Frame]:
    """Return the outputs of a graph that was not tried, on one thread; raise one of RUNTIME_ERRORS if it has none."""
    engine, outputs = _make(graph, provider, height, width, 1, precision), []
    for frame in inputs:
        np.copyto(engine.input, frame)
        if graph.coloured:
            np.copyto(engine.chroma, frame[..., :: graph.stride, :: graph.stride])
        for choice in range(len(graph.choices) or 1):
            engine.run(choice)
            outputs.append(engine.output.copy())
    return outputs


def openvino_precisions() -> tuple[Precision, ...]:
    """Return what OpenVINO can compute in on this processor, the fastest first; raise ImportError without OpenVINO."""
    import openvino  # noqa: PLC0415  # an optional extra

    # bf16 halves the time where the processor multiplies it. Results differ by at most two 8-bit levels, on smooth
    # frames in a few pixels of a thousand by up to four.
    bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "f32") if bf16 else ("f32",)


def _empty_inputs(graph: Graph, height: int, width: int) -> tuple[Frame, Frame, Frame]:
    """Return buffers for frame, chroma and output; that of chroma is empty where none is taken."""
    frame, output = graph.shapes(height, width)
    chroma = (1, CHROMA_PLANES, *output[2:]) if graph.coloured else (0,)
    return np.zeros(frame, np.uint8), np.full(chroma, NEUTRAL, np.uint8), np.zeros(output, np.uint8)


def _make(
    graph: Graph, provider: Provider, height: int, width: int, threads: int, precision: Precision | None
) -> Engine:
    if provider == "onnxruntime":
        return _Onnxruntime(graph, height, width, threads)
    return _Openvino(graph, height, width, threads, cast(Precision, precision))


class _Onnxruntime:
    def __init__(self, graph: Graph, height: int, width: int, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Waiting threads would spin, which gains nothing here and takes the cores from whoever else wants them: the
        # rest of a call, or another contender in a benchmark.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # With the size known, memory is planned once.
        options.add_free_dimension_override_by_name("height", height)
        options.add_free_dimension_override_by_name("width", width)
        self._session = ort.InferenceSession(graph.onnx, options, providers=[_CPU])
        self.input, self.chroma, self.output = _empty_inputs(graph, height, width)
        self._choice, scores = np.zeros(1, np.int64), np.zeros((1, len(graph.choices)), np.float32)
        self.scores: Scores = scores[0]
        inputs: list[npt.NDArray[Any]] = [self.input, *([self.chroma] if graph.coloured else [])]
        outputs: list[npt.NDArray[Any]] = [self.output]
        if graph.choices:
            inputs.append(self._choice)
            outputs.append(scores)
        self._binding = self._session.io_binding()
        for bind, values, arrays in (
            (self._binding.bind_input, self._session.get_inputs(), inputs),
            (self._binding.bind_output, self._session.get_outputs(), outputs),
        ):
            for value, array in zip(values, arrays, strict=True):
                bind(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self, choice: int = IDENTITY) -> None:
        self._choice[0] = choice
        self._session.run_with_iobinding(self._binding)


class _Openvino:
    def __init__(self, graph: Graph, height: int, width: int, threads: int, precision: Precision) -> None:
        import openvino  # noqa: PLC0415  # an optional extra

        core = openvino.Core()
        model = core.read_model(graph.onnx)
        self.input, self.chroma, self.output = _empty_inputs(graph, height, width)
        self.scores: Scores = np.zeros(len(graph.choices), np.float32)

        def request(part: Any, precision: Precision) -> Any:  # noqa: ANN401  # openvino's
            # Inside of a condition an input has lost its name: chroma is the one of two planes.
            is_chroma = [graph.coloured and one.get_partial_shape()[1] == CHROMA_PLANES for one in part.inputs]
            taken = [self.chroma if chroma else self.input for chroma in is_chroma]
            part.reshape({one: list(array.shape) for one, array in zip(part.inputs, taken, strict=True)})
            if has_wide_lanes():
                fill_lanes(part)
            config: dict[str, Any] = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": precision,
                # Pinned threads of several sessions would share one core.
                "ENABLE_CPU_PINNING": False,
            }
            compiled = core.compile_model(part, "CPU", config).create_infer_request()
            for number, array in enumerate(taken):
                compiled.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
            return compiled

        self._sink = openvino.Tensor(self.output, shared_memory=True)
        # Each expert as a graph of its own: as part of the whole it would take a quarter more time. They are compiled
        # when they are first chosen, since few of them ever are, and the last few are kept.
        router, self._parts = _parts(model) if graph.choices else (None, [model])
        self._router = request(router, "f32") if router else None
        self._request: Callable[[Any], Any] = lambda part: request(part.clone(), precision)
        self._experts: OrderedDict[int, Any] = OrderedDict()
        if not graph.choices:
            self._expert(0)

    def run(self, choice: int = IDENTITY) -> None:
        if self._router is None:
            choice = 1
        elif choice == IDENTITY:
            self._router.infer(share_outputs=True)
            self.scores[:] = self._router.get_output_tensor(0).data[0]
            self.output.fill(NOTHING_TO_ADD)
            return
        self._expert(choice - 1).infer(share_outputs=True)  # or it would copy the output

    def _expert(self, number: int) -> Any:  # noqa: ANN401  # openvino's
        if number not in self._experts:
            if len(self._experts) == _KEPT_EXPERTS:
                self._experts.popitem(last=False)
            self._experts[number] = self._request(self._parts[number])
            self._experts[number].set_output_tensor(self._sink)
        self._experts.move_to_end(number)
        return self._experts[number]


def _parts(model: Any) -> tuple[Any, list[Any]]:  # noqa: ANN401  # openvino's
    """Return the router and the experts of a graph, each as a model from the frame, out of its chain of conditions."""
    by_name = {result.input_value(0).get_any_name(): result.input_value(0).get_node() for result in model.get_results()}
    router, experts, rest = by_name["scores"].get_function(0), [], by_name["sub_pixels"]
    while rest.get_type_name() == "If":
        experts.append(rest.get_function(0))
        rest = rest.get_function(1).get_results()[0].input_value(0).get_node()
    return router, experts
