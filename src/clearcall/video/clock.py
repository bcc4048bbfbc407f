"""How long one side of a pipeline works, whatever the other side makes it wait."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType


class BusyClock:
    """Adds up the seconds in which at least one thread is inside; threads enter it as a context, as often as they like.

    `now` returns seconds that only ever grow.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._lock = now, threading.Lock()
        self._inside, self._since, self.busy_s = 0, 0.0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._since = self._now()
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self.busy_s += self._now() - self._since

    @contextmanager
    def left(self) -> Iterator[None]:
        """Leave for a while, to wait for somebody else: time counts on only if another thread is inside."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()
