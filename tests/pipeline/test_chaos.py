"""Kills and interruptions of the whole pipeline: the next run ends as one that was never stopped."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import yaml
from tests.miniature import STAGES, Miniature

# All processes at once, as a power failure; DVC alone, as the kernel does when out of memory; Ctrl-C.
How = Literal["all", "dvc alone", "Ctrl-C"]


def stage_seconds(made: Miniature) -> dict[str, float]:
    """Return about how long each stage of a finished run took, by when it wrote its report."""
    ends = [(made.folder / "reports" / f"{stage}.json").stat().st_mtime for stage in STAGES]
    starts = [(made.folder / "params.yaml").stat().st_mtime, *ends]
    return {stage: end - start for stage, start, end in zip(STAGES, starts, ends, strict=False)}


def stop(made: Miniature, stage: str, ready: Callable[[float], bool], how: How) -> bool:
    """Run `dvc repro` and stop it in a stage once `ready` is true of its seconds so far; False if the run ended.

    A stage that ends before is stopped as the next one begins.
    """
    made.run("clearcall", "mend")  # as `make repro` does
    log = made.folder.with_name("dvc.log")
    with log.open("w") as out:
        process = subprocess.Popen(
            ["dvc", "repro"],  # noqa: S607  # of the environment
            cwd=made.folder,
            env=made.environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    began = None
    while process.poll() is None:
        begun = [line.split("'")[1] for line in log.read_text().splitlines() if line.startswith("Running stage '")]
        if stage in begun:
            began = began or time.monotonic()
            if begun[-1] != stage or ready(time.monotonic() - began):
                break
        time.sleep(0.02)
    else:
        assert process.returncode == 0, log.read_text()
        return False
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


def assert_as_never_stopped(made: Miniature, unbroken: Miniature) -> list[str]:
    """Finish a stopped run, compare it with one that was not, and return the stages that were left to run."""
    made.run("clearcall", "mend")
    ran = made.reproduce()
    assert made.reproduce() == []
    assert made.weights() == unbroken.first_weights
    with sqlite3.connect(made.folder / "mlflow.db") as database:
        assert database.execute("select name, version from model_versions").fetchall() == [("clearcall", 1)]
    assert [path for path in made.folder.rglob(".*.clearcall-*") if "cache" not in path.parts] == []
    assert not list((made.folder / ".checkpoints").iterdir())
    assert processes_in(made.folder) == []
    return ran


@pytest.mark.timeout(1200)  # if it is run alone, the whole pipeline comes first
def test_a_training_that_is_killed_resumes_and_ends_as_one_that_was_not(miniature: Miniature, tmp_path: Path) -> None:
    """The student's alone, in a copy of the finished project whose DVC does not know that it was trained."""
    made = miniature.copied(tmp_path / "project")
    shutil.rmtree(made.folder / ".dvc" / "cache" / "runs")
    locked = yaml.safe_load((made.folder / "dvc.lock").read_text())
    del locked["stages"]["distill_student"]
    (made.folder / "dvc.lock").write_text(yaml.safe_dump(locked))
    checkpoints = made.folder / ".checkpoints"
    assert stop(made, "distill_student", lambda _: any(checkpoints.glob("student-*.pt")), "all")
    assert list(checkpoints.glob("student-*.pt"))
    ran = assert_as_never_stopped(made, miniature)
    assert ran[0] == "distill_student"


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", get_args(How))
def test_a_run_stopped_in_every_stage_ends_as_one_that_was_not(
    tmp_path: Path, project: Path, photos: dict[str, npt.NDArray[np.uint8]], miniature: Miniature, how: How
) -> None:
    generator = random.Random(how)  # noqa: S311  # moments, no secrets
    (tmp_path / "project").mkdir()
    made, seconds = Miniature(tmp_path / "project", project, photos), stage_seconds(miniature)
    stopped = 0
    for stage in STAGES:
        moment = seconds[stage] * generator.uniform(0, 0.9)
        stopped += stop(made, stage, lambda passed, moment=moment: passed >= moment, how)  # type: ignore[misc]  # bound at once
    assert_as_never_stopped(made, miniature)
    assert stopped >= len(STAGES) - 1  # publish may end before
