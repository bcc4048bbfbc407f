"""Recipes: what is run, one after the other, and the page that they end on."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.experiments.recipe import Outcome, plan_recipes
from clearcall.experiments.results import read_rows, run_all
from clearcall.reporting.experiments import verdict, write_recipe

PROJECT = Path(__file__).parents[2]
PUBLISHED = ["clearsight", "dncnn", "gopro_unet", "luminous", "resblocks_x4"]


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def outcome(**changes: Any) -> Outcome:
    """An outcome of a made-up run; its figures are not those of any network."""

    def scores(ssim: float, psnr_db: float) -> dict[str, float]:
        return {"ssim": ssim, "psnr_db": psnr_db, "ssim_uniform": ssim - 0.01, "mse": 65.025}

    mean = {
        "degraded": scores(0.80, 29.0),
        "unsharp": scores(0.82, 29.5),
        "baseline": scores(0.85, 30.0),
        "student": scores(0.86, 30.2),
        "teacher": scores(0.88, 31.0),
    }
    quality = {"ssim": 0.8, "psnr_db": 29.0}
    student = {"model": {"name": "imdn", "arguments": {"channels": 8}}, "parameters": 1234, "steps": 20}
    student["validation"] = validation = {"degraded": quality, "restored": quality}
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
        "command": "clearcall experiment recipe one",
        "minutes": 3.21,
        "machine": {"cpu": "A", "cores": 2},
        "curves": {"train_teacher": rows, "distill_student": rows},
        "costs": {"student": {"macs": 3e9, "fps": 12.0}, "teacher": {"macs": 5e9}},
        "budget": 0.5,
        "mix": ["bicubic_x2.0"],
        "reports": {
            "download_data": {"images": {"train": 9, "validation": 2, "test": 3}, "source": "bundled"},
            "train_teacher": {"validation": validation},
            "distill_student": {"student": student},
            "evaluate": {
                "mean": mean,
                "pairs": 18,
                "by_image": {"a": 1, "b": 2, "c": 3},
                "clean_psnr_db": {"student": 40.0},
            },
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
    write_recipe(tmp_path, outcome())
    write_recipe(tmp_path, outcome(name="another", minutes=None))
    said = write_recipe(tmp_path, outcome(minutes=9.87))
    assert said.startswith("one: Our student has +0.0600 SSIM")
    text = (tmp_path / "recipes.md").read_text()
    assert text.index("## another") < text.index("## one")
    assert text.count("## one\n") == 1
    row = next(line for line in text.splitlines() if line.startswith("| one "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[4:] == ["0.8600", "30.200", "", "+1.200", "0.8500", "0.8200", "+0.200", "40.0", "9.9"]
    assert "9.9 minutes" in text
    assert "18 pairs of 3 test photographs" in text
    assert "- Small: less of all." in text
    assert "Budget: 50% of each" in text
    assert "fps, 256x128" in text
    # MSE in [0, 1]: 65.025 / 255^2 = 0.001.
    assert "0.00100" in text
    assert "- On A with 2 cores" in text
    for name in ("one", "another"):
        assert (tmp_path / f"recipes/{name}.png").is_file()
        assert (tmp_path / f"recipes/{name}_curves.png").stat().st_size > 1000
    another, one = read_rows(tmp_path / "recipes.csv")
    assert (another.point, one.point, one.architecture, one.seconds) == ("another", "one", "imdn: channels 8", 592.2)
    assert math.isnan(another.seconds)


def test_the_committed_results_are_read(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "reports/recipes.json", tmp_path)
    write_recipe(tmp_path, outcome())
    assert [row.point for row in read_rows(tmp_path / "recipes.csv")] == sorted([*PUBLISHED, "one"])


def test_a_plan_has_the_values_and_the_command_of_each_recipe(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    small, full = (plan_recipes(["luminous"], full=full, budget=0.5, photos=photos) for full in (False, True))
    assert small[0].overrides["download_data.folder"] == str(photos)
    assert small[0].overrides["download_data.source"] == "folder"
    assert (small[0].small, full[0].small) == (True, False)
    assert "-S ++budget=0.5" in small[0].arguments
    assert full[0].command == "clearcall experiment recipe luminous --full --budget 0.5 --photos 'my photos'"
    assert [run.recipe.name for run in plan_recipes([])] == PUBLISHED
    (paired,) = plan_recipes(["gopro_unet"], full=True, photos=tmp_path)
    assert paired.overrides["download_data.source"] == "gopro"


@pytest.mark.parametrize(("name", "said"), [("fast", "say --full"), ("shapes", "clearcall experiment study shapes")])
def test_what_is_no_small_recipe_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_recipes([name])


def test_a_run_that_fails_does_not_end_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> int:
        raise error

    named = {"a": lambda: 1, "b": lambda: fail(UserError("no")), "c": lambda: fail(RuntimeError("x")), "d": lambda: 2}
    found: list[int] = []
    with pytest.raises(UserError, match="b, c failed"):
        found.extend(run_all(named.items()))
    assert found == [1, 2]
    assert "b: no\nwarning: c: RuntimeError: x\n" in capsys.readouterr().err
