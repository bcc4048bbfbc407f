"""Chromium of this machine for tests of pages; these are skipped, with the reason, where something is missing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clearcall.core.errors import UserError
from clearcall.web.server import check_runtime

CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
_AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
needs_axe = pytest.mark.skipif(not _AXE.is_file(), reason="axe-core is not installed: run `make web`")


def playwright_or_skip() -> Any:
    """Return Playwright's module, if it and Chromium are installed."""
    tools = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make browser`")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed", allow_module_level=True)
    return tools


def skip_without_runtime() -> None:
    """Skip where the JavaScript runtime of the page is not installed."""
    try:
        check_runtime()
    except UserError as missing:
        pytest.skip(str(missing), allow_module_level=True)


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Start Chromium without a window."""
    with playwright_or_skip().sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        yield started
        started.close()


def faults_of(page: Any) -> list[list[str]]:
    """Return what axe has against a page: the rule and the element of each."""
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations.map(one => [one.id, one.nodes[0].html])")
    return list(found)
