"""The project's own MLflow database: made in one piece, mended, and kept with the folder in which it lies."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from clearcall.core.errors import UserError
from clearcall.core.locks import hold_lock, release_lock

ARTIFACTS = "mlartifacts"
# Where MLflow stores absolute locations of artifacts.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# What MLflow writes itself while it makes its tables.
_NO_DATA = {"alembic_version", "workspaces"}
_WAIT_SECONDS = 20


def artifact_location(database: Path, experiment: str) -> str:
    """Return the URI of an experiment's artifacts, which lie beside the database."""
    return (database.parent / ARTIFACTS / experiment).as_uri()


def prepare(database: Path, *, follow: bool) -> None:
    """Make a database ready for MLflow: create it, also in place of one whose creation was killed.

    With `follow`, artifacts of a project that was moved or copied are those in its present folder. Raises UserError if
    the database is damaged or cannot be written.
    """
    try:
        if _holds_nothing(database):
            lock = database.with_name(f"{database.name}.lock")
            hold_lock(lock, f"makes {database}")
            try:
                if _holds_nothing(database):  # still: another process may have been faster
                    _create(database)
            finally:
                release_lock(lock)
        if follow:
            _follow_folder(database)
    except sqlite3.OperationalError as error:  # locked, read-only, no permission: the file itself is sound
        raise UserError(f"{database} cannot be used: {error}. Close what uses it, or check its mode") from None
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{database} is damaged: {error}. Put a copy of it back, or move it away to begin a new one, without its "
            "runs and registered models; then run the command again. Nothing that was trained is lost"
        ) from None


def _holds_nothing(database: Path) -> bool:
    """Return whether there is no database, or one without a row of data: its creation was killed."""
    if not database.exists():
        return True
    with closing(sqlite3.connect(database, timeout=_WAIT_SECONDS)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return not any(
            connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()  # noqa: S608  # names from the database
            for table in tables
            if table not in _NO_DATA
        )


def _create(database: Path) -> None:
    """Let MLflow make its tables in a temporary file, and rename that: a kill leaves no half of them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415  # takes two seconds

    temporary = database.with_name(f"{database.name}.new")
    for path in (temporary, database):
        for suffix in ("-journal", "-wal", "-shm"):  # of a killed process: SQLite would apply it to the new file
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    temporary.unlink(missing_ok=True)
    artifacts = (database.parent / ARTIFACTS).as_uri()
    store = SqlAlchemyStore(f"sqlite:///{temporary}", artifacts)  # type: ignore[no-untyped-call]  # MLflow has no type
    store.engine.dispose()
    temporary.replace(database)


def _follow_folder(database: Path) -> None:
    """Point all artifacts of a project that was moved or copied at its present folder, in one transaction.

    A copy must not write into the original, and a moved project must find what moved with it.
    """
    here = database.parent
    with closing(sqlite3.connect(database, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
        former = set()
        for name, location in connection.execute("SELECT name, artifact_location FROM experiments"):
            ending = artifact_location(Path("/mlflow.db"), name).removeprefix("file://")
            if location and location.startswith("file://") and location.endswith(ending):
                former.add(Path(unquote(location.removeprefix("file://").removesuffix(ending))))
        if not former - {here}:
            return
        # The longest first: one of the folders may lie in another.
        folders = sorted({here, *former}, key=lambda folder: len(str(folder)), reverse=True)

        def moved(location: str | None) -> str | None:
            for folder in folders:
                for old, new in ((folder.as_uri(), here.as_uri()), (str(folder), str(here))):
                    if location is not None and f"{location}/".startswith(f"{old}/"):
                        return new + location.removeprefix(old)
            return location

        connection.create_function("moved", 1, moved, deterministic=True)
        connection.execute("BEGIN IMMEDIATE")
        for table, column in _LOCATIONS:
            connection.execute(f"UPDATE {table} SET {column} = moved({column})")  # noqa: S608  # constants, above
        connection.execute("COMMIT")
