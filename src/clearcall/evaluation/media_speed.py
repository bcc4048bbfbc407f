"""Speed of sharpening videos, and latency, drift and memory of sharpening a camera."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
import psutil
from av.video.frame import VideoFrame

from clearcall.core.console import track
from clearcall.core.errors import UserError
from clearcall.data.degrade.codecs import FRAMES_PER_SECOND
from clearcall.data.ingest.sources import bundled_originals
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size
from clearcall.media.camera.run import Settings, run_camera
from clearcall.media.camera.status import Summary
from clearcall.media.video.run import VideoSummary, sharpen_video, time_video
from clearcall.runtime.sharpener import PixelFormat, Sharpener
from clearcall.runtime.timing import in_turns
from clearcall.runtime.video_routing import SCORED_EVERY
from clearcall.temporal.filter import TemporalFilter

Scene = Literal["pan", "head", "room"]
QP = 32
PAN_PX, _ZOOM = 2.3, 0.0006  # a frame, at most: pixels and magnification
SWAY_PX, _SWAYS, _HEAD = 8.0, 5, (0.5, 0.45, 0.16, 0.34)  # pixels; how often; middle and radii by width and height
_NOISE = 1.0  # of a camera that stands still, in 8-bit levels
SMALLER = 3  # a video of 360p is shown at 1080p
LOOP_S = 20  # of the video that is played in place of a camera
_SAMPLES = 40  # of the memory


@dataclass(frozen=True)
class VideoSpeed:
    """One model on one video: frames decoded and sharpened a second, in each round, and encoded a second.

    `enlarged` is the factor by which frames are enlarged, `expert` the one that sharpened the last frame: the identity
    takes no time. `cpu_ms` is the processor's time a frame while none is written, of all cores together.
    """

    model: str
    runtime: str
    scene: Scene
    enlarged: int
    past_frames: bool
    expert: str
    frames: int
    fps: list[float]
    cpu_ms: float
    encode_fps: float


@dataclass(frozen=True)
class CameraSpeed:
    """What came of a camera, how long it ran, and the memory of the process in MiB at even intervals."""

    summary: Summary
    seconds: float
    memory_mib: list[float]


def write_scene(path: Path, scene: Scene, size: Size, frames: int) -> None:
    """Write a video of H.264 as a call sends it, which can be played over and over.

    It shows a photograph that comes with the pipeline's packages, mirrored at its edges. `pan`: the camera goes over it
    in a circle and zooms in and out, so that all of the frame moves all the time. `head`: before a camera that stands
    still a head-sized part of it sways. `room`: nothing moves. A camera that stands still has noise.
    """
    width, height = size
    photograph = np.asarray(read_rgb(bundled_originals()[-1].path, 1))
    options = {"qp": str(QP), "preset": "veryfast", "tune": "zerolatency"}
    views = _panned(photograph, size, frames) if scene == "pan" else _still(photograph, size, frames, scene == "head")
    told = track(views, frames, f"making a video of {width}x{height}")
    _encode(path, (np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8) for frame in told), size, options)


def _panned(photograph: Frame, size: Size, frames: int) -> Iterator[Frame]:
    a_round = frames / (2 * np.pi)
    for angle in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        scale = np.exp(_ZOOM * a_round * np.sin(angle))
        x, y = PAN_PX * a_round * np.array([np.cos(angle), np.sin(angle)])
        matrix = np.array([[scale, 0, x], [0, scale, y]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        yield np.asarray(cv2.warpAffine(photograph, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def _still(photograph: Frame, size: Size, frames: int, sways: bool) -> Iterator[Frame]:  # noqa: FBT001  # of this module
    width, height = size
    matrix = np.eye(2, 3)
    view = cv2.warpAffine(photograph, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y, across, down = np.array(_HEAD) * [width, height, width, height]
    inside = np.clip(2 - 2 * np.hypot((columns - x) / across, (rows - y) / down), 0, 1) * sways
    noise = np.random.default_rng(0)
    for angle in np.linspace(0, 2 * np.pi * _SWAYS, frames, endpoint=False):
        shift = (SWAY_PX * np.sin(angle) * inside).astype(np.float32)
        seen = cv2.remap(view, columns + shift, rows + shift / 2, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        levels = seen + _NOISE * noise.standard_normal(seen.shape, np.float32)
        yield np.rint(levels).clip(0, 255).astype(np.uint8)


def measure_video(sharpeners: Mapping[str, Sharpener], size: Size, frames: int, rounds: int) -> list[VideoSpeed]:
    """Decode and sharpen videos by each model, in turns; then write each result, once.

    Those are a panning camera, with past frames and without, a head and a room before one that stands still, and the
    head enlarged to `size`. Raises KeyboardInterrupt if Ctrl-C cuts a measurement short.
    """
    cases: list[tuple[Scene, int, bool]] = [
        ("pan", 1, True),
        ("pan", 1, False),
        ("head", 1, True),
        ("room", 1, True),
        ("head", SMALLER, True),
    ]
    with tempfile.TemporaryDirectory(prefix="clearcall-") as folder:
        out, paths = Path(folder, "out.mp4"), dict[tuple[Scene, int], Path]()
        for scene, enlarged, _ in cases:
            if (scene, enlarged) not in paths:
                paths[scene, enlarged] = path = Path(folder, f"{scene}_{enlarged}.mp4")
                write_scene(path, scene, (size[0] // enlarged // 2 * 2, size[1] // enlarged // 2 * 2), frames)
        runs = [(model, *case) for model in sharpeners for case in cases]

        def run(
            model: str,
            scene: Scene,
            enlarged: int,
            past_frames: bool,  # noqa: FBT001  # of a run
        ) -> tuple[VideoSummary, float]:
            began_s = time.process_time()
            asked = None if enlarged == 1 else size
            path = paths[scene, enlarged]
            summary = _complete(partial(time_video, sharpeners[model], path, size=asked, past_frames=past_frames))
            return summary, time.process_time() - began_s

        timed = in_turns({one: partial(run, *one) for one in runs}, rounds)
        found = []
        for (model, scene, enlarged, past_frames), measured in timed.items():
            sharpener, path = sharpeners[model], paths[scene, enlarged]
            asked = None if enlarged == 1 else size
            write = partial(sharpen_video, sharpener, path, out, size=asked, past_frames=past_frames, overwrite=True)
            encoded = _complete(write)
            runtime, expert = str(sharpener.choice and sharpener.choice.provider), sharpener.expert or "-"
            fps = [one.sharpen_fps for one, _ in measured]
            count = measured[0][0].frames
            cpu_ms = 1000 * float(np.median([cpu_s for _, cpu_s in measured])) / count
            found.append(
                VideoSpeed(
                    model, runtime, scene, enlarged, past_frames, expert, count, fps, cpu_ms, encoded.encode_fps or 0.0
                )
            )
    return found


def measure_steps(sharpener: Sharpener, scene: Scene, size: Size, frames: int) -> dict[str, float]:
    """Return what each step of a frame costs on a video of a scene, in ms of processor time, all cores together.

    Every step is measured by itself, over all frames. The network and its frame are those of the highest cost.
    """
    width, height = size
    pixel_format: PixelFormat = "i420" if sharpener.graph.coloured else "gray"
    shape = (height * 3 // 2, width) if pixel_format == "i420" else (height, width)
    with tempfile.TemporaryDirectory(prefix="clearcall-") as folder:
        path = Path(folder, "scene.mp4")
        write_scene(path, scene, size, frames)
        began_s = time.process_time()
        with av.open(str(path)) as video:
            decoded = [np.asarray(frame.to_ndarray(), np.uint8) for frame in video.decode(video=0)]
        steps = {"decode": time.process_time() - began_s}
        out, encoded = np.empty(shape, np.uint8), Path(folder, "encoded.mp4")
        inputs = [np.ascontiguousarray(frame[: shape[0]]) for frame in decoded]
        sharpener.sharpen_worst_case(inputs[0], pixel_format, out)  # chooses the runtime, and warms it up
        temporal = TemporalFilter()

        def cost_s(step: Callable[[Frame], object]) -> float:
            began_s = time.process_time()
            for frame in inputs:
                step(frame)
            return time.process_time() - began_s

        steps["temporal filter"] = cost_s(lambda frame: temporal(frame[:height]))
        route_s = cost_s(lambda frame: sharpener.scores(frame, pixel_format)) if sharpener.experts else 0.0
        steps["choice of the expert"] = route_s / SCORED_EVERY
        steps["network"] = cost_s(lambda _: sharpener.run_network(width, height))
        whole_s = cost_s(lambda frame: sharpener.sharpen_worst_case(frame, pixel_format, out))
        steps["luma in, residual added"] = max(0.0, whole_s - route_s - steps["network"])
        began_s = time.process_time()
        _encode(encoded, decoded, size, {"crf": "18", "preset": "veryfast"})
        steps["encode (x264)"] = time.process_time() - began_s
    return {name: 1000 * seconds / len(inputs) for name, seconds in steps.items()}


def _encode(path: Path, frames: Iterable[Frame], size: Size, options: dict[str, str]) -> None:
    """Encode I420 frames by x264."""
    with av.open(str(path), "w") as video:
        width, height = size
        stream = video.add_stream("libx264", FRAMES_PER_SECOND, options, width=width, height=height, pix_fmt="yuv420p")
        for frame in frames:
            video.mux(stream.encode(VideoFrame.from_ndarray(frame, format="yuv420p")))
        video.mux(stream.encode())


def _complete(run: Callable[[], VideoSummary]) -> VideoSummary:
    summary = run()
    if summary.interrupted:
        raise KeyboardInterrupt
    return summary


def measure_camera(sharpener: Sharpener, size: Size, seconds: float, loop_s: float = LOOP_S) -> CameraSpeed:
    """Play a video of `loop_s` over and over in place of a camera, sharpen it live, record it with the status on it.

    Raises UserError if an output fails, and KeyboardInterrupt if Ctrl-C cuts it short.
    """
    with tempfile.TemporaryDirectory(prefix="clearcall-") as folder:
        path = Path(folder, "call.mp4")
        write_scene(path, "pan", size, round(loop_s * FRAMES_PER_SECOND))
        outputs = (str(path.with_name("camera.mkv")),)
        settings = Settings(str(path), outputs, seconds=seconds, overlay=True, again=True)
        with _memory_watched(seconds / _SAMPLES) as memory_mib:
            summary = run_camera(sharpener, settings)
    if summary.trouble:
        raise UserError(summary.trouble)
    lasted_s = (summary.shown + summary.counts.missed) / FRAMES_PER_SECOND
    if lasted_s < seconds - 1:
        raise KeyboardInterrupt
    return CameraSpeed(summary, lasted_s, memory_mib[-_SAMPLES:])  # what came before was the choice of a runtime


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
