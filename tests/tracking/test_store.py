"""The project's MLflow database: real SQLite, real MLflow, processes that are really killed, folders that move."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.make.projects import OF_ANOTHER_PROJECT, inside

from clearcall.core.errors import UserError
from clearcall.tracking import runs as tracking
from clearcall.tracking import store as local_store
from clearcall.tracking.ui import serve

PLAIN_MLFLOW = "import mlflow, sys; mlflow.MlflowClient(f'sqlite:///{sys.argv[1]}/mlflow.db')"
CLEARCALL = "from clearcall.tracking import runs as tracking; tracking.client()"
# Ends its process as a kill would, after 20 of MLflow's more than 40 tables.
KILLED_IN_BETWEEN = """
import os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine
tables = 0
@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *others):
    global tables
    tables += statement.strip().startswith("CREATE TABLE")
    if tables == 20:
        os.kill(os.getpid(), signal.SIGKILL)
"""
Enter = Callable[[Path], Path]


@pytest.fixture
def enter() -> Iterator[Enter]:
    """A function that works in a project's folder from then on, as a new process would."""
    with contextlib.ExitStack() as entered:

        def go(folder: Path) -> Path:
            entered.close()
            (folder / "dvc.yaml").touch()
            return entered.enter_context(inside(folder))

        yield go


def kill_while_it_makes_tables(folder: Path, program: str) -> None:
    """Run a program that makes MLflow's database in a folder, and kill it in the middle."""
    command = [sys.executable, "-c", f"{KILLED_IN_BETWEEN}\n{program}", str(folder)]
    done = subprocess.run(command, cwd=folder, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_kill_while_the_database_is_made_leaves_no_half_of_it(tmp_path: Path, enter: Enter) -> None:
    enter(tmp_path)
    kill_while_it_makes_tables(tmp_path, CLEARCALL)
    assert not (tmp_path / "mlflow.db").exists()
    kill_while_it_makes_tables(tmp_path, PLAIN_MLFLOW)
    assert (tmp_path / "mlflow.db").exists()
    assert tracking.experiment_id("clearcall") == "1"
    assert sorted(path.name for path in tmp_path.glob("mlflow.db*")) == ["mlflow.db"]
    tracking.client.cache_clear()
    assert tracking.experiment_id("clearcall") == "1", "a sound database stays"


def test_processes_that_start_together_share_one_database(tmp_path: Path, enter: Enter) -> None:
    """As trainings of queued experiments do in a fresh clone: none may replace what another has logged to."""
    enter(tmp_path)
    program = "from clearcall.tracking import runs as t; t.client().create_experiment(__import__('sys').argv[1])"
    started = [subprocess.Popen([sys.executable, "-c", program, name], cwd=tmp_path) for name in ("a", "b")]
    assert [process.wait() for process in started] == [0, 0]
    assert {found.name for found in tracking.client().search_experiments()} == {"Default", "a", "b"}


@pytest.mark.parametrize("content", [b"no database at all, but of some length", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_database_is_named_and_left_alone(
    tmp_path: Path, enter: Enter, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    database = enter(tmp_path) / "mlflow.db"
    database.write_bytes(content)
    with pytest.raises(UserError, match=rf"{database} is damaged: .* move it away") as caught:
        tracking.client()
    assert "server" not in str(caught.value)
    with tracking.TrainingRun("clearcall", "student", {}, tmp_path / "student.json") as run:
        run.log([{"step": 1, "loss": 1.0}])
    assert "is damaged" in capsys.readouterr().err
    assert database.read_bytes() == content


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A project with a champion, whose ONNX file holds `first`."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    folder.mkdir()
    shutil.copy(empty_database, folder)
    with inside(folder):
        log_run("first")
    return folder


@pytest.fixture
def old(finished: Path, enter: Enter, tmp_path: Path) -> Path:
    """The finished project in a folder of the test's own."""
    shutil.copytree(finished, tmp_path / "old")
    enter(tmp_path / "old")
    tracking.client()
    return tmp_path / "old"


def champion_run() -> str:
    return str(tracking.client().get_model_version_by_alias("clearcall", "champion").run_id)


def log_run(text: str) -> str:
    """Log a run with one artifact, register that and make it champion."""
    client = tracking.client()
    run = client.create_run(tracking.experiment_id("clearcall"))
    client.log_text(run.info.run_id, text, "model/model.onnx")
    if not client.search_registered_models():
        client.create_registered_model("clearcall")
    version = client.create_model_version("clearcall", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("clearcall", "champion", version.version)
    return str(run.info.run_id)


def locations(database: Path) -> set[str]:
    """Return all artifact locations that a database holds."""
    with closing(sqlite3.connect(database)) as connection:
        return {
            location
            for table, column in local_store._LOCATIONS
            for (location,) in connection.execute(f"SELECT {column} FROM {table}")  # noqa: S608  # constants
        }


@pytest.mark.parametrize("name", ["elsewhere", "old/below", "with space, ü and 100%"])
def test_a_moved_project_reads_and_writes_in_its_new_folder(old: Path, tmp_path: Path, enter: Enter, name: str) -> None:
    """Also below its own old folder, whose path is then the beginning of the new one."""
    new, run_id = tmp_path / name, champion_run()
    old.rename(tmp_path / "moving")
    new.parent.mkdir(exist_ok=True)
    (tmp_path / "moving").rename(new)
    enter(new)
    assert tracking.download_model("models:/clearcall@champion").read_text() == "first"
    tracking.client().log_text(run_id, "more", "report/more.txt")
    assert log_run("second") != run_id
    assert tracking.download_model("models:/clearcall@champion").read_text() == "second"
    assert (new / "mlartifacts" / "clearcall" / run_id / "artifacts" / "report" / "more.txt").is_file()
    assert not (old / "mlartifacts").exists()
    inside = (f"{new.as_uri()}/mlartifacts/", f"{new}/mlartifacts/")
    assert all(location.startswith(inside) for location in locations(new / "mlflow.db"))
    # Moved back and above, too: the old folder's path begins with the new one's.
    shutil.move(new / "mlflow.db", tmp_path)
    shutil.move(new / "mlartifacts", tmp_path)
    enter(tmp_path)
    assert tracking.download_model("models:/clearcall@champion").read_text() == "second"


def test_a_copied_project_leaves_the_original_alone(old: Path, tmp_path: Path, enter: Enter) -> None:
    copied, run_id = tmp_path / "copy", champion_run()
    shutil.copytree(old, copied)
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    enter(copied)
    assert tracking.download_model("models:/clearcall@champion").is_relative_to(copied)
    tracking.client().log_text(run_id, "changed", "model/model.onnx")
    log_run("copy")
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    enter(old)
    assert tracking.download_model("models:/clearcall@champion").read_text() == "first"


def test_the_ui_shows_the_artifacts_of_a_moved_project(
    old: Path, tmp_path: Path, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clearcall ui` corrects the locations before the server starts, which knows nothing of folders."""
    new = enter(old.rename(tmp_path / "new"))
    started = list[str]()
    monkeypatch.setattr(os, "execv", lambda *_: started.append(os.environ["MLFLOW_BACKEND_STORE_URI"]))
    serve(5001)
    assert started == [f"sqlite:///{new}/mlflow.db"]
    assert not any("/old/" in location for location in locations(new / "mlflow.db"))


def test_locations_outside_the_project_stay(old: Path, tmp_path: Path, enter: Enter) -> None:
    client = tracking.client()
    others = {"bucket": "s3://bucket/mlartifacts/bucket", "disk": (tmp_path / "old disk" / "runs").as_uri()}
    for name, location in others.items():
        client.create_experiment(name, artifact_location=location)
    enter(old.rename(tmp_path / "new"))
    for name, location in others.items():
        found = tracking.client().get_experiment_by_name(name)
        assert found is not None
        assert found.artifact_location == location


def test_artifacts_lie_beside_a_database_that_several_projects_share(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not move with one of the projects, nor are those of before touched."""
    shutil.copy(old / "mlflow.db", tmp_path / "runs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    tracking.client.cache_clear()
    before = locations(tmp_path / "runs.db")
    tracking.experiment_id("another")
    assert locations(tmp_path / "runs.db") - before == {f"{tmp_path.as_uri()}/mlartifacts/another"}
    assert locations(tmp_path / "runs.db") > before


def test_a_run_has_the_load_of_its_machine(
    tmp_path: Path, empty_database: Path, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path)
    enter(tmp_path)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    until = time.monotonic() + 60
    with tracking.TrainingRun("clearcall", "student", {}, tmp_path / "student.json") as run:
        while not (found := tracking.client().get_run(run.run_id or "").data.metrics):
            assert time.monotonic() < until
            time.sleep(0.1)
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert found["system/system_memory_usage_megabytes"] > 0


def test_an_experiment_in_a_temporary_folder_logs_in_the_project(tmp_path: Path) -> None:
    """`dvc exp run --temp` and queued experiments run in folders that DVC removes."""
    (tmp_path / "stage.py").write_text(
        "from clearcall.tracking import runs as tracking; open('out', 'w').write(tracking.tracking_uri())"
    )
    (tmp_path / "dvc.yaml").write_text("stages:\n  s:\n    cmd: python stage.py\n    outs: [out: {cache: false}]\n")
    own = {key: value for key, value in os.environ.items() if key not in OF_ANOTHER_PROJECT}
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(command: str) -> str:
        environment = {**own, **identity, "PATH": path}
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (tmp_path / ".dvc" / ".gitignore").write_text("/tmp\n/cache\n")
    for command in ("git init", "git add --all", "git commit --message=x"):
        run(command)
    run("dvc exp run --temp --name here")
    commit = run("git for-each-ref --format=%(objectname) refs/exps/*/*/here").strip()
    assert run(f"git show {commit}:out") == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("sqlite:////data/a.db", "/data/a.db"),
        ("sqlite:////data/a.db?timeout=30", "/data/a.db"),
        ("sqlite+pysqlite:////data/a.db", "/data/a.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("http://user:secret@host:port/", None),
        ("postgresql://host/runs", None),
    ],
)
def test_the_file_of_a_database_is_told_from_its_uri(
    uri: str, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options behind the file's name are none of it, and drivers may be named."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking._database() == (name and Path(name))
