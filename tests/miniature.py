"""A project folder in which the whole pipeline runs in seconds, and the commands that a user runs in it."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image
from tests.make.projects import OF_ANOTHER_PROJECT

from clearcall.core.files import sha256_of
from clearcall.evaluation.results import STAGES as MEASURED

SPLITS = {"train": 4, "validation": 1, "test": 1}
STAGES = [*MEASURED, "write_report", "publish"]


def tiny(document: dict[str, Any]) -> dict[str, Any]:
    """Shrink the committed params until a run takes seconds."""
    document["download_data"] |= {"source": "folder", "licence": "CC0"}
    document["degrade_pairs"] |= {"mix": ["bicubic_x2.0", "bilinear_x1.5"], "scales": [1.0], "workers": 1}
    document["train_teacher"]["model"]["arguments"] = {"degradations": ["bicubic_x2.0"], "channels": 8, "blocks": 1}
    document["train_teacher"]["pretrained"] = None
    document["distill_student"]["model"]["arguments"] = {
        "channels": 4,
        "body_layers": 1,
        "expansion": 8,
    }
    document["distill_student"]["baseline"] = False  # as much again
    for stage in ("train_teacher", "distill_student"):
        document[stage]["training"] |= {
            "steps": 16,
            "validate_every": 8,
            "batch_size": 2,
            "patch_size": 32,
            "warmup_steps": 4,
            "precision": "fp32",
        }
    document["train_teacher"]["training"]["learning_rate"] = 1.0e-3  # from scratch
    document["evaluate"] = {"unsharp_radii": [1.0], "unsharp_amounts": [0.5, 1.0]}
    document["export_onnx"]["parity_sizes"] = [[40, 48], [31, 37]]
    document["benchmark_fps"] |= {"frames": 4, "blocks": 2, "warmup_frames": 1}
    document["write_report"] = {"crop_side": 32, "examples": 1, "video_seconds": 0.1}
    small = {"min_ssim_over_unsharp": -1, "min_psnr_db_over_unsharp": -50, "min_clean_psnr_db": 10}
    document["gate"]["shipped"] = {"small": small, "teacher": small, "tall": small | {"min_clean_psnr_db": 200}}
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
        self.first_weights = dict[str, str]()

    def copied(self, folder: Path) -> Self:
        """Return a copy of this project, with DVC's cache and MLflow's database, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        made = copy.copy(self)
        made.folder = folder
        return made

    def write_params(self, document: dict[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(document))

    def change(self, section: str, **values: Any) -> None:
        document = yaml.safe_load((self.folder / "params.yaml").read_text())
        document[section] |= values
        self.write_params(document)

    def environment(self, **values: str) -> dict[str, str]:
        """Return the environment variables of a user of this folder."""
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {key: value for key, value in os.environ.items() if key not in OF_ANOTHER_PROJECT}
        # Threads cost more than networks this small take, above all where tests share the cores.
        own |= {"PATH": programs, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}
        return own | values

    def run(self, *command: str, expect: int = 0, **environment: str) -> str:
        """Run a command with the environment's programs first on PATH; return what it printed."""
        settings = self.environment(**environment)
        done = subprocess.run(command, cwd=self.folder, env=settings, capture_output=True, text=True, check=False)
        printed = done.stdout + done.stderr
        assert done.returncode == expect, printed[-3000:]
        return printed

    def reproduce(self, expect: int = 0, **environment: str) -> list[str]:
        """Run `dvc repro` and return the stages that ran, in order."""
        printed = self.run("dvc", "repro", expect=expect, **environment)
        return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")]

    def weights(self) -> dict[str, str]:
        """Return the SHA-256 of all trained weights, by their path."""
        folder = self.folder / "data" / "weights"
        return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*.safetensors"))}
