"""Exported graphs, compiled for one frame size by onnxruntime or OpenVINO.

A graph is a luma network (`luma` uint8 (1, 1, H, W) to `sub_pixels` uint8 (1, stride^2, H / stride, W / stride)) or an
RGB network (`frame` uint8 (1, H, W, 3) to `restored` of the same form); H and W are multiples of `stride` and, for a
luma network, at least `SMALLEST_SIDE`. A luma network may take chroma, too, and may consist of experts: it then takes
the number of one beside the frame, and gives the router's `scores` (see `clearcall.models.export`).
"""

import importlib.util
from collections import OrderedDict
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from clearcall.core.errors import UserError
from clearcall.imaging.frame import CHROMA_PLANES, NEUTRAL, Frame
from clearcall.runtime.graph import (
    IDENTITY,
    NOTHING_TO_ADD,
    Graph,
    Scores,
    shorten,
)
from clearcall.runtime.lanes import fill_lanes, has_wide_lanes
from clearcall.runtime.trial import Precision, try_out

Provider = Literal["onnxruntime", "openvino"]
_KEPT_EXPERTS = 3  # compiled by OpenVINO for one frame size, each with buffers of its own
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


class Engine(Protocol):
    """A graph compiled for one frame size: fill `input`, call `run`, read `output`, fixed buffers.

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

    def prepare(self, choice: int) -> bool:
        """Return whether a choice can be run at once; if not, get it ready in the background."""
        ...


def installed_providers() -> list[Provider]:
    """Return the runtimes that can be imported here; onnxruntime is always one of them."""
    return [name for name in get_args(Provider) if importlib.util.find_spec(name) is not None]


def compile_graph(graph: Graph, provider: Provider, height: int, width: int, threads: int) -> Engine:
    """Compile a graph for one frame size; raise UserError if it cannot be.

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
    """Return the outputs of a graph without a trial; raise one of RUNTIME_ERRORS on failure."""
    engine, outputs = _make(graph, provider, height, width, 1, precision), []
    for frame in inputs:
        np.copyto(engine.input, frame)
        if graph.coloured:
            np.copyto(engine.chroma, frame[..., :: graph.stride, :: graph.stride])
        for choice in range(len(graph.choices) or 1):
            engine.run(choice)
            outputs.append(engine.output.copy())
    return outputs


@cache
def _openvino_core() -> Any:  # noqa: ANN401  # openvino's
    """Return OpenVINO; raise ImportError without it.

    Never closed: it gives the thread that first compiles a stack for signals, and would unmap that from another thread,
    after which Ctrl-C would crash the process.
    """
    import openvino  # noqa: PLC0415  # an optional extra

    return openvino.Core()


@cache
def compile_pool() -> Executor:
    """Return the thread that compiles experts while frames go on."""
    return ThreadPoolExecutor(1, thread_name_prefix="compile")


def openvino_precisions() -> tuple[Precision, ...]:
    """Return OpenVINO's precisions here, the fastest first; raise ImportError without it."""
    # bf16 halves the time where the processor multiplies it. A network's trial bounds by how much results differ.
    bf16 = "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "f32") if bf16 else ("f32",)


def _empty_inputs(graph: Graph, height: int, width: int) -> tuple[Frame, Frame, Frame]:
    """Return buffers for frame, chroma (empty if not used) and output."""
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

    def prepare(self, choice: int) -> bool:  # noqa: ARG002  # of the protocol
        return True


class _Openvino:
    def __init__(self, graph: Graph, height: int, width: int, threads: int, precision: Precision) -> None:
        import openvino  # noqa: PLC0415  # an optional extra

        model = _openvino_core().read_model(graph.onnx)
        self._threads, self._precision = threads, precision
        self.input, self.chroma, self.output = _empty_inputs(graph, height, width)
        self.scores: Scores = np.zeros(len(graph.choices), np.float32)
        self._sink = openvino.Tensor(self.output, shared_memory=True)
        # Each expert as a graph of its own: as part of the whole it would take a quarter more time. They are compiled
        # when they are first chosen, since few of them ever are, and the last few are kept.
        router, self._parts = _parts(model) if graph.choices else (None, [model])
        self._router = self._request(router, "f32") if router else None
        self._experts: OrderedDict[int, Any] = OrderedDict()
        self._compiling: tuple[int, Future[Any]] | None = None
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

    def prepare(self, choice: int) -> bool:
        number = choice - 1
        if self._router is None or choice == IDENTITY or number in self._experts:
            return True
        if self._compiling is None:
            self._compiling = number, compile_pool().submit(self._compile_expert, number)
        elif self._compiling[1].done():
            (number, compiled), self._compiling = self._compiling, None
            if number not in self._experts:
                self._keep(number, compiled.result())
        return choice - 1 in self._experts

    def _expert(self, number: int) -> Any:  # noqa: ANN401  # openvino's
        if number not in self._experts:
            self._keep(number, self._compile_expert(number))
        self._experts.move_to_end(number)
        return self._experts[number]

    def _compile_expert(self, number: int) -> Any:  # noqa: ANN401  # openvino's
        return self._request(self._parts[number].clone(), self._precision)

    def _keep(self, number: int, expert: Any) -> None:  # noqa: ANN401  # openvino's
        if len(self._experts) == _KEPT_EXPERTS:
            self._experts.popitem(last=False)
        expert.set_output_tensor(self._sink)
        self._experts[number] = expert

    def _request(self, part: Any, precision: Precision) -> Any:  # noqa: ANN401  # openvino's
        """Return a request of a graph that is compiled for the buffers."""
        import openvino  # noqa: PLC0415  # an optional extra

        # A method: as a closure of the constructor it would hold `self`, until the garbage collector comes.
        # Inside of a condition an input has lost its name: chroma is the one of two planes.
        is_chroma = [self.chroma.size and one.get_partial_shape()[1] == CHROMA_PLANES for one in part.inputs]
        taken = [self.chroma if chroma else self.input for chroma in is_chroma]
        part.reshape({one: list(array.shape) for one, array in zip(part.inputs, taken, strict=True)})
        if has_wide_lanes():
            fill_lanes(part)
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": precision,
            # Pinned threads of several sessions would share one core.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = _openvino_core().compile_model(part, "CPU", config).create_infer_request()
        for number, array in enumerate(taken):
            compiled.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
        return compiled


def _parts(model: Any) -> tuple[Any, list[Any]]:  # noqa: ANN401  # openvino's
    """Return the router and the experts of a graph as models, from its chain of conditions."""
    by_name = {result.input_value(0).get_any_name(): result.input_value(0).get_node() for result in model.get_results()}
    router, experts, rest = by_name["scores"].get_function(0), [], by_name["sub_pixels"]
    while rest.get_type_name() == "If":
        experts.append(rest.get_function(0))
        rest = rest.get_function(1).get_results()[0].input_value(0).get_node()
    return router, experts
