"""Processes that each train on one thread, and end when the one that started them does."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context

import torch

from clearcall.errors import end_with_parent


@contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of `jobs` processes with one torch thread each; an exception ends them at once.

    Tiny networks gain little from a second thread: two trainings side by side end sooner than one after the other.
    """
    # spawn: forking a process in which torch already runs threads can hang.
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    except BaseException:
        # Otherwise leaving the block would wait for what runs and for all that is planned.
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(active_children()) - others:
            worker.terminate()
        raise
    pool.shutdown()


def _start_worker() -> None:
    torch.set_num_threads(1)
    end_with_parent()
