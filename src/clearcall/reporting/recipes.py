"""reports/recipes.md: each published system beside ours, its curves and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clearcall.core.files import atomic_path, read_json, write_json, write_text
from clearcall.evaluation.results import CONTENDERS
from clearcall.experiments.run import Outcome
from clearcall.reporting.charts import COLOURS, draw_curves
from clearcall.reporting.tables import markdown_table

# An MSE of grey levels over this is that of pictures in [0, 1], which the reports print.
_PEAK_SQUARED = 255.0**2
_MEGABYTE = 1e6
_ORDER = ("degraded", "unsharp", "twin", "student", "teacher")
Document = Mapping[str, Any]


def write_recipes(outcomes: Sequence[Outcome], reports: Path) -> Path:
    """Add outcomes to reports/recipes.json, in place of older ones of the same recipes, and write recipes.md anew."""
    path, folder = reports / "recipes.json", reports / "recipes"
    for outcome in outcomes:
        name = outcome.document["name"]
        with atomic_path(folder / f"{name}.png") as temporary:
            outcome.picture.save(temporary, optimize=True)
        with atomic_path(folder / f"{name}_curves.png") as temporary:
            draw_training(temporary, outcome.document)
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    known = dict(sorted((known | {outcome.document["name"]: outcome.document for outcome in outcomes}).items()))
    write_json(path, known)
    write_text(reports / "recipes.md", recipes_markdown(list(known.values())))
    return reports / "recipes.md"


def recipes_markdown(documents: Sequence[Document]) -> str:
    """Return the whole page: what all have in common, an overview, and a section for each recipe."""
    parts = [
        """# The published recipes, run by this pipeline

Each is a file of values in `recipes/`, run as a DVC experiment. Figures of reports are quoted and were not measured
here; everything else was. SSIM is that of Wang et al. 2004, "SSIM uniform" scikit-image's default, which such reports
mostly print; MSE is of pictures in [0, 1]. A figure of a report compares with ours only as far as the data do: the
input's own SSIM, which says how hard the pictures are, stands beside it.
""",
        f"## At a glance\n\n{overview_table(documents)}\n",
        *(_section(document) for document in documents),
    ]
    return "\n".join(parts)


def overview_table(documents: Sequence[Document]) -> str:
    """Return one line a recipe: SSIM uniform of all contenders, and of the student as published."""
    rows = []
    for document in documents:
        mean, published = document["reports"]["evaluate"]["mean"], document["published"] or {}
        student = published.get("student") or {}
        row = [document["name"], _number(student.get("ssim"), ".4f")]
        row += [f"{mean[name]['ssim_uniform']:.4f}" if name in mean else "" for name in _ORDER]
        rows.append([*row, _number(document["minutes"], ".1f")])
    headers = ["recipe", "published student", *(CONTENDERS[name] for name in _ORDER), "minutes"]
    return markdown_table(headers, rows)


def verdict(document: Document) -> str:
    """Return in a sentence or two how our student compares with the published one, and what that is worth."""
    mean = document["reports"]["evaluate"]["mean"]
    ours, given, twin = mean["student"], mean["degraded"], mean.get("twin")
    over_input = f"{ours['ssim'] - given['ssim']:+.4f} SSIM and {ours['psnr_db'] - given['psnr_db']:+.2f} dB"
    said = f"Our student has {over_input} over the degraded input"
    if twin is not None:
        said += f", and {ours['psnr_db'] - twin['psnr_db']:+.2f} dB over the same student without the teacher"
    sentences = [f"{said}."]
    printed = (document["published"] or {}).get("student", {})
    for key, measured, unit, places in (("ssim", "ssim_uniform", "SSIM uniform", 4), ("psnr_db", "psnr_db", "dB", 2)):
        if (theirs := printed.get(key)) is None:
            continue
        reached, at_input = round(ours[measured], places), round(given[measured], places)
        relation = "above" if reached > theirs else "below" if reached < theirs else "equal to"
        sentences.append(
            f"{reached:.{places}f} {unit} is {relation} the {theirs:.{places}f} that the report prints; the degraded "
            f"input has {at_input:.{places}f} here."
        )
        if at_input >= theirs:
            sentences.append("That says more of the data than of the student: the report's pictures were harder.")
    return " ".join(sentences)


def _section(document: Document) -> str:
    published, name, here = document["published"], document["name"], document["machine"]
    # Only of a run from beginning to end.
    took = "On" if document["minutes"] is None else f"{document['minutes']:.1f} minutes on"
    lines = [
        f"## {name}\n",
        document["about"] + "\n",
        verdict(document) + "\n",
        _table(document) + "\n",
        f"![{name}: a bundled test photograph and what each contender makes of it](recipes/{name}.png)\n",
        f"![{name}: loss and validation SSIM per step](recipes/{name}_curves.png)\n",
        f"- {_data(document)}",
        f"- {took} {here['cpu']} with {here['cores']} cores: `{document['command']}`",
    ]
    if document["budget"] < 1:
        lines.append(f"- Budget: {document['budget']:.0%} of each training's steps")
    if published is not None:
        lines.append(f"- Published: {published['report']}")
    lines += [f"- {note}" for note in (*document["small_notes"], *(published or {}).get("notes", ()))]
    title = "Changed to be small" if document["small"] else "Changed"
    if document["changed"]:
        lines.append(
            f"\n<details>\n<summary>{title}, beside recipes/{name}.yaml's own values</summary>\n\n"
            f"```yaml\n{document['changed']}\n```\n\n</details>"
        )
    return "\n".join(lines) + "\n"


def _data(document: Document) -> str:
    images, source = (document["reports"]["download_data"][key] for key in ("images", "source"))
    evaluated = document["reports"]["evaluate"]
    return (
        f"Trained on {images['train']} photographs, measured on {evaluated['pairs']} pairs of "
        f"{len(evaluated['by_image'])} test photographs (source `{source}`), degraded by "
        f"{', '.join(map(_code, document['mix']))}"
    )


def _code(text: str) -> str:
    return f"`{text}`"


def _table(document: Document) -> str:
    reports, published = document["reports"], document["published"] or {}
    mean, latency = reports["evaluate"]["mean"], reports["benchmark_fps"]["latency"]
    exported, costs = reports["export_onnx"], document["costs"]
    width, height = reports["benchmark_fps"]["width"], reports["benchmark_fps"]["height"]
    rows = []
    for who in ("teacher", "student"):
        figures = {key: value for key, value in (published.get(who) or {}).items() if value is not None}
        if figures:
            rows.append(
                [
                    f"{who}, as published",
                    # Which SSIM, no report says; most call scikit-image's default.
                    _number(figures.get("ssim"), ".4f"),
                    "",
                    _number(figures.get("psnr_db"), ".2f"),
                    _number(figures.get("mse"), ".5f"),
                    _number(figures.get("megabytes"), ".2f"),
                    _number(figures.get("parameters"), ","),
                    "",
                    _number(figures.get("fps"), "g"),
                    "",
                ]
            )
    for name in _ORDER:
        if name not in mean:
            continue
        scores, cost, size = mean[name], costs.get(name), exported.get(name)
        rows.append(
            [
                f"**{CONTENDERS[name]}**" if name == "student" else CONTENDERS[name],
                f"{scores['ssim_uniform']:.4f}",
                f"{scores['ssim']:.4f}",
                f"{scores['psnr_db']:.2f}",
                f"{scores['mse'] / _PEAK_SQUARED:.5f}",
                _number(size and size["bytes"] / _MEGABYTE, ".2f"),
                _number(size and size["parameters"], ","),
                _number(cost and cost["macs"] / 1e9, ",.0f"),
                _number(latency.get(name) and latency[name]["fps"], ".3g"),
                _number(cost and cost.get("fps"), ".3g") or (cost or {}).get("failed", ""),
            ]
        )
    headers = ["", "SSIM uniform", "SSIM", "PSNR dB", "MSE", "MB", "parameters"]
    return markdown_table([*headers, "GMAC, 1080p", f"fps, {width}x{height}", "fps, 1080p"], rows)


def draw_training(path: Path, document: Document) -> None:
    """Draw loss and validation SSIM per step of the teacher and of the students."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure((9, 5.2), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, stage in zip(axes, ("train_teacher", "distill_student"), strict=True):
        rows = document["curves"][stage]
        for axis, column in zip(row, ("loss_total", "validation_ssim"), strict=True):
            draw_curves(axis, rows, column)
        row[0].set_ylabel("loss")
        row[1].set_ylabel("SSIM on validation")
        networks = document["reports"][stage]
        network = networks if stage == "train_teacher" else networks["student"]
        degraded = network["validation"]["degraded"]["ssim"]
        row[1].axhline(degraded, color=COLOURS["degraded"], linestyle=":", label=CONTENDERS["degraded"])
        row[1].legend(frameon=False)
    for axis in axes[1]:
        axis.set_xlabel("step")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
