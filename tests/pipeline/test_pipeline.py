"""The whole pipeline in miniature: real DVC, MLflow, Great Expectations and onnxruntime in a folder of its own."""

import copy
import json
import re
import runpy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image
from tests.make.commands import run_command
from tests.make.projects import inside
from tests.miniature import STAGES, Miniature

from clearcall.core import files
from clearcall.data.degrade.degradations import build_degradation
from clearcall.experiments.definition import Experiment
from clearcall.imaging.metrics import psnr_db
from clearcall.models import weights
from clearcall.params import MotionBlur
from clearcall.runtime import sharpener

pytestmark = pytest.mark.timeout(1200)  # the first test waits for the whole pipeline, on a machine with other work


def test_a_run_leaves_reports_figures_and_a_registered_model(miniature: Miniature) -> None:
    reports = miniature.folder / "reports"
    assert sorted(path.stem for path in reports.glob("*.json")) == sorted(STAGES)
    assert "unsharp" in (reports / "report.md").read_text()
    assert (reports / "figures" / "before_after.png").stat().st_size > 1000
    assert (miniature.folder / "data" / "data_docs" / "check_pairs" / "index.html").is_file()
    assert (miniature.folder / "mlflow.db").is_file()
    assert json.loads((reports / "benchmark_fps.json").read_text())["student_macs"] > 0
    assert not list((miniature.folder / ".checkpoints").iterdir()), "a finished training leaves nothing behind"


def test_the_gate_promotes_and_then_fails_on_a_limit(miniature: Miniature) -> None:
    with inside(miniature.folder):
        done = run_command("gate")
        assert (done.returncode, done.stderr) == (0, "")
        assert "is now the champion: models:/clearcall@champion" in done.stdout
        miniature.change("gate", min_ssim=0.9999)
        done = run_command("gate")
        miniature.change("gate", min_ssim=0.5)
    assert (done.returncode, done.stderr) == (1, "error: the gate is not passed: SSIM\n")


def test_dvc_draws_each_network_and_contender(miniature: Miniature, tmp_path: Path) -> None:
    miniature.run("dvc", "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    plots = {plot["title"]["text"]: plot for plot in map(json.loads, re.findall(r"var spec = (.*);", page))}
    assert plots.keys() == {"Loss", "Teacher", "Student", "Test PSNR", "Test SSIM"}
    assert "<DVC_METRIC" not in page, "a placeholder that DVC does not know is left in a template"
    rows = {title: plot["data"]["values"] for title, plot in plots.items()}
    experts = {f"student/{name}" for name in ("bicubic_x2.0", "bilinear_x1.5")}
    assert {row["network"] for row in rows["Loss"] if row["loss_total"]} == {"teacher", "student", *experts}
    assert {row["network"] for row in rows["Student"] if row["validation_ssim"]} == {"student", *experts}
    contenders = {row["contender"] for row in rows["Test PSNR"] if row["reference"] == "sharp"}
    assert contenders == {"degraded", "unsharp", "student", "teacher"}


def test_a_clone_with_all_outputs_is_told_how_to_publish(miniature: Miniature, tmp_path: Path) -> None:
    """Its registry is empty, while its publish.json names the version of another and `dvc repro` has nothing to do."""
    clone = copy.copy(miniature)
    clone.folder = tmp_path / "clone"
    for command in (
        "git add --all",
        "git -c user.name=a -c user.email=a commit --quiet --message=x",
        f"git clone --quiet . {clone.folder}",
    ):
        miniature.run(*command.split())
    (clone.folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {miniature.folder}/.dvc/cache\n")
    clone.run("dvc", "checkout", "--quiet", "--relink")
    with inside(clone.folder):
        done = run_command("gate")
        assert done.returncode == 1
        assert "this model is not in the registry" in done.stderr
    (told,) = re.findall(r"Run `(dvc .*?)`", done.stderr)
    clone.run(*told.split())
    with inside(clone.folder):
        assert "is now the champion: models:/clearcall@champion" in run_command("gate").stdout


def test_the_student_can_be_shipped_with_a_card(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sharpener, files):
        monkeypatch.setattr(module, "SHIPPED", tmp_path)
    with inside(miniature.folder):
        for name, refusal in (
            ("unheard_of", "no limits for unheard_of: add it under gate.shipped in params.yaml, which has small, tall"),
            ("tall", "tall is not taken into the package: PSNR of an undegraded image, dB"),
        ):
            done = run_command("models", "ship", name, "--made-by", "dvc repro")
            assert done.returncode == 1
            assert refusal in done.stderr
            assert not list(tmp_path.iterdir())
        done = run_command("models", "ship", "small", "--made-by", "dvc repro")
    assert (done.returncode, done.stdout) == (0, f"written: {tmp_path / 'small.md'}\n")
    card = (tmp_path / "small.md").read_text()
    for fact in ("Model card: `small`", "CC0", "bicubic_x2.0, bilinear_x1.5", "unsharp mask", "2 experts"):
        assert fact in card
    small = sharpener.Sharpener("small", "onnxruntime", 1)
    assert small(np.full((31, 45, 3), 90, np.uint8)).shape == (31, 45, 3)


def test_the_teacher_can_be_shipped_and_trained_on(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (weights, files):
        monkeypatch.setattr(module, "SHIPPED", tmp_path)
    with inside(miniature.folder):
        done = run_command("models", "ship", "teacher", "--made-by", "dvc repro")
    assert (done.returncode, done.stdout) == (0, f"written: {tmp_path / 'teacher.md'}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"teacher.{kind}" for kind in ("json", "md", "safetensors")
    ]
    assert "with the name of the degradation" in (tmp_path / "teacher.md").read_text()
    trained = weights.load_weights(miniature.folder / "data" / "weights" / "teacher").state_dict()
    for name, tensor in weights.load_shipped("teacher").state_dict().items():
        assert torch.equal(tensor, trained[name].half().float())


def test_a_param_of_the_student_changes_its_stage_alone(miniature: Miniature) -> None:
    """And the report, which quotes all params. What follows runs again when its inputs change, as test_dvc.py holds."""
    before = (miniature.folder / "params.yaml").read_text()
    document = yaml.safe_load(before)
    document["distill_student"]["training"]["learning_rate"] = 0.004
    miniature.write_params(document)
    changed = json.loads(miniature.run("dvc", "status", "--json"))
    (miniature.folder / "params.yaml").write_text(before)
    assert changed == {
        "distill_student": [{"changed deps": {"params.yaml": {"distill_student": "modified"}}}],
        "write_report": [{"changed deps": {"params.yaml": "modified"}}],
    }


def test_a_corrupt_photograph_stops_the_pipeline_before_anything_is_trained(miniature: Miniature) -> None:
    photo = miniature.folder / "data" / "photos" / "train" / "0.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    printed = miniature.run("dvc", "repro", expect=255)
    assert "train/0.png" in printed
    assert "Traceback" not in printed
    assert "train_teacher" not in printed
    photo.write_bytes(whole)
    assert miniature.reproduce() == [], "the restored photograph gives what was there before"


def test_an_experiment_in_a_copy_asks_for_an_absolute_folder(
    tmp_path: Path, project: Path, photos: dict[str, npt.NDArray[np.uint8]]
) -> None:
    """DVC runs `--temp` and `--queue` in a copy of what git has: of data/photos, the file README.md alone."""
    made = Miniature(tmp_path, project, photos)
    (made.folder / "data" / "photos" / "README.md").touch()
    made.run("git", "add", "--all")
    made.run("git", "-c", "user.name=a", "-c", "user.email=a", "commit", "--quiet", "--message=x")
    printed = made.run("dvc", "exp", "run", "--temp", "download_data", expect=255)
    (folder,) = re.findall(r"data/photos holds no image .* set (download_data\.folder=.*)", printed)
    assert "Traceback" not in printed
    printed = made.run("dvc", "exp", "run", "--temp", "-S", folder, "download_data")
    assert "6 photographs in data/raw" in printed


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
        for kind, image in (("sharp", sharp), ("blur", blurred)):
            (scene / kind).mkdir(parents=True)
            Image.fromarray(image).save(scene / kind / "000001.png")

    recipe = Experiment.model_validate(yaml.safe_load((project / "experiments/gopro_unet.yaml").read_text()))
    small = {"epochs": 3, "patch_size": 32, "batch_size": 2, "warmup_steps": 100}
    tiny_values = {
        "download_data.folder": "GOPRO",
        "distill_student.baseline": True,
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
    # The stages in this process: DVC is none of a recipe's business. Nothing listens at port 9.
    with inside(made.folder, MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
        for stage in STAGES[: STAGES.index("evaluate") + 1]:
            runpy.run_path(f"stages/{stage}.py")["main"]()

    evaluated = json.loads((made.folder / "reports/evaluate.json").read_text())
    assert evaluated["mean"]["degraded"]["psnr_db"] == pytest.approx(psnr_db(*pairs[0][1:]))
    assert {"baseline", "student", "teacher"} <= evaluated["mean"].keys()
    summary = json.loads((made.folder / "reports/distill_student.json").read_text())["student"]
    assert summary["model"]["name"] == "plain_cnn"
    # Four photographs are left to train on, two batches an epoch, for three of them.
    assert summary["steps"] == 6
