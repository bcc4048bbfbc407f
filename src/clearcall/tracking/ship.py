"""Take the student of the last pipeline run into the package, with a card that says what it is and what it can do."""

import shutil
from collections.abc import Callable
from pathlib import Path

from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, sha256_of, write_json, write_text
from clearcall.evaluation.results import Results, read_results
from clearcall.params import Params
from clearcall.tracking.gate import judge_shipped

MAX_BYTES = 2_500_000
_REPORTS = ("download_data", "degrade_pairs", "distill_student", "evaluate", "export_onnx")


def ship(name: str, params: Params, folder: Path, recipe: str, card: Callable[[Results], str]) -> Path:
    """Copy ONNX and safetensors to `folder`, write `<name>.json` and the model card `<name>.md`; return its path.

    `card` makes the card of the reports. Raises UserError if the pipeline's results are missing, do not belong
    together, are larger than `MAX_BYTES` each, or below the limits of `gate.shipped`.
    """
    paths = params.paths
    sources = {
        ".onnx": paths.models / "student.onnx",
        ".safetensors": paths.weights / "students/student/model.safetensors",
    }
    reports = read_results(paths.reports, _REPORTS)
    exported = reports["export_onnx"]["student"]
    for suffix, recorded in ((".onnx", exported["sha256"]), (".safetensors", exported["weights_sha256"])):
        source = sources[suffix]
        if not source.is_file() or sha256_of(source) != recorded:
            raise UserError(f"{source} is missing or not the student that was measured: run `dvc repro`")
        if source.stat().st_size > MAX_BYTES:
            raise UserError(f"{source} has {source.stat().st_size:,} bytes; a shipped network may have {MAX_BYTES:,}")
    if reports["evaluate"]["student_weights_sha256"] != exported["weights_sha256"]:
        raise UserError("quality and export are of different students: run `dvc repro`")
    _require_worth_shipping(name, reports, params)
    for suffix, source in sources.items():
        with atomic_path(folder / f"{name}{suffix}") as temporary:
            shutil.copyfile(source, temporary)
    evaluated = reports["evaluate"]
    write_json(
        folder / f"{name}.json",
        {
            "model": reports["distill_student"]["student"]["model"],
            "parameters": exported["parameters"],
            "onnx_sha256": exported["sha256"],
            "safetensors_sha256": exported["weights_sha256"],
            "recipe": recipe,
            "quality": {key: value["student"] for key, value in evaluated["by_degradation"].items()},
            "mean": evaluated["mean"],
            "clean_psnr_db": evaluated["clean_psnr_db"]["student"],
            "least_gain_db": evaluated["least_gain_db"]["student"],
        },
    )
    path = folder / f"{name}.md"
    write_text(path, card(reports))
    return path


def _require_worth_shipping(name: str, reports: Results, params: Params) -> None:
    limits = params.gate.shipped.get(name)
    if limits is None:
        known = ", ".join(sorted(params.gate.shipped))
        raise UserError(f"no limits for {name}: add it under gate.shipped in params.yaml, which has {known}")
    evaluated = reports["evaluate"]
    checks = judge_shipped(evaluated["mean"], evaluated["clean_psnr_db"]["student"], limits)
    if failed := [f"{check.name} {check.value:.4g} < {check.limit:g}" for check in checks if not check.passed]:
        raise UserError(f"{name} is not taken into the package: {'; '.join(failed)} (gate.shipped in params.yaml)")
