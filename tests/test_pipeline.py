"""The whole pipeline in miniature: real DVC, MLflow, Great Expectations and onnxruntime in a folder of its own."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from clearcall.data.degradations import build_degradation
from clearcall.metrics import psnr_db
from clearcall.params import MotionBlur
from clearcall.recipes.recipe import Recipe

SPLITS = {"train": 4, "validation": 1, "test": 1}
STAGES = [
    "download_data",
    "check_data",
    "degrade_pairs",
    "check_pairs",
    "train_teacher",
    "distill_student",
    "evaluate",
    "export_onnx",
    "benchmark_fps",
    "write_report",
    "publish",
]


def tiny(document: dict[str, Any]) -> dict[str, Any]:
    """Shrink the committed params until a run takes seconds."""
    document["download_data"] |= {"source": "folder", "licence": "CC0"}
    document["degrade_pairs"] |= {"mix": ["bicubic_x2.0", "bilinear_x1.5"], "scales": [1.0], "workers": 1}
    document["train_teacher"]["model"]["arguments"] = {"channels": 8, "blocks": 1, "unshuffle": 2}
    document["distill_student"]["model"]["arguments"] = {
        "channels": 4,
        "body_layers": 1,
        "expansion": 8,
    }
    for stage in ("train_teacher", "distill_student"):
        document[stage]["training"] |= {
            "steps": 40,
            "validate_every": 20,
            "batch_size": 2,
            "patch_size": 32,
            "warmup_steps": 10,
        }
    document["evaluate"] = {"unsharp_radii": [1.0], "unsharp_amounts": [0.5, 1.0]}
    document["export_onnx"]["parity_sizes"] = [[40, 48], [31, 37]]
    document["benchmark_fps"] |= {"frames": 4, "blocks": 2, "warmup_frames": 1}
    document["write_report"] = {"crop_side": 32, "pictures": 1}
    small = {"min_ssim_over_unsharp": -1, "min_psnr_db_over_unsharp": -50, "min_clean_psnr_db": 10}
    document["gate"]["shipped"] = {"small": small, "tall": small | {"min_clean_psnr_db": 200}}
    document["gate"] |= {"min_ssim": 0.5, "min_fps": 1, "min_ssim_over_unsharp": -1, "min_psnr_db_over_unsharp": -50}
    return document


class Miniature:
    """A project folder under git and DVC, and the commands that a user runs in it."""

    def __init__(self, folder: Path, project: Path, photos: dict[str, npt.NDArray[np.uint8]]) -> None:
        self.folder = folder
        for name in ("dvc.yaml", "requirements.lock", "requirements-openvino.lock", ".dvcignore", ".gitignore"):
            shutil.copy(project / name, folder)
        for name in ("stages", "src", ".dvc"):
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "cache", "tmp")
            shutil.copytree(project / name, folder / name, ignore=ignored)
        self.write_params(tiny(yaml.safe_load((project / "params.yaml").read_text())))
        for index, split in enumerate(name for name, count in SPLITS.items() for _ in range(count)):
            target = folder / "data" / "photos" / split / f"{index}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photos["astronaut"][20 + 60 * index :][:96, 180:276]).save(target)
        self.run("git", "init", "--quiet")
        self.run("git", "add", "--all")

    def write_params(self, document: dict[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(document))

    def change(self, section: str, **values: Any) -> None:
        document = yaml.safe_load((self.folder / "params.yaml").read_text())
        document[section] |= values
        self.write_params(document)

    def run(self, *command: str, expect: int = 0, **environment: str) -> str:
        """Run a command with the environment's programs first on PATH; return what it printed."""
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {key: value for key, value in os.environ.items() if key not in ("DVC_ROOT", "MLFLOW_TRACKING_URI")}
        settings = {**own, "PATH": programs, "PYTHONPATH": str(self.folder / "src"), **environment}
        done = subprocess.run(command, cwd=self.folder, env=settings, capture_output=True, text=True, check=False)
        printed = done.stdout + done.stderr
        assert done.returncode == expect, printed[-3000:]
        return printed

    def reproduce(self, expect: int = 0, **environment: str) -> list[str]:
        """Run `dvc repro` and return the stages that ran, in order."""
        printed = self.run("dvc", "repro", expect=expect, **environment)
        return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def miniature(
    tmp_path_factory: pytest.TempPathFactory, project: Path, photos: dict[str, npt.NDArray[np.uint8]]
) -> Miniature:
    """A miniature project in which the pipeline has run once, with the MLflow server down from training on."""
    made = Miniature(tmp_path_factory.mktemp("miniature"), project, photos)
    # Nothing listens at port 9: training must go on, publish alone must fail.
    ran = made.reproduce(expect=255, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert ran == STAGES
    assert made.reproduce() == ["publish"]
    return made


def test_leaves_a_report_pictures_and_a_registered_model(miniature: Miniature) -> None:
    reports = miniature.folder / "reports"
    assert sorted(path.stem for path in reports.glob("*.json")) == sorted(STAGES)
    assert "unsharp" in (reports / "report.md").read_text()
    assert (reports / "figures" / "before_after.png").stat().st_size > 1000
    assert (miniature.folder / "data" / "data_docs" / "check_pairs" / "index.html").is_file()
    assert (miniature.folder / "mlflow.db").is_file()
    assert not list((miniature.folder / ".checkpoints").iterdir()), "a finished training leaves nothing behind"


def test_gate_passes_and_crowns_then_fails_on_a_limit(miniature: Miniature) -> None:
    assert "is now the champion: models:/clearcall@champion" in miniature.run("clearcall", "gate")
    miniature.change("gate", min_ssim=0.9999)
    printed = miniature.run("clearcall", "gate", expect=1)
    assert "the gate is not passed: SSIM" in printed
    assert "Traceback" not in printed
    miniature.change("gate", min_ssim=0.5)


def test_a_clone_that_pulled_everything_is_told_how_to_publish(miniature: Miniature, tmp_path: Path) -> None:
    """Its registry is empty, while its publish.json names the version of another and `dvc repro` has nothing to do."""
    for command in (
        f"dvc remote add --default here {tmp_path}/remote",
        "dvc push --quiet",
        "git add --all",
        "git -c user.name=a -c user.email=a commit --quiet --message=x",
        f"git clone --quiet . {tmp_path}/clone",
    ):
        miniature.run(*command.split())
    clone = copy.copy(miniature)
    clone.folder = tmp_path / "clone"
    clone.run("dvc", "pull", "--quiet")
    printed = clone.run("clearcall", "gate", expect=1)
    assert "this model is not in the registry" in printed
    (told,) = re.findall(r"Run `(dvc .*?)`", printed)
    clone.run(*told.split())
    assert "is now the champion: models:/clearcall@champion" in clone.run("clearcall", "gate")


def test_the_student_can_be_shipped_with_a_card(miniature: Miniature) -> None:
    shipped = miniature.folder / "src" / "clearcall" / "shipped"
    for name, refusal in (
        ("unheard_of", "no limits for unheard_of: add it under gate.shipped in params.yaml, which has small, tall"),
        ("tall", "tall is not taken into the package: PSNR of an undegraded picture, dB"),
    ):
        printed = miniature.run("clearcall", "ship", name, "--made-by", "dvc repro", expect=1)
        assert refusal in printed
        assert not list(shipped.glob(f"{name}.*"))
    printed = miniature.run("clearcall", "ship", "small", "--made-by", "dvc repro")
    assert "small.md" in printed
    card = (shipped / "small.md").read_text()
    for fact in ("Model card: `small`", "CC0", "bicubic_x2.0, bilinear_x1.5", "unsharp mask", "without a teacher"):
        assert fact in card
    program = (
        "import numpy as np; from clearcall import Sharpener; s = Sharpener('small'); "
        "print(s(np.full((31, 45, 3), 90, np.uint8)).shape, s.choice)"
    )
    assert "(31, 45, 3) onnxruntime" in miniature.run(
        "python", "-c", program.replace("'small'", "'small', 'onnxruntime'")
    )
    for path in shipped.glob("small.*"):
        path.unlink()


def test_a_second_run_does_nothing_and_a_student_param_reruns_the_student_and_what_follows(
    miniature: Miniature,
) -> None:
    assert miniature.reproduce() == []
    document = yaml.safe_load((miniature.folder / "params.yaml").read_text())
    document["distill_student"]["training"]["learning_rate"] = 0.004
    miniature.write_params(document)
    assert miniature.reproduce() == STAGES[STAGES.index("distill_student") :]
    assert miniature.reproduce() == []


def test_a_damaged_photograph_stops_the_pipeline_before_anything_is_trained(miniature: Miniature) -> None:
    photo = miniature.folder / "data" / "photos" / "train" / "0.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    printed = miniature.run("dvc", "repro", expect=255)
    assert "train/0.png" in printed
    assert "Traceback" not in printed
    assert "train_teacher" not in printed
    photo.write_bytes(whole)
    assert miniature.reproduce() == [], "the mended photograph gives what was there before"


def test_the_recipe_for_gopro_learns_from_a_folder_of_that_layout(
    tmp_path: Path, project: Path, photos: dict[str, npt.NDArray[np.uint8]]
) -> None:
    """The values that need GoPro's pairs, on photographs of ours that moved; VGG-19's weights cannot be had here."""
    made = Miniature(tmp_path, project, photos)
    blur = build_degradation([MotionBlur(op="motion_blur", length_range=(7, 7))], 96, 96, seed=1)
    cuts = [(name, photos[name][top:][:96, 180:276]) for name in photos for top in (20, 120)]
    pairs = [(name, sharp, blur(sharp)) for name, sharp in cuts]
    for index, (name, sharp, blurred) in enumerate(pairs):
        scene = made.folder / "GOPRO" / ("test" if index == 0 else "train") / f"{name}{index}"
        for kind, picture in (("sharp", sharp), ("blur", blurred)):
            (scene / kind).mkdir(parents=True)
            Image.fromarray(picture).save(scene / kind / "000001.png")

    recipe = Recipe.model_validate(yaml.safe_load((project / "recipes/gopro_unet.yaml").read_text()))
    small = {"epochs": 3, "patch_size": 32, "batch_size": 2, "warmup_steps": 100}
    tiny_values = {
        "download_data.folder": "GOPRO",
        "train_teacher.model.arguments": {"channels": 4, "levels": 2},
        "distill_student.model.arguments": {"channels": 8, "convs": 4},
        "distill_student.losses": {"l1": 1.0, "feature_projection": 0.1},
        "distill_student.feature_layers": [{"student": "body.5", "teacher": "up.1"}],
        **{
            f"{stage}.training.{key}": value
            for stage in ("train_teacher", "distill_student")
            for key, value in small.items()
        },
    }
    document = yaml.safe_load((made.folder / "params.yaml").read_text())
    for name, value in {**recipe.values, **tiny_values}.items():
        *parents, last = name.split(".")
        section = document
        for parent in parents:
            section = section[parent]
        section[last] = value
    made.write_params(document)
    made.run("dvc", "repro", "evaluate")

    evaluated = json.loads((made.folder / "reports/evaluate.json").read_text())
    assert evaluated["mean"]["degraded"]["psnr_db"] == pytest.approx(psnr_db(*pairs[0][1:]))
    assert {"twin", "student", "teacher"} <= evaluated["mean"].keys()
    summary = json.loads((made.folder / "reports/distill_student.json").read_text())["student"]
    assert summary["model"]["name"] == "plain_cnn"
    # Four photographs are left to train on, two batches an epoch, for three of them.
    assert summary["steps"] == 6
