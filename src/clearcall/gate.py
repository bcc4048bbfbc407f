"""Whether the model at hand may be shipped: each check with its value and its limit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearcall.cores import machine
from clearcall.errors import UserError
from clearcall.files import read_json
from clearcall.params import Gate


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


def read_reports(reports: Path) -> dict[str, dict[str, Any]]:
    """Return the measurements to judge; raise UserError if one is missing, or of another model or machine."""
    found = {}
    for stage in ("evaluate", "export_onnx", "benchmark_fps"):
        path = reports / f"{stage}.json"
        if not path.is_file():
            raise UserError(f"{path} is missing: run `dvc repro` first")
        found[stage] = read_json(path)
    measured, here = found["benchmark_fps"]["machine"], machine()
    if measured["id"] != here["id"]:
        raise UserError(
            f"the fps was measured on another machine ({measured['cpu']}, {measured['cores']} cores) than this one "
            f"({here['cpu']}, {here['cores']} cores): run `dvc repro -f -s benchmark_fps`, then `dvc repro`"
        )
    if found["benchmark_fps"]["student_sha256"] != found["export_onnx"]["student"]["sha256"]:
        raise UserError("the fps was measured with another student than the exported one: run `dvc repro`")
    return found


def judge(found: dict[str, dict[str, Any]], limits: Gate) -> list[Check]:
    """Return the checks: SSIM, fps, and the student's lead over the unsharp mask that was tuned on validation."""
    mean = found["evaluate"]["mean"]
    student, unsharp = mean["student"], mean["unsharp"]
    return [
        Check("SSIM", student["ssim"], limits.min_ssim),
        Check("fps", found["benchmark_fps"]["latency"]["student"]["fps"], limits.min_fps),
        Check(
            "SSIM over the tuned unsharp mask",
            round(student["ssim"] - unsharp["ssim"], 9),
            limits.min_ssim_over_unsharp,
        ),
        Check(
            "PSNR over the tuned unsharp mask, dB",
            round(student["psnr_db"] - unsharp["psnr_db"], 9),
            limits.min_psnr_db_over_unsharp,
        ),
    ]
