"""Mend what a killed DVC left that would stop the next one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.core.files import write_text

# All recipes share them, and they take seconds.
_SHARED = ("'download_data'", "'check_data'")
_DVC = (sys.executable, "-m", "dvc")


def mend_dvc(root: Path) -> None:
    """Mend the locks and dvc.lock of the project in `root`, as far as no living DVC uses them.

    Raises UserError for a dvc.lock with conflict markers.

    DVC writes both in place. It frees the locks of dead processes itself, but not if the number of one was given to
    another process, if one was never waited for, or if the file is not whole.
    """
    from dvc.lock import Lock  # noqa: PLC0415  # DVC takes a second to import

    if (root / ".dvc" / "tmp").is_dir():
        with Lock(str(root / ".dvc" / "tmp" / "rwlock.lock")):
            _free_dead_locks(root / ".dvc" / "tmp" / "rwlock")
    _restore_lockfile(root / "dvc.lock")


def _free_dead_locks(path: Path) -> None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        writers: dict[str, Any] = held.get("write", {})
        readers: dict[str, Any] = held.get("read", {})
        living = {
            "write": {name: info for name, info in writers.items() if _is_dvc(info["pid"])},
            "read": {
                name: left for name, infos in readers.items() if (left := [one for one in infos if _is_dvc(one["pid"])])
            },
        }
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, TypeError, KeyError):  # not JSON, or not of DVC's form
        warn(f"{path} was cut when DVC was killed: removed")
        path.unlink()
        return
    if living != {"write": writers, "read": readers}:
        warn(f"{path} held locks of a DVC that was killed: freed")
        write_text(path, json.dumps(living))


def _is_dvc(pid: int) -> bool:
    """Return whether a process lives, neither a zombie nor another program that was given the number."""
    import psutil  # noqa: PLC0415  # of the extra `pipeline`

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "dvc" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _restore_lockfile(path: Path) -> None:
    """Replace a dvc.lock that was cut by the last one committed, or remove it: DVC's run-cache knows the runs since."""
    if not path.exists() or _is_lockfile(content := path.read_bytes()):
        return
    if b"<<<<<<<" in content:
        raise UserError(
            f"{path} has conflict markers of a merge: resolve them, or run `git checkout HEAD -- {path.name}`"
        )
    shown = subprocess.run(["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True, check=False)  # noqa: S607  # the user's git
    if shown.returncode == 0 and _is_lockfile(shown.stdout):
        warn(f"{path} was cut when DVC was killed: the last one committed is restored")
        write_text(path, shown.stdout.decode())
    else:
        warn(f"{path} was cut when DVC was killed: removed")
        path.unlink()


def _is_lockfile(content: bytes) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: PLC0415
    from voluptuous import Invalid  # noqa: PLC0415

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(content))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return False
    return True


def _run(command: list[str]) -> bool:
    """Run DVC, show what it prints, and tell whether a long stage came from its cache; raise UserError if it fails."""
    # DVC then names this project, not the experiment's temporary folder: MLflow's database is here.
    environment = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    cached = False
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            cached |= "is cached - skipping run" in line and not any(stage in line for stage in _SHARED)
    if process.returncode:
        raise UserError("the recipe did not run through; what DVC says stands above")
    return cached


def _revision(name: str) -> str | None:
    """Return the commit of a DVC experiment by its name, None if there is none."""
    listed = _git("for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", "refs/exps")
    for line in listed.splitlines():
        commit, _, reference = line.partition(" ")
        if reference.endswith(f"/{name}"):
            return commit
    return None


def _file(revision: str, path: str) -> str:
    return _git("show", f"{revision}:./{path}")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _fetch(revision: str, source: Path, target: Path) -> None:
    """Copy an experiment's output out of DVC's cache."""
    command = [*_DVC, "get", "--quiet", ".", str(source), "--rev", revision, "--out", str(target)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"DVC does not give {source} of {revision[:7]} out: {done.stderr.strip()[-300:]}")
