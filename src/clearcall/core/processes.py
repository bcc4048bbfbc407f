"""Child processes and signals."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

T = TypeVar("T")

# At the import, which comes before those of heavy libraries: a parent that dies meanwhile is noticed too.
_PARENT = os.getppid()
_CALLS_AHEAD = 1000
_PARENT_POLL_SECONDS, _GRACE_SECONDS = 0.2, 60.0


def one_torch_thread() -> None:
    """Give this worker one torch thread."""
    import torch  # noqa: PLC0415  # not everyone who needs this module trains

    torch.set_num_threads(1)


@contextmanager
def worker_pool(
    jobs: int, prepare: Callable[[], None] | None = one_torch_thread, *, threads: bool = False
) -> Iterator[Executor]:
    """Yield a pool of `jobs` processes that end with this one, at once if it fails.

    Each calls `prepare` first. By default it has one torch thread: tiny networks gain little from a second, so that two
    trainings side by side end sooner than one after the other. With `threads` the pool is threads of this process,
    which start at once and share memory: for work that releases the interpreter lock.

    With the environment variable CLEARCALL_SCHEDULER, the pool is all workers of that Dask scheduler instead.
    """
    if address := os.environ.get("CLEARCALL_SCHEDULER"):
        from clearcall.core.cluster import cluster_pool  # noqa: PLC0415  # an optional dependency

        with cluster_pool(address) as workers:
            yield workers
        return
    # spawn: forking a process in which torch or OpenCV already run threads can hang.
    others = set(active_children())
    pool: Executor = (
        ThreadPoolExecutor(jobs, initializer=prepare)
        if threads
        else ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=partial(_begin, prepare))
    )
    try:
        yield pool
    except BaseException:
        # Otherwise leaving the block would wait for what runs and for all that is planned.
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(active_children()) - others:
            worker.terminate()
        raise
    pool.shutdown()


def map_in_order(pool: Executor, work: Callable[..., T], arguments: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """Yield the results of `work` in the order of its arguments, which are taken a thousand calls ahead at most.

    `Executor.map` takes all at once.
    """
    waiting = deque[Future[T]]()
    for each in arguments:
        waiting.append(pool.submit(work, *each))
        if len(waiting) > _CALLS_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _begin(prepare: Callable[[], None] | None) -> None:
    end_with_parent()
    if prepare is not None:
        prepare()


def end_with_parent() -> None:
    """End this process soon after its parent has ended or was killed.

    As SIGTERM would, so that what is half-written is removed; by SIGKILL where that takes longer than a minute.
    """

    def watch() -> None:
        while os.getppid() == _PARENT:
            time.sleep(_PARENT_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has none

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


@contextmanager
def stopped_by_interrupt() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, or SIGTERM, sets instead of raising: wherever it comes, the file is closed well.

    Once it is set, the next one acts as it did before: what hangs must end too.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # which alone may choose what a signal does
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def set_stop(*_: object) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, set_stop)
    try:
        yield stop
    finally:
        restore()
