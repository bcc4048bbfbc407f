"""How fast films are sharpened on this machine, and how late, steadily and in how much memory a camera's frames are."""

import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
from av.video.frame import VideoFrame

from clearcall.camera.run import Settings, run_camera
from clearcall.camera.status import Summary
from clearcall.comparison.write import processor_told
from clearcall.console import track
from clearcall.cores import machine
from clearcall.data.codecs import FRAMES_PER_SECOND
from clearcall.data.single import read_rgb
from clearcall.data.sources import bundled_originals
from clearcall.errors import UserError
from clearcall.files import write_text
from clearcall.looks import VIDEO_LOOK
from clearcall.metrics import Frame
from clearcall.report.tables import markdown_table
from clearcall.sharpener import Sharpener
from clearcall.sizes import Size
from clearcall.video.run import VideoSummary, check_network, sharpen_video, time_video

NAME = "films.md"
QP = 32
_PAN, _ZOOM = 2.3, 0.0006  # a frame, at most: pixels and magnification
_CAMERA_FILM_S = 20
_SAMPLES = 40  # of the memory
_LIBRARIES = ("av", "cv2", "numpy")

_Contender = tuple[str, bool]  # a model, and whether it has past frames


def benchmark_films(
    models: Sequence[str],
    command: str,
    reports: Path,
    *,
    seconds: float = 60.0,
    rounds: int = 3,
    frames: int = 300,
    film_size: Size = (1920, 1080),
    camera_size: Size = (1280, 720),
) -> Path:
    """Measure all models on a film, and the last one on a film in place of a camera; write reports/films.md.

    Sizes are (width, height) in pixels, even; `frames` are those of the film, `rounds` how often each model has its
    turn, `seconds` how long the camera runs. `command` is told in the report. Raises UserError for a model that is not
    there or works on RGB, and KeyboardInterrupt if Ctrl-C cuts a measurement short; then nothing is written.
    """
    sharpeners = {model: Sharpener(model, look=VIDEO_LOOK, video=True) for model in models}
    for sharpener in sharpeners.values():
        check_network(sharpener)
    try:
        reports.mkdir(parents=True, exist_ok=True)  # to tell now, not after all the work, that it cannot be
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{reports} is a file or lies under one: name a folder for the report") from None
    with tempfile.TemporaryDirectory(prefix="clearcall-") as folder:
        # The camera first: what the others leave in memory would hide how much it takes.
        call = Path(folder, "call.mp4")
        write_panning_film(call, camera_size, _CAMERA_FILM_S * FRAMES_PER_SECOND)
        summary, memory_mib = _run_camera(sharpeners[models[-1]], call, seconds)
        film = Path(folder, "film.mp4")
        write_panning_film(film, film_size, frames)
        timed, encoded = _run_films(sharpeners, film, rounds)
    path = reports / NAME
    runtimes = {model: str(sharpener.choice and sharpener.choice.provider) for model, sharpener in sharpeners.items()}
    text = _head(command, {*runtimes.values()})
    text += _about_films(timed, encoded, runtimes, film_size)
    text += _about_camera(models[-1], summary, memory_mib, camera_size)
    write_text(path, text)
    return path


def write_panning_film(path: Path, size: Size, frames: int) -> None:
    """Write a film of H.264 as a call sends it, in which all of the picture moves all the time.

    It is a photograph that comes with the pipeline's packages, mirrored at its edges, over which the camera goes in a
    circle and zooms in and out, so that the film can be played over and over.
    """
    width, height = size
    photograph = np.asarray(read_rgb(bundled_originals()[-1].path, 1))
    options = {"qp": str(QP), "preset": "veryfast", "tune": "zerolatency"}
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", FRAMES_PER_SECOND, options, width=width, height=height, pix_fmt="yuv420p")
        for picture in track(_views(photograph, size, frames), frames, f"making a film of {width}x{height}"):
            film.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode())


def _views(photograph: Frame, size: Size, frames: int) -> Iterator[Frame]:
    a_round = frames / (2 * np.pi)
    for angle in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        scale = np.exp(_ZOOM * a_round * np.sin(angle))
        x, y = _PAN * a_round * np.array([np.cos(angle), np.sin(angle)])
        matrix = np.array([[scale, 0, x], [0, scale, y]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        yield np.asarray(cv2.warpAffine(photograph, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def _run_films(
    sharpeners: dict[str, Sharpener], film: Path, rounds: int
) -> tuple[dict[_Contender, list[VideoSummary]], dict[_Contender, VideoSummary]]:
    """Decode and sharpen in turns, so that a slow moment of the machine slows all; then also write, once each."""
    timed: dict[_Contender, list[VideoSummary]] = {
        (model, past_frames): [] for model in sharpeners for past_frames in (True, False)
    }
    for _ in range(rounds):
        for (model, past_frames), summaries in timed.items():
            summaries.append(_whole(time_video(sharpeners[model], film, past_frames=past_frames)))
    out = film.with_name("out.mp4")
    encoded = {
        (model, past_frames): _whole(
            sharpen_video(sharpeners[model], film, out, past_frames=past_frames, overwrite=True)
        )
        for model, past_frames in timed
    }
    return timed, encoded


def _whole(summary: VideoSummary) -> VideoSummary:
    if summary.interrupted:
        raise KeyboardInterrupt
    return summary


def _run_camera(sharpener: Sharpener, film: Path, seconds: float) -> tuple[Summary, list[float]]:
    """Play a film in place of a camera, sharpen it live, and record it with the status on it.

    Return what came of it, and the memory of the process in MiB at even intervals.
    """
    outputs = (str(film.with_name("camera.mkv")),)
    settings = Settings(str(film), outputs, seconds=seconds, overlay=True, again=True)
    with _memory_watched(seconds / _SAMPLES) as memory_mib:
        summary = run_camera(sharpener, settings)
    if summary.trouble:
        raise UserError(summary.trouble)
    if _lasted_s(summary) < seconds - 1:
        raise KeyboardInterrupt
    return summary, memory_mib[-_SAMPLES:]  # what came before was the choice of a runtime


def _lasted_s(summary: Summary) -> float:
    return (summary.shown + summary.counts.missed) / FRAMES_PER_SECOND


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


def _head(command: str, runtimes: set[str]) -> str:
    here = machine()
    libraries = ", ".join(f"{name} {import_module(name).__version__}" for name in (*sorted(runtimes), *_LIBRARIES))
    return (
        "# Films and a camera on this machine\n\n"
        f"Made by `{command}` on {datetime.now(UTC).date()}, on {processor_told(here)}, "
        f"{here['system']}, Python {here['python']}; {libraries}. A small photograph, mirrored to fill the frame, is "
        f"panned over by {_PAN:g} pixels a frame, zoomed a little, and sent by H.264 at QP {QP}: all of the picture "
        "moves all the time, so that nearly all frames get what the ones before show. Fast zooms, and things that move "
        "by themselves, take longer.\n\n"
    )


def _about_films(
    timed: dict[_Contender, list[VideoSummary]],
    encoded: dict[_Contender, VideoSummary],
    runtimes: dict[str, str],
    size: Size,
) -> str:
    rows = []
    for (model, past_frames), summaries in timed.items():
        fps = [summary.sharpen_fps for summary in summaries]
        values = statistics.median(fps), min(fps), max(fps), encoded[model, past_frames].encode_fps or 0.0
        row = [Path(model).name, runtimes[model], "yes" if past_frames else "no"]
        rows.append([*row, *(f"{value:.1f}" for value in values)])
    first = next(iter(timed.values()))
    titles = ["model", "runtime", "past frames", "median fps", "least", "most", "encode fps"]
    return (
        f"## A film of {size[0]}x{size[1]}\n\n"
        f"{first[0].frames} frames, decoded and sharpened as by `clearcall video FILM --dry-run`, {len(first)} times "
        "in turns with the others; with the time that preparing the network takes. The encoder's rate is of a run that "
        "writes the film, too, where it shares the cores with all else.\n\n"
        f"{markdown_table(titles, rows)}\n\n"
    )


def _about_camera(model: str, summary: Summary, memory_mib: Sequence[float], size: Size) -> str:
    counts = summary.counts
    quarters = [memory_mib[(len(memory_mib) - 1) * part // 4] for part in (1, 2, 4)]
    values = {
        "latency": f"median {summary.median_ms:.1f} ms, p95 {summary.p95_ms:.1f} ms; a frame is shown for "
        f"{1000 / FRAMES_PER_SECOND:.1f} ms",
        "drift": f"{summary.drift_ms:+.1f} ms",
        "frames put out": f"{summary.shown}: {counts.sharpened} sharpened, {counts.late} passed through late, "
        f"{counts.repeated} repeated",
        "frames lost": f"{summary.dropped} that came, {counts.missed} that should have been put out",
        "size processed": f"{summary.processed} at the end; it was changed {counts.resized} times",
        "memory": ", ".join(f"{mib:.0f} MiB" for mib in quarters) + " after a quarter, after half and at the end",
    }
    return (
        f"## A camera of {size[0]}x{size[1]} at {FRAMES_PER_SECOND} fps\n\n"
        f"`{Path(model).name}` with past frames, for {_lasted_s(summary):.0f} s, recorded with the status on the "
        f"picture. In place of the camera a film of {_CAMERA_FILM_S} s is played over and over. Latency is from when a "
        "frame comes to when it has been put out; memory is the whole process's, with the film's decoder and the "
        "recording's encoder.\n\n"
        f"{markdown_table(['', ''], [[*item] for item in values.items()])}\n"
    )
