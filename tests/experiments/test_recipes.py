"""Recipes: the committed files against params.yaml, their way through Hydra, and the page that they end on."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from clearcall.cli import app
from clearcall.core.errors import UserError
from clearcall.experiments.recipe import (
    as_arguments,
    as_yaml,
    experiment_arguments,
    known_recipes,
    load_recipe,
    published_recipes,
    recipe_params,
)
from clearcall.experiments.run import Outcome
from clearcall.models.build import check_model_names
from clearcall.params import Live, Params, Training, read_yaml
from clearcall.reporting.recipes import recipes_markdown, verdict, write_recipes
from clearcall.training.train import scheduled

PROJECT = Path(__file__).parents[2]
RECIPES = known_recipes(PROJECT / "recipes")


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


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_dvc_makes_of_a_committed_recipe_what_we_make_of_it(tmp_path: Path, name: str, *, small: bool) -> None:
    overrides = load_recipe(Path(f"recipes/{name}.yaml")).overrides(small=small)
    document = through_hydra(tmp_path, experiment_arguments(overrides, read_yaml(Path("params.yaml"))))
    params = recipe_params(overrides)
    assert Params.model_validate(document) == params
    check_model_names(params)


def test_five_published_systems_have_a_recipe() -> None:
    assert published_recipes(Path("recipes")) == ["clearsight", "dncnn", "gopro_unet", "luminous", "resblocks_x4"]


@pytest.mark.parametrize("name", ["clearsight", "dncnn", "gopro_unet", "luminous", "resblocks_x4"])
def test_small_recipes_need_nothing_from_the_network(name: str) -> None:
    params = recipe_params(load_recipe(Path(f"recipes/{name}.yaml")).overrides(small=True))
    assert params.download_data.source == "bundled"
    assert params.train_teacher.pretrained is None
    assert not params.distill_student.losses.perceptual
    assert not params.train_teacher.losses.perceptual
    assert params.distill_student.twin


def test_overrides_survive_the_shell_as_values_of_yaml() -> None:
    overrides: dict[str, Any] = {"a.b": [1.0, 0.5], "c": None, "d.e": "CC BY-SA 4.0: a; 'b'", "f": True, "g": 3}
    words = shlex.split(as_arguments(overrides, {}))
    assert words[::2] == ["-S"] * len(overrides)
    parsed = dict(word.removeprefix("++").split("=", 1) for word in words[1::2])
    assert {name: yaml.safe_load(text) for name, text in parsed.items()} == overrides


def test_a_mapping_replaces_the_old_one_only_where_there_is_one() -> None:
    document = {"a": {"b": {"old": 1}}, "c": 2}
    assert experiment_arguments({"a.b": {"new": [{"x": "y"}]}}, document) == [
        "-S",
        "~a.b",
        "-S",
        '++a.b={new: [{x: "y"}]}',
    ]
    assert experiment_arguments({"c.d": {"x": None}, "e": {}}, document) == ["-S", "++c.d={x: null}", "-S", "++e={}"]


@pytest.mark.parametrize("text", ["- 1\n", "about: x\n", "about: x\nvalues: {}\nmore: 1\n", "{"])
def test_what_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml is not"):
        load_recipe(tmp_path / "bad.yaml")


def test_a_recipe_with_a_value_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("about: x\nvalues: {}\nsmall: {train_teacher.training.stepz: 3}\n")
    with pytest.raises(UserError, match=r"train_teacher\.training\.stepz: unknown key"):
        load_recipe(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("{budget.x: 1}", "budget.x cannot be set: budget is a value"),
        ("{train_teacher.model.name: nonsense}", "there is no teacher named 'nonsense'"),
    ],
)
def test_values_that_cannot_be_are_refused_with_the_files_name(tmp_path: Path, values: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(f"about: x\nvalues: {values}\n")
    with pytest.raises(UserError, match=r"bad\.yaml, ") as caught:
        load_recipe(tmp_path / "bad.yaml")
    assert said in str(caught.value)


def test_a_recipe_extends_another_of_its_folder_by_its_own_values(tmp_path: Path) -> None:
    """Whose own values go before; what it extends must stand on its own."""
    first, second, third = (tmp_path / f"{name}.yaml" for name in ("first", "second", "third"))
    first.write_text("about: x\nvalues: {budget: 0.5, distill_student.neighbours: 0.2}\nsmall: {budget: 0.1}\n")
    second.write_text("about: y\nextends: first\nvalues: {distill_student.neighbours: 0.3}\n")
    recipe = load_recipe(second)
    assert (recipe.about, recipe.overrides(small=False)) == ("y", {"budget": 0.5, "distill_student.neighbours": 0.3})
    assert recipe.overrides(small=True)["budget"] == 0.1
    third.write_text("about: z\nextends: second\nvalues: {}\n")
    with pytest.raises(UserError, match="extends second, which extends first: name that one"):
        load_recipe(third)
    third.write_text("about: z\nextends: fourth\nvalues: {}\n")
    with pytest.raises(UserError, match=r"there is no recipe .*fourth\.yaml; known here: first, second, third"):
        load_recipe(third)


def test_a_recipe_without_small_values_is_not_run_as_if_it_were_small() -> None:
    done = CliRunner().invoke(app, ["recipes", "fast"])
    assert done.exit_code == 1
    assert "say --full" in str(done.stderr)


def test_what_is_around_the_student_is_neither_shipped_nor_crowned(committed: Params) -> None:
    from clearcall.evaluation.quality import require_alone

    require_alone(committed.live)
    for change in ({"unsharp_amount": 0.1}, {"model_size": (64, 64)}):
        with pytest.raises(UserError, match="the student alone"):
            require_alone(committed.live.model_copy(update=change))


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no recipe recipes/none\.yaml; known here: .*clearsight, dncnn"):
        load_recipe(Path("recipes/none.yaml"))


def test_the_sixth_recipe_of_the_docs_is_one(tmp_path: Path) -> None:
    _, _, after = Path("docs/recipes.md").read_text(encoding="utf-8").partition("A sixth is one file")
    (tmp_path / "mine.yaml").write_text(after.partition("```yaml\n")[2].partition("```")[0])
    recipe = load_recipe(tmp_path / "mine.yaml")
    for small in (False, True):
        check_model_names(recipe_params(recipe.overrides(small=small)))


def test_the_schedule_by_hand(committed: Params) -> None:
    training = committed.distill_student.training.model_copy(
        update={"batch_size": 4, "steps": 100, "validate_every": 30, "warmup_steps": 10}
    )

    def run(training: Training, budget: float) -> tuple[int, int, int]:
        found = scheduled(training, 30, budget)
        return found.steps, found.validate_every, found.warmup_steps

    assert run(training, 1) == (100, 30, 10)
    assert run(training, 0.25) == (25, 8, 3)
    # 30 pairs are 8 batches of 4, the last one not full.
    assert run(training.model_copy(update={"epochs": 5}), 1) == (40, 8, 10)
    assert run(training.model_copy(update={"epochs": 5}), 0.5) == (20, 4, 5)


@given(st.integers(1, 500), st.integers(1, 400), st.floats(0.001, 1))
def test_a_budget_keeps_the_number_of_validations_and_never_ends_before_the_first(
    steps: int, every: int, budget: float
) -> None:
    document = read_yaml(PROJECT / "params.yaml")["distill_student"]["training"]
    training = Training.model_validate(document | {"steps": steps, "validate_every": every})
    found = scheduled(training, 10, budget)
    assert 1 <= found.steps <= steps
    assert 1 <= found.validate_every <= every
    assert found.steps // found.validate_every <= steps // every + 1


def test_around_the_student_frames_are_resized_and_masked_as_asked() -> None:
    from clearcall.evaluation.quality import surrounded
    from clearcall.imaging.unsharp import unsharp_mask

    frame = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    seen: list[tuple[int, ...]] = []

    def network(picture: Any) -> Any:
        seen.append(picture.shape)
        return picture

    nothing = Live(model_size=None, unsharp_radius=1.0, unsharp_amount=0.0)
    assert surrounded(network, nothing) is network
    masked = surrounded(network, nothing.model_copy(update={"unsharp_amount": 0.5}))(frame)
    assert np.array_equal(masked, unsharp_mask(frame, 1.0, 0.5))
    resized = surrounded(network, nothing.model_copy(update={"model_size": (20, 40)}))(frame)
    assert seen == [(30, 50, 3), (20, 40, 3)]
    assert resized.shape == frame.shape
    flat = np.full((30, 50, 3), 77, np.uint8)
    assert np.array_equal(
        surrounded(network, Live(model_size=(64, 64), unsharp_radius=1, unsharp_amount=2))(flat), flat
    )


def outcome(**changes: Any) -> Outcome:
    """An outcome of a made-up run; its figures are not those of any network."""

    def scores(ssim: float, psnr_db: float) -> dict[str, float]:
        return {"ssim": ssim, "psnr_db": psnr_db, "ssim_uniform": ssim - 0.01, "mse": 65.025}

    mean = {
        "degraded": scores(0.80, 29.0),
        "unsharp": scores(0.82, 29.5),
        "twin": scores(0.85, 30.0),
        "student": scores(0.86, 30.2),
        "teacher": scores(0.88, 31.0),
    }
    validation = {"validation": {"degraded": {"ssim": 0.8}}}
    latency = {name: {"fps": 100.0} for name in mean}
    size = {"bytes": 2_000_000, "parameters": 1234}
    rows = [
        {"network": "student", "step": "20", "loss_total": "0.5", "validation_ssim": ""},
        {"network": "student", "step": "20", "loss_total": "", "validation_ssim": "0.85"},
    ]
    document: dict[str, Any] = {
        "name": "one",
        "about": "What it is.",
        "published": {
            "report": "A report",
            "student": {"ssim": 0.82, "psnr_db": 33.0},
            "teacher": {"fps": 8.0},
            "notes": ["A note."],
        },
        "small": True,
        "small_notes": ["Small: less of all."],
        "changed": "a.b: 1",
        "command": "clearcall recipes one",
        "minutes": 3.21,
        "machine": {"cpu": "A", "cores": 2},
        "curves": {"train_teacher": rows, "distill_student": rows},
        "costs": {"student": {"macs": 3e9, "fps": 12.0}, "teacher": {"macs": 5e9}},
        "budget": 0.5,
        "mix": ["bicubic_x2.0"],
        "reports": {
            "download_data": {"images": {"train": 9, "validation": 2, "test": 3}, "source": "bundled"},
            "train_teacher": validation,
            "distill_student": {"student": validation},
            "evaluate": {"mean": mean, "pairs": 18, "by_image": {"a": 1, "b": 2, "c": 3}},
            "export_onnx": {"student": size, "teacher": size},
            "benchmark_fps": {"width": 256, "height": 128, "latency": latency},
        },
    }
    return Outcome(document | changes, Image.new("RGB", (8, 8)))


def test_the_verdict_says_what_the_figures_say() -> None:
    said = verdict(outcome().document)
    assert "+0.0600 SSIM and +1.20 dB over the degraded input, and +0.20 dB over the same student without" in said
    assert "0.8500 SSIM uniform is above the 0.8200 that the report prints; the degraded input has 0.7900" in said
    assert "30.20 dB is below the 33.00" in said
    assert "says more of the data" not in said
    easy = verdict(outcome(published={"report": "", "student": {"ssim": 0.85, "psnr_db": 29.0}}).document)
    assert "0.8500 SSIM uniform is equal to" in easy
    assert "29.00 here. That says more of the data than of the student" in easy


def test_the_page_holds_every_recipe_and_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    write_recipes([outcome()], tmp_path)
    write_recipes([outcome(name="another"), outcome(minutes=9.87)], tmp_path)
    text = (tmp_path / "recipes.md").read_text()
    assert text.index("## another") < text.index("## one")
    assert "| one      |" in text
    assert "9.9 minutes" in text
    assert "18 pairs of 3 test photographs" in text
    assert "- Small: less of all." in text
    assert "Budget: 50% of each" in text
    assert "fps, 256x128" in text
    # MSE in [0, 1]: 65.025 / 255^2 = 0.001.
    assert "0.00100" in text
    assert "- On A with 2 cores" in recipes_markdown([outcome(minutes=None).document])
    for name in ("one", "another"):
        assert (tmp_path / f"recipes/{name}.png").is_file()
        assert (tmp_path / f"recipes/{name}_curves.png").stat().st_size > 1000
    assert recipes_markdown([outcome().document]).count("## one") == 1


def test_values_are_shown_as_a_recipe_has_them() -> None:
    overrides: dict[str, Any] = {"a.b": {"name": "x", "arguments": {"n": 1}}, "c": None, "d": [1, 2]}
    assert yaml.safe_load(as_yaml(overrides)) == overrides
