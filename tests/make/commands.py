"""The command `clearcall` and the stages, run in this process: one of its own takes a second to import everything."""

import contextlib
import io
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

STAGES = Path(__file__).parents[2] / "stages"


def run_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `clearcall` with these arguments; return its exit code and what it printed."""
    from clearcall.cli import main

    return _run(main, "clearcall", *arguments)


def run_stage(project: Path, name: str) -> "subprocess.CompletedProcess[str]":
    """Run a stage in a project's folder; return its exit code and what it printed."""
    program = str(STAGES / f"{name}.py")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.chdir(project):
            return _run(lambda: runpy.run_path(program, run_name="__main__"), program)
    finally:
        signal.signal(signal.SIGTERM, handler)  # a stage sets its own


def _run(main: Callable[[], object], *command: str) -> "subprocess.CompletedProcess[str]":
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", [*command]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess([*command[1:]], int(str(code or 0)), out.getvalue(), err.getvalue())


def run_interrupted(
    call: int, method: str, *arguments: str, send: signal.Signals = signal.SIGINT
) -> "subprocess.CompletedProcess[str]":
    """Run `clearcall` in a process that gets a signal, as by Ctrl-C, when a method is called for the `call`-th time.

    `method` is `module:Class.name`. A process of its own, since an interrupted decoder may take this one down with it.
    """
    module, _, place = method.partition(":")
    owner, _, name = place.partition(".")
    program = (
        f"import itertools, signal\nfrom {module} import {owner}\n"
        f"method, calls = {owner}.{name}, itertools.count(1)\n"
        "def counted(*arguments):\n"
        f"    if next(calls) == {call}:\n"
        f"        signal.raise_signal({int(send)})\n"
        "    return method(*arguments)\n"
        f"{owner}.{name} = counted\nfrom clearcall.cli import main\nmain()\n"
    )
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
