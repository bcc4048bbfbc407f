"""Latency: contenders are timed in turns, so that a slow moment affects all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


def time_ms(call: Callable[[], object]) -> float:
    """Return how long one call takes, in ms."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def in_turns(calls: Mapping[Key, Callable[[], Result]], rounds: int) -> dict[Key, list[Result]]:
    """Make every call once a round, one after another, and return each one's results in order."""
    results: dict[Key, list[Result]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            results[key].append(call())
    return results


def median_ms(timers: Mapping[Key, Callable[[], float]], warm_up: int, runs: int) -> dict[Key, float]:
    """Return each timer's median in ms over `runs` rounds in turns, after `warm_up` rounds."""
    return {key: statistics.median(ms[warm_up:]) for key, ms in in_turns(timers, warm_up + runs).items()}
