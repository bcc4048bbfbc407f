"""Pages of recipes and studies: one results table for both, speed, and published figures beside ours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clearcall.core.files import atomic_path, read_json, write_csv, write_json
from clearcall.evaluation.results import CONTENDERS
from clearcall.experiments.definition import Experiment, Study
from clearcall.experiments.recipe import Outcome, row_of
from clearcall.experiments.results import Row
from clearcall.experiments.study import read_speed
from clearcall.reporting.charts import draw_training, mark_real_time, new_figure, save_figure
from clearcall.reporting.page import Page, number
from clearcall.reporting.tables import markdown_table

_FEW_FPS = 10
# An MSE of 8-bit levels over this is that of images in [0, 1], which the reports print.
_PEAK_SQUARED = 255.0**2
_MEGABYTE = 1e6
_COLUMNS = """SSIM and PSNR: mean of the student on the test pairs over all seeds, full resolution. Clean PSNR: of
undegraded test images. Minutes: {minutes}. [{csv}]({csv}) has each training with its values, as `dvc exp run` takes
them."""
_RECIPES = """Each is a file in `experiments/`, run as a DVC experiment. Figures of reports are quoted and were not
measured here; everything else was. SSIM is that of Wang et al. 2004, "SSIM uniform" scikit-image's default, which such
reports mostly print; MSE is of images in [0, 1]. A figure of a report compares with ours only as far as the data do:
the input's own SSIM, which says how hard the images are, stands beside it."""
Document = dict[str, Any]
Speed = Mapping[str, Mapping[str, Any]]


def results_table(rows: Sequence[Row], more: Mapping[str, Mapping[str, str]]) -> str:
    """Return a line for each recipe or point of a study: means over its seeds, and a cell of each column in `more`."""
    lines = []
    for point, found in _by_point(rows).items():
        psnr_db, minutes = [row.test_psnr_db for row in found], _mean(found, "seconds") / 60
        lines.append(
            [
                point,
                len(found),
                f"{found[0].parameters:,}",
                f"{found[0].steps:,}",
                f"{_mean(found, 'test_ssim'):.4f}",
                f"{np.mean(psnr_db):.3f}",
                f"{min(psnr_db):.3f} to {max(psnr_db):.3f}" if len(found) > 1 else "",
                f"{np.mean([row.test_psnr_db - row.input_psnr_db for row in found]):+.3f}",
                *(column[point] for column in more.values()),
                f"{_mean(found, 'clean_psnr_db'):.1f}",
                "" if np.isnan(minutes) else f"{minutes:.1f}",
            ]
        )
    headers = ["name", "seeds", "parameters", "steps", "SSIM", "PSNR dB", "PSNR, least to most", "over the input, dB"]
    return markdown_table([*headers, *more, "clean PSNR dB", "minutes"], lines)


def over_first(study: Study, rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Return columns that compare each point with the first one, seed by seed, on the seeds that both have."""
    points, firsts = _by_point(rows), {point.name: point.first for point in study.trainings()}
    psnr_db = {(row.point, row.seed): row.test_psnr_db for row in rows}
    gains = {
        point: [row.test_psnr_db - psnr_db[first, row.seed] for row in found if (first, row.seed) in psnr_db]
        for point, found in points.items()
        for first in [firsts[point]]
    }
    return {
        "over the first, dB": {point: f"{np.mean(found):+.3f}" if found else "" for point, found in gains.items()},
        "seeds better": {
            point: f"{sum(gain > 0 for gain in found)} of {len(found)}" if found and point != firsts[point] else ""
            for point, found in gains.items()
        },
    }


def _beside_published(known: Mapping[str, Document]) -> dict[str, dict[str, str]]:
    """Return columns that compare each recipe's student with the published one and with the no-teacher baseline."""
    columns: dict[str, dict[str, str]] = {
        "SSIM uniform": {},
        "as published": {},
        "over the no-teacher baseline, dB": {},
    }
    for name, document in known.items():
        mean, published = document["reports"]["evaluate"]["mean"], (document["published"] or {}).get("student") or {}
        gain_db = mean["student"]["psnr_db"] - mean["baseline"]["psnr_db"] if "baseline" in mean else None
        cells = (mean["student"]["ssim_uniform"], ".4f"), (published.get("ssim"), ".4f"), (gain_db, "+.3f")
        for column, (value, form) in zip(columns.values(), cells, strict=True):
            column[name] = number(value, form)
    return columns


def _by_point(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {row.point: [other for other in rows if other.point == row.point] for row in rows}


def _mean(rows: Sequence[Row], figure: str) -> float:
    return float(np.mean([getattr(row, figure) for row in rows]))


def write_study(experiment: Experiment, reports: Path, rows: Sequence[Row]) -> None:
    """Write reports/<name>.md, with speed and its chart where the study was timed."""
    name, study, speed = experiment.name, experiment.require_study(), read_speed(experiment, reports)
    command = f"clearcall experiment study {name}{' --time' if speed else ''}"
    columns = _COLUMNS.format(minutes="of training on one thread", csv=f"{name}.csv")
    setting = " under the same setting" if study.settings else ""
    page = Page(experiment.about)
    page.add(
        f"Made by `{command}` on {study.test_pairs or 'all'} test pairs.",
        results_table(rows, over_first(study, rows)),
        f"{columns} Seeds better: than the first point, trained with the same seed{setting}.",
        f"Input: SSIM {rows[0].input_ssim:.4f}, PSNR {rows[0].input_psnr_db:.2f} dB.",
        study.finding,
    )
    if any(speed.get(row.point) for row in rows):
        draw_speed(reports / f"{name}.png", rows, speed)
        on = read_json(reports / f"{name}_speed.json")["machine"]
        page.add(
            "## Quality against speed at 1080p",
            f"8-bit RGB frame in and out, one at a time, all in turns, on {on['cpu']}, {on['cores']} cores.",
            speed_table(rows, speed),
            f"![PSNR against fps]({name}.png)",
        )
    page.write(reports / f"{name}.md")


def write_recipe(reports: Path, outcome: Outcome) -> str:
    """Add an outcome to reports/recipes.json, in place of an older one, and write recipes.csv and recipes.md anew.

    Return what the command line prints of it.
    """
    name, path, folder = outcome.document["name"], reports / "recipes.json", reports / "recipes"
    with atomic_path(folder / f"{name}.png") as temporary:
        outcome.comparison.save(temporary, optimize=True)
    with atomic_path(folder / f"{name}_curves.png") as temporary:
        draw_training(temporary, outcome.document["reports"], outcome.document["curves"])
    known: Document = read_json(path) if path.is_file() else {}
    known = dict(sorted((known | {name: outcome.document}).items()))
    rows = [row_of(document) for document in known.values()]
    write_json(path, known)
    write_csv(reports / "recipes.csv", rows)
    page = Page("The published recipes, run by this pipeline")
    page.add(_RECIPES, "## Results", results_table(rows, _beside_published(known)))
    page.add(_COLUMNS.format(minutes="of the whole pipeline, if DVC restored no part of it", csv="recipes.csv"))
    for document in known.values():
        _add_recipe(page, document)
    page.write(reports / "recipes.md")
    return f"{name}: {verdict(outcome.document)} Written: {reports / 'recipes.md'}"


def speed_table(rows: Sequence[Row], speed: Speed) -> str:
    """Return quality beside latency for each point that was timed, fastest first."""
    providers = list(dict.fromkeys(provider for timed in speed.values() for provider in timed))
    points = {point: found for point, found in _by_point(rows).items() if speed.get(point)}
    lines = [
        (
            best := max(speed[point][provider]["fps"] for provider in providers),
            [
                point,
                f"{_mean(found, 'test_ssim'):.4f}",
                f"{_mean(found, 'test_psnr_db'):.2f}",
                *(
                    f"{speed[point][provider]['median_ms']:.1f} / {_fps(speed[point][provider]['fps'])}"
                    for provider in providers
                ),
                _fps(best),
            ],
        )
        for point, found in points.items()
    ]
    lines.sort(key=lambda line: -line[0])
    headers = ["point", "SSIM", "PSNR dB", *(f"{provider}, ms / fps" for provider in providers), "best fps"]
    return markdown_table(headers, [line for _, line in lines])


def _fps(fps: float) -> str:
    return f"{fps:.0f}" if fps >= _FEW_FPS else f"{fps:.1f}"


def draw_speed(path: Path, rows: Sequence[Row], speed: Speed) -> None:
    """Draw PSNR against fps, one line of points for each runtime, with the marks of 30 and 60 fps."""
    figure = new_figure(9, 6)
    axes = figure.subplots()
    for provider in dict.fromkeys(provider for timed in speed.values() for provider in timed):
        found = [(speed[row.point][provider]["fps"], row.test_psnr_db) for row in rows if speed.get(row.point)]
        axes.scatter(*zip(*found, strict=True), label=provider)
    for row in rows:
        if timed := speed.get(row.point):
            # Only beside the faster runtime's point: the others are near it.
            at = max(latency["fps"] for latency in timed.values()), row.test_psnr_db
            axes.annotate(row.point, at, fontsize=6, xytext=(4, 4), textcoords="offset points")
    mark_real_time(axes)
    axes.set(xlabel="fps at 1080p, one frame at a time", ylabel="PSNR on the test photographs, dB")
    axes.legend()
    with atomic_path(path) as temporary:
        save_figure(figure, temporary)


def verdict(document: Document) -> str:
    """Return in a sentence or two how our student compares with the published one, and what that is worth."""
    mean = document["reports"]["evaluate"]["mean"]
    ours, given, baseline = mean["student"], mean["degraded"], mean.get("baseline")
    over_input = f"{ours['ssim'] - given['ssim']:+.4f} SSIM and {ours['psnr_db'] - given['psnr_db']:+.2f} dB"
    said = f"Our student has {over_input} over the degraded input"
    if baseline is not None:
        said += f", and {ours['psnr_db'] - baseline['psnr_db']:+.2f} dB over the same student without the teacher"
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
            sentences.append("That says more of the data than of the student: the report's images were harder.")
    return " ".join(sentences)


def _add_recipe(page: Page, document: Document) -> None:
    published, name, here = document["published"], document["name"], document["machine"]
    # Known only of a run without DVC's cache.
    took = "On" if document["minutes"] is None else f"{document['minutes']:.1f} minutes on"
    page.add(
        f"## {name}",
        document["about"],
        verdict(document),
        _table(document),
        f"![{name}: a bundled test photograph and each contender's output](recipes/{name}.png)",
        f"![{name}: loss and validation SSIM per step](recipes/{name}_curves.png)",
    )
    facts = [_data(document), f"{took} {here['cpu']} with {here['cores']} cores: `{document['command']}`"]
    if document["budget"] < 1:
        facts.append(f"Budget: {document['budget']:.0%} of each training's steps")
    if published is not None:
        facts.append(f"Published: {published['report']}")
    page.add_list(*facts, *document["small_notes"], *(published or {}).get("notes", ()))
    title = "Changed to be small" if document["small"] else "Changed"
    if document["changed"]:
        page.add_code(f"{title}, beside the values of experiments/{name}.yaml", document["changed"], "yaml")


def _data(document: Document) -> str:
    images, source = (document["reports"]["download_data"][key] for key in ("images", "source"))
    evaluated = document["reports"]["evaluate"]
    return (
        f"Trained on {images['train']} photographs, measured on {evaluated['pairs']} pairs of "
        f"{len(evaluated['by_image'])} test photographs (source `{source}`), degraded by "
        f"{', '.join(f'`{name}`' for name in document['mix'])}"
    )


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
                    number(figures.get("ssim"), ".4f"),
                    "",
                    number(figures.get("psnr_db"), ".2f"),
                    number(figures.get("mse"), ".5f"),
                    number(figures.get("megabytes"), ".2f"),
                    number(figures.get("parameters"), ","),
                    "",
                    number(figures.get("fps"), "g"),
                    "",
                ]
            )
    for name in CONTENDERS:
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
                number(size and size["bytes"] / _MEGABYTE, ".2f"),
                number(size and size["parameters"], ","),
                number(cost and cost["macs"] / 1e9, ",.0f"),
                number(latency.get(name) and latency[name]["fps"], ".3g"),
                number(cost and cost.get("fps"), ".3g") or (cost or {}).get("failed", ""),
            ]
        )
    headers = ["", "SSIM uniform", "SSIM", "PSNR dB", "MSE", "MB", "parameters"]
    return markdown_table([*headers, "GMAC, 1080p", f"fps, {width}x{height}", "fps, 1080p"], rows)
