"""The results table of recipes and studies: a row for each training, kept as CSV."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from clearcall.core.console import warn
from clearcall.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One training of a student: its figures, and all that is needed to run it again."""

    point: str  # of a study; a recipe's name
    seed: int
    architecture: str
    parameters: int
    steps: int
    validation_ssim: float
    validation_psnr_db: float
    test_ssim: float
    test_psnr_db: float
    input_ssim: float
    input_psnr_db: float
    clean_psnr_db: float
    seconds: float  # of training; a recipe's are of the whole pipeline, NaN if DVC restored a part of it
    overrides: str  # as `dvc exp run` takes them
    key: str  # of what decides the result


def describe_model(name: str, arguments: Mapping[str, object]) -> str:
    """Return an architecture with its arguments in words, without those of its experts."""
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in arguments.items() if key != "experts")


def read_rows(table: Path) -> list[Row]:
    """Return a table's rows, none if there is no file; raise UserError if it is another kind of file."""
    if not table.exists():
        return []
    columns = fields(Row)
    with table.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if lines.fieldnames != [column.name for column in columns]:
            raise UserError(
                f"{table} is not a results table, and would be overwritten: give the experiment another name"
            )
        return [Row(**{column.name: column.type(line[column.name]) for column in columns}) for line in lines]  # type: ignore[operator]  # str, int or float


def run_all(runs: Iterable[tuple[str, Callable[[], T]]]) -> Iterator[T]:
    """Yield what each named run returns; a run that fails is reported and the others go on.

    Raises UserError after the last one, with the names of those that failed.
    """
    failed = []
    for name, run in runs:
        try:
            result = run()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is not the other runs' concern
            warn(f"{name}: {error}" if isinstance(error, UserError) else f"{name}: {type(error).__name__}: {error}")
            failed.append(name)
        else:
            yield result
    if failed:
        raise UserError(f"{', '.join(failed)} failed, see above; run the command again to repeat only what is missing")
