"""One way to write a report: a Markdown page of a title, what made it, and parts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clearcall.core.files import write_text
from clearcall.core.machine import machine, processor_told


class Page:
    """A Markdown page: a title and parts, with one blank line between them."""

    def __init__(self, title: str) -> None:
        self._parts = [f"# {title}"]

    def add(self, *parts: str) -> None:
        """Add parts; empty ones are left out."""
        self._parts += [part.strip("\n") for part in parts if part.strip()]

    def add_list(self, *items: str) -> None:
        """Add a list."""
        self.add("\n".join(f"- {item}" for item in items))

    def made_by(
        self,
        command: str,
        versions: Mapping[str, str] | None = None,
        *,
        on: Mapping[str, Any] | None = None,
        date: str = "",
    ) -> None:
        """Say which command made the page, when, on which machine, with which libraries; now and here by default."""
        on, date = on or machine(), date or datetime.now(UTC).date().isoformat()
        libraries = ", ".join(f"{name} {version}" for name, version in (versions or {}).items())
        self.add(
            f"Made by `{command}` on {date}, on {processor_told(on)}, {on['memory_gib']:g} GiB, {on['system']}, "
            f"Python {on['python']}{libraries and '; '}{libraries}."
        )

    def add_code(self, summary: str, text: str, language: str) -> None:
        """Add a code block that a reader unfolds."""
        self.add(f"<details>\n<summary>{summary}</summary>\n\n```{language}\n{text.strip()}\n```\n\n</details>")

    def write(self, path: Path) -> Path:
        """Write the page in one piece and return its path."""
        write_text(path, "\n\n".join(self._parts) + "\n")
        return path


def number(value: float | None, form: str) -> str:
    """Return a value formatted for a table's cell; "" for None."""
    return "" if value is None else format(value, form)
