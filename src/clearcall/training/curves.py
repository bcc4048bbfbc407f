"""The curves of a stage's networks, in one CSV that grows while they train."""

from collections.abc import Sequence
from pathlib import Path

from clearcall.core.files import read_csv, write_csv
from clearcall.core.locks import hold_lock, release_lock
from clearcall.training.loop import Row


def update_curve(path: Path, network: str, rows: Sequence[Row]) -> None:
    """Replace the rows of one network in a CSV by these; other processes may do so for other networks.

    Rows and columns are sorted, so that the file does not tell in which order networks trained.
    """
    lock = path.with_name(f".{path.name}.lock")
    hold_lock(lock, f"writes {path}", told=False)
    try:
        others = [row for row in (read_csv(path) if path.exists() else []) if row["network"] != network]
        own = [{"network": network, **{name: f"{value:.7g}" for name, value in row.items()}} for row in rows]
        lines = sorted([*others, *own], key=lambda row: row["network"])
        names = ["network", "step", *sorted({name for row in lines for name in row} - {"network", "step"})]
        write_csv(path, [{name: row.get(name, "") for name in names} for row in lines])
    finally:
        release_lock(lock)
