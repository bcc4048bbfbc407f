"""MLflow, which nothing but this and the local store imports: runs while training, the registry afterwards."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from clearcall.core.console import warn
from clearcall.core.errors import UserError, redact
from clearcall.core.files import read_json, write_json
from clearcall.data.pairs import PAIRS_SHA256
from clearcall.tracking.store import artifact_location, prepare

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


_UNHARMED = "Nothing that was trained is lost."
_CREDENTIALS = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), or user:password@ in "
    "MLFLOW_TRACKING_URI with special characters percent-encoded, and run the command again"
)
_REFUSED: dict[int | None, str] = {
    HTTPStatus.UNAUTHORIZED: f"refuses the credentials (401, unauthenticated): {_CREDENTIALS}",
    HTTPStatus.FORBIDDEN: f"forbids this with these credentials (403): ask for the permission, or {_CREDENTIALS}",
}


def project_root() -> Path:
    """Return the folder that holds dvc.yaml: DVC names it, elsewhere it is this folder or one above.

    DVC names the project itself, not the temporary folder in which it runs an experiment and which it removes.
    """
    if root := os.environ.get("DVC_ROOT"):
        return Path(root).resolve()
    here = Path.cwd()
    return next((folder for folder in [here, *here.parents] if (folder / "dvc.yaml").exists()), here)


def tracking_uri() -> str:
    """Return the team's server from MLFLOW_TRACKING_URI, or the database in the project's folder.

    It may hold a password: never print it without `errors.redact`.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_own_database()}"


def prepare_store() -> None:
    """Make the local database ready, if MLflow is to use one; raise UserError if the store cannot be used."""
    uri = tracking_uri()
    if (database := _database()) is not None:
        prepare(database, follow=database == _own_database())
    elif uri.startswith(("http:", "https:")):
        try:
            valid = urlsplit(uri).port != 0 and bool(urlsplit(uri).hostname)
        except ValueError:  # it may quote a part of the password
            valid = False
        if not valid:
            raise UserError(
                "MLFLOW_TRACKING_URI is no valid address: write http://host:port, with special characters in user and "
                "password percent-encoded"
            )


@cache
def client() -> "MlflowClient":
    """Return a client for the tracking server; the first call takes the two seconds that MLflow needs to import."""
    # An unreachable server must cost seconds, not the minutes of MLflow's own retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow  # noqa: PLC0415

    # After the import, which sets levels of its own. What is logged as an error is raised too.
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    prepare_store()
    mlflow.set_tracking_uri(tracking_uri())
    return mlflow.MlflowClient(tracking_uri())


def server_errors() -> tuple[type[Exception], ...]:
    """Return what is raised if MLflow's server or database cannot be used."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from requests.exceptions import RequestException  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    # The module is a database's driver.
    return MlflowException, RequestException, SQLAlchemyError, OSError, ModuleNotFoundError, UserError


def unreachable(error: Exception) -> UserError:
    """Return the message for a server or database that cannot be used, without credentials."""
    if isinstance(error, UserError):
        return error
    store, status = f"MLflow at {redact(tracking_uri())}", _http_status(error)
    if status in _REFUSED:
        return UserError(f"{store} {_REFUSED[status]}. {_UNHARMED}")
    reason = redact(str(error)).strip().split("\n")[0][:300]  # cut last: half a password is not recognised
    if status is not None and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return UserError(f"{store} answers: {reason}")
    advice = "Start the server, or unset MLFLOW_TRACKING_URI to use the project's own database"
    if (database := _database()) is not None:
        advice = f"Close what uses {database}, check the disk and its mode, or put a copy of the file back"
    return UserError(f"{store} cannot be used: {reason}\n{advice}, and run the command again. {_UNHARMED}")


@contextmanager
def reachable() -> Iterator[None]:
    """Turn what a server or database raises if it cannot be used into the UserError of `unreachable`."""
    errors = server_errors()
    try:
        yield
    except errors as error:
        raise unreachable(error) from None


def _http_status(error: Exception) -> int | None:
    """Return the status of a server's answer, or of what would be its answer; None for other errors."""
    from mlflow.exceptions import MlflowException, RestException  # noqa: PLC0415
    from requests.exceptions import HTTPError  # noqa: PLC0415

    if isinstance(error, RestException) and "error_code" not in error.json:
        # A proxy's JSON, of which MLflow forgets the status.
        said = str(error).lower()
        refusals = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        return next((status for status in refusals if status.phrase.lower() in said), None)
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]  # MLflow has no type for it
    return error.response.status_code if isinstance(error, HTTPError) and error.response is not None else None


def _own_database() -> Path:
    return project_root() / "mlflow.db"


def _database() -> Path | None:
    """Return the file of the SQLite database that MLflow uses, None if it uses a server or another database."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415  # of the extra `pipeline`
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(tracking_uri())
    except (ArgumentError, ValueError):  # of a server, for example, whose port is no number
        return None
    named = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)).resolve() if named else None


def experiment_id(name: str) -> str:
    """Return the id of an experiment, created if need be, its artifacts beside the local database."""
    found = client().get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    database = _database()
    location = None if database is None else artifact_location(database, name)
    # Without the tag the page in the browser opens in the mode for language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client().create_experiment(name, artifact_location=location, tags=tags))


def origin() -> dict[str, str]:
    """Return tags that tell where a run comes from: user, script, git commit, DVC experiment, as far as known.

    The address of the git remote may hold a password, which is left out.
    """
    from mlflow.tracking.context.registry import resolve_tags  # noqa: PLC0415

    experiment = os.environ.get("DVC_EXP_NAME")
    found = {key: redact(value) for key, value in resolve_tags().items()}
    return {**found, **({"clearcall.dvc_experiment": experiment} if experiment else {})}


def named_after(network: str, tags: Mapping[str, str]) -> str:
    """Return the name of a run: its network, and the DVC experiment or the commit."""
    revision = tags.get("clearcall.dvc_experiment") or tags.get("mlflow.source.git.commit", "")[:7]
    return f"{network} {revision}".rstrip()


class TrainingRun:
    """One MLflow run for one trained network; if the server cannot be used it warns once and training goes on.

    The run's id and the number of rows sent are kept in `state_file` until training is over, so that a resumed
    training goes on in the same run. The machine's load is logged beside, as `system/...`.
    """

    def __init__(self, experiment: str, name: str, params: Mapping[str, Any], state_file: Path) -> None:
        self.run_id: str | None = None
        self._experiment, self._name, self._params, self._state_file = experiment, name, params, state_file
        self._active, self._sent = True, 0
        self._load: SystemMetricsMonitor | None = None

    def __enter__(self) -> Self:
        self._try(self._start)
        if self.run_id is not None:
            self._remember()
            self._try(self._log_load)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._load is not None:
            self._load.finish()  # type: ignore[no-untyped-call]
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

    def show(self, image: "npt.NDArray[np.uint8]", step: int) -> None:
        """Keep an image of a step."""
        if self.run_id is not None:
            self._try(lambda: client().log_image(self.run_id or "", image, key="validation", step=step))

    def _start(self) -> None:
        if self._state_file.exists():
            state = read_json(self._state_file)
            self.run_id, self._sent = state["run_id"], state["sent"]
            if known_run(self.run_id) is not None:
                client().update_run(self.run_id, status="RUNNING")
                return
        tags = {**origin(), "clearcall.network": self._name}
        run = client().create_run(experiment_id(self._experiment), run_name=named_after(self._name, tags), tags=tags)
        self.run_id, self._sent = str(run.info.run_id), 0
        log_params(self.run_id, self._params)
        if pairs := self._params.get(PAIRS_SHA256):
            log_images(self.run_id, "training and validation images", {PAIRS_SHA256: pairs}, "training")

    def _log_load(self) -> None:
        """Log processor, memory, disk, network and, where nvidia-ml-py is installed, GPUs; every 10 s, in a thread."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # noqa: PLC0415

        # MLflow has no types for it.
        monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=tracking_uri())  # type: ignore[no-untyped-call]
        monitor.start()  # type: ignore[no-untyped-call]
        self._load = monitor

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
    try:
        import mlflow  # noqa: PLC0415
    except ModuleNotFoundError:
        raise UserError(f"{uri} is in MLflow, which is not installed: pip install mlflow onnx") from None

    errors = server_errors()
    try:
        client()
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except errors as error:
        if _http_status(error) == HTTPStatus.NOT_FOUND:
            advice = "`dvc repro -f -s publish` registers the project's present model"
            raise UserError(f"{uri} is not there. {unreachable(error)}. {advice}") from None
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


def log_images(
    run_id: str,
    name: str,
    hashes: Mapping[str, str],
    context: Literal["training", "testing"],
    profile: Mapping[str, int] | None = None,
) -> None:
    """Tell MLflow on which images a network was trained or measured: two runs of one digest can be compared."""
    from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

    digest = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:16]
    images = Dataset(name, digest, "local", json.dumps(hashes), schema=None, profile=json.dumps(profile or {}))
    client().log_inputs(run_id, [DatasetInput(images, [InputTag("mlflow.data.context", context)])])


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
