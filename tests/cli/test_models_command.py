"""`clearcall models`: tables, JSON, and refusals as one message with exit code 1."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.make.commands import run_command
from tests.make.projects import inside
from tests.make.versions import NAME, PARAMS, register
from typer.testing import CliRunner

from clearcall.cli import app
from clearcall.tracking import runs
from clearcall.tracking.models import SORT_KEYS


@pytest.fixture
def home(tmp_path: Path, project: Path, empty_database: Path) -> Iterator[Path]:
    """A project with the committed params and an empty registry."""
    shutil.copy(empty_database, tmp_path)
    shutil.copy(project / "params.yaml", tmp_path)
    with inside(tmp_path, DVC_ROOT=str(tmp_path)):
        yield tmp_path


def models(*arguments: str, code: int = 0) -> str:
    """Run `clearcall models`; return what it printed, an error's single line if `code` is 1."""
    done = run_command("models", *arguments)
    assert done.returncode == code, done.stderr
    if code == 0:
        assert done.stderr == ""
        return done.stdout
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    return done.stderr


@pytest.mark.usefixtures("home")
def test_from_the_first_version_to_a_rollback() -> None:
    """One story of a team: list, promote, a worse one, roll back, retire."""
    for ssim, psnr_db in ((0.93, "31.25"), (0.95, "32.5"), (0.94, "32.0")):
        register(ssim, psnr_db=psnr_db)
    assert "version 1 is now the champion" in models("promote", "1", "--reason", "the [/first]")
    assert "in place of version 1" in models("promote", "2")
    assert "its SSIM 0.9400 is below 0.9500 of the champion, version 2" in models("promote", "3", code=1)

    table = models("list", "--sort", "psnr_db")
    assert re.findall(r"^ +(\d) .*?(\d\d\.\d\d)", table, re.MULTILINE) == [
        ("2", "32.50"),
        ("3", "32.00"),
        ("1", "31.25"),
    ]
    assert re.search(
        r"2 +champion +student 0123456 .* anna +0123456 .*0\.9500.*\+0\.0100.*\+0\.50.*60\.0.*5,000", table
    )
    listed = json.loads(models("list", "--json"))
    assert [(one["version"], one["aliases"]) for one in listed] == [(3, []), (2, ["champion"]), (1, [])]
    assert {"ssim", "psnr_db_over_unsharp", "fps", "parameters", "when", "by", "commit"} <= listed[0].keys()

    assert "version 1 is the champion again in place of version 2" in models("rollback", "--reason", "halos")
    assert "version 2 is retired" in models("retire", "2", "--reason", "halos")
    assert re.search(r"2 +\(retired\)", models("list"))
    assert "version 1 is the champion: promote another" in models("retire", "champion", code=1)
    assert "it was retired" in models("promote", "2", code=1)
    assert "no champion before version 1 is recorded" in models("rollback", code=1)

    shown = models("show", "champion")
    assert "models:/clearcall/1" in shown
    assert re.search(r"champion: none -> 1 .* the \[/first\]", shown)
    assert re.search(r"champion: 2 -> 1 \(rollback\) .* halos", shown)
    assert [change["after"] for change in json.loads(models("show", "1", "--json"))["history"]] == ["1", "2", "1"]


@pytest.mark.usefixtures("home")
def test_two_versions_side_by_side() -> None:
    register(0.93)
    register(0.9425, params=PARAMS.replace("2000", "3000"), machine_id="1" * 16, fps="45.5")
    told = models("diff", "1", "2")
    assert re.search(r"ssim +0\.93 +0\.9425 +\+0\.0125", told)
    assert re.search(r"fps +60 +45\.5 +-14\.5", told)
    assert re.search(r"distill_student\.training\.steps +2000 +3000", told)
    assert "Note: timed on different machines" in told
    assert "The params are the same." in models("diff", "1", "1")
    assert json.loads(models("diff", "1", "2", "--json"))["metrics"]["ssim"] == [0.93, 0.9425]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show 7", "clearcall has no version or alias '7': versions 1; aliases none"),
        ("diff 1 candidate", "clearcall has no version or alias 'candidate'"),
        ("promote 7", "no version or alias '7'"),
        ("promote 1 --force", "--force needs a reason, which is recorded: add --reason TEXT"),
        (f"promote 1 --reason {'x' * 501}", "--reason has 501 characters: write at most 500"),
        ("retire 7", "no version or alias '7'"),
        ("rollback", "clearcall has no champion to roll back from"),
        ("list --sort size", "--sort size is not known: give one of version, ssim"),
        ("list --model other", "there is no registered model 'other'"),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_mistake_is_one_line_and_changes_nothing(arguments: str, message: str) -> None:
    register()
    assert message in models(*arguments.split(), code=1)
    model = runs.client().get_registered_model(NAME)
    assert (model.aliases, model.tags) == ({}, {})


@pytest.mark.usefixtures("home")
def test_a_registry_without_models_says_what_registers_one() -> None:
    assert "which has none: `dvc repro` registers one" in models("list", code=1)


@pytest.mark.parametrize("command", ["list", "show 1", "diff 1 2", "promote 1", "rollback", "retire 1"])
def test_a_server_that_is_away_is_named(home: Path, command: str) -> None:
    with inside(home, MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
        done = run_command("models", *command.split())
    assert done.returncode == 1
    assert done.stderr.startswith("error: MLflow at http://127.0.0.1:9 cannot be used: ")
    assert "Start the server" in done.stderr and "Traceback" not in done.stderr


def test_the_help_names_every_key_to_sort_by() -> None:
    said = CliRunner().invoke(app, ["models", "list", "-h"]).output
    assert all(key in re.sub(r"[\s│]+", " ", said) for key in SORT_KEYS)
