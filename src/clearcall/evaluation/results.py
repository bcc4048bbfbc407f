"""Results of the stages in the reports folder, and the titles of the contenders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearcall.core.errors import UserError
from clearcall.core.files import read_json

FULL_HD = (1920, 1080)
Results = dict[str, dict[str, Any]]

STAGES = (
    "download_data",
    "check_data",
    "degrade_pairs",
    "check_pairs",
    "train_teacher",
    "distill_student",
    "evaluate",
    "export_onnx",
    "benchmark_fps",
)
# In the order of every table and figure.
CONTENDERS = {
    "degraded": "degraded input",
    "unsharp": "unsharp mask",
    "baseline": "student without teacher",
    "student": "student",
    "teacher": "teacher",
}


def read_results(reports: Path, stages: tuple[str, ...] = STAGES) -> Results:
    """Return the JSON documents of some stages by name; raise UserError if one is missing."""
    for stage in stages:
        if not (path := reports / f"{stage}.json").is_file():
            raise UserError(f"{path} is missing: run `dvc repro` first")
    return {stage: read_json(reports / f"{stage}.json") for stage in stages}


def measured(results: Results) -> list[str]:
    """Return the contenders of this run in their order: there may be no baseline."""
    return [name for name in CONTENDERS if name in results["evaluate"]["mean"]]


def timed_as(name: str) -> str:
    """Return the contender whose times are those of another: the student without teacher is the same network."""
    return "student" if name == "baseline" else name


def frame_size(results: Results) -> str:
    """Return the size of the timed frames in words."""
    width, height = results["benchmark_fps"]["width"], results["benchmark_fps"]["height"]
    return "1080p" if (width, height) == FULL_HD else f"{width} x {height}"


def lead(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, float]:
    """Return how much higher SSIM and PSNR in dB are, rounded as printed, so that words and figures agree."""
    return round(one["ssim"] - other["ssim"], 4), round(one["psnr_db"] - other["psnr_db"], 2)
