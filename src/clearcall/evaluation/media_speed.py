"""How fast films are sharpened on this machine, and how late, steadily and in how much memory a camera's frames are."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

QP = 32
_PAN, _ZOOM = 2.3, 0.0006  # a frame, at most: pixels and magnification
_CAMERA_FILM_S = 20
_SAMPLES = 40  # of the memory

_Contender = tuple[str, bool]  # a model, and whether it has past frames


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
