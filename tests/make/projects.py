"""Work in a project's folder within this process, as a new process there would."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

OF_ANOTHER_PROJECT = ("MLFLOW_TRACKING_URI", "DVC_ROOT")


def forget_mlflow() -> None:
    """Drop the client of the project that was entered last, and MLflow's own cache of its artifacts."""
    from clearcall.tracking import runs

    runs.client.cache_clear()
    if (utils := sys.modules.get("mlflow.tracking._tracking_service.utils")) is not None:
        utils._artifact_repos_cache.clear()


@contextlib.contextmanager
def inside(folder: Path, **environment: str) -> Iterator[Path]:
    """Work in a project's folder; on leaving, the working folder and all environment variables are as before."""
    with mock.patch.dict(os.environ), contextlib.chdir(folder):
        for name in OF_ANOTHER_PROJECT:
            os.environ.pop(name, None)
        os.environ.update(environment)
        forget_mlflow()
        try:
            yield folder
        finally:
            forget_mlflow()
