"""Exported graphs on the runtimes that are installed, compiled for one frame size, with fixed input and output buffers.

A graph is a luma network (`luma` uint8 (1, 1, H, W) to `sub_pixels` uint8 (1, stride^2, H / stride, W / stride)) or an
RGB network (`frame` uint8 (1, H, W, 3) to `restored` of the same form); H and W are multiples of `stride` and, for a
luma network, at least `SMALLEST_SIDE`.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import onnxruntime as ort

from clearcall.deploy.lanes import fill_lanes, has_wide_lanes
from clearcall.deploy.onnx_file import read_metadata
from clearcall.deploy.trial import Precision, try_out
from clearcall.errors import UserError
from clearcall.metrics import Frame

Kind = Literal["luma", "rgb"]
Provider = Literal["onnxruntime", "openvino"]
KIND_KEY, STRIDE_KEY = "clearcall.kind", "clearcall.stride"
# Of a luma network's frame: its look at the whole frame takes some pixels. A multiple of all strides.
SMALLEST_SIDE = 8
_MAX_STRIDE = 64  # of an RGB network; a luma network's divides SMALLEST_SIDE
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

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of input and output for a frame whose sides are multiples of the stride."""
        if self.kind == "rgb":
            return (1, height, width, 3), (1, height, width, 3)
        return (1, 1, height, width), (1, self.stride**2, height // self.stride, width // self.stride)


class Engine(Protocol):
    """A graph compiled for one frame size: fill `input`, call `run`, read `output`; both stay where they are."""

    input: Frame
    output: Frame

    def run(self) -> None:
        """Compute `output` from `input`."""
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
    return Graph(path.name, onnx, cast(Kind, kind), int(stride))


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
        engine.run()
        outputs.append(engine.output.copy())
    return outputs


def openvino_precisions() -> tuple[Precision, ...]:
    """Return what OpenVINO can compute in on this processor, the fastest first; raise ImportError without OpenVINO."""
    import openvino  # noqa: PLC0415  # an optional extra

    # bf16 halves the time where the processor multiplies it. Results differ by at most two 8-bit levels, on smooth
    # frames in a few pixels of a thousand by up to four.
    bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "f32") if bf16 else ("f32",)


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
        shapes = graph.shapes(height, width)
        self.input, self.output = (np.zeros(shape, np.uint8) for shape in shapes)
        self._binding = self._session.io_binding()
        for bind, value, array in (
            (self._binding.bind_input, self._session.get_inputs()[0], self.input),
            (self._binding.bind_output, self._session.get_outputs()[0], self.output),
        ):
            bind(value.name, "cpu", 0, np.uint8, array.shape, array.ctypes.data)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


class _Openvino:
    def __init__(self, graph: Graph, height: int, width: int, threads: int, precision: Precision) -> None:
        import openvino  # noqa: PLC0415  # an optional extra

        core = openvino.Core()
        model = core.read_model(graph.onnx)
        shapes = graph.shapes(height, width)
        model.reshape(list(shapes[0]))
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            # Pinned threads of several sessions would share one core.
            "ENABLE_CPU_PINNING": False,
        }

        def request(part: Any) -> Any:  # noqa: ANN401  # openvino's
            if has_wide_lanes():
                fill_lanes(part)
            return core.compile_model(part, "CPU", config).create_infer_request()

        self.input, self.output = (np.zeros(shape, np.uint8) for shape in shapes)
        source, sink = (openvino.Tensor(array, shared_memory=True) for array in (self.input, self.output))
        last = model.get_results()[0].input_value(0).get_node()
        self._branches: list[Any] = []
        if last.get_type_name() != "If":  # one further inside is part of the whole
            self._request = request(model)
            self._request.set_input_tensor(source)
            self._request.set_output_tensor(sink)
            return
        # As part of the whole, a branch would take a quarter more time than as a graph of its own.
        values = last.input_values()  # the condition, then what the branches need: some computed, some the frame
        computed = list(dict.fromkeys(value for value in values if value.get_node() not in model.get_parameters()))
        self._request = request(openvino.Model(computed, model.get_parameters()))
        self._request.set_input_tensor(source)
        tensors = {value: self._request.get_output_tensor(number) for number, value in enumerate(computed)}
        self._condition = tensors[values[0]].data
        for number in range(2):
            branch = request(last.get_function(number))
            for needed in last.get_input_descriptions(number):
                tensor = tensors.get(values[needed.input_index], source)
                branch.set_input_tensor(needed.body_parameter_index, tensor)
            branch.set_output_tensor(sink)
            self._branches.append(branch)

    def run(self) -> None:
        self._request.infer(share_outputs=True)  # or it would copy the output
        if self._branches:
            self._branches[0 if self._condition.all() else 1].infer(share_outputs=True)
