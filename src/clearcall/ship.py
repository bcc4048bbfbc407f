"""Take the student of the last pipeline run into the package, with a card that says what it is and what it can do."""

import shutil
from pathlib import Path

from clearcall.cores import machine
from clearcall.data.manifest import read_manifest
from clearcall.deploy.engines import load_graph
from clearcall.errors import UserError
from clearcall.files import atomic_path, sha256_of, write_json, write_text
from clearcall.gate import judge_shipped
from clearcall.live import require_alone
from clearcall.metrics import MAX_PSNR_DB
from clearcall.params import Params
from clearcall.report.results import Results, measured, read_results
from clearcall.report.tables import arguments_of, breakdown_table, markdown_table, routing_table
from clearcall.training.task import needs_teacher

MAX_BYTES = 2_500_000
_REPORTS = ("download_data", "degrade_pairs", "distill_student", "evaluate", "export_onnx")
_TITLES = {
    "degraded": "the degraded input",
    "unsharp": "unsharp mask, tuned on validation",
    "twin": "the same student without a teacher",
    "student": "**this student**",
    "teacher": "teacher",
}

# What a network is for and what it does not know, by whether encoders were among what it was trained on.
_FOR_SCALED = (
    "images and videos that were downscaled and upscaled again",
    "blur by scaling is what it knows; it does not remove noise or blocks and may sharpen them.",
)
_FOR_CALLS = (
    "images and videos that were downscaled and upscaled again, and calls as they arrive through an encoder",
    "it knows blur by scaling and what encoders leave of a frame; a camera's noise it may sharpen.",
)


def ship(name: str, params: Params, folder: Path, recipe: str) -> Path:
    """Copy ONNX and safetensors to `folder`, write `<name>.json` and the model card `<name>.md`; return the card.

    Raises UserError if the pipeline's results are missing, do not belong together, are larger than `MAX_BYTES` each, or
    below the limits of `gate.shipped`.
    """
    require_alone(params.live)
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
    card = folder / f"{name}.md"
    write_text(card, _card(name, reports, params, recipe))
    return card


def _require_worth_shipping(name: str, reports: Results, params: Params) -> None:
    limits = params.gate.shipped.get(name)
    if limits is None:
        known = ", ".join(sorted(params.gate.shipped))
        raise UserError(f"no limits for {name}: add it under gate.shipped in params.yaml, which has {known}")
    evaluated = reports["evaluate"]
    checks = judge_shipped(evaluated["mean"], evaluated["clean_psnr_db"]["student"], limits)
    if failed := [f"{check.name} {check.value:.4g} < {check.limit:g}" for check in checks if not check.passed]:
        raise UserError(f"{name} is not taken into the package: {'; '.join(failed)} (gate.shipped in params.yaml)")


def _card(name: str, reports: Results, params: Params, recipe: str) -> str:
    trained, evaluated = reports["distill_student"]["student"], reports["evaluate"]
    arguments = arguments_of(trained["model"])
    images = reports["download_data"]["images"]
    mean = evaluated["mean"]
    if experts := trained.get("experts"):
        steps = " or ".join(f"{count:,}" for count in sorted({one["steps"] for one in experts.values()}))
        steps = f"each expert {steps} steps"
    else:
        steps = f"{trained['steps']:,} steps, of which number {trained['best_step']:,} was kept"
    # A teacher that taught nothing is a stand-in of a few steps.
    shown = [key for key in measured(reports) if key != "teacher" or needs_teacher(trained["losses"])]
    rows = [[_TITLES[key], f"{mean[key]['ssim']:.4f} / {mean[key]['psnr_db']:.2f}"] for key in shown]
    training = params.distill_student.training
    floor = f"relative_floor {training.relative_floor:g}"
    settings = dict.fromkeys(("relative_mse", "luma_gain", "chroma_gain"), f" ({floor})")
    losses = ", ".join(f"{key} {value}{settings.get(key, '')}" for key, value in trained["losses"].items())
    licences = sorted({record.licence for record in read_manifest(params.paths.raw)})
    behind = [
        f"{degradation} ({metric})"
        for degradation, scores in evaluated["by_degradation"].items()
        for metric, key in (("SSIM", "ssim"), ("PSNR", "psnr_db"))
        if scores["student"][key] <= max(scores["degraded"][key], scores["unsharp"][key])
    ]
    against = ", ".join(behind) or "none of the degradations"
    clean = f"{training.clean_fraction:.0%}"
    graph = load_graph(params.paths.models / "student.onnx")
    luma = graph.kind == "luma"
    clean_psnr_db = evaluated["clean_psnr_db"]["student"]
    untouched = ", untouched" if clean_psnr_db >= MAX_PSNR_DB else ""
    colour = "Colour detail is left as it is. " if luma else ""
    if luma and graph.coloured:
        colour = f"Chroma is restored by {', '.join(graph.coloured)}, and left as it is by all others. "
    routing = f"\n## Routing of the validation images\n\n{table}\n" if (table := routing_table(reports)) else ""
    use, limits = _FOR_CALLS if params.degrade_pairs.has_codec() else _FOR_SCALED
    return f"""# Model card: `{name}`

A network of {reports["export_onnx"]["student"]["parameters"]:,} parameters ({trained["model"]["name"]}: {arguments})
that sharpens 8-bit images by what it adds to {"luma" if luma else "R, G and B"}. Apache-2.0.

- **Use**: `Sharpener("{name}")` or `clearcall video IN OUT --model {name}`, for {use}.
  Not for evidence: what it adds is plausible, not known.
- **Made by** `{recipe}`, on {machine()["cpu"]}.
- **Data**: {images["train"]} images to train on, {images["validation"]} to tune on, {images["test"]} to
  measure on, split by photograph, and no part of this package. Licence: {"; ".join(licences)}.
- **Degradations**: {", ".join(evaluated["by_degradation"])}; {clean} of the samples undegraded.
- **Training**: {losses}; {steps}.
- **Limits**: {limits}
  {colour}An undegraded picture comes back at {clean_psnr_db:.1f} dB{untouched}.
  The worst image of the test split changes by {evaluated["least_gain_db"]["student"]:+.2f} dB.
- **Not better than both the input and the unsharp mask on**: {against}.

## Quality on the test photographs (SSIM of Wang et al. / PSNR of RGB in dB)

{markdown_table(["contender", "mean"], rows)}

{breakdown_table(reports, "by_degradation", shown)}
{routing}"""
