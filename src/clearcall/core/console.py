"""Progress and warnings on standard error, tables on standard output."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from clearcall.core.errors import redact

T = TypeVar("T")
LINE_SECONDS = 30.0
_WIDE = 160  # characters; a terminal wraps at its own width, a file or pipe takes any


class ProgressBar:
    """Bar with count, times and a note; a line every half minute without a terminal.

    `total` is None where it is not known.
    """

    def __init__(self, description: str, total: int | None, completed: int = 0, *, shown: bool = True) -> None:
        console = Console(stderr=True)
        self._description, self._total, self._completed, self._note = description, total, completed, ""
        self._bar = console.is_terminal and shown
        self._lines = shown and not self._bar
        self._started = self._last_line = time.monotonic()
        self._from = completed
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self._bar,
        )
        self._task = self._progress.add_task(description, total=total, completed=completed, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._lines and error is None:
            self._print_line(f"done in {time.monotonic() - self._started:.0f} s")

    def advance(self, count: int = 1) -> None:
        """Count `count` more things as done."""
        self._completed += count
        self._progress.advance(self._task, count)
        now = time.monotonic()
        if self._lines and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            seconds_each = (now - self._started) / max(1, self._completed - self._from)
            left = "" if self._total is None else f"about {seconds_each * (self._total - self._completed):.0f} s left"
            self._print_line(left)

    def note(self, text: str) -> None:
        """Show a few words behind the bar, for example the current SSIM."""
        self._note = text
        self._progress.update(self._task, note=text)

    def _print_line(self, tail: str) -> None:
        parts = [f"{self._description}: {self._completed}/{self._total or '?'}", self._note, tail]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)


def track(things: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield `things` one by one under a progress bar."""
    with ProgressBar(description, total) as bar:
        for thing in things:
            yield thing
            bar.advance()


def warn(message: str) -> None:
    """Print one warning on standard error."""
    print(f"warning: {redact(message)}", file=sys.stderr, flush=True)


def print_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """Print a table whose first `left` columns are text, and the others numbers."""
    table = Table(title=title or None, title_justify="left", box=SIMPLE)
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index < left else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)
