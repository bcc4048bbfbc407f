"""Which pairs the unsharp mask is tuned on."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clearcall.data.pairs import PairRecord, read_pairs, spread

RECORD = PairRecord("a", "0", "a", "validation", 1.0, "x", 0, 8, 8, 8, 8, "s", 0, "d", 0, 30.0, 0.9)


def test_few_pairs_are_all_used(tiny_pairs: Path) -> None:
    records = read_pairs(tiny_pairs)
    assert spread(records, len(records)) == records


def test_of_many_pairs_some_are_taken_from_the_first_to_the_last_of_each_degradation() -> None:
    records = [replace(RECORD, degradation=name, variant=index) for index in range(9) for name in "ab"]
    taken = spread(records, 6)
    assert [(record.degradation, record.variant) for record in taken] == [
        *[("a", 0), ("a", 3), ("a", 6)],
        *[("b", 1), ("b", 4), ("b", 7)],
    ]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=80), st.integers(1, 40))
def test_no_pair_is_taken_twice_and_no_degradation_left_out(names: list[str], limit: int) -> None:
    records = [replace(RECORD, degradation=name, variant=index) for index, name in enumerate(names)]
    taken = spread(records, limit)
    assert len(taken) == len({record.variant for record in taken})
    assert {record.degradation for record in taken} == set(names)
    assert max(Counter(record.degradation for record in taken).values()) <= max(limit, 1)
    assert len(taken) <= max(limit + len(set(names)), 1)
