"""The processing of a frame, and its worker thread."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import cv2
import numpy as np

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.media.camera.ladder import RUNGS
from clearcall.runtime.graph import NOTHING_TO_ADD
from clearcall.runtime.sharpener import Choice, Sharpener
from clearcall.temporal.filter import TemporalFilter

# Processes an I420 frame at a rung of the ladder, and writes the result to another array of its shape.
Process = Callable[[Frame, int, Frame], None]


class Live(Protocol):
    """Adapts a network to a live call, as `clearcall.training.live.LiveAdaptation` does."""

    def offer(self, frame: Frame, *, coded: bool) -> None:
        """Offer an I420 frame to train on."""
        ...

    def poll(self) -> Path | str | None:
        """Return the next network, or None if there is no change."""
        ...


class SwappableSharpener:
    """A Sharpener whose network is replaced between two frames."""

    def __init__(self, sharpener: Sharpener, live: Live, warm_up: Callable[[Sharpener], None]) -> None:
        self._sharpener, self._live, self._warm_up = sharpener, live, warm_up
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="adapt")
        self._pending: Future[Sharpener] | None = None

    def for_frame(self, frame: Frame) -> Sharpener:
        """Return the Sharpener for an I420 frame, and offer the frame for training."""
        self._live.offer(frame, coded=self._sharpener.coded)
        if self._pending is None:
            if (network := self._live.poll()) is not None:
                self._pending = self._pool.submit(self._build, network)
        elif self._pending.done():
            if (error := self._pending.exception()) is None:
                self._sharpener = self._pending.result()
                warn(f"from now on the network is {self._sharpener.graph.name}")
            else:
                warn(f"the adapted network cannot be used: {error}")
            self._pending = None
        return self._sharpener

    def close(self) -> None:
        """Wait for a Sharpener that is being built."""
        self._pool.shutdown(cancel_futures=True)

    def _build(self, network: Path | str) -> Sharpener:
        now = self._sharpener
        choice = cast(Choice, now.choice)  # it was warmed up
        built = Sharpener(network, choice.provider, choice.threads, now.strength, look=now.look, video=True)
        self._warm_up(built)
        built.begin_video(coded=now.coded, live=True)
        return built


class Processor:
    """Sharpens I420 frames of one size, at each rung of the ladder.

    At a lower rung the luma is downscaled, and the residual is upscaled and added to the luma at full resolution, which
    so loses nothing; chroma is restored at the highest rung alone. `width` and `height` are in pixels and even;
    `past_frames` applies the temporal filter (`TemporalFilter`). Raises UserError for a network that needs RGB.
    """

    def __init__(self, sharpener: Sharpener, width: int, height: int, *, past_frames: bool = True) -> None:
        if sharpener.graph.kind == "rgb":
            raise UserError(f"{sharpener.graph.name} works on RGB: a camera needs a luma network such as fast")
        self._sharpener = sharpener
        self._prepare: Callable[[Frame], Frame] = TemporalFilter() if past_frames else lambda luma: luma
        self._height = height
        sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in RUNGS]
        self._small = [np.full(size, NOTHING_TO_ADD, np.uint8) for size in sizes]
        self._added = [np.empty(size, np.uint8) for size in sizes]
        self._enlarged = np.empty((height, width), np.uint8)
        self._warm_up(sharpener)
        self._swappable: SwappableSharpener | None = None

    @contextmanager
    def adapted_by(self, live: Live | None) -> Iterator[Self]:
        """Offer the frames to `live` and use its networks within the block; without it, change nothing."""
        if live is None:
            yield self
            return
        self._swappable = SwappableSharpener(self._sharpener, live, self._warm_up)
        try:
            yield self
        finally:
            self._swappable.close()
            self._swappable = None

    def _warm_up(self, sharpener: Sharpener) -> None:
        """Let it compile for the size of each rung."""
        for small in self._small:
            sharpener(np.full_like(small, NOTHING_TO_ADD), "gray")

    def __call__(self, frame: Frame, rung: int, out: Frame) -> None:
        """Write the sharpened frame (height * 3 / 2, width) to `out`, another array."""
        if self._swappable is not None:
            self._sharpener = self._swappable.for_frame(frame)
        luma, sharper = frame[: self._height], out[: self._height]
        np.copyto(out[self._height :], frame[self._height :])
        if rung:
            self._add_enlarged(luma, rung, sharper)
        elif self._sharpener.graph.coloured:
            np.copyto(sharper, self._prepare(luma))
            self._sharpener(out, "i420", out)
        else:
            self._sharpener(self._prepare(luma), "gray", sharper)

    def _add_enlarged(self, luma: Frame, rung: int, out: Frame) -> None:
        small, added = self._small[rung], self._added[rung]
        cv2.resize(luma, small.shape[::-1], dst=small, interpolation=cv2.INTER_AREA)
        self._sharpener(self._prepare(small), "gray", added)
        cv2.addWeighted(added, 1, small, -1, NOTHING_TO_ADD, dst=added)
        cv2.resize(added, luma.shape[::-1], dst=self._enlarged, interpolation=cv2.INTER_LINEAR)
        cv2.addWeighted(luma, 1, self._enlarged, 1, -NOTHING_TO_ADD, dst=out)


class Worker:
    """Processes one frame at a time on its own thread, so that a late one can be left.

    It keeps two frames: the result that was handed out last, and the one that is being made.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sharpen")
        self._future: Future[float] | None = None
        self._making = self._made = np.empty((0, 0), np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    @property
    def busy(self) -> bool:
        """Whether a frame is still being processed."""
        return self._future is not None and not self._future.done()

    def start(self, frame: Frame, rung: int) -> None:
        """Start a frame, which must not change meanwhile; raise the last one's error."""
        if self._future is not None:
            self._future.result()
        if self._making.shape != frame.shape:
            self._making, self._made = np.empty_like(frame), np.empty_like(frame)
        self._future = self._pool.submit(self._work, frame, rung)

    def wait(self, timeout_s: float) -> tuple[Frame, float] | None:
        """Return the result and the s that it took; None, which abandons it, if late.

        The result is valid until the one after it is begun. Raises what the processing has failed with.
        """
        if self._future is None or not wait([self._future], max(0.0, timeout_s)).done:
            return None
        took_s = self._future.result()
        self._future = None
        self._making, self._made = self._made, self._making
        return self._made, took_s

    def _work(self, frame: Frame, rung: int) -> float:
        started = time.perf_counter()
        self._process(frame, rung, self._making)
        return time.perf_counter() - started
