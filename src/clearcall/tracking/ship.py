"""Take the student, or the teacher, of the last pipeline run into the package, with a card of what it can do."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save

from clearcall.core.errors import UserError
from clearcall.core.files import TEACHER, atomic_path, sha256_of, write_json, write_text
from clearcall.evaluation.results import Results, read_results
from clearcall.models.weights import WEIGHTS
from clearcall.params import Params
from clearcall.tracking.gate import judge_shipped

MAX_BYTES = {"student": 2_500_000, TEACHER: 4_000_000}
_REPORTS = ("download_data", "degrade_pairs", "train_teacher", "distill_student", "evaluate", "export_onnx")


def ship(name: str, params: Params, folder: Path, recipe: str, card: Callable[[Results], str]) -> Path:
    """Copy ONNX and safetensors to `folder`, write `<name>.json` and the model card `<name>.md`; return its path.

    The name `teacher` stands for the teacher, whose weights are stored in half precision and without ONNX. `card` makes
    the card of the reports. Raises UserError if the pipeline's results are missing, do not belong together, are larger
    than `MAX_BYTES`, or below the limits of `gate.shipped`.
    """
    paths, role = params.paths, TEACHER if name == TEACHER else "student"
    weights = paths.weights / ("teacher" if role == TEACHER else "students/student") / WEIGHTS
    sources = {".onnx": paths.models / f"{role}.onnx", ".safetensors": weights}
    reports = read_results(paths.reports, _REPORTS)
    exported = reports["export_onnx"][role]
    for suffix, recorded in ((".onnx", exported["sha256"]), (".safetensors", exported["weights_sha256"])):
        source = sources[suffix]
        if not source.is_file() or sha256_of(source) != recorded:
            raise UserError(f"{source} is missing or not the {role} that was measured: run `dvc repro`")
        if (size := source.stat().st_size) > MAX_BYTES[role]:
            raise UserError(f"{source} has {size:,} bytes; a shipped {role} may have {MAX_BYTES[role]:,}")
    evaluated = reports["evaluate"]
    if evaluated[f"{role}_weights_sha256"] != exported["weights_sha256"]:
        raise UserError(f"quality and export are of different {role}s: run `dvc repro`")
    _require_worth_shipping(name, role, reports, params)
    target = folder / f"{name}.safetensors"
    with atomic_path(target) as temporary:
        if role == TEACHER:
            temporary.write_bytes(save({key: tensor.half() for key, tensor in load_file(weights).items()}))
        else:
            shutil.copyfile(weights, temporary)
    if role != TEACHER:
        with atomic_path(folder / f"{name}.onnx") as temporary:
            shutil.copyfile(sources[".onnx"], temporary)
    trained = reports["train_teacher"] if role == TEACHER else reports["distill_student"]["student"]
    write_json(
        folder / f"{name}.json",
        {
            "model": trained["model"],
            "parameters": exported["parameters"],
            **({} if role == TEACHER else {"onnx_sha256": exported["sha256"]}),
            "safetensors_sha256": sha256_of(target),
            "recipe": recipe,
            "quality": {key: value[role] for key, value in evaluated["by_degradation"].items()},
            "mean": evaluated["mean"],
            "clean_psnr_db": evaluated["clean_psnr_db"][role],
            "least_gain_db": evaluated["least_gain_db"][role],
        },
    )
    path = folder / f"{name}.md"
    write_text(path, card(reports))
    return path


def _require_worth_shipping(name: str, role: str, reports: Results, params: Params) -> None:
    limits = params.gate.shipped.get(name)
    if limits is None:
        known = ", ".join(sorted(params.gate.shipped))
        raise UserError(f"no limits for {name}: add it under gate.shipped in params.yaml, which has {known}")
    evaluated = reports["evaluate"]
    checks = judge_shipped(evaluated["mean"], evaluated["clean_psnr_db"][role], limits, role)
    if failed := [f"{check.name} {check.value:.4g} < {check.limit:g}" for check in checks if not check.passed]:
        raise UserError(f"{name} is not taken into the package: {'; '.join(failed)} (gate.shipped in params.yaml)")
