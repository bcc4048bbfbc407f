"""The team's server as `server/run` starts it: real PostgreSQL, real sign-in, several members."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.make.projects import inside
from tests.make.versions import NAME, register

from clearcall.core.errors import UserError
from clearcall.params import Params
from clearcall.tracking import runs
from clearcall.tracking.models import list_versions, promote_version, show_version

SECRET = "a password of the tests"  # noqa: S105
MEMBERS = ("anna", "ben")
START_SECONDS = 120  # of a loaded machine; MLflow makes all its tables
# Debian leaves it out of PATH.
INITDB = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=shutil.which("initdb"))
if INITDB is None:
    pytest.skip("PostgreSQL is not installed", allow_module_level=True)
ROOT = os.getuid() == 0
pytestmark = pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi")  # MLflow's own import


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program with all its children in the background."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    """The variables that name an empty database of a PostgreSQL of the tests' own, behind a socket."""
    assert INITDB is not None
    # PostgreSQL does not run as root, and its user cannot enter pytest's folders.
    other: dict[str, Any] = {"user": "postgres", "extra_groups": []} if ROOT else {}
    with tempfile.TemporaryDirectory(prefix="clearcall-") as folder:
        data, password = Path(folder, "data"), Path(folder, "password")
        password.write_text(SECRET)
        if ROOT:
            for path in (Path(folder), password):
                shutil.chown(path, "postgres")
        initdb = [str(INITDB), "--pgdata", str(data), "--username=mlflow", "--auth=scram-sha-256"]
        subprocess.run(
            [*initdb, f"--pwfile={password}", "--no-sync"], check=True, cwd=folder, stdout=subprocess.DEVNULL, **other
        )
        options = ["-D", str(data), "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        with running([str(Path(INITDB).with_name("postgres")), *options], Path(folder, "log"), cwd=folder, **other):
            yield {"PGHOST": folder, "PGUSER": "mlflow", "PGDATABASE": "postgres", "PGPASSWORD": SECRET}


@pytest.fixture(scope="module")
def address(database: dict[str, str], project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server listens, which has two members."""
    from mlflow.server.auth.client import AuthServiceClient

    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    environment = {
        **os.environ,
        **database,
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": SECRET,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": SECRET,
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "1",
    }
    uri, log = f"http://127.0.0.1:{port}", folder / "log"
    with running(["sh", str(project / "server" / "run")], log, cwd=folder, env=environment) as process:
        until = time.monotonic() + START_SECONDS
        while not answers(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        with signed_in(folder, uri, "admin", SECRET):
            for name in MEMBERS:
                AuthServiceClient(uri).create_user(name, SECRET)
        yield uri


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def signed_in(folder: Path, uri: str, name: str, password: str) -> AbstractContextManager[Path]:
    """Work in a folder as a member; without a name, as nobody."""
    credentials = {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}
    return inside(folder, MLFLOW_TRACKING_URI=uri, **credentials)


def test_members_share_runs_and_models(address: str, tmp_path: Path, committed: Params) -> None:
    with signed_in(tmp_path, address, "anna", SECRET):
        with runs.TrainingRun("clearcall", "student", {"channels": 8}, tmp_path / "student.json") as run:
            run.log([{"step": 20, "loss_l1": 0.5}])
        assert runs.client().get_run(run.run_id or "").data.metrics == {"loss_l1": 0.5}
        version = register()
    with signed_in(tmp_path, address, "ben", SECRET):
        assert "champion" in promote_version(NAME, version, committed.gate, "better")
        assert show_version(NAME, "champion").history[-1].reason == "better"
        assert runs.download_model(f"models:/{NAME}@champion").read_text() == "onnx"
        with runs.TrainingRun("clearcall", "teacher", {}, tmp_path / "teacher.json") as run:
            run.log([{"step": 20, "loss_l1": 0.25}])
        assert runs.known_run(run.run_id) is not None


@pytest.mark.parametrize(("name", "password"), [("anna", "a wrong password"), ("eve", SECRET), ("", "")])
def test_who_does_not_sign_in_is_refused(
    address: str, tmp_path: Path, committed: Params, name: str, password: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with signed_in(tmp_path, address, name, password):
        with runs.TrainingRun("clearcall", "student", {}, tmp_path / "student.json") as run:
            run.log([{"step": 20, "loss_l1": 0.5}])
        with pytest.raises(UserError) as promoting:
            promote_version(NAME, "1", committed.gate)
        with pytest.raises(UserError) as loading:
            runs.download_model(f"models:/{NAME}@champion")
    for said in (capsys.readouterr().err, str(promoting.value), str(loading.value)):
        assert f"MLflow at {address} refuses the credentials (401" in said
        assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in said
        assert SECRET not in said and "a wrong password" not in said


def test_a_member_without_permission_is_told_so(address: str, tmp_path: Path, committed: Params) -> None:
    from mlflow.server.auth.client import AuthServiceClient

    with signed_in(tmp_path, address, "anna", SECRET):
        version = register()
        AuthServiceClient(address).grant_user_permission("ben", "registered_model", NAME, "DENY")
    with signed_in(tmp_path, address, "ben", SECRET):
        for command in (lambda: promote_version(NAME, version, committed.gate), lambda: list_versions(NAME)):
            with pytest.raises(UserError, match=r"forbids this with these credentials \(403\): ask for the permission"):
                command()


@pytest.mark.parametrize("secret", ["PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"])
def test_the_server_has_no_default_secret(project: Path, secret: str) -> None:
    names = {"PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"}
    others = dict.fromkeys(names - {secret}, SECRET)
    done = subprocess.run(
        ["/bin/sh", str(project / "server" / "run")], env=others, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"{secret}: is not set: see docs/team.md" in done.stderr
