"""What a killed DVC leaves, and DVC itself after it was mended."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clearcall.core.errors import UserError
from clearcall.experiments.dvc import mend_dvc

Locks = dict[str, dict[str, Any]]


def run(folder: Path, *command: str) -> int:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def dvc(folder: Path) -> int:
    return run(folder, sys.executable, "-m", "dvc", "repro")


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    return path


def held_by(pid: int) -> Locks:
    holder = {"pid": pid, "cmd": "dvc repro"}
    return {"write": {"/x/data/pairs": holder}, "read": {"/x/data/raw": [holder]}}


def test_the_lock_of_another_program_with_the_number_of_a_killed_dvc_is_freed(
    locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:  # noqa: S607  # anybody's
        locks.write_text(json.dumps(held_by(other.pid)))
        mend_dvc(locks.parents[2])
        other.kill()
    assert json.loads(locks.read_text()) == {"write": {}, "read": {}}
    assert "held locks of a DVC that was killed: freed" in capsys.readouterr().err


def test_the_lock_of_a_process_that_nobody_waited_for_is_freed(locks: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "'dvc'"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        locks.write_text(json.dumps(held_by(ended.pid)))
        mend_dvc(locks.parents[2])
    assert json.loads(locks.read_text()) == {"write": {}, "read": {}}


def test_the_locks_of_a_living_dvc_stay(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, "dvc", "repro"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        assert living.stdout is not None
        living.stdout.readline()
        both: Locks = held_by(living.pid)
        both["read"]["/x/data/raw"].append({"pid": 2**22 + 1, "cmd": "dvc repro"})  # above the highest of all
        locks.write_text(json.dumps(both))
        mend_dvc(locks.parents[2])
        assert json.loads(locks.read_text()) == held_by(living.pid)
        capsys.readouterr()
        mend_dvc(locks.parents[2])
        assert capsys.readouterr().err == ""
        living.communicate()


def test_a_project_that_dvc_has_never_run_in_needs_nothing(tmp_path: Path) -> None:
    mend_dvc(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("committed", [True, False])
def test_dvc_runs_again_after_files_that_it_was_writing_were_truncated(tmp_path: Path, *, committed: bool) -> None:
    assert run(tmp_path, "git", "init", "--quiet") == 0
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  one:\n    cmd: echo 1 > one\n    outs: [one]\n")
    assert dvc(tmp_path) == 0
    lockfile, whole = tmp_path / "dvc.lock", (tmp_path / "dvc.lock").read_text()
    if committed:
        assert run(tmp_path, "git", "add", "dvc.lock") == 0
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        assert run(tmp_path, "git", *author, "commit", "--quiet", "-m", "Run") == 0
    lockfile.write_text(whole[: len(whole) * 2 // 3])
    (tmp_path / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"/x')
    assert dvc(tmp_path) != 0
    mend_dvc(tmp_path)
    assert lockfile.exists() == committed
    assert dvc(tmp_path) == 0
    assert lockfile.read_text() == whole


def test_conflict_markers_are_the_users_to_resolve(tmp_path: Path) -> None:
    """They come from a merge, not from a kill, and both sides may be worth keeping."""
    lockfile = tmp_path / "dvc.lock"
    conflict = "<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '2.0'\n>>>>>>> other\n"
    lockfile.write_text(conflict)
    with pytest.raises(UserError, match=r"dvc\.lock has conflict markers of a merge: resolve them"):
        mend_dvc(tmp_path)
    assert lockfile.read_text() == conflict
