"""The report of one run: Markdown, pictures and charts, written from what the stages left."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from clearcall.data.pairs import PairReader, read_pairs
from clearcall.files import atomic_folder, write_text
from clearcall.metrics import MAX_PSNR_DB, Restore
from clearcall.params import Params
from clearcall.report import tables
from clearcall.report.figures import draw_gains, draw_speed, draw_training
from clearcall.report.pictures import ZOOM, choose_pairs, draw_comparison
from clearcall.report.results import CONTENDERS, frame_size, read_results
from clearcall.report.verdict import verdict


def write_report(params: Params, params_text: str, restorers: Mapping[str, Restore]) -> None:
    """Write report.md and the folder figures; `restorers` are the contenders that pictures show beside the input.

    The student must be among them. `params_text` is params.yaml as it stands. Raises UserError if a stage left no
    results.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    reports = params.paths.reports
    results = read_results(reports)
    by_degradation = results["evaluate"]["by_degradation"]
    hardest = min(by_degradation, key=lambda name: float(by_degradation[name]["degraded"]["ssim"]))
    curves = [reports / f"{stage}_curve.csv" for stage in ("train_teacher", "distill_student")]
    with atomic_folder(reports / "figures") as folder:
        pictures = _draw_pictures(folder, params, hardest, restorers)
        draw_gains(folder / "gains.png", results)
        draw_speed(folder / "speed.png", results, params.gate)
        draw_training(folder / "training.png", results, curves)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701  # Markdown, not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("report.md.j2").render(
        results=results,
        params=params,
        params_text=params_text.strip(),
        tables=tables,
        verdict=verdict(results, params.gate),
        hardest=hardest,
        pictures=pictures,
        shown=", ".join(CONTENDERS[name] for name in ("degraded", *restorers)),
        zoom=ZOOM,
        max_psnr_db=MAX_PSNR_DB,
        frame_size=frame_size(results),
        link=lambda page: quote(Path(os.path.relpath(page, reports)).as_posix()),
        **results,
    )
    write_text(reports / "report.md", text)


def _draw_pictures(
    folder: Path, params: Params, degradation: str, restorers: Mapping[str, Restore]
) -> list[dict[str, str]]:
    """Draw a comparison for each chosen photograph, and the README's picture; return photographs and file names."""
    reader, side = PairReader(params.paths.pairs), params.write_report.crop_side
    drawn = []
    test = read_pairs(params.paths.pairs, "test")
    for number, pair in enumerate(choose_pairs(test, degradation, params.write_report.pictures), start=1):
        sharp, degraded = reader.sharp(pair), reader.degraded(pair)
        shown = {"sharp": sharp, "degraded": degraded}
        shown |= {name: restore(degraded) for name, restore in restorers.items()}
        file = f"picture_{number}.png"
        draw_comparison(sharp, shown, degradation, side, columns=3).save(folder / file, optimize=True)
        if number == 1:
            both = {name: shown[name] for name in ("degraded", "student")}
            draw_comparison(sharp, both, degradation, side, columns=3).save(folder / "before_after.png", optimize=True)
        drawn.append({"image": pair.image, "file": file})
    return drawn
