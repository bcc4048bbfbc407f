"""Registered versions against a real MLflow: list, show, compare, promote, roll back, retire."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.make.projects import inside
from tests.make.versions import NAME, PARAMS, register

from clearcall.core.errors import UserError
from clearcall.params import Gate, ShippedGate
from clearcall.tracking import runs
from clearcall.tracking.aliases import (
    MAX_REASON,
    Action,
    Change,
    champions_before,
    clean_reason,
    history,
    move_alias,
)
from clearcall.tracking.models import (
    compare_versions,
    list_versions,
    promote_version,
    retire_version,
    roll_back,
    show_version,
)
from clearcall.tracking.registry import no_candidate

LIMITS = Gate(
    min_ssim=0.9,
    min_fps=30,
    min_ssim_over_unsharp=0.002,
    min_psnr_db_over_unsharp=0.2,
    shipped={"fast": ShippedGate(min_ssim_over_unsharp=0, min_psnr_db_over_unsharp=0, min_clean_psnr_db=0)},
)


@pytest.fixture
def home(tmp_path: Path, empty_database: Path) -> Iterator[Path]:
    """A project whose registry is empty."""
    shutil.copy(empty_database, tmp_path)
    with inside(tmp_path, DVC_ROOT=str(tmp_path)):
        yield tmp_path


def promote(version: str, **options: Any) -> str:
    return promote_version(NAME, version, LIMITS, **options)


def aliases() -> dict[str, str]:
    return {name: str(number) for name, number in runs.client().get_registered_model(NAME).aliases.items()}


def changes() -> list[Change]:
    return history(runs.client().get_registered_model(NAME))


def tags_of_all() -> tuple[dict[str, str], list[dict[str, str]]]:
    found = runs.client().search_model_versions(f"name='{NAME}'")
    return dict(runs.client().get_registered_model(NAME).tags), [dict(version.tags) for version in found]


@pytest.mark.usefixtures("home")
def test_versions_are_listed_newest_first_or_by_a_figure() -> None:
    for ssim, psnr_db in ((0.93, "31.0"), (0.95, "30.0"), (0.94, "32.0")):
        register(ssim, psnr_db=psnr_db)
    register(drop=("psnr_db",), fps="fast")
    move_alias(NAME, "candidate", "3", "published")

    def order(sort: str, *, ascending: bool = False) -> list[int]:
        return [version.version for version in list_versions(NAME, sort, ascending=ascending)]

    assert order("version") == [4, 3, 2, 1]
    assert order("psnr_db") == [3, 1, 2, 4]  # the last has none
    assert order("ssim") == [2, 3, 4, 1]  # of equal figures, the newest first
    assert order("ssim", ascending=True) == [1, 4, 3, 2]
    assert order("when", ascending=True) == [1, 2, 3, 4]
    one = {version.version: version for version in list_versions(NAME)}[3]
    assert (one.aliases, one.run, one.experiment, one.by) == (["candidate"], "student 0123456", "clearcall", "anna")
    assert one.figures() == {
        "ssim": 0.94,
        "psnr_db": 32.0,
        "ssim_over_unsharp": 0.01,
        "psnr_db_over_unsharp": 0.5,
        "fps": 60.0,
        "parameters": 5000.0,
    }
    with pytest.raises(UserError, match=r"--sort size is not known: give one of version, ssim, .*when"):
        list_versions(NAME, "size")


@pytest.mark.usefixtures("home")
def test_a_model_that_is_not_registered_is_told_with_those_that_are() -> None:
    register()
    with pytest.raises(UserError, match=r"no registered model 'other' in MLflow at sqlite:.*which has clearcall"):
        list_versions("other")


@pytest.mark.parametrize("which", ["9", "0", "nobody", "@nobody", "", "-1", "1.0", "²", "9" * 40])
@pytest.mark.usefixtures("home")
def test_an_unknown_version_or_alias_is_told_with_what_there_is(which: str) -> None:
    register()
    move_alias(NAME, "candidate", "1", "published")
    for command in (
        lambda: show_version(NAME, which),
        lambda: compare_versions(NAME, "1", which),
        lambda: promote(which),
        lambda: retire_version(NAME, which),
    ):
        with pytest.raises(UserError, match=r"has no version or alias .*: versions 1; aliases candidate \(1\)"):
            command()


@pytest.mark.usefixtures("home")
def test_a_version_is_shown_with_the_history_of_its_aliases() -> None:
    for _ in range(3):
        register()
    promote("1", reason="the first")
    promote("2")
    found = show_version(NAME, "@champion")
    assert found.uri == "models:/clearcall/2"
    assert (found.metrics["latency_ms"], found.params) == (15.5, {"channels": "8"})
    (change,) = found.history
    assert (change.before, change.after, change.reason) == ("1", "2", "clearcall models promote")
    assert change.by == runs.origin()["mlflow.user"]
    first = show_version(NAME, "1").history
    assert [(one.alias, one.before, one.after, one.reason) for one in first] == [
        ("champion", None, "1", "the first"),
        ("champion", "1", "2", "clearcall models promote"),
    ]
    assert show_version(NAME, "3").history == []


@pytest.mark.usefixtures("home")
def test_two_versions_are_compared_by_metrics_and_params() -> None:
    register(0.93)
    register(0.94, params=PARAMS.replace("2000", "3000").replace("[webcam]", "[webcam, noise]"), machine_id="1" * 16)
    found = compare_versions(NAME, "1", "2")
    assert found.metrics["ssim"] == (0.93, 0.94)
    assert found.metrics["latency_ms"] == (15.5, 15.5)
    assert "test_ssim" not in found.metrics  # the same figure
    assert "system/x" not in found.metrics  # of the machine, not of the model
    assert found.params == {
        "degrade_pairs.mix": ("['webcam']", "['webcam', 'noise']"),
        "distill_student.training.steps": ("2000", "3000"),
    }
    assert found.notes == ["timed on different machines: fps and latency cannot be compared"]
    register(params="", test_pairs_sha256="q")
    without = compare_versions(NAME, "1", "3")
    assert without.params == {}  # those of the runs are the same
    assert without.notes == ["measured on different test pairs: SSIM and PSNR cannot be compared"]


@pytest.mark.usefixtures("home")
def test_a_version_as_good_as_the_champion_is_promoted() -> None:
    for ssim in (0.93, 0.93, 0.9299):
        register(ssim)
    assert promote("1") == "clearcall version 1 is now the champion: models:/clearcall@champion"
    assert promote("2").startswith("clearcall version 2 is now the champion in place of version 1")
    assert promote("champion") == "clearcall version 2 is the champion already"
    assert show_version(NAME, "2").version.gate == "passed"
    with pytest.raises(UserError, match=r"version 3 was not promoted: its SSIM 0.9299 is below 0.9300 of the champion"):
        promote("3", reason="no")
    assert aliases() == {"champion": "2"}
    assert len(changes()) == 2


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ssim": "0.89", "fps": "12.5"}, r"version 2 does not pass the gate: SSIM 0.89 \(at least 0.9\), fps 12.5"),
        ({"ssim": "nan"}, "does not pass the gate: SSIM nan"),
        ({"ssim_over_unsharp": "0.001"}, "does not pass the gate: SSIM over the tuned unsharp mask 0.001"),
        ({"drop": ("psnr_db_over_unsharp",)}, "version 2 lacks psnr_db_over_unsharp, which the gate judges: run `dvc"),
        ({"fps": "many"}, "version 2 lacks fps, which the gate judges"),
        ({"drop": ("fps_size",)}, "measured at an unknown size, and the gate asks for 1920x1080"),
        ({"fps_size": "640x360"}, "measured at 640x360, and the gate asks for 1920x1080"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_the_gate_refuses_is_not_promoted_by_force_either(tags: dict[str, Any], message: str) -> None:
    register()
    promote("1")
    register(**tags)
    before = tags_of_all(), aliases()
    for options in ({}, {"force": True, "reason": "I want it"}):
        with pytest.raises(UserError, match=message):
            promote("2", **options)
    assert (tags_of_all(), aliases()) == before


def test_a_version_without_files_is_not_promoted_by_force_either(home: Path) -> None:
    register()
    shutil.rmtree(home / "mlartifacts")
    with pytest.raises(UserError, match="the files of version 1 are missing: run `dvc repro -f -s publish`"):
        promote("1", force=True, reason="I want it")
    assert aliases() == {} and changes() == []


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            {"test_pairs_sha256": "q"},
            "it was measured on other test pairs than the champion, version 1: run `dvc repro`",
        ),
        ({"drop": ("test_manifest_sha256",)}, "other test pairs than the champion"),
        (
            {"machine_id": "1" * 16, "machine": "Slide rule"},
            (
                r"timed on another machine \(Slide rule\) than the champion, version 1 \(Abacus 9000\): on one "
                "machine, run `dvc repro -f -s benchmark_fps && dvc repro`"
            ),
        ),
        ({"ssim": "0.92"}, "its SSIM 0.9200 is below 0.9300 of the champion, version 1"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_cannot_be_compared_or_is_worse_needs_force_and_a_reason(tags: dict[str, Any], message: str) -> None:
    register()
    promote("1")
    register(**tags)
    before = tags_of_all(), aliases()
    with pytest.raises(UserError, match=message) as caught:
        promote("2")
    assert str(caught.value).endswith("--force --reason TEXT promotes it all the same")
    for reason in ("", " \n"):
        with pytest.raises(UserError, match="--force needs a reason"):
            promote("2", force=True, reason=reason)
    assert (tags_of_all(), aliases()) == before
    promote("2", force=True, reason="a new camera")
    assert aliases() == {"champion": "2"}
    assert changes()[-1].reason.startswith("a new camera (forced: it")


@pytest.mark.usefixtures("home")
def test_rollbacks_go_further_back_and_promotions_start_again_from_there() -> None:
    for _ in range(4):
        register()
    with pytest.raises(UserError, match=r"clearcall has no champion to roll back from: versions 4, 3, 2, 1"):
        roll_back(NAME)
    for version in "123":
        promote(version)
    assert roll_back(NAME, "halos") == "clearcall version 2 is the champion again in place of version 3"
    assert (changes()[-1].action, changes()[-1].reason) == ("roll back", "halos")
    roll_back(NAME)
    assert aliases() == {"champion": "1"}
    with pytest.raises(UserError, match="no champion before version 1 is recorded: `clearcall models promote VERSION`"):
        roll_back(NAME)
    promote("4")
    roll_back(NAME)
    assert aliases() == {"champion": "1"}


@pytest.mark.usefixtures("home")
def test_a_rollback_passes_over_what_is_retired_or_gone() -> None:
    for _ in range(4):
        register()
    for version in "1234":
        promote(version)
    retire_version(NAME, "3")
    runs.client().delete_model_version(NAME, "2")
    assert "version 1 is the champion again" in roll_back(NAME)
    promote("4")
    retire_version(NAME, "1")
    with pytest.raises(UserError, match=r"no champion before version 4 is recorded but .*1.*, retired, deleted or"):
        roll_back(NAME)
    assert aliases() == {"champion": "4"}


@pytest.mark.usefixtures("home")
def test_a_retired_version_loses_its_aliases_and_comes_back_by_force_alone() -> None:
    register(0.93)
    register(0.94)
    promote("1")
    for alias in ("candidate", "staging"):
        move_alias(NAME, alias, "2", "test")
    with pytest.raises(
        UserError, match="version 1 is the champion: promote another or run `clearcall models rollback`"
    ):
        retire_version(NAME, "champion")
    assert retire_version(NAME, "candidate", "bad data") == "clearcall version 2 is retired; it was candidate, staging"
    assert aliases() == {"champion": "1"}
    retired = show_version(NAME, "2")
    assert (retired.version.retired or "").endswith(f"Z by {runs.origin()['mlflow.user']}: bad data")
    assert [(one.alias, one.before, one.after) for one in retired.history[-2:]] == [
        ("candidate", "2", None),
        ("staging", "2", None),
    ]
    assert retire_version(NAME, "2") == "clearcall version 2 is retired already"
    with pytest.raises(UserError, match=r"version 2 was not promoted: it was retired .*: bad data"):
        promote("2")
    promote("2", force=True, reason="the data was good")
    assert show_version(NAME, "champion").version.retired is None


@pytest.mark.usefixtures("home")
def test_a_record_is_a_readable_tag_and_the_oldest_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearcall.tracking.aliases.KEPT", kept := 4)
    register()
    register()
    runs.client().set_registered_model_tag(NAME, "team", "video")
    for stray in ("alias.champion.yesterday", "alias", "alias.champion.2026-12-01T01-00-00.000000Z"):
        runs.client().set_registered_model_tag(NAME, stray, "{}")
    move_alias(NAME, "champion", "1", "first")
    for count in range(kept + 3):
        move_alias(NAME, "candidate", str(1 + count % 2), f"change {count}")
    move_alias(NAME, "candidate", str(1 + count % 2), "nothing to record")
    recorded = [change for change in changes() if change.alias == "candidate"]
    assert [change.reason for change in recorded] == [f"change {count}" for count in range(3, kept + 3)]
    assert [change.reason for change in changes() if change.alias == "champion"] == ["first"]
    tags = runs.client().get_registered_model(NAME).tags
    assert tags["team"] == "video"
    (told,) = [value for key, value in tags.items() if key.startswith("alias.champion.2") and value != "{}"]
    record = json.loads(told)
    assert {key: record[key] for key in ("action", "from", "to", "by", "reason")} == {
        "action": "set",
        "from": None,
        "to": "1",
        "by": runs.origin()["mlflow.user"],
        "reason": "first",
    }


@pytest.mark.usefixtures("home")
def test_an_alias_that_cannot_be_set_leaves_no_record() -> None:
    from mlflow.exceptions import MlflowException

    register()
    before = tags_of_all()
    with pytest.raises(MlflowException):
        move_alias(NAME, "champion", "7", "there is no such version")
    assert (tags_of_all(), aliases()) == (before, {})


def test_a_server_that_is_away_is_one_message(home: Path) -> None:
    with inside(home, MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
        for command in (
            lambda: list_versions(NAME),
            lambda: show_version(NAME, "1"),
            lambda: compare_versions(NAME, "1", "2"),
            lambda: promote("1"),
            lambda: roll_back(NAME),
            lambda: retire_version(NAME, "1"),
        ):
            with pytest.raises(UserError, match=r"MLflow at http://127.0.0.1:9 cannot be used"):
                command()


@given(st.text(max_size=MAX_REASON + 100))
@example("\ud800 and \x00 and [/red]\n")
def test_a_reason_becomes_one_printable_line_or_is_refused(text: str) -> None:
    try:
        reason = clean_reason(text)
    except UserError as error:
        assert f"at most {MAX_REASON}" in str(error)  # noqa: PT017
        return
    assert len(reason) <= MAX_REASON and clean_reason(reason) == reason
    assert reason.isprintable() and reason == reason.strip()
    reason.encode("utf-8")


def change(action: Action, before: str | None, after: str | None) -> Change:
    return Change("champion", "", action, before, after, "anna", "", "")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=30))
def test_rollbacks_undo_promotions_like_a_stack(steps: list[tuple[bool, int]]) -> None:
    """Whatever the order, the champion before is that of the promotions that no rollback has undone."""
    line: list[str] = []
    recorded: list[Change] = []
    for back, number in steps:
        present = line[-1] if line else None
        if back:
            if present is None or not (before := champions_before(recorded, present)):
                continue
            recorded.append(change("roll back", present, before[0]))
            while line[-1] != before[0]:
                line.pop()
        elif str(number) != present:
            recorded.append(change("set", present, str(number)))
            line.append(str(number))
        if line:
            expected = list(dict.fromkeys(version for version in reversed(line) if version != line[-1]))
            assert champions_before(recorded, line[-1]) == expected


def test_an_alias_that_was_moved_elsewhere_is_rolled_back_to_what_is_recorded() -> None:
    recorded = [change("set", "1", "2"), change("set", "2", "3")]
    assert champions_before(recorded, "3") == ["2", "1"]
    assert champions_before(recorded, "9") == ["3", "2", "1"]
    assert champions_before([*recorded, change("set", "3", "4")], "3") == ["2", "1"]  # killed before it was set
    assert champions_before([], "3") == []


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project under git, committed, and the working folder."""
    for name in ("params.yaml", "dvc.yaml", "README.md", "src/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x: 1\n", encoding="utf-8")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "--quiet"), ("add", "--all"), (*identity, "commit", "--quiet", "--message=x")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)  # noqa: S607  # whichever is on PATH
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    return tmp_path


def test_a_run_of_a_commit_may_become_the_candidate(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_candidate("main") is None
    (repository / "README.md").write_text("x", encoding="utf-8")
    (repository / "dvc.lock").write_text("x", encoding="utf-8")
    assert no_candidate("main") is None
    assert no_candidate("never") == "publish.candidate is `never`"
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-moth")
    assert no_candidate("main") == (
        "this is a DVC experiment: `dvc exp apply tidy-moth`, commit, then `dvc repro -f -s publish`"
    )
    assert no_candidate("always") is None


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "src/a.py", "src/new.py"])
def test_a_run_of_changed_code_or_params_does_not(repository: Path, name: str) -> None:
    (repository / name).write_text("y: 2\n", encoding="utf-8")
    assert no_candidate("main") == f"{name} changed since the last commit: commit, then `dvc repro -f -s publish`"


def test_nor_does_a_run_outside_of_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(repository / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert "not in a git repository" in (no_candidate("main") or "")
    monkeypatch.setenv("PATH", str(repository))
    assert "git is not installed" in (no_candidate("main") or "")
