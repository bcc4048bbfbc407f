"""Adapt a student to a live call in a background process.

Only the background process imports the training libraries; the process that plays the call imports this module.
"""

import os
import signal
import time
from collections import deque
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty, Full
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from clearcall.core.console import warn
from clearcall.core.errors import NothingToLearnError, UserError
from clearcall.core.files import SHIPPED, TEACHER
from clearcall.core.processes import end_with_parent, one_torch_thread
from clearcall.imaging.frame import Frame
from clearcall.runtime.graph import Graph
from clearcall.runtime.sharpener import shipped_models, shipped_name

if TYPE_CHECKING:
    from clearcall.training.adapt import Adaptation

_OFFER_EVERY_S = 0.5
_LOWEST_PRIORITY = 19
_JUDGED_FRAMES = 8  # the gain is the mean over the last so many
_REST_FRAMES = 40  # skipped after an attempt without a gain; doubled after each further one
_Offered = tuple[Frame, bool]  # I420, and whether it comes from a video encoder
_News = Path | str | Exception  # a network's ONNX file or shipped name, or the error that ended the process


class LiveAdaptation:
    """Trains on frames of a live call, and names the network to use from now on.

    A context manager: its process, of the lowest priority, and its files end with the block. `graph` is the shipped
    network to adapt. Raises UserError if it is no shipped network, or if training's packages are not installed.
    """

    def __init__(self, graph: Graph, teacher: str = TEACHER, steps: int | None = None) -> None:
        model = shipped_name(graph)
        if model is None:
            known = ", ".join(shipped_models())
            raise UserError(f"{graph.name} cannot be adapted: leave out --adapt, or give --model one of {known}")
        if find_spec("torch") is None or not (SHIPPED / f"{teacher}.safetensors").is_file():
            raise UserError("--adapt needs torch and the teacher's weights: pip install 'clearcall[pipeline]'")
        self._folder = TemporaryDirectory(prefix="clearcall-")
        context = get_context("spawn")
        self._frames: Queue[_Offered] = context.Queue(1)
        self._news: Queue[_News] = context.Queue()
        arguments = (self._frames, self._news, Path(self._folder.name), model, teacher, steps)
        self._process = context.Process(target=_run, args=arguments, daemon=True)
        self._offered_s = 0.0

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()
        for queue in (self._frames, self._news):
            queue.cancel_join_thread()
            queue.close()
        self._folder.cleanup()

    def offer(self, frame: Frame, *, coded: bool) -> None:
        """Offer an I420 frame; at most two a second are copied to the background process."""
        now_s = time.monotonic()
        if now_s - self._offered_s >= _OFFER_EVERY_S:
            self._offered_s = now_s
            with suppress(Full):  # it is learning
                self._frames.put_nowait((frame.copy(), coded))

    def poll(self) -> Path | str | None:
        """Return the next network, an ONNX file or a shipped name, or None if there is no change."""
        try:
            news = self._news.get_nowait()
        except Empty:
            return None
        if isinstance(news, Exception):
            warn(f"the network is no longer adapted: {news or type(news).__name__}")
            return None
        return news


def _run(
    frames: "Queue[_Offered]", news: "Queue[_News]", folder: Path, model: str, teacher: str, steps: int | None
) -> None:
    """Adapt until the parent ends; report a failure to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_LOWEST_PRIORITY)
    try:
        end_with_parent()
        one_torch_thread()
        _adapt_forever(frames, news, folder, model, teacher, steps)
    except Exception as error:  # noqa: BLE001  # whatever it is, the call goes on without
        news.put(UserError(str(error) or type(error).__name__))


def _adapt_forever(
    frames: "Queue[_Offered]", news: "Queue[_News]", folder: Path, model: str, teacher: str, steps: int | None
) -> None:
    """Collect frames, adapt when there are enough, validate on later frames, and repeat."""
    from clearcall.data.recordings import LiveFrames  # noqa: PLC0415  # see above
    from clearcall.models.weights import load_shipped  # noqa: PLC0415
    from clearcall.training.adapt import STEPS, adapt_to_frames, load_student, write_adapted  # noqa: PLC0415

    general, teaching = load_student(model), load_shipped(teacher)
    number, rest = 0, _REST_FRAMES
    while True:
        collected = LiveFrames()
        while not collected.enough:
            collected.offer(*_received(frames))
        number += 1
        output = folder / f"{model}_{number}.onnx"
        try:
            adaptation = adapt_to_frames(
                collected.frames(), model, general, teaching, steps or STEPS, folder=folder, shown=False
            )
            write_adapted(adaptation, output)
        except NothingToLearnError:  # later frames may differ
            for _ in range(rest):
                frames.get()
            rest *= 2
            continue
        news.put(output)
        _watch_gain(frames, adaptation)
        news.put(model)


def _watch_gain(frames: "Queue[_Offered]", adaptation: "Adaptation") -> None:
    """Return when the general student is nearer to the teacher's answers than the adapted one, on the last frames."""
    from clearcall.data.recordings import RecordedFrame  # noqa: PLC0415
    from clearcall.training.adapt import gain_over_general_db  # noqa: PLC0415

    gains_db = deque[float](maxlen=_JUDGED_FRAMES)
    while len(gains_db) < _JUDGED_FRAMES or np.mean(gains_db) >= 0:
        frame, coded = _received(frames)
        gains_db.append(gain_over_general_db(adaptation, RecordedFrame("live", 0, frame, coded)))


def _received(frames: "Queue[_Offered]") -> tuple[Frame, bool]:
    """Wait for a frame and return it as RGB."""
    frame, coded = frames.get()
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_I420), np.uint8), coded
