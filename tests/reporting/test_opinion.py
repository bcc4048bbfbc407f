"""The page of an opinion study: real votes alone, means, screening, tests, preferences."""

import csv
from pathlib import Path

import pytest
from tests.make.commands import run_command
from tests.opinion.conftest import MakeStudy, make_study, sharp_folder  # noqa: F401  # fixtures

from clearcall.core.errors import UserError
from clearcall.opinion.stimuli import Study
from clearcall.opinion.votes import Votes
from clearcall.reporting.opinion import write_opinion

BY_SYSTEM = {"input": 2, "unsharp": 3, "reference": 5}


def rate(study: Study, rater: str, shift: int = 0, least: int = 0) -> None:
    """Let a rater give each system its score, plus a shift, of all items or all but some."""
    votes = Votes(study)
    votes.add_rater(rater)
    for item in study.rated[least:]:
        if study.method == "pairs":
            first, second = (BY_SYSTEM[study.stimuli[one].system] for one in item.stimuli)
            votes.vote(rater, item.id, {"preference": 1 if second > first else -1})
        else:
            score = max(1, min(5, BY_SYSTEM[study.stimuli[item.id].system] + shift))
            votes.vote(rater, item.id, dict.fromkeys(study.scales, score))


def test_without_raters_there_are_no_votes(
    make_study: MakeStudy,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = make_study()
    monkeypatch.chdir(study.folder)
    done = run_command("opinion", "report", ".", "--output", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "reports" / "opinion.md").read_text()
    assert "**No votes yet.**" in said and "`clearcall opinion report study`" in said
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["opinion.md"]
    assert not (study.folder / "votes.db").exists()


def test_synthetic_votes_are_ignored_and_told(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    study = make_study()
    rate(study, "synthetic-1")
    said = write_opinion(study, tmp_path / "reports", "a test").read_text()
    assert "**No votes yet.**" in said and "18 synthetic scores of 1 test raters are ignored" in said
    rate(study, "real")
    said = write_opinion(study, tmp_path / "reports", "a test").read_text()
    assert "1 rated all items" in said and "18 synthetic scores" in said and "synthetic-1" not in said
    assert "synthetic-1" not in (tmp_path / "reports" / "votes.csv").read_text()
    said = write_opinion(study, tmp_path / "reports", "a test", include_synthetic=True).read_text()
    assert "2 rated all items" in said and "Synthetic votes are included" in said


def test_means_and_differences_are_those_of_complete_raters(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    study, reports = make_study(), tmp_path / "reports"
    for rater, shift in {"one": 0, "two": 1, "three": -1}.items():
        rate(study, rater, shift)
    rate(study, "four", least=2)
    said = " ".join(write_opinion(study, reports, "a test").read_text().split())
    assert "3 rated all items" in said and "`four` (4 of 6)" in said and "leaves nobody out" in said
    # 1, 2, 3: mean 2, t(0.975, 2) * 1 / sqrt(3) = 2.48. Of the reference 4, 5, 5: mean 4.67, 4.30 * 0.577 / 1.732.
    assert "| bicubic_x2 | input | 2.00 ± 2.48 |" in said
    assert "clarity 4.67 ± 1.43;" in said
    # Minus that, plus 5: 2, 2 (3 - 5 + 5 = 3), 2 (1 - 4 + 5): 2, 3, 2
    assert "| bicubic_x2 | input | 2.33 ± 1.43 |" in said
    assert "With 2 stimuli a system" in said
    rows = list(csv.DictReader((reports / "votes.csv").open()))
    assert len(rows) == (3 * 6 + 4) * 3
    assert {row["not_counted"] for row in rows if row["rater"] == "four"} == {"incomplete"}
    assert {row["not_counted"] for row in rows if row["rater"] != "four"} == {""}
    assert (reports / "opinion.png").read_bytes().startswith(b"\x89PNG")


def test_an_erratic_rater_is_left_out_by_code(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    study, reports = make_study(), tmp_path / "reports"
    votes = Votes(study)
    # As in tests/opinion/test_statistics.py: the first is 2.2 deviations below, then above.
    scores = {f"rater{index}": score for index, score in enumerate([1, 3, 3, 3, 4, 4, 4, 4, 5, 5])}
    for rater, score in scores.items():
        votes.add_rater(rater)
        for index, item in enumerate(study.rated):
            votes.vote(rater, item.id, dict.fromkeys(study.scales, score if index % 2 else 6 - score))
    said = write_opinion(study, reports, "a test").read_text()
    assert "Left out by ITU-R BT.500 screening: `rater0` (9 scores above and 9 below the limits, of 18)." in said
    assert "9 raters." in said and "`rater1`" not in said
    rows = list(csv.DictReader((reports / "votes.csv").open()))
    assert {row["rater"] for row in rows if row["not_counted"] == "screened out"} == {"rater0"}


def test_preferences_are_shares_of_votes_and_raters(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    study, reports = make_study("pairs", conditions=["bicubic_x2", "bicubic_x3"]), tmp_path / "reports"
    for index in range(6):
        rate(study, f"rater{index}")
    said = " ".join(write_opinion(study, reports, "a test").read_text().split())
    # 12 of 12 votes: Wilson's 12 / (12 + 3.84) = 76 %; six raters of six: 2 / 64, times three pairs.
    assert "| bicubic_x2 | reference | input | 12 | 0 | 0 | 100% (76% to 100%) | 6 | 0.0312 | 0.0938 |" in said
    assert "| all | input | unsharp | 0 | 0 | 24 | 0% (0% to 14%) | 6 | 0.0312 | 0.0938 |" in said
    rows = list(csv.DictReader((reports / "votes.csv").open()))
    assert len(rows) == 6 * 12 and rows[0]["second_system"] in {"input", "unsharp"}


def test_a_file_in_place_of_the_folder_is_named(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="name a folder"):
        write_opinion(make_study(), tmp_path / "file", "a test")
