"""The whole pipeline in miniature: real DVC, MLflow, Great Expectations and onnxruntime in a folder of its own."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image
from tests.miniature import STAGES, Miniature

from clearcall.data.degrade.degradations import build_degradation
from clearcall.experiments.experiment import Experiment
from clearcall.imaging.metrics import psnr_db
from clearcall.params import MotionBlur


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
    shipped = miniature.folder / "src" / "clearcall" / "runtime" / "shipped"
    for name, refusal in (
        ("unheard_of", "no limits for unheard_of: add it under gate.shipped in params.yaml, which has small, tall"),
        ("tall", "tall is not taken into the package: PSNR of an undegraded picture, dB"),
    ):
        printed = miniature.run("clearcall", "models", "ship", name, "--made-by", "dvc repro", expect=1)
        assert refusal in printed
        assert not list(shipped.glob(f"{name}.*"))
    printed = miniature.run("clearcall", "models", "ship", "small", "--made-by", "dvc repro")
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

    recipe = Experiment.model_validate(yaml.safe_load((project / "experiments/gopro_unet.yaml").read_text()))
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
    assert {"baseline", "student", "teacher"} <= evaluated["mean"].keys()
    summary = json.loads((made.folder / "reports/distill_student.json").read_text())["student"]
    assert summary["model"]["name"] == "plain_cnn"
    # Four photographs are left to train on, two batches an epoch, for three of them.
    assert summary["steps"] == 6
