"""Contenders take turns, and warm-up does not count."""

from functools import partial

from clearcall.runtime.timing import in_turns, median_ms, time_ms


def test_calls_are_made_in_turns() -> None:
    made = list[str]()
    results = in_turns({name: partial(made.append, name) for name in "ab"}, 2)
    assert made == ["a", "b", "a", "b"]
    assert results == {"a": [None, None], "b": [None, None]}


def test_the_median_leaves_out_the_warm_up() -> None:
    times = {"a": iter([900.0, 5.0, 1.0, 3.0]), "b": iter([0.0, 7.0, 9.0, 8.0])}
    assert median_ms({name: partial(next, ms) for name, ms in times.items()}, 1, 3) == {"a": 3.0, "b": 8.0}


def test_a_call_takes_time() -> None:
    assert time_ms(list) > 0
