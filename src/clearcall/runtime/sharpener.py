"""The runtime: `Sharpener()(frame)` sharpens one 8-bit frame."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Literal, get_args

import cv2
import numpy as np

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED, read_json
from clearcall.core.machine import available_cores
from clearcall.imaging.frame import CHROMA_TO_RGB, NEUTRAL, Frame
from clearcall.imaging.looks import CRISP_AMOUNT, CRISP_RADIUS_PX, DEFAULT_LOOK, Look
from clearcall.imaging.sizes import Size
from clearcall.runtime.engines import RUNTIME_ERRORS, Engine, Provider, compile_graph, installed_providers
from clearcall.runtime.graph import IDENTITY, NOTHING_TO_ADD, Graph, Scores, load_graph, shorten
from clearcall.runtime.timing import median_ms, time_ms
from clearcall.runtime.video_routing import SteadyChoice, scores_of_coded

PixelFormat = Literal["rgb", "bgr", "i420", "nv12", "gray"]
AUTO = "auto"
# Frame sizes whose compiled variants are kept; a call has one or two.
_KEPT_SIZES = 4
_WARM_UP_RUNS, _TIMED_RUNS = 2, 5
# Frames that wait for a thread: whoever makes them shares the cores with the threads, and none should be idle for it.
_QUEUED = 2
_NOTHING = nullcontext()
_MOST_STRENGTH = 2


@dataclass(frozen=True)
class Choice:
    """A runtime and its threads, and the median in ms of each that was tried ({}: none)."""

    provider: Provider
    threads: int
    tried_ms: dict[str, float]

    def __str__(self) -> str:
        """Name runtime and threads, for example `openvino, 2 threads`."""
        return f"{self.provider}, {self.threads} thread" + ("s" if self.threads > 1 else "")


class Sharpener:
    """Sharpens 8-bit frames of any size.

    `model` is a shipped name (`shipped_models()`), the path of an ONNX file that clearcall exported (for an MLflow URI
    see `clearcall.tracking.runs.download_model`), or `auto`: the best of the shipped, however long a frame takes (for a
    frame rate see `clearcall.runtime.family.choose_model`). `provider` is `onnxruntime`, `openvino` or `auto`, which
    measures those installed at the first frame of each size and keeps the fastest; `choice` then tells which.
    `threads`: None measures too. With `measured_at`, a width and height in pixels, it is measured once, at this size,
    for frames of every size. `strength` scales what the network adds, from 0 over 1 to 2. `look` is `natural`, the
    network alone, or `crisp`, with a mild unsharp mask of the luma behind it. Calls from several threads take turns.

    A student of experts has a router, which chooses one of `experts` for each frame. With `video` the frames of all
    calls are those of one video: the choice changes only when several frames agree. With `coded` the frames are known
    to come from a video encoder, and the router chooses among the experts that have learnt from encoders. `expert`
    takes the place of the router where it is known how frames were degraded. A frame that the router finds clean stays
    as it is, bit for bit, if the look is `natural`; if it is `crisp`, it gets the mask. An expert may restore chroma
    beside luma.
    """

    def __init__(
        self,
        model: str | Path = AUTO,
        provider: Provider | Literal["auto"] = "auto",
        threads: int | None = None,
        strength: float = 1.0,
        *,
        look: Look = DEFAULT_LOOK,
        video: bool = False,
        expert: str | None = None,
        coded: bool = False,
        measured_at: Size | None = None,
    ) -> None:
        if provider != "auto" and provider not in installed_providers():
            known = ", ".join(["auto", *get_args(Provider)])
            raise UserError(f"provider {provider!r} is not installed; known: {known}; pip install openvino")
        if threads is not None and threads < 1:
            raise UserError(f"threads must be at least 1 or None, not {threads}")
        self.graph = load_graph(find_model(model))
        self.strength, self.look = strength, look
        # The first is onnxruntime, or the one that was asked for.
        self._providers = installed_providers() if provider == "auto" else [provider]
        self._threads = threads
        self._variants = _Variants(self._compiled)
        self._measured_at = measured_at if provider == "auto" or threads is None else None
        self._settled: Choice | None = None  # once it is measured
        self._lock = Lock()
        self.choice: Choice | None = None  # for the last frame; None before the first
        self.expert: str | None = None  # of the last frame; None of a single network
        self.repeated = 0  # frames of `map` that repeated the one before them
        self._fixed = None if expert is None else self._number_of(expert)
        self._steady = SteadyChoice() if video else None
        self.coded = coded  # may be changed between frames
        self._live = False
        self._running = dict[tuple[int, int], int]()  # the choice for a live video's last frame of each size

    @property
    def identity(self) -> tuple[str, float, Look, int | None]:
        """What decides the result of a frame: the network by its SHA-256, strength, look, and a given expert."""
        return sha256(self.graph.onnx).hexdigest(), self._strength, self._look, self._fixed

    def begin_video(self, *, coded: bool, live: bool = False) -> None:
        """Begin another video, with `coded` as in the constructor.

        With `live` no call waits for an expert to be compiled: until that is done, the one before it goes on.
        """
        self.coded, self._live, self.repeated = coded, live, 0
        self._running.clear()
        if self._steady is not None:
            self._steady = SteadyChoice()

    @property
    def strength(self) -> float:
        """The residual gain, from 0 to 2; may be changed between frames."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if not 0 <= value <= _MOST_STRENGTH:
            raise UserError(f"strength must be from 0 to {_MOST_STRENGTH}, not {value}")
        self._strength = float(value)

    @property
    def look(self) -> Look:
        """Whether an unsharp mask follows the network; may be changed between frames."""
        return self._look

    @look.setter
    def look(self, value: Look) -> None:
        if value not in get_args(Look):
            raise UserError(f"look must be one of {', '.join(get_args(Look))}, not {value!r}")
        self._look = value

    def __call__(
        self,
        frame: Frame,
        pixel_format: PixelFormat = "rgb",
        out: Frame | None = None,
        *,
        expert: str | None = None,
    ) -> Frame:
        """Return the sharpened frame, of the same shape and pixel format.

        `rgb` and `bgr` are (height, width, 3); `i420` and `nv12` (height * 3 / 2, width) with even sides, as OpenCV
        has them; `gray` is (height, width), luma alone. The result is a new array, or
        `out`, which may be the frame itself: with it nothing is allocated. `expert` is that of the constructor, for
        this frame. Raises UserError for anything else.
        """
        known = None if expert is None else self._number_of(expert)

        def choose(variant: "_Variant") -> int:
            return self._chosen(variant, frame, pixel_format, self._steady) if known is None else known

        return self._sharpen(frame, pixel_format, out, choose)

    def sharpen_worst_case(self, frame: Frame, pixel_format: PixelFormat = "rgb", out: Frame | None = None) -> Frame:
        """Sharpen a frame at its highest cost, by the router and the last expert: for benchmarks.

        A frame that the router leaves alone costs next to nothing, and its fps would say nothing. Of a single network
        this is the call itself. Arguments and result are those of the call.
        """

        def last(variant: _Variant) -> int:
            if self.experts:
                variant.route(frame, pixel_format)
            return max(IDENTITY, len(self.experts) - 1)

        return self._sharpen(frame, pixel_format, out, last)

    def _sharpen(
        self, frame: Frame, pixel_format: PixelFormat, out: Frame | None, choose: "Callable[[_Variant], int]"
    ) -> Frame:
        """Check frame and `out`, and sharpen by the expert that `choose` returns."""
        size = _checked_size(frame, pixel_format, self.graph)
        if out is None:
            out = np.empty_like(frame, order="C")
        elif out.shape != frame.shape or out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable:
            raise UserError(f"out must be a writeable, contiguous uint8 array of shape {frame.shape}")
        elif np.may_share_memory(frame, out) and frame.ctypes.data != out.ctypes.data:
            raise UserError("out overlaps the frame in part: give the frame itself, or an array apart from it")
        with self._lock:
            variant = self._variants.get(size)
            self.choice = variant.choice
            chosen = choose(variant)
            if self._live:
                if not variant.prepare(chosen):
                    chosen = self._running.get(size, IDENTITY)
                self._running[size] = chosen
            self._note(chosen)
            variant.sharpen(frame, pixel_format, self._strength, self._look, out, chosen)
        return out

    @property
    def experts(self) -> tuple[str, ...]:
        """The router's choices by name, the identity first; none for a single network."""
        return self.graph.choices

    def scores(self, frame: Frame, pixel_format: PixelFormat = "rgb") -> Scores:
        """Return the router's score of each of `experts` for one frame, float32."""
        size = _checked_size(frame, pixel_format, self.graph)
        if not self.experts:
            raise UserError(f"{self.graph.name} is a single network: it has no router that could score a frame")
        with self._lock:
            return self._variants.get(size).route(frame, pixel_format)

    def run_network(self, width: int, height: int) -> None:
        """Run the network alone, of experts the last one, on frames that it has had before: for benchmarks."""
        with self._lock:
            self._variants.get((height, width)).run_ms()

    def measure_fps(self, width: int, height: int) -> float:
        """Return the luma frames of a size a second, one at a time, each at its highest cost.

        The runtime is chosen before, and stays compiled for this size.
        """
        frame = np.zeros((height, width), np.uint8)
        timer = partial(time_ms, partial(self.sharpen_worst_case, frame, "gray", frame))
        return 1000 / median_ms({self: timer}, _WARM_UP_RUNS, _TIMED_RUNS)[self]

    def _number_of(self, expert: str) -> int:
        if expert not in self.experts:
            known = ", ".join(self.experts) or "none: it is a single network"
            raise UserError(f"{self.graph.name} has no expert {expert!r}; it has {known}")
        return self.experts.index(expert)

    def _chosen(self, variant: "_Variant", frame: Frame, pixel_format: PixelFormat, steady: SteadyChoice | None) -> int:
        """Return the number of the expert for a frame; 0 of a single network."""
        if self._fixed is not None:
            return self._fixed
        if not self.experts:
            return IDENTITY

        def scores() -> Scores:
            found = variant.route(frame, pixel_format)
            return scores_of_coded(found, self.experts, self.graph.coded) if self.coded else found

        return int(scores().argmax()) if steady is None else steady.choose(scores)

    def _note(self, choice: int) -> None:
        self.expert = self.experts[choice] if self.experts else None

    def map(
        self,
        frames: Iterable[Frame],
        pixel_format: PixelFormat = "rgb",
        in_flight: int | None = None,
        *,
        around: AbstractContextManager[object] = _NOTHING,
    ) -> Iterator[Frame]:
        """Yield the sharpened frames of one video in order, several in flight, one thread each.

        More frames a second than one by one, at a higher latency: for files. `in_flight`: None is one a core. At most
        three frames more than that are taken ahead, so that memory does not grow with the length of a video; a frame
        must stay as it is until its result is here. A frame that repeats the one before it, as in a recorded screen,
        gets the same result without work; `repeated` counts these. `around` is entered for each other frame by the
        thread that sharpens it, by several at once: a clock of their work, say.
        """
        if in_flight is not None and in_flight < 1:
            raise UserError(f"in_flight must be at least 1, not {in_flight}")
        count = in_flight or self._threads or available_cores()
        idle: SimpleQueue[_Variants] = SimpleQueue()
        for _ in range(count):
            idle.put(_Variants(self._single_threaded))
        # In the order of the frames, whatever thread sharpens them.
        routers, steady = _Variants(self._single_threaded), SteadyChoice()

        def work(frame: Frame, size: tuple[int, int], chosen: int) -> Frame:
            variants = idle.get()
            try:
                out = np.empty_like(frame, order="C")
                with around:
                    variants.get(size).sharpen(frame, pixel_format, self._strength, self._look, out, chosen)
            finally:
                idle.put(variants)
            return out

        waiting: deque[Future[Frame]] = deque()
        before: Frame | None = None
        with ThreadPoolExecutor(count, thread_name_prefix="sharpen") as pool:
            for frame in frames:
                size = _checked_size(frame, pixel_format, self.graph)
                if self.choice is None:
                    with self._lock:
                        self.choice = self._variants.get(size).choice
                # The last one waits here, so that nobody has changed its frame or its result yet.
                if before is not None and _is_same(frame, before) and waiting[-1].exception() is None:
                    self.repeated += 1
                    waiting.append(Future())
                    waiting[-1].set_result(waiting[-2].result().copy())
                else:
                    chosen = self._chosen(routers.get(size), frame, pixel_format, steady) if self.experts else IDENTITY
                    self._note(chosen)
                    waiting.append(pool.submit(work, frame, size, chosen))
                before = frame
                if len(waiting) > count + _QUEUED:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _single_threaded(self, height: int, width: int) -> "_Variant":
        provider = "onnxruntime" if self.choice is None else self.choice.provider
        return _Variant(self.graph, Choice(provider, 1, {}), height, width)

    def _compiled(self, height: int, width: int) -> "_Variant":
        """Compile for a frame size, by the runtime that is the fastest at it or at `measured_at`."""
        if self._measured_at is None:
            return self._fastest(height, width)
        if self._settled is None:
            self._settled = self._fastest(*self._measured_at[::-1]).choice
        return _Variant(self.graph, self._settled, height, width)

    def _fastest(self, height: int, width: int) -> "_Variant":
        """Measure every allowed runtime and number of threads; return the fastest variant."""
        cores = available_cores()
        # Two threads of one physical core often help less than they cost: half the cores may be the faster choice.
        halved = {cores, cores // 2} if cores > 2 else {cores}  # noqa: PLR2004  # of two cores, one is slower
        counts = sorted(halved) if self._threads is None else [self._threads]
        variants: list[_Variant] = []
        for provider in [*self._providers]:
            try:
                variants += [_Variant(self.graph, Choice(provider, count, {}), height, width) for count in counts]
            except UserError as error:
                # A second runtime that cannot be used is no reason to fail.
                if provider == self._providers[0]:
                    raise
                self._providers.remove(provider)
                warn(f"{error}: the frames go to {self._providers[0]}")
        if len(variants) == 1:
            return variants[0]
        medians = median_ms({variant: variant.run_ms for variant in variants}, _WARM_UP_RUNS, _TIMED_RUNS)
        best = min(variants, key=medians.__getitem__)
        tried = {str(variant.choice): ms for variant, ms in medians.items()}
        best.choice = replace(best.choice, tried_ms=tried)
        return best


def _is_same(frame: Frame, other: Frame) -> bool:
    """Return whether two frames are equal; of most that are not, one row in sixteen already tells."""
    return frame.shape == other.shape and np.array_equal(frame[::16], other[::16]) and np.array_equal(frame, other)


def shipped_models() -> list[str]:
    """Return the names of the networks that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.onnx"))


def shipped_name(graph: Graph) -> str | None:
    """Return the name of the shipped network that a graph is, or None."""
    return next((name for name in shipped_models() if load_graph(SHIPPED / f"{name}.onnx").onnx == graph.onnx), None)


def best_first() -> list[str]:
    """Return the names of the shipped networks, that of the most parameters first."""
    models = sorted(shipped_models(), key=lambda name: -int(read_json(SHIPPED / f"{name}.json")["parameters"]))
    if not models:
        raise UserError(f"no model comes with this package, {SHIPPED} holds none: reinstall it, or name a --model")
    return models


def named_model(model: str) -> str:
    """Return a model's name, of `auto` that of the best shipped one."""
    return next(iter(best_first()), model) if model == AUTO else model


def find_model(model: str | Path) -> Path:
    """Return the ONNX file of a shipped name, `auto` or a path; raise UserError without."""
    text = named_model(str(model))
    if text in shipped_models():
        return SHIPPED / f"{text}.onnx"
    path = Path(model)
    if path.is_dir():
        raise UserError(f"the model {text} is a folder: name the ONNX file in it")
    if not path.is_file():
        near = get_close_matches(text, [AUTO, *shipped_models()], 1)
        raise UserError(
            f"there is no model {text!r}: {f'did you mean {near[0]}? ' if near else ''}give one of "
            f"{', '.join(shipped_models())}, or an ONNX file that clearcall exported; commands also take an MLflow URI "
            "such as models:/clearcall@champion"
        )
    return path


class _Variants:
    """The compiled variants for the last few frame sizes."""

    def __init__(self, make: "Callable[[int, int], _Variant]") -> None:
        self._make = make
        self._kept: OrderedDict[tuple[int, int], _Variant] = OrderedDict()

    def get(self, size: tuple[int, int]) -> "_Variant":
        """Return the variant for a height and width, compiled if need be."""
        if size not in self._kept:
            self._kept[size] = self._make(*size)
            if len(self._kept) > _KEPT_SIZES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(size)
        return self._kept[size]


class _Variant:
    """A network compiled for one frame size, with all its buffers."""

    def __init__(self, graph: Graph, choice: Choice, height: int, width: int) -> None:
        self.choice = choice
        self._graph, self._name, self._kind = graph, graph.name, graph.kind
        self._height, self._width = height, width
        stride = graph.stride
        padded_height, padded_width = graph.contract.padded(height), graph.contract.padded(width)
        self._engine: Engine = compile_graph(graph, choice.provider, padded_height, padded_width, choice.threads)
        self._pad = (padded_height, padded_width) != (height, width)
        self._padded_size = padded_width, padded_height
        self._scratch: dict[str, Frame] = {}
        residual = np.full((padded_height, padded_width), NOTHING_TO_ADD, np.uint8)
        self._residual = residual[:height, :width]
        if graph.kind == "rgb":
            return
        self._luma = self._engine.input[0, 0]
        if graph.coloured:
            self._chroma, self._chroma_residual = self._engine.chroma[0], self._engine.output[0, stride**2 :]
        # Row `row` of each block of stride x stride sub-pixels, as an image of `stride` channels: merging channels is
        # how OpenCV interleaves, five times as fast as DepthToSpace on bytes in the graph.
        self._rows = [
            (
                [self._engine.output[0, row * stride + column] for column in range(stride)],
                residual.reshape(padded_height // stride, stride, padded_width // stride, stride)[:, row],
            )
            for row in range(stride)
        ]

    def prepare(self, choice: int) -> bool:
        """Return whether a choice can be run at once; if not, get it ready in the background."""
        with self._failure_told():
            return self._engine.prepare(choice)

    def run_ms(self) -> float:
        """Return how long the network alone takes, in ms; of experts, the last one."""
        return time_ms(partial(self._run, max(IDENTITY, self._engine.scores.size - 1)))

    def sharpen(
        self,
        frame: Frame,
        pixel_format: PixelFormat,
        strength: float,
        look: Look,
        out: Frame,
        choice: int = IDENTITY,
    ) -> None:
        """Sharpen a checked frame into `out`, which may be the frame itself."""
        frame = np.ascontiguousarray(frame)
        if self._kind == "rgb":
            self._restore(frame, pixel_format, strength, out)
            if look == "crisp":
                code = cv2.COLOR_RGB2GRAY if pixel_format == "rgb" else cv2.COLOR_BGR2GRAY
                self._residual.fill(NOTHING_TO_ADD)
                self._mask_residual(np.asarray(cv2.cvtColor(out, code), np.uint8), 1)
                self._add_to_colour(out, 1, out)
            return
        colour = self._graph.restores_chroma(choice)
        self._fill_luma(frame, pixel_format)
        if colour:
            self._fill_chroma(frame, pixel_format)
        self._run_luma(choice)
        of_luma = strength
        if look == "crisp":
            self._mask_residual(self._luma[: self._height, : self._width], strength)
            of_luma = 1
        if pixel_format in {"rgb", "bgr"}:
            self._add_to_colour(frame, of_luma, out, self._upscaled_chroma(pixel_format, strength) if colour else None)
            return
        _add(frame[: self._height], self._residual, of_luma, out[: self._height])
        if colour and pixel_format != "gray":
            self._add_to_chroma(frame, pixel_format, strength, out)
        else:
            np.copyto(out[self._height :], frame[self._height :])

    def route(self, frame: Frame, pixel_format: PixelFormat) -> Scores:
        """Return the router's scores of a frame whose shape was checked."""
        self._fill_luma(np.ascontiguousarray(frame), pixel_format)
        self._continue_edges(self._luma, self._height, self._width)
        self._run(IDENTITY)
        return self._engine.scores.copy()

    def _fill_luma(self, frame: Frame, pixel_format: PixelFormat) -> None:
        """Write a frame's luma to the input of a luma network."""
        luma = self._luma[: self._height, : self._width]
        if pixel_format in {"rgb", "bgr"}:
            cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY if pixel_format == "rgb" else cv2.COLOR_BGR2GRAY, dst=luma)
        else:
            np.copyto(luma, frame[: self._height])

    def _fill_chroma(self, frame: Frame, pixel_format: PixelFormat) -> None:
        """Write a frame's chroma at half resolution to the network's input; neutral for grey."""
        cb, cr = self._chroma
        if pixel_format in {"rgb", "bgr"}:
            width, height = self._padded_size
            below, beside = height - self._height, width - self._width
            whole = cv2.copyMakeBorder(frame, 0, below, 0, beside, cv2.BORDER_REPLICATE) if self._pad else frame
            means = self._kept("means", height // 2, width // 2, 3)
            cv2.resize(whole, (width // 2, height // 2), dst=means, interpolation=cv2.INTER_AREA)
            cv2.cvtColor(means, cv2.COLOR_RGB2YCrCb if pixel_format == "rgb" else cv2.COLOR_BGR2YCrCb, dst=means)
            cv2.extractChannel(means, 1, dst=cr)
            cv2.extractChannel(means, 2, dst=cb)
            return
        height, width = self._height // 2, self._width // 2
        if pixel_format == "gray":
            self._chroma.fill(NEUTRAL)
            return
        for plane, given in zip((cb, cr), _chroma_planes(frame, pixel_format, height, width), strict=True):
            np.copyto(plane[:height, :width], given)
            self._continue_edges(plane, height, width)

    def _mask_residual(self, luma: Frame, strength: float) -> None:
        """Turn the luma residual into that of network and unsharp mask together."""
        sharp, blurred = self._kept("sharp", *luma.shape), self._kept("blurred", *luma.shape)
        _add(luma, self._residual, strength, sharp)
        cv2.GaussianBlur(sharp, (0, 0), CRISP_RADIUS_PX, dst=blurred)
        cv2.addWeighted(sharp, 1 + CRISP_AMOUNT, blurred, -CRISP_AMOUNT, 0, dst=sharp)
        cv2.addWeighted(sharp, 1, luma, -1, NOTHING_TO_ADD, dst=self._residual)

    def _add_to_colour(self, frame: Frame, strength: float, out: Frame, of_chroma: Frame | None = None) -> None:
        """Add the luma residual to R, G and B alike, and the residual of chroma if given."""
        residual = self._kept("residual", self._height, self._width, 3)
        cv2.merge([self._residual] * 3, dst=residual)
        if of_chroma is not None:  # both at once: what one takes beyond black the other may bring back
            cv2.addWeighted(residual, strength, of_chroma, 1, -NOTHING_TO_ADD * strength, dst=residual)
            strength = 1
        _add(frame, residual, strength, out)

    def _upscaled_chroma(self, pixel_format: PixelFormat, strength: float) -> Frame:
        """Return the residual of R, G and B (or B, G, R) for chroma, plus 128, at full resolution."""
        rows = CHROMA_TO_RGB if pixel_format == "rgb" else CHROMA_TO_RGB[::-1]
        cb, cr = self._chroma_residual
        width, height = self._padded_size
        planes = self._kept("chroma_planes", 3, *cb.shape)
        for plane, (of_cb, of_cr) in zip(planes, rows, strict=True):
            weights = of_cb * strength, of_cr * strength
            cv2.addWeighted(cb, weights[0], cr, weights[1], NOTHING_TO_ADD * (1 - sum(weights)), dst=plane)
        coarse, upscaled = self._kept("coarse", *cb.shape, 3), self._kept("upscaled", height, width, 3)
        cv2.merge([*planes], dst=coarse)
        cv2.resize(coarse, self._padded_size, dst=upscaled, interpolation=cv2.INTER_LINEAR)
        return upscaled[: self._height, : self._width]

    def _add_to_chroma(self, frame: Frame, pixel_format: PixelFormat, strength: float, out: Frame) -> None:
        """Add the residual to the chroma planes of I420 or NV12."""
        height, width = self._height // 2, self._width // 2
        residual = self._chroma_residual[:, :height, :width]
        if pixel_format == "nv12":
            interleaved = self._kept("interleaved", height, width, 2)
            cv2.merge([*residual], dst=interleaved)
            residual = interleaved
        given, restored = (one.reshape(-1)[-2 * height * width :].reshape(-1, width) for one in (frame, out))
        _add(given, residual.reshape(-1, width), strength, restored)

    def _kept(self, name: str, *shape: int) -> Frame:
        """Return the buffer of a name, allocated once: new memory takes milliseconds a frame."""
        if name not in self._scratch:
            self._scratch[name] = np.empty(shape, np.uint8)
        return self._scratch[name]

    def _restore(self, frame: Frame, pixel_format: PixelFormat, strength: float, out: Frame) -> None:
        """Let an RGB network restore the frame, and blend."""
        network, height, width = self._engine.input[0], self._height, self._width
        network[:height, :width] = frame if pixel_format == "rgb" else frame[..., ::-1]
        self._continue_edges(network, height, width)
        self._run()
        restored = self._engine.output[0, :height, :width]
        if pixel_format == "bgr":
            cv2.cvtColor(restored, cv2.COLOR_RGB2BGR, dst=restored)
        cv2.addWeighted(frame, 1 - strength, restored, strength, 0, dst=out)

    def _run(self, choice: int = IDENTITY) -> None:
        with self._failure_told():
            self._engine.run(choice)

    @contextmanager
    def _failure_told(self) -> Iterator[None]:
        try:
            yield
        except RUNTIME_ERRORS as error:
            size = f"{self._width}x{self._height}"
            raise UserError(
                f"{self.choice.provider} cannot run {self._name} on {size} frames: {shorten(error)}"
            ) from None

    def _run_luma(self, choice: int) -> None:
        self._continue_edges(self._luma, self._height, self._width)
        self._run(choice)
        for planes, row in self._rows:
            if len(planes) == 1:
                np.copyto(row[..., 0], planes[0])
            else:
                cv2.merge(planes, dst=row)

    def _continue_edges(self, plane: Frame, height: int, width: int) -> None:
        """Repeat the last of so many rows and columns into the padding, as in training."""
        if self._pad:
            plane[height:, :width] = plane[height - 1, :width]
            plane[:, width:] = plane[:, width - 1 : width]


def _add(frame: Frame, residual: Frame, strength: float, out: Frame) -> None:
    """Write frame + strength * (residual - 128), rounded and clipped, to `out`."""
    cv2.addWeighted(frame, 1, residual, strength, -NOTHING_TO_ADD * strength, dst=out)


def _chroma_planes(frame: Frame, pixel_format: PixelFormat, height: int, width: int) -> tuple[Frame, Frame]:
    """Return views of Cb and Cr, (height, width) each, of a contiguous I420 or NV12 frame."""
    both = frame.reshape(-1)[-2 * height * width :]
    if pixel_format == "nv12":
        interleaved = both.reshape(height, width, 2)
        return interleaved[..., 0], interleaved[..., 1]
    cb, cr = both.reshape(2, height, width)
    return cb, cr


def _checked_size(frame: Frame, pixel_format: str, graph: Graph) -> tuple[int, int]:
    """Return a frame's height and width; raise UserError if it does not fit the pixel format."""
    if pixel_format not in get_args(PixelFormat):
        raise UserError(f"pixel_format must be one of {', '.join(get_args(PixelFormat))}, not {pixel_format!r}")
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        raise UserError(f"a frame must be a numpy array of uint8, not {getattr(frame, 'dtype', type(frame).__name__)}")
    if pixel_format in {"rgb", "bgr"}:
        if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:  # noqa: PLR2004  # height, width, 3 channels
            raise UserError(f"an {pixel_format} frame must have the shape (height, width, 3), not {frame.shape}")
        return frame.shape[0], frame.shape[1]
    if graph.kind == "rgb":
        raise UserError(f"{graph.name} works on RGB: give it rgb or bgr frames, not {pixel_format}")
    if pixel_format == "gray":
        if frame.ndim != 2 or not frame.size:  # noqa: PLR2004  # one plane
            raise UserError(f"a gray frame must have the shape (height, width), not {frame.shape}")
        return frame.shape[0], frame.shape[1]
    if frame.ndim != 2 or not frame.size or frame.shape[0] % 3 or frame.shape[1] % 2:  # noqa: PLR2004  # one plane
        raise UserError(
            f"an {pixel_format} frame must have the shape (height * 3 / 2, width) of a picture with even sides, not "
            f"{frame.shape}: crop or pad an odd-sized picture first"
        )
    return frame.shape[0] // 3 * 2, frame.shape[1]
