"""All contenders on one machine in one run: our models, published networks, classical filters and a plain copy.

Each runs on every runtime, frame size and number of threads that is asked for, 8-bit RGB frame in, 8-bit RGB frame out.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from clearcall.core.console import ProgressBar, warn
from clearcall.core.errors import UserError
from clearcall.core.files import read_json, sha256_of
from clearcall.core.machine import available_cores, machine
from clearcall.evaluation.peer_quality import Candidate, ImageFolder, measure_quality, split_images, tunable_filters
from clearcall.evaluation.peer_runtimes import (
    FFMPEG_FILTERS,
    NCNN_PEERS,
    SCALE,
    FfmpegFilter,
    NcnnNetwork,
    has_filter,
    split_installed,
)
from clearcall.evaluation.peers import PEERS, PeerNetwork, export_peer, fed_small, find_weights, open_peer
from clearcall.evaluation.speed import at_most, make_frames, measure_if_slow, measure_latency, peak_memory_mib
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.sizes import Size
from clearcall.imaging.unsharp import unsharp_luma, unsharp_mask
from clearcall.params import BenchmarkFps
from clearcall.runtime.engines import Provider, installed_providers
from clearcall.runtime.graph import load_graph
from clearcall.runtime.sharpener import Sharpener, find_model, shipped_models

SIZES = ((1280, 720), (1920, 1080), (3840, 2160))
FULL_HD = (1920, 1080)
FRAMES = 200
QUICK_SIZE, QUICK_FRAMES = (640, 360), 20
SLOW_MS, SLOW_FRAMES = 100.0, 5
SINGLE_MS, SKIP_MS = 2_000.0, 20_000.0
_BLOCKS, _WARM_UP_FRAMES = 10, 3
LEAST_SIDE = 16
_RADIUS, _AMOUNT = 1.0, 0.8
_MIB = 2**20
# What a step takes beside its multiplications, and what multiplications usually reach of the GEMM peak. The time left
# is worked out from these two, and they only need to be right to a factor.
_STEP_SECONDS, _USUAL_SHARE = 1.0, 0.4


_RESTORE: dict[str, Restore] = {
    "unsharp": partial(unsharp_mask, radius=_RADIUS, amount=_AMOUNT),
    "unsharp_luma": partial(unsharp_luma, radius=_RADIUS, amount=_AMOUNT),
    "identity": np.copy,
}


@dataclass(frozen=True)
class Settings:
    """What is to be compared, `models` beside the shipped ones; what is left empty is filled in by `check`.

    `images` is a folder to measure quality on, `peers` one of published weights. `quick` is a first look in about a
    minute: one small size, all cores, few frames, no memory.
    """

    models: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    threads: tuple[int, ...] = ()
    providers: tuple[str, ...] = ()
    frames: int = 0
    quick: bool = False
    images: Path | None = None
    peers: Path | None = None

    @property
    def reference_size(self) -> Size:
        """The size that the summary, the chart and the memory are of: 1080p, or the largest if it is not measured."""
        return FULL_HD if FULL_HD in self.sizes else self.sizes[-1]

    @property
    def command(self) -> str:
        """The command line that asks for exactly this; models and folders by their last name."""
        options = ["--quick"] if self.quick else []
        options += [f"--model {model if ':/' in model else Path(model).name}" for model in self.models]
        options += [f"--size {width}x{height}" for width, height in self.sizes]
        options += [f"--threads {count}" for count in self.threads]
        options += [f"--provider {provider}" for provider in self.providers]
        options += [f"--images {self.images.resolve().name}"] if self.images else []
        options += [f"--peers {self.peers.resolve().name}"] if self.peers else []
        return " ".join(["clearcall bench speed", *options, f"--frames {self.frames}"])


@dataclass(frozen=True)
class Contender:
    """One system: who made it, what it takes and, where it is known, its quality on bicubic x2.

    `runtime` is the only one that it has; without, it is a graph in `path` for any provider. `rerun` tells whether ours
    measured the quality; otherwise it is quoted. `weights_sha256` is of the published weights, where they were given.
    """

    name: str
    title: str
    kind: Literal["clearcall", "published", "classical"]
    parameters: int | None = None
    published_parameters: str = ""
    source: str = ""
    scale: int = 1
    runtime: str = ""
    psnr_db: float | None = None
    ssim: float | None = None
    rerun: bool = False
    weights_sha256: str = ""
    path: Path | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Measurement:
    """One contender on one runtime, at one size, with as many threads; times in ms, None where it did not run.

    `note` says why it did not. `gemm_share` is of the float32 GEMM peak on as many threads.
    """

    contender: str
    provider: str
    threads: int
    width: int
    height: int
    macs: int | None
    median_ms: float | None = None
    p95_ms: float | None = None
    fps: float | None = None
    frames: int = 0
    gemm_share: float | None = None
    note: str = ""


def check(settings: Settings) -> Settings:
    """Return the settings with what was left empty filled in, from small to large; raise UserError for mistakes."""
    installed, cores = installed_providers(), available_cores()
    for provider in settings.providers:
        if provider not in installed:
            raise UserError(f"provider {provider} is not installed here; installed: {', '.join(installed)}")
    if settings.peers and not settings.images:
        raise UserError(f"published weights in {settings.peers} serve to measure quality: name --images too")
    sizes = settings.sizes or ((QUICK_SIZE,) if settings.quick else SIZES)
    threads = settings.threads or ((cores,) if settings.quick else (1, cores))
    return replace(
        settings,
        sizes=tuple(sorted(set(sizes), key=lambda size: size[0] * size[1])),
        threads=tuple(sorted(set(threads))),
        providers=tuple(dict.fromkeys(settings.providers or installed)),
        frames=settings.frames or (QUICK_FRAMES if settings.quick else FRAMES),
    )


def compare(settings: Settings) -> dict[str, Any]:
    """Measure everything and return it as a document that JSON can hold, with machine, date and command line."""
    settings = check(settings)
    try:
        from clearcall.evaluation.cost import measure_gemm_gflops  # noqa: PLC0415  # torch and onnx take seconds
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'clearcall[pipeline]'") from None
    ours = _our_models(settings.models)
    weights = find_weights(settings.peers) if settings.peers else {}
    images = split_images(settings.images) if settings.images else None
    by_ncnn, missing = split_installed()
    quality: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory(prefix="clearcall-") as folder:
        contenders = [
            *ours,
            *_published(Path(folder), weights),
            *(Contender(p.name, p.title, "published", source=p.source, scale=SCALE, runtime="ncnn") for p in by_ncnn),
            *(one for one in _CLASSICAL if one.name not in FFMPEG_FILTERS or has_filter(FFMPEG_FILTERS[one.name])),
        ]
        if images:
            quality = _quality(contenders, images, settings.threads[-1])
            contenders = [_with_quality(contender, quality["scores"]) for contender in contenders]
        # Rounded before use: whoever reads the document finds the same shares from its own figures.
        gemm_gflops = {threads: round(measure_gemm_gflops(threads), 1) for threads in settings.threads}
        run = _Run(settings, contenders, gemm_gflops)
        with run.progress:
            memory = run.measure_memory()
            for size in settings.sizes:
                # All threads come first: from them a single one's time can be foreseen.
                for threads in reversed(settings.threads):
                    run.measure(size, threads)
    order = [contender.name for contender in contenders]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": settings.command,
        "machine": machine(),
        "versions": {name: version(name) for name in ("numpy", "opencv-python-headless", "torch", *settings.providers)},
        "reference_size": list(settings.reference_size),
        "gemm_gflops": {str(threads): gflops for threads, gflops in gemm_gflops.items()},
        "contenders": {
            contender.name: {key: value for key, value in asdict(contender).items() if key not in {"name", "path"}}
            for contender in contenders
        },
        "missing": missing,
        "quality": quality,
        "peak_memory_mib": memory,
        "measurements": [
            asdict(measured) for measured in sorted(run.measured.values(), key=lambda one: order.index(one.contender))
        ],
    }


# The input's quality is a copy's; both were measured once, on the photographs of the published networks.
_CLASSICAL = (
    Contender("unsharp", "unsharp mask, RGB", "classical", runtime="OpenCV", psnr_db=31.39, ssim=0.9379),
    Contender("unsharp_luma", "unsharp mask, luma only", "classical", runtime="OpenCV"),
    Contender("ffmpeg_unsharp", "FFmpeg unsharp, luma only", "classical", runtime="FFmpeg"),
    Contender("ffmpeg_cas", "FFmpeg cas", "classical", runtime="FFmpeg"),
    Contender("identity", "copy of the input", "classical", runtime="NumPy", psnr_db=30.68, ssim=0.9267),
)


def open_contender(contender: Contender, provider: str, threads: int, frames: Sequence[Frame]) -> Restore:
    """Return what restores an 8-bit RGB frame as large as the `frames` on one runtime."""
    if provider == "ncnn":
        return fed_small(NcnnNetwork(contender.name, threads), SCALE, frames)
    if provider == "FFmpeg":
        return FfmpegFilter(FFMPEG_FILTERS[contender.name], threads=threads)
    if contender.path is None:
        return _RESTORE[contender.name]
    runtime: Provider = provider  # type: ignore[assignment]  # only those without a graph have others
    if contender.kind == "published":
        return open_peer(contender.path, contender.scale, runtime, threads, frames)
    return at_most(contender.path, runtime, threads)[1]


def _quality(contenders: Sequence[Contender], images: ImageFolder, threads: int) -> dict[str, Any]:
    """Measure every contender whose weights are known, networks of ours and others' on onnxruntime."""
    filters, candidates = tunable_filters(), dict[str, Candidate]()
    for contender in contenders:
        name, scale = contender.name, contender.scale
        if contender.runtime == "ncnn":
            candidates[name] = Candidate(NcnnNetwork(name, threads), upscales=True)
        elif contender.weights_sha256 and contender.path:
            network = PeerNetwork(contender.path, scale, "onnxruntime", threads)
            candidates[name] = Candidate(network, upscales=scale > 1)
        elif contender.kind == "clearcall" and contender.path:
            ours, coded = (Sharpener(contender.path, "onnxruntime", threads, coded=coded) for coded in (False, True))
            candidates[name] = Candidate(ours, restore_coded=coded)
        elif name == "identity":
            candidates[name] = Candidate(np.copy)
    return measure_quality(images, candidates, filters)


def _with_quality(contender: Contender, scores: Mapping[str, Any]) -> Contender:
    """Return a contender with what was measured under the first degradation in place of what is quoted."""
    first: dict[str, Any] = next(iter(scores.get(contender.name, {}).values()), {})
    return replace(contender, psnr_db=first.get("psnr_db"), ssim=first.get("ssim"), rerun=True)


def _our_models(models: Sequence[str]) -> list[Contender]:
    """Return the shipped models and those named beside them; raise UserError if two share a name."""
    from clearcall.evaluation.cost import count_parameters  # noqa: PLC0415

    contenders: dict[str, Contender] = {}
    taken = {one.name for one in (*PEERS, *NCNN_PEERS, *_CLASSICAL)}
    for model in dict.fromkeys([*shipped_models(), *models]):
        path = find_model(model)
        load_graph(path)  # refuses a file that is no network of ours before minutes have gone by
        card = read_json(path.with_suffix(".json")) if path.with_suffix(".json").is_file() else {}
        quality = card.get("quality", {}).get("bicubic_x2.0", {})
        name = path.stem
        if name in taken:
            raise UserError(f"two contenders are called {name!r}: rename {path.name}")
        taken.add(name)
        contenders[name] = Contender(
            name,
            f"clearcall {name}",
            "clearcall",
            parameters=count_parameters(path),
            psnr_db=quality.get("psnr_db"),
            ssim=quality.get("ssim"),
            rerun=True,
            path=path,
        )
    return list(contenders.values())


def _published(folder: Path, weights: Mapping[str, Path]) -> Iterator[Contender]:
    with ProgressBar("exporting published networks", len(PEERS)) as bar:
        for peer in PEERS:
            path = folder / f"{peer.name}.onnx"
            given = weights.get(peer.name)
            parameters = export_peer(peer, path, given)
            bar.advance()
            yield Contender(
                peer.name,
                peer.title,
                "published",
                parameters=parameters,
                published_parameters=peer.published_parameters,
                source=peer.source,
                scale=peer.scale,
                psnr_db=peer.psnr_db,
                ssim=peer.ssim,
                weights_sha256=sha256_of(given) if given else "",
                path=path,
            )


@dataclass(frozen=True)
class _Step:
    """One line of the tables."""

    contender: Contender
    provider: str
    threads: int
    size: Size


class _Run:
    """What is measured so far, and how long the rest is likely to take."""

    def __init__(self, settings: Settings, contenders: Sequence[Contender], gemm_gflops: dict[int, float]) -> None:
        self._settings, self._contenders, self._gemm_gflops = settings, contenders, gemm_gflops
        self._memory: dict[str, dict[str, float | None]] = {}
        self._macs: dict[tuple[str, Size], int] = {}
        self.measured: dict[_Step, Measurement] = {}
        self._spent = 0.0
        seconds = sum(
            self._likely_seconds(step)
            for size in settings.sizes
            for threads in settings.threads
            for step in self._steps(size, threads)
        )
        self.progress = ProgressBar("benchmark, estimated seconds", round(seconds + self._memory_seconds()))

    def measure_memory(self) -> dict[str, dict[str, float | None]]:
        """Return the peak MiB of each contender on each runtime at the reference size; None: it failed."""
        if self._settings.quick:
            return {}
        size, threads = self._settings.reference_size, self._settings.threads[-1]
        for step in self._steps(size, threads):
            self.progress.note(f"memory of {step.contender.title}")
            found = self._memory.setdefault(step.contender.name, {})
            try:
                found[step.provider] = round(_peak_memory_mib(step), 1)
            except UserError as error:
                warn(str(error))
                found[step.provider] = None
            self._advance(self._likely_seconds(step, frames=1))
        return self._memory

    def measure(self, size: Size, threads: int) -> None:
        """Measure all contenders at one size: the slow, which hold gigabytes, one by one, the others in turns."""
        settings, (width, height) = self._settings, size
        params = BenchmarkFps(
            width=width,
            height=height,
            frames=settings.frames,
            blocks=min(_BLOCKS, settings.frames),
            warmup_frames=_WARM_UP_FRAMES,
            slow_ms=SLOW_MS,
            slow_frames=SLOW_FRAMES,
            provider="auto",
            threads=threads,
            frames_in_flight=1,
        )
        # What a picture shows makes no difference to any of them.
        noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        frames = make_frames(noise, width, height)
        fast: dict[_Step, Restore] = {}
        with _opencv_threads(threads):
            for step in self._steps(size, threads):
                self.progress.note(f"{width}x{height}, threads {threads}: {step.contender.title}, {step.provider}")
                expected_ms = self._expected_ms(step)
                if reason := self._why_not(step, expected_ms):
                    self._record(step, note=reason)
                    continue
                if restore := self._fast(step, frames, params, expected_ms):
                    fast[step] = restore
            if fast:
                self.progress.note(f"{width}x{height}, threads {threads}: the fast ones in turns")
                names = {str(index): restore for index, restore in enumerate(fast.values())}
                latency = measure_latency(names, frames, params, shown=False)
                for step, timed in zip(fast, latency.values(), strict=True):
                    self._record(step, timed)

    def _fast(self, step: _Step, frames: Sequence[Frame], params: BenchmarkFps, expected_ms: float) -> Restore | None:
        """Return a contender that is to take turns, or measure it here and let it go."""
        try:
            restore = open_contender(step.contender, step.provider, step.threads, frames)
        except UserError as error:
            self._record(step, note=f"failed: {error}")
            return None
        timed = measure_if_slow(restore, frames, params, SINGLE_MS, expected_ms)
        if timed is None:
            return restore
        self._record(step, timed)
        return None

    def _steps(self, size: Size, threads: int) -> list[_Step]:
        return [
            _Step(contender, provider, threads, size)
            for contender in self._contenders
            for provider in ([contender.runtime] if contender.runtime else self._settings.providers)
        ]

    def _record(self, step: _Step, timed: dict[str, Any] | None = None, note: str = "") -> None:
        macs = self._macs_of(step)
        values: dict[str, Any] = {}
        if timed is not None:
            values = {key: timed[key] for key in ("median_ms", "p95_ms", "fps", "frames")}
            if macs:
                values["gemm_share"] = round(2 * macs * timed["fps"] / 1e9 / self._gemm_gflops[step.threads], 4)
        self.measured[step] = Measurement(
            step.contender.name, step.provider, step.threads, *step.size, macs=macs or None, note=note, **values
        )
        self._advance(self._likely_seconds(step))

    def _expected_ms(self, step: _Step) -> float:
        """Return how long a frame will take, by what was measured at other sizes and on more threads; 0: no idea."""
        pixels = step.size[0] * step.size[1]
        found = [
            known.median_ms * pixels / (other.size[0] * other.size[1]) * other.threads / step.threads
            for other, known in self.measured.items()
            if (other.contender, other.provider) == (step.contender, step.provider) and known.median_ms is not None
            # Threads help less than they might: more of them give an upper bound, fewer would give a lower one.
            if other.threads >= step.threads
        ]
        return min(found, default=0.0)

    def _why_not(self, step: _Step, expected_ms: float) -> str:
        """Return why a contender is skipped at this size, or nothing."""
        if expected_ms > SKIP_MS:
            return f"skipped: about {expected_ms / 1000:.0f} s a frame"
        if not (known := self._memory.get(step.contender.name)):
            return ""
        reference = self._settings.reference_size
        mib = known[step.provider]
        if mib is None:
            return "skipped: failed in a process of its own"
        needed = mib * step.size[0] * step.size[1] / (reference[0] * reference[1])
        import psutil  # noqa: PLC0415  # of the extra `pipeline`, like torch

        if needed > psutil.virtual_memory().available / _MIB:
            return f"skipped: needs about {needed / 1024:.0f} GiB of memory"
        return ""

    def _macs_of(self, step: _Step) -> int:
        from clearcall.evaluation.cost import count_macs  # noqa: PLC0415

        contender, (width, height) = step.contender, step.size
        if contender.path is None:
            return 0
        key = (contender.name, step.size)
        if key not in self._macs:
            stride = load_graph(contender.path).stride
            sides = (side // contender.scale for side in (height, width))
            self._macs[key] = count_macs(contender.path, *(side + -side % stride for side in sides))
        return self._macs[key]

    def _likely_seconds(self, step: _Step, frames: int = 0) -> float:
        """Return roughly what a step takes, before anything was measured."""
        seconds = 2 * self._macs_of(step) / (_USUAL_SHARE * self._gemm_gflops[step.threads] * 1e9)
        if seconds * 1000 > SKIP_MS:
            return _STEP_SECONDS
        if not frames:
            few = 1 if seconds * 1000 > SINGLE_MS else SLOW_FRAMES + 1
            frames = few if seconds * 1000 > SLOW_MS else self._settings.frames
        return _STEP_SECONDS + seconds * frames

    def _memory_seconds(self) -> float:
        if self._settings.quick:
            return 0
        steps = self._steps(self._settings.reference_size, self._settings.threads[-1])
        return sum(self._likely_seconds(step, frames=1) for step in steps)

    def _advance(self, seconds: float) -> None:
        before, self._spent = self._spent, self._spent + seconds
        self.progress.advance(round(self._spent) - round(before))


def _peak_memory_mib(step: _Step) -> float:
    """Return the peak memory in MiB of a process of its own that restores one frame."""
    contender, (width, height) = step.contender, step.size
    program = (
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from clearcall.evaluation.comparison import Contender, open_contender\n"
        "name, kind, scale, path, provider, threads, width, height = arguments\n"
        "contender = Contender(name, name, kind, scale=scale, path=Path(path) if path else None)\n"
        "frame = np.zeros((height, width, 3), np.uint8)\n"
        "restore = open_contender(contender, provider, threads, [frame])\n"
        "restore(frame)\n"
    )
    path = str(contender.path or "")
    arguments: list[str | int] = [
        contender.name,
        contender.kind,
        contender.scale,
        path,
        step.provider,
        step.threads,
        width,
        height,
    ]
    return peak_memory_mib(program, arguments, contender.title)


@contextmanager
def _opencv_threads(count: int) -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
