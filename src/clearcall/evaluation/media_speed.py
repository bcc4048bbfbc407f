"""Speed of sharpening videos, and latency, drift and memory of sharpening a camera."""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from clearcall.runtime.sharpener import Sharpener
from clearcall.runtime.timing import in_turns

QP = 32
PAN_PX, _ZOOM = 2.3, 0.0006  # a frame, at most: pixels and magnification
LOOP_S = 20  # of the video that is played in place of a camera
_SAMPLES = 40  # of the memory


@dataclass(frozen=True)
class VideoSpeed:
    """One model on one video: frames decoded and sharpened a second, in each round, and encoded a second."""

    model: str
    runtime: str
    past_frames: bool
    frames: int
    fps: list[float]
    encode_fps: float


@dataclass(frozen=True)
class CameraSpeed:
    """What came of a camera, how long it ran, and the memory of the process in MiB at even intervals."""

    summary: Summary
    seconds: float
    memory_mib: list[float]


def write_panning_video(path: Path, size: Size, frames: int) -> None:
    """Write a video of H.264 as a call sends it, in which all of the frame moves all the time.

    It is a photograph that comes with the pipeline's packages, mirrored at its edges, over which the camera goes in a
    circle and zooms in and out, so that the video can be played over and over.
    """
    width, height = size
    photograph = np.asarray(read_rgb(bundled_originals()[-1].path, 1))
    options = {"qp": str(QP), "preset": "veryfast", "tune": "zerolatency"}
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", FRAMES_PER_SECOND, options, width=width, height=height, pix_fmt="yuv420p")
        for frame in track(_views(photograph, size, frames), frames, f"making a video of {width}x{height}"):
            video.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())


def _views(photograph: Frame, size: Size, frames: int) -> Iterator[Frame]:
    a_round = frames / (2 * np.pi)
    for angle in np.linspace(0, 2 * np.pi, frames, endpoint=False):
        scale = np.exp(_ZOOM * a_round * np.sin(angle))
        x, y = PAN_PX * a_round * np.array([np.cos(angle), np.sin(angle)])
        matrix = np.array([[scale, 0, x], [0, scale, y]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        yield np.asarray(cv2.warpAffine(photograph, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def measure_video(sharpeners: Mapping[str, Sharpener], size: Size, frames: int, rounds: int) -> list[VideoSpeed]:
    """Decode and sharpen a video by each model, with past frames and without, in turns; then encode it, once each.

    Raises KeyboardInterrupt if Ctrl-C cuts a measurement short.
    """
    with tempfile.TemporaryDirectory(prefix="clearcall-") as folder:
        path, out = Path(folder, "video.mp4"), Path(folder, "out.mp4")
        write_panning_video(path, size, frames)
        runs = [(model, past_frames) for model in sharpeners for past_frames in (True, False)]
        timers = {run: partial(time_video, sharpeners[run[0]], path, past_frames=run[1]) for run in runs}
        timed = in_turns({run: partial(_complete, timer) for run, timer in timers.items()}, rounds)
        found = []
        for (model, past_frames), summaries in timed.items():
            sharpener = sharpeners[model]
            encoded = _complete(partial(sharpen_video, sharpener, path, out, past_frames=past_frames, overwrite=True))
            runtime, fps = str(sharpener.choice and sharpener.choice.provider), [one.sharpen_fps for one in summaries]
            found.append(VideoSpeed(model, runtime, past_frames, summaries[0].frames, fps, encoded.encode_fps or 0.0))
    return found


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
        write_panning_video(path, size, round(loop_s * FRAMES_PER_SECOND))
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
