"""Whether the model at hand may be shipped: each check with its value and its limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.core.machine import machine
from clearcall.evaluation.results import FULL_HD, Results, read_results
from clearcall.params import Gate, Paths, ShippedGate


@dataclass(frozen=True)
class Check:
    """One value of the student and the least that it must be."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the value reaches the limit."""
        return self.value >= self.limit


def require_same_machine(reports: Path) -> None:
    """Raise UserError unless the fps was measured on this machine."""
    measured, here = read_results(reports, ("benchmark_fps",))["benchmark_fps"]["machine"], machine()
    if measured["id"] != here["id"]:
        raise UserError(
            f"the fps was measured on another machine ({measured['cpu']}, {measured['cores']} cores) than this one "
            f"({here['cpu']}, {here['cores']} cores): run `dvc repro -f -s benchmark_fps`, then `dvc repro`"
        )


def read_reports(paths: Paths) -> Results:
    """Return the measurements to judge; raise UserError if one is missing, or of another model, machine or size."""
    found = read_results(paths.reports, ("evaluate", "export_onnx", "benchmark_fps"))
    require_same_machine(paths.reports)
    student, speed = found["export_onnx"]["student"], found["benchmark_fps"]
    onnx = paths.models / "student.onnx"
    if not onnx.is_file() or sha256_of(onnx) != student["sha256"] or speed["student_sha256"] != student["sha256"]:
        raise UserError(f"{onnx} is missing or not the student that was measured: run `dvc repro`")
    if found["evaluate"]["student_weights_sha256"] != student["weights_sha256"]:
        raise UserError("SSIM and fps are of different students: run `dvc repro`")
    if (speed["width"], speed["height"]) != FULL_HD:
        raise UserError(
            f"the fps was measured at {speed['width']}x{speed['height']}, and the gate asks for 1920x1080: "
            "set benchmark_fps.width and height, and run `dvc repro`"
        )
    return found


def judge(found: Results, limits: Gate) -> list[Check]:
    """Return the checks: SSIM, fps, and the student's lead over the unsharp mask that was tuned on validation."""
    mean = found["evaluate"]["mean"]
    student, unsharp = mean["student"], mean["unsharp"]
    over = {f"{metric}_over_unsharp": student[metric] - unsharp[metric] for metric in ("ssim", "psnr_db")}
    return judge_values(limits, ssim=student["ssim"], fps=found["benchmark_fps"]["latency"]["student"]["fps"], **over)


def judge_values(
    limits: Gate, *, ssim: float, fps: float, ssim_over_unsharp: float, psnr_db_over_unsharp: float
) -> list[Check]:
    """Return the checks of values: SSIM, fps at 1920x1080, and how much SSIM and PSNR are above the unsharp mask's."""
    return [
        Check("SSIM", ssim, limits.min_ssim),
        Check("fps", fps, limits.min_fps),
        *_over_unsharp(limits, ssim_over_unsharp, psnr_db_over_unsharp),
    ]


def judge_shipped(
    mean: Mapping[str, Mapping[str, float]], clean_psnr_db: float, limits: ShippedGate, role: str = "student"
) -> list[Check]:
    """Return the checks of a network for the package: lead over the tuned mask, and PSNR of undegraded images.

    `mean` has each contender's `ssim` and `psnr_db` on the test images.
    """
    over = (mean[role][metric] - mean["unsharp"][metric] for metric in ("ssim", "psnr_db"))
    return [
        *_over_unsharp(limits, *over),
        Check("PSNR of an undegraded image, dB", clean_psnr_db, limits.min_clean_psnr_db),
    ]


def _over_unsharp(limits: Gate | ShippedGate, ssim: float, psnr_db: float) -> list[Check]:
    return [
        Check("SSIM over the tuned unsharp mask", round(ssim, 9), limits.min_ssim_over_unsharp),
        Check("PSNR over the tuned unsharp mask, dB", round(psnr_db, 9), limits.min_psnr_db_over_unsharp),
    ]
