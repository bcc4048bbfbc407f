"""Work that is spread over the cores is done once, wholly, and by nobody who is not there."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import pytest

from clearcall.cores import spread

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def test_two_threads_work_at_once_and_each_item_is_done_once() -> None:
    together, done = threading.Barrier(2, timeout=20), list[int]()

    def work(item: int) -> None:
        if item < 2:
            together.wait()  # breaks unless another thread comes to it
        done.append(item)

    spread(work, range(100))
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize("items", [0, 1, 5])
def test_one_thread_is_this_one(items: int) -> None:
    cv2.setNumThreads(1)
    threads = list[int]()
    spread(lambda _: threads.append(threading.get_ident()), range(items))
    assert threads == [threading.get_ident()] * items


@pytest.mark.parametrize("bad", range(4))
def test_what_the_work_raises_is_raised(bad: int) -> None:
    together = threading.Barrier(2, timeout=20)

    def work(item: int) -> None:
        if item < 2:
            together.wait()  # so that the first two are raised by different threads
        if item == bad:
            raise LookupError(item)

    with pytest.raises(LookupError, match=str(bad)):
        spread(work, range(4))
    done = list[int]()
    spread(done.append, range(3))  # nothing is left of what failed
    assert sorted(done) == [0, 1, 2]


def test_many_at_once_and_one_inside_another_wait_for_nobody() -> None:
    """Helpers that are all busy are not waited for."""

    def work(_: int) -> int:
        found = list[int]()
        spread(lambda row: spread(lambda column: found.append(10 * row + column), range(10)), range(10))
        return sum(found)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40), timeout=60)) == [sum(range(100))] * 40


@needs_fork
def test_a_fork_has_helpers_of_its_own() -> None:
    spread(lambda _: None, range(8))
    child = os.fork()
    if not child:
        done = list[int]()
        spread(done.append, range(8))
        os._exit(sorted(done) != list(range(8)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
