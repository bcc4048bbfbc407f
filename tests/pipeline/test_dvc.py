"""dvc.yaml against stages/, params.yaml and, above all, the modules that each stage really imports."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clearcall.params import Params

PROJECT = Path(__file__).parents[2]
SOURCE = PROJECT / "src"
Stage = dict[str, Any]
DVC: dict[str, Stage] = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
DOCUMENT: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
STAGES = sorted(DVC)

# Modules and rooms that every stage may import without depending on them: a change in one changes no result.
OBSERVERS = {
    "src/clearcall/__init__.py": "the version, and switches that keep others from calling home",
    "src/clearcall/params.py": "reads params.yaml, whose values DVC tracks by itself",
    "src/clearcall/core": "errors, files, the terminal, processes and the machine",
    "src/clearcall/tracking": "tells MLflow, but for the stages that exist to do so or to judge",
}
NO_OBSERVER = {"publish": "src/clearcall/tracking", "write_report": "src/clearcall/tracking"}
# Sections of params.yaml that belong to no stage, and why.
NO_STAGE = {
    "paths": "of all stages",
    "budget": "of both trainings",
    "gate": "of the command `clearcall gate`, which judges after the pipeline",
}


def resolved(text: str) -> str:
    """Fill in the templates of dvc.yaml from params.yaml."""

    def value(match: re.Match[str]) -> str:
        found: Any = DOCUMENT
        for key in match[1].split("."):
            found = found[key]
        assert isinstance(found, str), match[0]
        return found

    return re.sub(r"\$\{([\w.]+)\}", value, text)


def entries(stage: str, kind: str) -> list[str]:
    """Return the paths of a stage's deps, outs, metrics or plots."""
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in DVC[stage].get(kind, [])]
    return [resolved(name) for name in names]


def is_code(path: str) -> bool:
    return path.startswith(("src/", "stages/"))


def module_file(name: str) -> Path | None:
    """Return the file of a module of ours, or None for another's, or for a name that is no module."""
    if name.partition(".")[0] != "clearcall":
        return None
    path = SOURCE.joinpath(*name.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


def is_for_types(node: ast.stmt) -> bool:
    """Return whether a statement is `if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of each thing that a file imports, also inside functions, and of the packages above it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path == SOURCE / "clearcall" / "__init__.py":
        # Every stage runs this file, which names the sharpener for type checkers only: its code is imported on demand.
        tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, which this test does not follow"
            on_demand = node.module == "clearcall" and any(alias.name == "Sharpener" for alias in node.names)
            assert not on_demand, f"{path}: import Sharpener from clearcall.runtime.sharpener, where this test sees it"
            # `from package import name`: the name may be a module, a function or a class.
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def reached(start: Path) -> set[str]:
    """Return all files of ours that running one file may import, itself included, relative to the project."""
    found, waiting = {start}, [start]
    while waiting:
        for name in imports(waiting.pop()):
            file = module_file(name)
            if file is not None and file not in found:
                found.add(file)
                # The reader of params.yaml imports names of filters, and DVC knows the values.
                waiting += [file] if file != SOURCE / "clearcall" / "params.py" else []
    return {file.relative_to(PROJECT).as_posix() for file in found}


def has_code(file: str) -> bool:
    """Return whether a file is code and holds more than a docstring: a package's `__init__.py` often does not."""
    if not file.endswith(".py"):
        return False
    body = ast.parse((PROJECT / file).read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def selected_models(stage: str) -> set[str]:
    """Return the files of the architectures that a stage builds by name.

    They are imported by name, which no walk over imports can see: a stage that can build networks builds those whose
    weights it reads or writes, and distilling writes what a student learned from a teacher that it reads.
    """
    if "src/clearcall/models/build.py" not in reached(PROJECT / "stages" / f"{stage}.py"):
        return set()
    weights = DOCUMENT["paths"]["weights"]
    touched = entries(stage, "deps") + entries(stage, "outs")
    sections = {
        f"{weights}/teacher": ("teachers", "train_teacher"),
        f"{weights}/students": ("students", "distill_student"),
    }
    files = {
        f"src/clearcall/models/{kind}/{DOCUMENT[section]['model']['name']}.py"
        for folder, (kind, section) in sections.items()
        if folder in touched
    }
    experts = DOCUMENT["distill_student"]["experts"] and f"{weights}/students" in touched
    return files | ({"src/clearcall/models/students/routed.py"} if experts else set())


def is_in(file: str, place: str) -> bool:
    """Return whether a file is a place or lies in it."""
    return file == place or file.startswith(f"{place}/")


def needed(stage: str) -> set[str]:
    """Return the code that decides what a stage does."""
    files = reached(PROJECT / "stages" / f"{stage}.py")
    for model in selected_models(stage):
        files |= reached(PROJECT / model)
    ignored = [room for room in OBSERVERS if room != NO_OBSERVER.get(stage)]
    return {file for file in files if has_code(file) and not any(is_in(file, room) for room in ignored)}


def covered(stage: str) -> set[str]:
    """Return the code files among a stage's deps; a folder stands for all that is in it."""
    files: set[str] = set()
    for dep in filter(is_code, entries(stage, "deps")):
        path = PROJECT / dep
        files |= {file.relative_to(PROJECT).as_posix() for file in ([path] if path.is_file() else path.rglob("*.py"))}
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(stage: str) -> None:
    """Or DVC would skip the stage after a change in one of them."""
    missing = needed(stage) - covered(stage)
    assert not missing, f"add to the deps of {stage} in dvc.yaml: {sorted(missing)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_room_that_it_does_not_import(stage: str) -> None:
    """Or DVC would run the stage again after a change that cannot matter to it. Of a room it may import a part."""
    used = needed(stage)
    rooms = {dep for dep in filter(is_code, entries(stage, "deps")) if dep.endswith(".py") or (PROJECT / dep).is_dir()}
    extra = {dep for dep in rooms if not any(is_in(file, dep) for file in used)}
    assert not extra, f"{stage} in dvc.yaml depends on {sorted(extra)}, which it never imports"


def test_what_must_not_run_again() -> None:
    """A change of the temporal filter downloads nothing, and one of a report trains nothing."""
    rooms = {stage: {dep for dep in entries(stage, "deps") if is_code(dep)} for stage in STAGES}
    assert not any("temporal" in dep or "degrade" in dep for dep in rooms["download_data"])
    for stage in ("train_teacher", "distill_student"):
        rooms[stage] -= {f"src/clearcall/runtime/shipped/teacher.{kind}" for kind in ("json", "safetensors")}
        assert not any(name in dep for dep in rooms[stage] for name in ("report", "evaluation", "runtime", "media"))


def test_a_person_can_read_it() -> None:
    """In one sitting."""
    assert len((PROJECT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("stage", STAGES)
def test_every_dependency_on_code_exists(stage: str) -> None:
    assert [dep for dep in entries(stage, "deps") if is_code(dep) and not (PROJECT / dep).exists()] == []


def test_observers_exist_and_are_reached() -> None:
    """A list of exceptions must not outlive what it excepts."""
    everything = set().union(*(reached(PROJECT / "stages" / f"{stage}.py") for stage in STAGES))
    assert all(any(is_in(file, room) for file in everything) for room in OBSERVERS)


def test_the_walk_follows_what_is_easily_missed() -> None:
    """Imports inside functions, modules imported as names of a package, and the packages above a module."""
    degrade = reached(PROJECT / "stages" / "degrade_pairs.py")
    assert "src/clearcall/data/degrade/degradations.py" in degrade  # imported inside a function
    assert "src/clearcall/core/errors.py" in degrade  # `from clearcall.core import errors`
    evaluate = reached(PROJECT / "stages" / "evaluate.py")
    assert "src/clearcall/models/__init__.py" in evaluate  # `from clearcall.models.inference import restore` runs it
    assert not any("runtime" in file for file in evaluate)
    assert not any("training" in file for file in degrade)
    assert selected_models("train_teacher") == {
        f"src/clearcall/models/teachers/{DOCUMENT['train_teacher']['model']['name']}.py"
    }
    assert len(selected_models("distill_student")) == 3
    assert selected_models("check_pairs") == set()


def test_stages_files_params_and_reports_go_by_one_name(committed: Params) -> None:
    files = sorted(path.stem for path in (PROJECT / "stages").glob("*.py"))
    assert files == STAGES
    assert set(type(committed).model_fields) == {*STAGES, *NO_STAGE}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_file_reads_its_params_and_leaves_its_report(stage: str) -> None:
    assert DVC[stage]["cmd"] == f"python stages/{stage}.py"
    assert f"stages/{stage}.py" in entries(stage, "deps")
    assert stage in DVC[stage]["params"]
    report = f"{DOCUMENT['paths']['reports']}/{stage}.json"
    # Those that DVC must not restore from its run-cache, and what holds no figure, are plain outs.
    kind = "outs" if stage in ("benchmark_fps", "write_report", "publish") else "metrics"
    assert report in entries(stage, kind)


@pytest.mark.parametrize("stage", STAGES)
def test_small_reports_are_left_to_git(stage: str) -> None:
    reports = DOCUMENT["paths"]["reports"]
    for kind in ("outs", "metrics", "plots"):
        for entry, name in zip(DVC[stage].get(kind, []), entries(stage, kind), strict=True):
            cached = not isinstance(entry, dict) or next(iter(entry.values())).get("cache", True)
            # A page that holds its images is too large for git.
            assert cached == (not name.startswith(f"{reports}/") or name.endswith(".html")), name


@pytest.mark.parametrize("stage", STAGES)
def test_params_of_a_stage_exist(stage: str) -> None:
    for key in DVC[stage]["params"]:
        found: Any = DOCUMENT
        for part in key.split("."):
            found = found[part]


def test_paths_are_named_in_one_place() -> None:
    """Moving a folder in params.yaml moves it in dvc.yaml as well."""
    text = (PROJECT / "dvc.yaml").read_text(encoding="utf-8")
    for path in DOCUMENT["paths"].values():
        assert not re.search(rf"[\s/]{re.escape(path)}\b", re.sub(r"#.*|src/\S+|stages/\S+|cmd: .*", "", text)), path


def reports_read(file: str) -> set[str]:
    """Return names of JSON and CSV reports that a file's code names as `paths.reports / "<name>"`."""
    tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
    return {
        node.right.value
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Constant)
        and isinstance(node.right.value, str)
        and ast.unparse(node.left).endswith("paths.reports")
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_report_that_a_stage_names_is_its_input_or_its_output(stage: str) -> None:
    reports = DOCUMENT["paths"]["reports"]
    named = set().union(*(reports_read(file) for file in needed(stage) | {f"stages/{stage}.py"}))
    known = [name for kind in ("deps", "outs", "metrics", "plots") for name in entries(stage, kind)]
    assert {f"{reports}/{name}" for name in named} <= set(known)


def test_data_flow_one_way() -> None:
    """No two stages write the same thing, and what a stage reads is made by another or committed."""
    made: dict[str, str] = {}
    for stage in STAGES:
        for name in [name for kind in ("outs", "metrics", "plots") for name in entries(stage, kind)]:
            assert name not in made, f"{name} is written by {stage} and {made[name]}"
            made[name] = stage
    committed = {DOCUMENT["download_data"]["folder"], "params.yaml", "requirements.lock"}
    for stage in STAGES:
        for dep in entries(stage, "deps"):
            if not is_code(dep) and dep not in committed:
                makers = [maker for name, maker in made.items() if name == dep or name.startswith(f"{dep}/")]
                assert makers, f"nothing makes {dep}, which {stage} reads"
                assert stage not in makers


def test_dvc_reads_the_pipeline(tmp_path: Path) -> None:
    """DVC's own parser and its templates agree with this file's, in a copy without data or lock."""
    from dvc.repo import Repo

    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        (tmp_path / name).write_text((PROJECT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    found = {stage.name: {out.def_path for out in stage.outs} for stage in Repo(str(tmp_path)).index.stages}
    assert sorted(found) == STAGES
    for stage in STAGES:
        assert {name for kind in ("outs", "metrics", "plots") for name in entries(stage, kind)} == found[stage]
