"""Votes in SQLite: one a rater and item, the last wins, synthetic ones are marked."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.opinion.conftest import MakeStudy

from clearcall.core.errors import UserError
from clearcall.opinion.votes import Votes

SCORES = {"clarity": 4, "edges": 3, "naturalness": 5}


def test_the_last_vote_wins_and_counts_once(make_study: MakeStudy) -> None:
    study = make_study()
    votes, item = Votes(study), study.rated[0].id
    rater = votes.add_rater()
    for clarity in (1, 5, 2):
        votes.vote(rater, item, SCORES | {"clarity": clarity})
    assert votes.of_rater(rater) == {item: SCORES | {"clarity": 2}}
    assert len(votes.all()) == 3 and not any(vote.synthetic for vote in votes.all())
    assert Votes(study).of_rater(rater) == votes.of_rater(rater)


def test_only_codes_of_tests_are_synthetic(make_study: MakeStudy) -> None:
    study = make_study()
    votes = Votes(study)
    for rater in (votes.add_rater("synthetic-1"), votes.add_rater()):
        votes.vote(rater, study.rated[0].id, SCORES)
    assert {vote.rater for vote in votes.all() if vote.synthetic} == {"synthetic-1"}
    with sqlite3.connect(study.folder / "votes.db") as database, pytest.raises(sqlite3.IntegrityError):
        database.execute("UPDATE raters SET synthetic = 0")


def test_what_is_no_vote_is_refused_and_leaves_nothing(make_study: MakeStudy) -> None:
    study = make_study()
    votes, item = Votes(study), study.rated[0].id
    rater = votes.add_rater()
    training = next(one.id for one in study.items.values() if one.training)
    with pytest.raises(ValueError, match="clarity"):
        votes.vote(rater, item, {"clarity": 3})
    for of, voted, scores in (
        ("nobody", item, SCORES),
        (rater, training, SCORES),
        (rater, item, SCORES | {"naturalness": 6}),
        (rater, item, SCORES | {"naturalness": 0}),
    ):
        with pytest.raises(sqlite3.IntegrityError):
            votes.vote(of, voted, scores)
    with pytest.raises(sqlite3.IntegrityError):
        votes.add_rater(rater)
    assert votes.all() == []


def test_raters_vote_at_the_same_time(make_study: MakeStudy) -> None:
    study = make_study()
    votes = Votes(study)
    raters = [votes.add_rater() for _ in range(8)]

    def rate(rater: str) -> None:
        for item in study.rated:
            Votes(study).vote(rater, item.id, SCORES)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(rate, raters))
    assert len(votes.all()) == 8 * len(study.rated) * 3


def test_votes_of_another_study_and_a_corrupt_file_are_named(make_study: MakeStudy) -> None:
    study = make_study()
    Votes(study)
    text = (study.folder / "study.json").read_text()
    (study.folder / "study.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match="votes of another"):
        Votes(study)
    (study.folder / "votes.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be used"):
        Votes(study)
