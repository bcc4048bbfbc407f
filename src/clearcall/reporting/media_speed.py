"""clearcall.reporting.media_speed."""

import statistics
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from clearcall.core.errors import UserError
from clearcall.core.files import write_text
from clearcall.core.machine import machine, processor_told
from clearcall.data.degrade.codecs import FRAMES_PER_SECOND
from clearcall.evaluation.media_speed import (
    _CAMERA_FILM_S,
    _PAN,
    QP,
    _Contender,
    _lasted_s,
    _run_camera,
    _run_films,
    write_panning_film,
)
from clearcall.imaging.looks import VIDEO_LOOK
from clearcall.imaging.sizes import Size
from clearcall.media.camera.status import Summary
from clearcall.media.video.run import VideoSummary, check_network
from clearcall.reporting.tables import markdown_table
from clearcall.runtime.sharpener import Sharpener

NAME = "video.md"


_LIBRARIES = ("av", "cv2", "numpy")


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
    """Measure all models on a film, and the last one on a film in place of a camera; write reports/video.md.

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
        f"{first[0].frames} frames, decoded and sharpened as by `clearcall sharpen IN --dry-run`, {len(first)} times "
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
