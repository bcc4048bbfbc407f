"""How fast films are sharpened on this machine, and how late, steadily and at what memory a camera's frames are."""

import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.camera.run import Settings, run_camera
from clearcall.camera.status import Summary
from clearcall.console import track
from clearcall.cores import machine
from clearcall.data.single import read_rgb
from clearcall.data.sources import bundled_originals
from clearcall.files import write_text
from clearcall.metrics import Frame
from clearcall.report.tables import markdown_table
from clearcall.sharpener import Sharpener
from clearcall.sizes import Size
from clearcall.video.run import sharpen_video, time_video

NAME = "films.md"
RATE, QP = 30, 32
_RADIUS = 64  # pixels: of the circle on which the camera goes, once a film
_ZOOM = 0.02  # at most
_SAMPLES = 40  # of the memory


@dataclass(frozen=True)
class FilmRate:
    """Frames a second of decoding and sharpening a film, one figure a round, and of encoding it, None if not tried."""

    model: str
    past_frames: bool
    sharpen_fps: list[float]
    encode_fps: float | None


@dataclass(frozen=True)
class CameraRun:
    """What a camera's run came to, and the memory of the process in MiB, at even intervals from its first frame on."""

    model: str
    size: Size
    summary: Summary
    memory_mib: list[float]


def benchmark_films(
    models: Sequence[str],
    command: str,
    reports: Path,
    *,
    seconds: float = 60.0,
    rounds: int = 3,
    frames: int = 200,
    film_size: Size = (1920, 1080),
    camera_size: Size = (1280, 720),
) -> Path:
    """Measure all models on a film, and the last one on a film in place of a camera; write reports/films.md.

    Sizes are (width, height) in pixels, even; `frames` are those of the film, `rounds` how often each model has its
    turn, `seconds` how long the camera runs. `command` is told in the report. Raises UserError for a model that is not
    there or works on RGB; then nothing is written.
    """
    sharpeners = {model: Sharpener(model) for model in models}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        film, call = folder / "film.mp4", folder / "call.mp4"
        write_panning_film(film, film_size, frames)
        write_panning_film(call, camera_size, 3 * frames)
        # The camera first: what the others leave in memory would hide how much it takes.
        camera = _camera_run(models[-1], sharpeners[models[-1]], call, camera_size, seconds)
        rates = _film_rates(sharpeners, film, rounds)
    path = reports / NAME
    write_text(path, _markdown(rates, camera, film_size, frames, command))
    return path


def write_panning_film(path: Path, size: Size, frames: int) -> None:
    """Write a film of H.264 as a call sends it, in which all of the picture moves all the time.

    It is a photograph that comes with the pipeline's packages, mirrored at its edges, over which the camera goes in a
    circle and zooms in and out, so that the film can be played over and over.
    """
    width, height = size
    photograph = np.asarray(read_rgb(bundled_originals()[-1].path, 1).convert("RGB"))
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", RATE, {"qp": str(QP), "preset": "veryfast", "tune": "zerolatency"})
        if not isinstance(stream, VideoStream):
            raise TypeError("libx264 makes no video stream")  # it does; this is for the type checker
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in track(_views(photograph, size, frames), frames, f"making a film of {width}x{height}"):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def _views(photograph: Frame, size: Size, frames: int) -> Iterator[Frame]:
    for angle in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        scale = 1 + _ZOOM * np.sin(angle)
        shift = _RADIUS * np.array([np.cos(angle), np.sin(angle)])
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        yield np.asarray(cv2.warpAffine(photograph, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def _film_rates(sharpeners: dict[str, Sharpener], film: Path, rounds: int) -> list[FilmRate]:
    """Measure all in turns, so that a slow moment of the machine slows all; encode once each."""
    contenders = [(model, past_frames) for model in sharpeners for past_frames in (True, False)]
    fps: dict[tuple[str, bool], list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for model, past_frames in contenders:
            summary = time_video(sharpeners[model], film, past_frames=past_frames)
            fps[model, past_frames].append(summary.sharpen_fps)
    encoded = {
        contender: sharpen_video(sharpeners[contender[0]], film, film.with_name("out.mp4"), past_frames=contender[1])
        for contender in contenders
    }
    return [FilmRate(*contender, fps[contender], encoded[contender].encode_fps) for contender in contenders]


def _camera_run(model: str, sharpener: Sharpener, film: Path, size: Size, seconds: float) -> CameraRun:
    """Play a film in place of a camera, sharpen it live, and record it with the status on it."""
    outputs = (str(film.with_name("camera.mkv")),)
    settings = Settings(str(film), outputs, seconds=seconds, overlay=True, again=True)
    with _memory_watched(seconds / _SAMPLES) as memory_mib:
        summary = run_camera(sharpener, settings)
    return CameraRun(model, size, summary, memory_mib)


@contextmanager
def _memory_watched(every_s: float) -> Iterator[list[float]]:
    """Yield a list that gets the memory of this process, in MiB, again and again until the block ends."""
    process, samples, stop = psutil.Process(), list[float](), threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            samples.append(process.memory_info().rss / 2**20)

    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _markdown(rates: Sequence[FilmRate], camera: CameraRun, film_size: Size, frames: int, command: str) -> str:
    here = machine()
    summary, counts, memory = camera.summary, camera.summary.counts, camera.memory_mib
    film = [
        [
            rate.model,
            "yes" if rate.past_frames else "no",
            *(f"{choose(rate.sharpen_fps):.1f}" for choose in (statistics.median, min, max)),
            "" if rate.encode_fps is None else f"{rate.encode_fps:.1f}",
        ]
        for rate in rates
    ]
    live = [
        ["latency, median and p95", f"{summary.median_ms:.1f} ms, {summary.p95_ms:.1f} ms"],
        ["length of a frame", f"{1000 / RATE:.1f} ms"],
        ["drift", f"{summary.drift_ms:+.1f} ms"],
        ["sharpened", f"{counts.sharpened} of {summary.shown} frames"],
        ["passed through late, dropped, missed", f"{counts.late}, {summary.dropped}, {counts.missed}"],
        ["changes of the size processed", str(counts.resized)],
        ["memory after a quarter of the time, half of it, at the end", _told(memory)],
    ]
    what = ["model", "past frames", "median fps", "least", "most", "encode fps"]
    width, height = film_size
    cores, instructions = f"{here['cores']} core{'s' if here['cores'] != 1 else ''}", ", ".join(here["instructions"])
    return (
        "# Films and a camera on this machine\n\n"
        f"Made by `{command}` on {datetime.now(UTC).date()}, on {here['cpu']} with {cores} ({instructions}), "
        f"{here['system']}. A photograph is panned and zoomed over and sent by H.264 at QP {QP}: all of the picture "
        "moves all the time, so that every frame gets what the frames before it show, which takes longest.\n\n"
        f"## A film of {width}x{height}\n\n"
        f"{frames} frames, decoded and sharpened (`clearcall video --dry-run`), {len(rates[0].sharpen_fps)} times in "
        "turns with the others. The last column is the encoder's rate in another run, which also encodes.\n\n"
        f"{markdown_table(what, film)}\n\n"
        f"## A camera of {camera.size[0]}x{camera.size[1]} at {RATE} fps\n\n"
        f"`{camera.model}` with past frames, for {summary.shown / RATE:.0f} s, recorded with the status on the "
        "picture. In place of the camera a film is played over and over; that it is opened anew each time takes some "
        "memory at first. Latency is from a frame's coming to its having been put out.\n\n"
        f"{markdown_table(['', ''], live)}\n"
    )


def _told(memory_mib: Sequence[float]) -> str:
    if not memory_mib:
        return "too short to tell"
    last = len(memory_mib) - 1
    return ", ".join(f"{memory_mib[last * part // 4]:.0f} MiB" for part in (1, 2, 4))
