"""The model card of a shipped network."""

from clearcall.core.machine import machine
from clearcall.data.manifest import read_manifest
from clearcall.evaluation.results import Results, measured
from clearcall.imaging.metrics import MAX_PSNR_DB
from clearcall.params import Params
from clearcall.reporting.tables import arguments_of, breakdown_table, markdown_table, routing_table
from clearcall.runtime.graph import load_graph
from clearcall.training.task import needs_teacher

_TITLES = {
    "degraded": "the degraded input",
    "unsharp": "unsharp mask, tuned on validation",
    "baseline": "the same student without a teacher",
    "student": "**this student**",
    "teacher": "teacher",
}


_FORMS = ("ssim", ".4f"), ("psnr_db", ".2f")

# What a network is for and what it does not know, by whether encoders were among what it was trained on.
_FOR_SCALED = (
    "images and videos that were downscaled and upscaled again",
    "blur by scaling is what it knows; it does not remove noise or blocks and may sharpen them.",
)


_FOR_CALLS = (
    "images and videos that were downscaled and upscaled again, and calls as they arrive through an encoder",
    "it knows blur by scaling and what encoders leave of a frame; a camera's noise it may sharpen.",
)


def teacher_card(params: Params, recipe: str, reports: Results) -> str:
    """Return the card, as Markdown, of the teacher that the pipeline's reports are of; `recipe` is what made it."""
    trained, evaluated = reports["train_teacher"], reports["evaluate"]
    training, images = params.train_teacher.training, reports["download_data"]["images"]
    shown = ["degraded", "unsharp", "teacher"]
    rows = [[_TITLES[key], *(f"{evaluated['mean'][key][metric]:{form}}" for metric, form in _FORMS)] for key in shown]
    losses = ", ".join(f"{key} {value}" for key, value in trained["losses"].items())
    return f"""# Model card: the shipped teacher

A network of {reports["export_onnx"]["teacher"]["parameters"]:,} parameters ({trained["model"]["name"]}) that restores
RGB. It is for training, too slow for a call. Weights in half precision. Apache-2.0.

- **Use**: the teacher of `clearcall adapt`, and what `train_teacher.pretrained: shipped` fine-tunes. It takes the name
  of the degradation, if known.
- **Made by** `{recipe}`, on {machine()["cpu"]}.
- **Data**: {images["train"]} images to train on, {images["validation"]} to tune on, {images["test"]} to
  measure on, split by photograph, and no part of this package. Licence: {_licences(params)}.
- **Figures** are of its weights in single precision.
- **Training**: {losses} (relative_floor {training.relative_floor:g}); {trained["steps"]:,} steps of
  {training.batch_size} patches of {training.patch_size} pixels; {training.untold_fraction:.0%} of the samples without
  the name, {training.clean_fraction:.0%} undegraded.
- **Limits**: {_FOR_CALLS[1]} What it adds is
  plausible, not known. The worst image of the test split changes by
  {evaluated["least_gain_db"]["teacher"]:+.2f} dB, an undegraded one comes back at
  {evaluated["clean_psnr_db"]["teacher"]:.1f} dB.

## Quality on the test photographs, with the name of the degradation (SSIM of Wang et al. / PSNR of RGB in dB)

{markdown_table(["contender", "SSIM", "PSNR"], rows)}

{breakdown_table(reports, "by_degradation", shown)}
"""


def _licences(params: Params) -> str:
    return "; ".join(sorted({record.licence for record in read_manifest(params.paths.raw)}))


def model_card(name: str, params: Params, recipe: str, reports: Results) -> str:
    """Return the card, as Markdown, of the student that the pipeline's reports are of; `recipe` is what made it."""
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

- **Use**: `Sharpener("{name}")` or `clearcall sharpen IN OUT --model {name}`, for {use}.
  Not for evidence: what it adds is plausible, not known.
- **Made by** `{recipe}`, on {machine()["cpu"]}.
- **Data**: {images["train"]} images to train on, {images["validation"]} to tune on, {images["test"]} to
  measure on, split by photograph, and no part of this package. Licence: {_licences(params)}.
- **Degradations**: {", ".join(evaluated["by_degradation"])}; {clean} of the samples undegraded.
- **Training**: {losses}; {steps}.
- **Limits**: {limits}
  {colour}An undegraded image comes back at {clean_psnr_db:.1f} dB{untouched}.
  The worst image of the test split changes by {evaluated["least_gain_db"]["student"]:+.2f} dB.
- **Not better than both the input and the unsharp mask on**: {against}.

## Quality on the test photographs (SSIM of Wang et al. / PSNR of RGB in dB)

{markdown_table(["contender", "mean"], rows)}

{breakdown_table(reports, "by_degradation", shown)}
{routing}"""
