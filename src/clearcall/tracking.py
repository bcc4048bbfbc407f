"""MLflow, and the only module that imports it: runs while training, the registry afterwards."""

import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clearcall.console import warn
from clearcall.errors import UserError
from clearcall.files import read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def project_root() -> Path:
    """Return the folder that holds dvc.yaml: DVC names it, elsewhere it is this folder or one above."""
    if root := os.environ.get("DVC_ROOT"):
        return Path(root)
    here = Path.cwd()
    return next((folder for folder in [here, *here.parents] if (folder / "dvc.yaml").exists()), here)


def tracking_uri() -> str:
    """Return the team's server from MLFLOW_TRACKING_URI, or the database in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


@cache
def client() -> "MlflowClient":
    """Return a client for the tracking server; the first call takes the two seconds that MLflow needs to import."""
    # An unreachable server must cost seconds, not the minutes of MLflow's own retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    import mlflow  # noqa: PLC0415

    mlflow.set_tracking_uri(tracking_uri())
    return mlflow.MlflowClient(tracking_uri())


def server_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises if its server or database cannot be used."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from requests.exceptions import RequestException  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    return MlflowException, RequestException, SQLAlchemyError, OSError


def unreachable(error: Exception) -> UserError:
    """Return the message for a server that cannot be used."""
    first_line = str(error).strip().split("\n")[0][:200]
    return UserError(
        f"MLflow at {tracking_uri()} cannot be used: {first_line}\n"
        "Start the server, or unset MLFLOW_TRACKING_URI to use the project's own database, and run the command "
        "again. Nothing that was trained is lost."
    )


def experiment_id(name: str) -> str:
    """Return the id of an experiment, created if need be, its artifacts beside the local database."""
    found = client().get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = tracking_uri().startswith("sqlite:")
    location = (project_root() / "mlartifacts" / name).as_uri() if local else None
    return str(client().create_experiment(name, artifact_location=location))


class TrainingRun:
    """One MLflow run for one trained network; if the server cannot be used it warns once and training goes on.

    The run's id and the number of rows sent are kept in `state_file` until training is over, so that a resumed
    training goes on in the same run.
    """

    def __init__(
        self, experiment: str, name: str, params: Mapping[str, Any], state_file: Path, *, active: bool
    ) -> None:
        self.run_id: str | None = None
        self._experiment, self._name, self._params, self._state_file = experiment, name, params, state_file
        self._active, self._sent = active, 0

    def __enter__(self) -> Self:
        self._try(self._start)
        if self.run_id is not None:
            self._remember()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.run_id is not None:
            status = "FINISHED" if error is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
            self._try(lambda: client().set_terminated(self.run_id or "", status))

    def log(self, rows: list[dict[str, float]]) -> None:
        """Send the rows that were not sent yet, in one batch; each has a `step`."""

        def send() -> None:
            log_rows(self.run_id or "", rows[self._sent :])
            self._sent = len(rows)

        if self.run_id is not None:
            self._try(send)
            self._remember()

    def _start(self) -> None:
        if self._state_file.exists():
            state = read_json(self._state_file)
            self.run_id, self._sent = state["run_id"], state["sent"]
            if known_run(self.run_id) is not None:
                client().update_run(self.run_id, status="RUNNING")
                return
        run = client().create_run(experiment_id(self._experiment), run_name=self._name)
        self.run_id, self._sent = str(run.info.run_id), 0
        log_params(self.run_id, self._params)

    def _remember(self) -> None:
        if self._active:
            write_json(self._state_file, {"run_id": self.run_id, "sent": self._sent})

    def _try(self, action: Callable[[], None]) -> None:
        if not self._active:
            return
        errors = server_errors()
        try:
            action()
        except errors as error:
            warn(f"{unreachable(error)} Training goes on without it; `publish` will log this run.")
            self._active = False


def download_model(uri: str) -> Path:
    """Return the local path of the ONNX file behind an MLflow URI, fetched if need be; raise UserError if none is."""
    client()
    import mlflow  # noqa: PLC0415

    errors = server_errors()
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except errors as error:
        raise unreachable(error) from None
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise UserError(f"{uri} holds {len(found)} ONNX files, not one: it is no model that clearcall registered")
    return found[0]


def known_run(run_id: str | None) -> "Run | None":
    """Return a run if the server knows it and it was not deleted, else None."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    if run_id is None:
        return None
    try:
        run = client().get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log params of a run in one batch."""
    from mlflow.entities import Param  # noqa: PLC0415

    client().log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])


def log_rows(run_id: str, rows: list[dict[str, float]]) -> None:
    """Log rows of metrics, each with its `step`, in batches of at most a thousand values."""
    import time  # noqa: PLC0415

    from mlflow.entities import Metric  # noqa: PLC0415

    now = int(time.time() * 1000)
    metrics: list[Metric] = [
        Metric(name, value, now, int(row["step"])) for row in rows for name, value in row.items() if name != "step"
    ]
    for start in range(0, len(metrics), 1000):
        client().log_batch(run_id, metrics=metrics[start : start + 1000])
