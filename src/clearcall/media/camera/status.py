"""Counts, latencies and the summary of a live run."""

import statistics
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from clearcall.imaging.sizes import Size
from clearcall.media.camera.ladder import RUNGS

_RECENT = 60  # frames: two seconds of most cameras
_BIN_MS, _BINS = 0.1, 20000


class Clock:
    """The time of this machine in s; it only runs forwards."""

    def now(self) -> float:
        """Return the time."""
        return time.perf_counter()

    def wait_until(self, then_s: float) -> None:
        """Return at a time, or at once if it is over."""
        time.sleep(max(0.0, then_s - self.now()))


class Latencies:
    """Histogram of latencies, 0.1 ms a bin up to 2 s: memory does not grow with time."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, ms: float) -> None:
        """Count one; longer ones go into the last bin."""
        self._counts[min(int(ms / _BIN_MS), _BINS - 1)] += 1

    def quantile(self, part: float) -> float:
        """Return a quantile, `part` from 0 to 1, in ms; 0 before the first frame."""
        total = int(self._counts.sum())
        return float(np.searchsorted(self._counts.cumsum(), part * total)) * _BIN_MS if total else 0.0


@dataclass
class Counts:
    """Number of frames by outcome; `missed` are slots without an output."""

    sharpened: int = 0
    late: int = 0
    off: int = 0
    repeated: int = 0
    missed: int = 0
    resized: int = 0


@dataclass
class Status:
    """The state of the loop at one frame, for the screen and the summary."""

    size: Size
    enabled: bool = True
    rung: int = 0
    dropped: int = 0
    counts: Counts = field(default_factory=Counts)
    latencies: Latencies = field(default_factory=Latencies)
    _recent_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _shown_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _first_lags_s: list[float] = field(default_factory=list)
    _last_lags_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def shown(self, now_s: float, slot_s: float, latency_ms: float | None) -> None:
        """Record a frame's output time, slot time, and latency, None if repeated."""
        self._shown_s.append(now_s)
        self._last_lags_s.append(now_s - slot_s)
        if len(self._first_lags_s) < _RECENT:
            self._first_lags_s.append(now_s - slot_s)
        if latency_ms is not None:
            self._recent_ms.append(latency_ms)
            self.latencies.add(latency_ms)

    @property
    def fps(self) -> float:
        """Frames a second of the output lately."""
        passed_s = self._shown_s[-1] - self._shown_s[0] if self._shown_s else 0.0
        return (len(self._shown_s) - 1) / passed_s if passed_s > 0 else 0.0

    @property
    def drift_ms(self) -> float:
        """How much later in their slots recent frames are than the first, by medians."""
        if not self._first_lags_s:
            return 0.0
        return 1000 * (statistics.median(self._last_lags_s) - statistics.median(self._first_lags_s))

    @property
    def processed(self) -> str:
        """The size at which frames are processed, for example 1280x720."""
        return "x".join(str(round(side * RUNGS[self.rung])) for side in self.size)

    def lines(self) -> list[str]:
        """Return what the screen shows."""
        median_ms = statistics.median(self._recent_ms) if self._recent_ms else 0.0
        p95_ms = sorted(self._recent_ms)[int(0.95 * len(self._recent_ms))] if self._recent_ms else 0.0
        counts = self.counts
        return [
            f"{self.fps:.1f} fps, latency {median_ms:.0f} ms, p95 {p95_ms:.0f} ms",
            f"sharpened {counts.sharpened}, late {counts.late}, dropped {self.dropped}",
            f"{'on' if self.enabled else 'OFF'}, processed at {self.processed}",
        ]


@dataclass(frozen=True)
class Summary:
    """The result of a run; `drift_ms` is how far its frames fell behind their slots."""

    arrived: int
    shown: int
    dropped: int
    counts: Counts
    median_ms: float
    p95_ms: float
    drift_ms: float
    processed: str
    trouble: str | None

    def __str__(self) -> str:
        """Say it in a few lines."""
        counts = self.counts
        off = f", {counts.off} while it was off" if counts.off else ""
        return (
            f"{self.arrived} frames in, {self.shown} out: {counts.sharpened} sharpened, {counts.late} passed through "
            f"late{off}, {counts.repeated} repeated; {self.dropped} dropped, {counts.missed} missed\n"
            f"latency median {self.median_ms:.1f} ms, p95 {self.p95_ms:.1f} ms; drift {self.drift_ms:+.1f} ms; "
            f"processed at {self.processed} (changes of size: {counts.resized})"
        )
