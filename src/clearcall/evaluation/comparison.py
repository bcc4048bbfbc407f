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
from itertools import product
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from clearcall.core.console import ProgressBar
from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
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
from clearcall.evaluation.results import FULL_HD
from clearcall.evaluation.speed import LatencyTimer, make_frames
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.sizes import Size, SizeContract
from clearcall.imaging.unsharp import unsharp_luma, unsharp_mask
from clearcall.params import BenchmarkFps
from clearcall.runtime.engines import Provider, installed_providers
from clearcall.runtime.graph import load_graph, shorten
from clearcall.runtime.sharpener import Sharpener, find_model, shipped_models

SIZES = ((1280, 720), (1920, 1080), (3840, 2160))
FRAMES = 200
QUICK_SIZE, QUICK_FRAMES = (640, 360), 20
SLOW_MS, SLOW_FRAMES = 100.0, 5
SINGLE_MS = 2_000.0
_BLOCKS, _WARM_UP_FRAMES = 10, 3
LEAST_SIDE = 16
_RADIUS, _AMOUNT = 1.0, 0.8
_RESTORE: dict[str, Restore] = {
    "unsharp": partial(unsharp_mask, radius=_RADIUS, amount=_AMOUNT),
    "unsharp_luma": partial(unsharp_luma, radius=_RADIUS, amount=_AMOUNT),
    "identity": np.copy,
}


@dataclass(frozen=True)
class Settings:
    """What to compare, `models` beside the shipped ones; `check` fills in what is left empty.

    `images` is a folder to measure quality on, `peers` one of published weights. `quick`: one small size, all cores,
    few frames.
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
        """The size of the summary and the chart: 1080p, or the largest if it is not measured."""
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
    """One system, who made it and what it takes.

    `runtime` is the only one that it has; without, it is a graph in `path` for any provider. PSNR and SSIM are those
    on bicubic x2, where they were measured. `weights_sha256` is of the published weights, where they were given.
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
    weights_sha256: str = ""
    path: Path | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Measurement:
    """One contender on one runtime, at one size, with as many threads; times in ms, None where it did not run.

    `note` says why it did not.
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
        measurements = _measure(contenders, settings)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": settings.command,
        "machine": machine(),
        "versions": {name: version(name) for name in ("numpy", "opencv-python-headless", "torch", *settings.providers)},
        "reference_size": list(settings.reference_size),
        "contenders": {
            contender.name: {key: value for key, value in asdict(contender).items() if key not in {"name", "path"}}
            for contender in contenders
        },
        "missing": missing,
        "quality": quality,
        "measurements": [asdict(measurement) for measurement in measurements],
    }


_CLASSICAL = (
    Contender("unsharp", "unsharp mask, RGB", "classical", runtime="OpenCV"),
    Contender("unsharp_luma", "unsharp mask, luma only", "classical", runtime="OpenCV"),
    Contender("ffmpeg_unsharp", "FFmpeg unsharp, luma only", "classical", runtime="FFmpeg"),
    Contender("ffmpeg_cas", "FFmpeg cas", "classical", runtime="FFmpeg"),
    Contender("identity", "copy of the input", "classical", runtime="NumPy"),
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
    return Sharpener(contender.path, runtime, threads).sharpen_worst_case


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
    """Return a contender with its PSNR and SSIM under the first degradation, if they were measured."""
    first: dict[str, Any] = next(iter(scores.get(contender.name, {}).values()), {})
    return replace(contender, psnr_db=first.get("psnr_db"), ssim=first.get("ssim"))


def _our_models(models: Sequence[str]) -> list[Contender]:
    """Return the shipped models and those named beside them; raise UserError if two share a name."""
    try:
        from clearcall.evaluation.cost import count_parameters  # noqa: PLC0415  # onnx takes a second to import
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'clearcall[pipeline]'") from None
    contenders: dict[str, Contender] = {}
    taken = {one.name for one in (*PEERS, *NCNN_PEERS, *_CLASSICAL)}
    for model in dict.fromkeys([*shipped_models(), *models]):
        path = find_model(model)
        load_graph(path)  # refuses a file that is no network of ours before minutes have gone by
        name = path.stem
        if name in taken:
            raise UserError(f"two contenders are called {name!r}: rename {path.name}")
        taken.add(name)
        parameters = count_parameters(path)
        contenders[name] = Contender(name, f"clearcall {name}", "clearcall", parameters=parameters, path=path)
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
                weights_sha256=sha256_of(given) if given else "",
                path=path,
            )


def _measure(contenders: Sequence[Contender], settings: Settings) -> list[Measurement]:
    """Time every contender on each of its runtimes, at every size, with every number of threads."""
    runs = [
        (contender, provider)
        for contender in contenders
        for provider in ([contender.runtime] if contender.runtime else settings.providers)
    ]
    measured = {(contender.name, provider): list[Measurement]() for contender, provider in runs}
    with ProgressBar("benchmark", len(settings.sizes) * len(settings.threads) * len(runs)) as bar:
        for size, threads in product(settings.sizes, settings.threads):
            for found in _time_at(runs, settings.frames, size, threads, bar):
                measured[found.contender, found.provider].append(found)
    return [measurement for of_run in measured.values() for measurement in of_run]


def _time_at(
    runs: Sequence[tuple[Contender, str]], frames: int, size: Size, threads: int, bar: ProgressBar
) -> Iterator[Measurement]:
    """Time contenders at one size: the slow, which hold gigabytes, one by one, the others in turns."""
    width, height = size
    plan = BenchmarkFps(
        width=width,
        height=height,
        frames=frames,
        blocks=min(_BLOCKS, frames),
        warmup_frames=_WARM_UP_FRAMES,
        slow_ms=SLOW_MS,
        slow_frames=SLOW_FRAMES,
        provider="auto",
        threads=threads,
        frames_in_flight=1,
    )
    # What an image shows makes no difference to any of them.
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    inputs = make_frames(noise, width, height)
    timer, failed = LatencyTimer(inputs, plan, SINGLE_MS), dict[str, str]()
    with _opencv_threads(threads):
        for index, (contender, provider) in enumerate(runs):
            bar.note(f"{width}x{height}, threads {threads}: {contender.title}, {provider}")
            try:
                timer.add(str(index), open_contender(contender, provider, threads, inputs))
            except UserError as error:
                failed[str(index)] = f"failed: {shorten(error)}"
            bar.advance()
        bar.note(f"{width}x{height}, threads {threads}: the fast ones in turns")
        latency = timer.finish(shown=False)
    for index, (contender, provider) in enumerate(runs):
        timed = {} if str(index) in failed else latency[str(index)]
        values = {key: timed[key] for key in ("median_ms", "p95_ms", "fps", "frames") if key in timed}
        note, macs = failed.get(str(index), ""), _macs(contender, size)
        yield Measurement(contender.name, provider, threads, width, height, macs=macs, note=note, **values)


def _macs(contender: Contender, size: Size) -> int | None:
    """Return the multiply-accumulates of a network for one frame of a size."""
    from clearcall.evaluation.cost import count_macs  # noqa: PLC0415

    if contender.path is None:
        return None
    contract, (width, height) = SizeContract(load_graph(contender.path).stride), size
    return count_macs(contender.path, *(contract.padded(side // contender.scale) for side in (height, width)))


@contextmanager
def _opencv_threads(count: int) -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
