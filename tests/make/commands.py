"""The command `clearcall`, run in this process: one of its own takes a second to import everything."""

import contextlib
import io
import itertools
import signal
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest


def run_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `clearcall` with these arguments; return its exit code and what it printed."""
    from clearcall.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["clearcall", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess([*arguments], int(str(code or 0)), out.getvalue(), err.getvalue())


def interrupt_at(
    call: int, owner: type, name: str, patch: pytest.MonkeyPatch, send: signal.Signals = signal.SIGINT
) -> None:
    """Let this process get a signal, as by Ctrl-C, when a method is called for the `call`-th time."""
    method, calls = getattr(owner, name), itertools.count(1)

    def counted(*arguments: Any) -> Any:
        if next(calls) == call:
            signal.raise_signal(send)
        return method(*arguments)

    patch.setattr(owner, name, counted)
