"""Files of experiments: the committed ones against params.yaml, and their way through Hydra."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from clearcall.core.errors import UserError
from clearcall.experiments.definition import (
    list_experiments,
    load_experiment,
    params_with,
    published_recipes,
)
from clearcall.experiments.dvc import as_arguments, experiment_arguments
from clearcall.experiments.recipe import as_yaml
from clearcall.params import Overrides, Params, read_yaml

PROJECT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in PROJECT.glob("experiments/*.yaml"))
PUBLISHED = ["clearsight", "dncnn", "gopro_unet", "luminous", "resblocks_x4"]


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def through_hydra(folder: Path, arguments: list[str]) -> Any:
    """What DVC makes of params.yaml and the arguments of `dvc exp run`."""
    from dvc.utils.hydra import apply_overrides

    assert arguments[::2] == ["-S"] * (len(arguments) // 2)
    path = folder / "params.yaml"
    path.write_text(Path("params.yaml").read_text(encoding="utf-8"))
    apply_overrides(path, arguments[1::2])
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_dvc_gets_the_same_params_from_a_committed_experiment(tmp_path: Path, name: str) -> None:
    experiment, document = load_experiment(name), read_yaml(Path("params.yaml"))
    for overrides in list(experiment.all_overrides())[:3]:
        changed = through_hydra(tmp_path, experiment_arguments(overrides, document))
        assert Params.model_validate(changed) == params_with(overrides)


def test_all_experiments_are_listed_with_what_they_are() -> None:
    found = {experiment.name: experiment for experiment in list_experiments()}
    assert list(found) == NAMES
    assert [name for name, experiment in found.items() if experiment.kind == "study"] == [
        "ablation",
        "call_shapes",
        "distillation",
        "features",
        "shapes",
    ]
    assert all(experiment.about for experiment in found.values())
    assert [recipe.name for recipe in published_recipes()] == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_small_recipes_need_nothing_from_the_network(name: str) -> None:
    params = params_with(load_experiment(name).overrides(small=True))
    assert params.download_data.source == "bundled"
    assert params.train_teacher.pretrained is None
    assert not params.distill_student.losses.perceptual
    assert not params.train_teacher.losses.perceptual
    assert params.distill_student.baseline


def test_overrides_survive_the_shell_and_a_file() -> None:
    overrides: Overrides = {"a.b": [1.0, 0.5], "c": None, "d.e": "CC BY-SA 4.0: a; 'b'", "f": True, "g": 3}
    words = shlex.split(as_arguments(overrides, {}))
    assert words[::2] == ["-S"] * len(overrides)
    parsed = dict(word.removeprefix("++").split("=", 1) for word in words[1::2])
    assert {name: yaml.safe_load(text) for name, text in parsed.items()} == overrides
    overrides["h.i"] = {"name": "x", "arguments": {"n": 1}}
    assert yaml.safe_load(as_yaml(overrides)) == overrides


def test_a_mapping_replaces_the_old_one_only_where_there_is_one() -> None:
    document = {"a": {"b": {"old": 1}}, "c": 2}
    assert experiment_arguments({"a.b": {"new": [{"x": "y"}]}}, document) == [
        "-S",
        "~a.b",
        "-S",
        '++a.b={new: [{x: "y"}]}',
    ]
    assert experiment_arguments({"c.d": {"x": None}, "e": {}}, document) == ["-S", "++c.d={x: null}", "-S", "++e={}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", "is not an experiment"),
        ("about: x\n", "values: Field required"),
        ("about: x\nvalues: {}\nmore: 1\n", "more: Extra inputs"),
        ("{", "is not valid YAML"),
        ("about: x\nvalues: {}\nstudy: {seeds: [], points: {a: {}}}", r"study\.seeds"),
        ("about: x\nvalues: {budget.x: 1}", "budget.x cannot be set: budget is a value"),
        ("about: x\nvalues: {nonsense.steps: 1}", "nonsense.*unknown key"),
        ("about: x\nvalues: {train_teacher.model.name: nonsense}", "there is no teacher named 'nonsense'"),
        ("about: x\nvalues: {}\nsmall: {train_teacher.training.stepz: 3}", r"training\.stepz: unknown key"),
        ("about: x\nvalues: {}\nstudy: {seeds: [1], points: {a: {budget: 2}}}", "budget: "),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_name_and_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"(?s)bad\.yaml.*{said}"):
        load_experiment(str(path))


def test_an_experiment_extends_another_of_its_folder_by_its_own_values(tmp_path: Path) -> None:
    """Its own values take precedence, then those of the nearest."""
    first, second, third = (tmp_path / f"{name}.yaml" for name in ("first", "second", "third"))
    first.write_text("about: x\nvalues: {budget: 0.5, distill_student.neighbours: 0.2}\nsmall: {budget: 0.1}\n")
    second.write_text("about: y\nextends: first\nvalues: {distill_student.neighbours: 0.3}\n")
    found = load_experiment(str(second))
    assert (found.name, found.about, found.values) == (
        "second",
        "y",
        {"budget": 0.5, "distill_student.neighbours": 0.3},
    )
    assert found.overrides(small=True)["budget"] == 0.1
    third.write_text("about: z\nextends: second\nvalues: {}\n")
    assert load_experiment(str(third)).values == {"budget": 0.5, "distill_student.neighbours": 0.3}
    first.write_text("about: x\nextends: third\nvalues: {}\n")
    with pytest.raises(UserError, match=r"third\.yaml extends itself, by .*first\.yaml: remove one `extends`"):
        load_experiment(str(third))
    third.write_text("about: z\nextends: fourth\nvalues: {}\n")
    with pytest.raises(UserError, match=r"there is no experiment .*fourth\.yaml; known here: first, second, third"):
        load_experiment(str(third))


def test_an_unknown_experiment_names_the_nearest_and_all_others() -> None:
    with pytest.raises(UserError, match=r"no experiment experiments/ablatoin\.yaml; did you mean ablation\? known"):
        load_experiment("ablatoin")


def test_the_sixth_recipe_of_the_documentation_is_one(tmp_path: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in (PROJECT / "README.md", *PROJECT.glob("docs/*.md"))]
    (page,) = [text for text in pages if "A sixth is one file" in text]
    example = page.partition("A sixth is one file")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "mine.yaml").write_text(example)
    assert load_experiment(str(tmp_path / "mine.yaml")).kind == "recipe"
