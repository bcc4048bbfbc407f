"""Which pairs the unsharp mask is tuned on, and the scores of contenders by a pool."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.make.networks import stored_networks

from clearcall.core.errors import UserError
from clearcall.core.processes import worker_pool
from clearcall.data.pairs import PairReader, PairRecord, read_pairs, spread
from clearcall.evaluation.quality import clean_psnr_db, score_contenders
from clearcall.imaging.frame import Frame
from clearcall.models.inference import StoredNetwork

RECORD = PairRecord("a", "0", "a", "validation", 1.0, "x", 0, 8, 8, 8, 8, "s", 0, "d", 0, 30.0, 0.9, 1.0)


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


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_scores_are_the_same_for_any_number_of_workers(jobs: int, tiny_pairs: Path, tmp_path: Path) -> None:
    records, networks = read_pairs(tiny_pairs), stored_networks(tmp_path)
    alone = score_contenders(tiny_pairs, records, networks), clean_psnr_db(tiny_pairs, records, networks)
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # which may change the last bits of a result
    try:
        with worker_pool(jobs, threads=True) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
            scores = score_contenders(tiny_pairs, records, networks, pool)
            assert (scores, clean_psnr_db(tiny_pairs, records, networks, pool)) == alone
    finally:
        torch.set_num_threads(before)
    per_pair = [("student", "sharp"), ("teacher", "sharp"), ("student", "teacher")]
    assert [(score.contender, score.reference) for score in scores] == per_pair * len(records)
    assert [(score.image, score.degradation) for score in scores[::3]] == [(r.image, r.degradation) for r in records]


def test_a_pool_stops_at_the_first_error(tiny_pairs: Path) -> None:
    records, seen = read_pairs(tiny_pairs) * 20, list[str]()

    def fail(_frame: Frame, degradation: str) -> Frame:
        seen.append(degradation)
        raise UserError("the image is too small")

    with pytest.raises(UserError, match="too small"), worker_pool(1, threads=True) as pool:
        score_contenders(tiny_pairs, records, {"teacher": fail}, pool)
    assert len(seen) < len(records)


def test_a_stored_network_is_loaded_again_when_it_was_trained_again(tiny_pairs: Path, tmp_path: Path) -> None:
    frame = PairReader(tiny_pairs).degraded(read_pairs(tiny_pairs)[0])
    first, second = (stored_networks(tmp_path, seed)["student"](frame) for seed in (0, 1))
    assert (first != second).any()
    with pytest.raises(UserError, match="holds no trained network"):
        StoredNetwork.find(tmp_path / "none")
