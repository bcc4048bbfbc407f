"""Kills and interruptions of the whole pipeline: the next run ends as one that was never stopped."""

import os
import queue
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal, get_args

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from tests.miniature import STAGES, Miniature

# Of all processes at once, as the machine's end; of DVC alone, as by the kernel that is out of memory; Ctrl-C.
How = Literal["all", "dvc alone", "Ctrl-C"]


def stage_seconds(made: Miniature) -> dict[str, float]:
    """Return about how long each stage of a finished run took, by when it wrote its report."""
    ends = [(made.folder / "reports" / f"{stage}.json").stat().st_mtime for stage in STAGES]
    starts = [(made.folder / "params.yaml").stat().st_mtime, *ends]
    return {stage: end - start for stage, start, end in zip(STAGES, starts, ends, strict=False)}


def read_lines(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def stop(made: Miniature, stage: str, seconds: float, how: How) -> bool:
    """Run `dvc repro`, and stop it so long after the stage began, or when the next one begins; False if it ended."""
    made.run("clearcall", "mend")  # as `make repro` does
    process = subprocess.Popen(
        ["dvc", "repro"],  # noqa: S607  # of the environment
        cwd=made.folder,
        env=made.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=read_lines, args=(process.stdout, lines), daemon=True).start()
    deadline, said = None, list[str]()
    while deadline is None or time.monotonic() < deadline:
        try:
            line = lines.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if line is None:
            assert process.wait() == 0, "".join(said)
            return False
        said.append(line)
        if line.startswith(f"Running stage '{stage}'"):
            deadline = time.monotonic() + seconds
        elif deadline is not None and line.startswith("Running stage"):
            break
    if how == "dvc alone":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL if how == "all" else signal.SIGINT)
    process.wait()
    return True


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the living processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_as_never_stopped(made: Miniature, unbroken: Miniature) -> None:
    made.run("clearcall", "mend")
    made.reproduce()
    assert made.reproduce() == []
    assert made.weights() == unbroken.first_weights
    with sqlite3.connect(made.folder / "mlflow.db") as database:
        assert database.execute("select name, version from model_versions").fetchall() == [("clearcall", 1)]
    assert [path for path in made.folder.rglob(".*.clearcall-*") if "cache" not in path.parts] == []
    assert not list((made.folder / ".checkpoints").iterdir())
    assert processes_in(made.folder) == []


def chain(made: Miniature, unbroken: Miniature, stops: Sequence[tuple[str, float, How]]) -> int:
    """Stop one run after the other at (stage, share of its time, how); return how many were, before the last ended."""
    seconds = stage_seconds(unbroken)
    stopped = sum(stop(made, stage, share * seconds[stage], how) for stage, share, how in stops)
    assert_as_never_stopped(made, unbroken)
    return stopped


@pytest.fixture
def project_folder(tmp_path: Path, project: Path, photos: dict[str, npt.NDArray[np.uint8]]) -> Miniature:
    return Miniature(tmp_path, project, photos)


@pytest.mark.timeout(1800)  # two pipelines, and what the stops lose
def test_a_run_killed_in_training_and_while_it_publishes_ends_as_one_that_was_not(
    project_folder: Miniature, miniature: Miniature
) -> None:
    stops: list[tuple[str, float, How]] = [
        ("train_teacher", 0.7, "dvc alone"),
        ("distill_student", 0.6, "all"),
        ("publish", 0.2, "all"),
    ]
    assert chain(project_folder, miniature, stops) >= len(stops) - 1  # publish may end before


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", get_args(How))
def test_a_run_stopped_in_every_stage_ends_as_one_that_was_not(
    project_folder: Miniature, miniature: Miniature, how: How
) -> None:
    generator = random.Random(how)  # noqa: S311  # moments, no secrets
    stops = [(stage, generator.uniform(0, 0.9), how) for stage in STAGES]
    assert chain(project_folder, miniature, stops) >= len(stops) - 1  # publish may end before
