"""Live loop: one frame a slot of a fixed rate, sharpened if that is in time."""

import threading
from fractions import Fraction
from typing import Protocol

import numpy as np

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.media.camera.ladder import Ladder
from clearcall.media.camera.source import Captured, Source
from clearcall.media.camera.status import Clock, Status, Summary

_FIRST_FRAME_S, _LOOK_S = 10.0, 0.1
# Each frame's share in the mean of what putting out takes, and the part of a slot above which it counts as no more:
# that is a hiccup, or sharpening would get no time.
_FORGET, _MOST_PUTTING_OUT = 0.1, 0.5
# Slots by whose frames all are aligned, since the first frames of a camera come in a burst; and the part of these
# frames that may come after their slot has begun, so that a hiccup changes nothing.
_SETTLING_SLOTS, _LATER = range(10, 40), 0.1
TOGGLE, QUIT = " ", "q"


class Work(Protocol):
    """Processes one frame at a time, as `Worker` does."""

    @property
    def busy(self) -> bool:
        """Whether a frame is still being processed."""
        ...

    def start(self, frame: Frame, rung: int) -> None:
        """Begin with a frame."""
        ...

    def wait(self, timeout_s: float) -> tuple[Frame, float] | None:
        """Return the result and the s that it took, or None if it is not there in time."""
        ...


class Outputs(Protocol):
    """Where frames go."""

    def show(self, slot: int, frame: Frame, status: Status) -> str:
        """Output an I420 frame, shown from slot / rate s on; return the keys pressed."""
        ...


class Loop:
    """Outputs one frame a slot: the newest one, sharpened unless that takes too long.

    A frame has the length of one slot, from when it came or the slot began, less what putting out takes on average, to
    be sharpened; then it is put out as it is, and so are those that come before the late one is done. Without a new
    frame the last one is put out again. Slots are counted from the first frame, not from the one before, so that the
    output's clock cannot drift; those that pass while an output blocks are left out and counted as missed. Once, after
    40 slots, they move to begin when frames come, or all frames would wait as long as the first came late.
    """

    def __init__(
        self, source: Source, worker: Work, outputs: Outputs, fps: Fraction, clock: Clock | None = None
    ) -> None:
        self._source, self._worker, self._outputs = source, worker, outputs
        self._period_s = float(1 / fps)
        self._clock = clock or Clock()
        self._ladder = Ladder(self._period_s)
        self._last: Frame | None = None
        self._putting_out_s = 0.0
        self._waited_s = list[float]()  # from when frames came to their slots
        self.status = Status(source.size)

    def run(self, stop: threading.Event, seconds: float | None = None) -> Summary:
        """Run until the source ends, `stop` is set, `seconds` have passed or q is pressed.

        Raises UserError if no frame comes at all.
        """
        taken = self._first(stop)
        start_s, slot, shown = self._clock.now(), 0, 0
        while taken is not None or not (stop.is_set() or self._source.newest.ended):
            begin_s = start_s + slot * self._period_s
            if seconds is not None and begin_s - start_s >= seconds:
                break
            frame, latency_from_s = self._next(taken, begin_s, slot)
            taken = None
            if frame is None:
                break
            ready_s = self._clock.now()
            keys = self._outputs.show(slot, frame, self.status)
            end_s = self._clock.now()
            putting_out_s = min(end_s - ready_s, _MOST_PUTTING_OUT * self._period_s)
            self._putting_out_s += max(_FORGET, 1 / (shown + 1)) * (putting_out_s - self._putting_out_s)
            self.status.shown(end_s, begin_s, None if latency_from_s is None else 1000 * (end_s - latency_from_s))
            self._last, shown = frame, shown + 1
            self.status.counts.missed = slot + 1 - shown
            if QUIT in keys:
                break
            self.status.enabled ^= keys.count(TOGGLE) % 2 == 1
            if slot >= _SETTLING_SLOTS.stop and self._waited_s:
                start_s -= max(0.0, float(np.quantile(self._waited_s, _LATER)))
                self._waited_s.clear()
            slot = max(slot + 1, int((end_s - start_s) / self._period_s))
        return self._summary(shown)

    def _first(self, stop: threading.Event) -> Captured | None:
        """Wait for the first frame; return None if `stop` is set before."""
        newest, until_s = self._source.newest, self._clock.now() + _FIRST_FRAME_S
        while not stop.is_set():
            now_s = self._clock.now()
            if taken := newest.take(min(until_s, now_s + _LOOK_S)):
                return taken
            if newest.ended or now_s >= until_s:
                raise UserError(newest.trouble or f"no frame came from {self._source.name}")
        return None

    def _next(self, taken: Captured | None, begin_s: float, slot: int) -> tuple[Frame | None, float | None]:
        """Return a slot's frame, None at the end, and when its camera saw it, None if repeated."""
        taken = taken or self._take(begin_s)
        if taken is None:
            if self._source.newest.ended:
                return None, None
            self.status.counts.repeated += 1
            return self._last, None
        if slot in _SETTLING_SLOTS:
            self._waited_s.append(begin_s - taken.time_s)
        self.status.dropped = self._source.newest.dropped
        return self._processed(taken, begin_s), taken.seen_s

    def _take(self, begin_s: float) -> Captured | None:
        self._clock.wait_until(begin_s)
        newest, half_s = self._source.newest, self._period_s / 2
        # Older than half a slot, it came from a camera that is a bit faster than the slots: the next is nearly there,
        # and waiting for it keeps the latency below that of waiting with this one.
        return newest.take(begin_s + half_s, since_s=begin_s - half_s) or newest.take(begin_s + self._period_s)

    def _processed(self, taken: Captured, begin_s: float) -> Frame:
        """Return a frame sharpened if it is done in time, else as it came."""
        if not self.status.enabled:
            self.status.counts.off += 1
            return taken.frame
        result = None
        if not self._worker.busy:
            self._worker.start(taken.frame, self._ladder.rung)
            until_s = max(begin_s, taken.time_s) + self._period_s - self._putting_out_s
            result = self._worker.wait(until_s - self._clock.now())
        if result is None:
            self.status.counts.late += 1
        else:
            self.status.counts.sharpened += 1
        took_s = None if result is None else result[1]
        message = self._ladder.update(self._clock.now(), took_s, self._putting_out_s)
        if message:
            warn(message)
        if self._ladder.rung != self.status.rung:
            self.status.rung, self.status.counts.resized = self._ladder.rung, self.status.counts.resized + 1
        return taken.frame if result is None else result[0]

    def _summary(self, shown: int) -> Summary:
        status, newest = self.status, self._source.newest
        return Summary(
            arrived=newest.arrived,
            shown=shown,
            dropped=newest.dropped,
            counts=status.counts,
            median_ms=status.latencies.quantile(0.5),
            p95_ms=status.latencies.quantile(0.95),
            drift_ms=status.drift_ms,
            processed=status.processed,
            trouble=newest.trouble,
        )
