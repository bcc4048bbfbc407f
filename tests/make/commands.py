"""The command `clearcall`, run in this process: one of its own takes a second to import everything."""

import contextlib
import io
import subprocess
import sys
from unittest import mock


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
