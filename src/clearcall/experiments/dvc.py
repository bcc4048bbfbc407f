"""DVC and git: run an experiment, read its outputs, and repair what a killed DVC left behind."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.core.files import write_text
from clearcall.params import Overrides

# Stages of a few seconds that all recipes share.
_SHARED = ("'download_data'", "'check_data'")
_DVC = (sys.executable, "-m", "dvc")


def experiment_arguments(overrides: Overrides, document: Mapping[str, Any]) -> list[str]:
    """Return overrides as arguments of `dvc exp run`; `document` is params.yaml as it stands.

    `++` also adds keys that params.yaml lacks. A mapping is removed first: Hydra would merge old and new keys.
    """
    arguments: list[str] = []
    for name, value in overrides.items():
        if isinstance(value, Mapping) and _has(document, name):
            arguments += ["-S", f"~{name}"]
        arguments += ["-S", f"++{name}={_hydra(value)}"]
    return arguments


def as_arguments(overrides: Overrides, document: Mapping[str, Any]) -> str:
    """Return the same, quoted for a shell."""
    return shlex.join(experiment_arguments(overrides, document))


def _has(document: Mapping[str, Any], name: str) -> bool:
    found: Any = document
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _hydra(value: object) -> str:
    """Return a value in the grammar of Hydra's overrides, whose keys take no quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_hydra, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def run_experiment(name: str, overrides: Overrides, document: Mapping[str, Any]) -> tuple[str, bool]:
    """Run the pipeline as a DVC experiment, in place of an older one of the same name.

    Return its commit, and whether a long stage came from DVC's cache. DVC's output is shown as it comes. Raises
    UserError if a stage fails.
    """
    if _revision(name):
        subprocess.run([*_DVC, "exp", "remove", "--quiet", name], check=True)
    command = [*_DVC, "exp", "run", "--temp", "--name", name, *experiment_arguments(overrides, document)]
    # DVC sets DVC_ROOT to this project then, not to the experiment's temporary folder: MLflow's database is here.
    environment = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    cached = False
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            cached |= "is cached - skipping run" in line and not any(stage in line for stage in _SHARED)
    if process.returncode:
        raise UserError(f"the experiment {name} failed; DVC's message stands above")
    revision = _revision(name)
    if revision is None:
        raise UserError(f"DVC left no experiment {name}: see `dvc exp show`")
    return revision, cached


def _revision(name: str) -> str | None:
    """Return the commit of a DVC experiment by its name, None if there is none."""
    listed = _git("for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", "refs/exps")
    for line in listed.splitlines():
        commit, _, reference = line.partition(" ")
        if reference.endswith(f"/{name}"):
            return commit
    return None


def read_committed(revision: str, path: str) -> str:
    """Return the text of a file, relative to the working folder, at a commit; raise UserError if it is not there."""
    return _git("show", f"{revision}:./{path}")


def _git(*arguments: str, folder: Path = Path()) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{shlex.join(command)} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def fetch_output(revision: str, source: Path, target: Path) -> None:
    """Copy a stage's output at a commit out of DVC's cache."""
    command = [*_DVC, "get", "--quiet", ".", str(source), "--rev", revision, "--out", str(target)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"DVC cannot restore {source} of {revision[:7]}: {done.stderr.strip()[-300:]}")


def mend_dvc(root: Path) -> None:
    """Repair the locks and dvc.lock of the project in `root`, unless a running DVC uses them.

    DVC writes both in place. It frees the locks of dead processes itself, but not if the process ID was reused, the
    process is a zombie, or the file is truncated. Raises UserError for a dvc.lock with conflict markers.
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
        warn(f"{path} was truncated when DVC was killed: removed")
        path.unlink()
        return
    if living != {"write": writers, "read": readers}:
        warn(f"{path} held locks of a DVC that was killed: freed")
        write_text(path, json.dumps(living))


def _is_dvc(pid: int) -> bool:
    """Return whether a process runs and is DVC: no zombie, and no other program under a reused process ID."""
    import psutil  # noqa: PLC0415  # of the extra `pipeline`

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "dvc" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _restore_lockfile(path: Path) -> None:
    """Replace a truncated dvc.lock by the last one committed, or remove it: DVC's run-cache has the runs since."""
    if not path.exists() or _is_lockfile(content := path.read_bytes()):
        return
    if b"<<<<<<<" in content:
        raise UserError(
            f"{path} has conflict markers of a merge: resolve them, or run `git checkout HEAD -- {path.name}`"
        )
    try:
        committed = _git("show", f"HEAD:./{path.name}", folder=path.parent)
    except UserError:  # no repository, or never committed
        committed = ""
    if committed and _is_lockfile(committed):
        warn(f"{path} was truncated when DVC was killed: the last one committed is restored")
        write_text(path, committed)
    else:
        warn(f"{path} was truncated when DVC was killed: removed")
        path.unlink()


def _is_lockfile(content: str | bytes) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: PLC0415
    from voluptuous import Invalid  # noqa: PLC0415

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(content))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return False
    return True
