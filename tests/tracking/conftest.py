"""An MLflow database without runs, whose creation takes seconds, for the projects of these tests to begin with."""

from pathlib import Path

import pytest
from tests.make.projects import inside

from clearcall.tracking import runs


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file mlflow.db of a project that has logged nothing."""
    with inside(tmp_path_factory.mktemp("empty")) as folder:
        runs.experiment_id("clearcall")  # by whose location a copy of the file is told from the original
        return folder / "mlflow.db"
