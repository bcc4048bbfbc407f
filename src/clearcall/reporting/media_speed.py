"""video.md: speed of sharpening videos, and latency and memory of a camera."""

import statistics
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from clearcall.core.errors import UserError
from clearcall.data.degrade.codecs import FRAMES_PER_SECOND
from clearcall.evaluation.media_speed import (
    LOOP_S,
    PAN_PX,
    QP,
    SMALLER,
    SWAY_PX,
    CameraSpeed,
    VideoSpeed,
    measure_camera,
    measure_steps,
    measure_video,
)
from clearcall.imaging.sizes import Size
from clearcall.media.video.run import check_network
from clearcall.reporting.page import Page
from clearcall.reporting.tables import markdown_table
from clearcall.runtime.sharpener import Sharpener

NAME = "video.md"
_LIBRARIES = ("av", "cv2", "numpy")


def benchmark_videos(
    models: Sequence[str],
    command: str,
    reports: Path,
    *,
    seconds: float = 60.0,
    loop_s: float = LOOP_S,
    rounds: int = 3,
    frames: int = 300,
    video_size: Size = (1920, 1080),
    camera_size: Size = (1280, 720),
) -> Path:
    """Measure all models on a video, and the last one on a video in place of a camera; write reports/video.md.

    Sizes are (width, height) in pixels, even; `frames` are those of the video, `rounds` how often each model has its
    turn, `seconds` how long the camera runs. `command` is named in the report. Raises UserError for a model that is
    not there or works on RGB, and KeyboardInterrupt if Ctrl-C cuts a measurement short; then nothing is written.
    """
    sharpeners = {model: Sharpener(model, video=True) for model in models}
    for sharpener in sharpeners.values():
        check_network(sharpener)
    try:
        reports.mkdir(parents=True, exist_ok=True)  # fails now, not after all the work
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{reports} is a file or lies under one: name a folder for the report") from None
    # The camera first: what the others leave in memory would hide how much it takes.
    camera = measure_camera(sharpeners[models[-1]], camera_size, seconds, loop_s)
    video = measure_video(sharpeners, video_size, frames, rounds)
    steps = {model: measure_steps(sharpener, "pan", video_size, frames) for model, sharpener in sharpeners.items()}
    page = Page("Videos and a camera on this machine")
    libraries = (*sorted({one.runtime for one in video}), *_LIBRARIES)
    versions = {name: str(import_module(name).__version__) for name in libraries}
    page.made_by(command, versions)
    page.add(
        f"A small photograph, mirrored to fill the frame, is sent by H.264 at QP {QP}. `pan`: the camera goes over it "
        f"by {PAN_PX:g} pixels a frame and zooms a little, so that the temporal filter works on nearly all frames. "
        f"`head`: before a camera that stands still, a part of it as large as a head sways by {SWAY_PX:g} pixels. "
        "`room`: nothing moves. A camera that stands still has noise."
    )
    _add_video(page, video, video_size, rounds)
    _add_steps(page, steps, video_size)
    _add_camera(page, models[-1], camera, camera_size, loop_s)
    return page.write(reports / NAME)


def _add_video(page: Page, video: Sequence[VideoSpeed], size: Size, rounds: int) -> None:
    rows = []
    for one in video:
        values = statistics.median(one.fps), min(one.fps), max(one.fps), one.cpu_ms, one.encode_fps
        scene = one.scene if one.enlarged == 1 else f"{one.scene}, enlarged x{one.enlarged}"
        row = [Path(one.model).name, one.runtime, scene, "yes" if one.past_frames else "no", one.expert]
        rows.append([*row, *(f"{value:.1f}" for value in values)])
    headers = [
        "model",
        "runtime",
        "scene",
        "past frames",
        "expert",
        "median fps",
        "least",
        "most",
        "CPU ms",
        "encode fps",
    ]
    page.add(f"## Videos of {size[0]}x{size[1]}")
    page.add(
        f"{video[0].frames} frames, decoded and sharpened as by `clearcall sharpen IN --dry-run`, {rounds} times in "
        "turns with the others; with the time that preparing the network takes. The expert is that of the last frame; "
        "where it is the identity, the router found nothing to restore and no network ran. CPU: a frame, of all cores. "
        "The encoder's rate is of a run that writes the video, too, where it shares the cores with all else. Enlarged: "
        f"from a video of a {SMALLER}rd of the height, as by `--size`."
    )
    page.add(markdown_table(headers, rows))


def _add_steps(page: Page, steps: Mapping[str, Mapping[str, float]], size: Size) -> None:
    page.add(f"## Where the time of a frame of {size[0]}x{size[1]} goes")
    page.add(
        "ms of processor time a frame, all cores together, of the scene `pan`, each step measured by itself. The "
        "filter does less in the other scenes, an encoder more with more detail."
    )
    names = [*next(iter(steps.values()))]
    rows = [[name, *(f"{of_model[name]:.1f}" for of_model in steps.values())] for name in names]
    rows.append(["sum", *(f"{sum(of_model.values()):.1f}" for of_model in steps.values())])
    page.add(markdown_table(["step", *(Path(model).name for model in steps)], rows))


def _add_camera(page: Page, model: str, camera: CameraSpeed, size: Size, loop_s: float) -> None:
    summary, counts, memory_mib = camera.summary, camera.summary.counts, camera.memory_mib
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
    page.add(f"## A camera of {size[0]}x{size[1]} at {FRAMES_PER_SECOND} fps")
    page.add(
        f"`{Path(model).name}` with past frames, for {camera.seconds:.0f} s, recorded with the status overlay. In "
        f"place of the camera a video of {loop_s:g} s is played over and over. Latency is from when a frame comes to "
        "when it has been put out; memory is the whole process's, with the decoder and the recording's encoder."
    )
    page.add(markdown_table(["", ""], [[*item] for item in values.items()]))
