"""Choose the processing resolution that this machine can sustain."""

import statistics
from collections import deque

RUNGS = (1.0, 0.75, 0.5)  # of width and height
_WINDOW_S = 2.0
_FEWEST = 5  # frames in the window, below which nothing is decided
_TOO_LATE = 0.2  # share of late frames that is no hiccup any more
_ROOM = 0.75  # of the time that there is: what the next larger size may take by what is known of this one
_PATIENCE_S, _MOST_PATIENCE_S = 10.0, 320.0
_SOON_S = 30.0  # a step up that has to be taken back within this time came too early; what lasted longer may come again


class Ladder:
    """Lowers the resolution when frames are late, and raises it after longer waits.

    It goes up where there is room by the time that is taken now, or where the larger size was ever held for long: what
    the smaller one takes tells only roughly, and a machine may be busy with something else for a while.

    `period_s` is the time from frame to frame. Times are in s of any clock that runs forwards; the first `update` is
    the start. There is no randomness and no clock inside.
    """

    def __init__(self, period_s: float) -> None:
        self.rung = 0  # in RUNGS
        self._period_s = period_s
        self._window: deque[tuple[float, float | None]] = deque()
        self._changed_s: float | None = None
        self._late_s = -_MOST_PATIENCE_S
        self._went_up, self._told = False, False
        self._held_long = [False] * len(RUNGS)  # which were ever held for longer than _SOON_S
        self._patience_s = _PATIENCE_S

    def update(self, now_s: float, work_s: float | None, others_s: float = 0.0) -> str | None:
        """Count a frame's processing time, None if it was late; return a message or None.

        `others_s` is what else has to be done in the period.
        """
        if self._changed_s is None:
            self._changed_s = now_s
        if work_s is None:
            self._late_s = now_s
        self._window.append((now_s, work_s))
        while self._window[0][0] <= now_s - _WINDOW_S:
            self._window.popleft()
        if now_s - self._changed_s < _WINDOW_S or len(self._window) < _FEWEST:
            return None
        if self._is_late():
            return self._go_down(now_s)
        waited = self.rung and now_s - max(self._changed_s, self._late_s) >= self._patience_s
        if waited and (self._held_long[self.rung - 1] or self._has_room(others_s)):
            self._change(now_s, self.rung - 1)
            self._went_up, self._told = True, False
            return f"there may be room again: frames are processed at {_percent(self.rung)} of their width and height"
        return None

    def _is_late(self) -> bool:
        return sum(work_s is None for _, work_s in self._window) >= _TOO_LATE * len(self._window)

    def _has_room(self, others_s: float) -> bool:
        slowest_s = statistics.quantiles([work_s or 0.0 for _, work_s in self._window], n=20)[-1]
        return slowest_s * (RUNGS[self.rung - 1] / RUNGS[self.rung]) ** 2 < _ROOM * (self._period_s - others_s)

    def _go_down(self, now_s: float) -> str | None:
        if self.rung == len(RUNGS) - 1:
            told, self._told = self._told, True
            return None if told else "even at the smallest size the rate cannot be held: late frames pass unsharpened"
        soon = now_s - (self._changed_s or 0.0) < _SOON_S
        if not soon:
            self._held_long[self.rung], self._patience_s = True, _PATIENCE_S
        elif self._went_up:
            self._patience_s = min(2 * self._patience_s, _MOST_PATIENCE_S)
        self._change(now_s, self.rung + 1)
        self._went_up = False
        return (
            f"the rate cannot be held: frames are now processed at {_percent(self.rung)} of their width and height, "
            "and what this adds is enlarged"
        )

    def _change(self, now_s: float, rung: int) -> None:
        self.rung, self._changed_s = rung, now_s
        self._window.clear()


def _percent(rung: int) -> str:
    return f"{RUNGS[rung]:.0%}"
