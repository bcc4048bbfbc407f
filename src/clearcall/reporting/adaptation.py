"""The page beside an adapted model: how near it came to its teacher, and a held-back frame of each expert."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clearcall.core.files import atomic_path, write_csv, write_json
from clearcall.imaging.frame import Frame
from clearcall.imaging.grid import LEAST_CELL, ZOOM, choose_crop, draw_cells, draw_overview, enlarge
from clearcall.imaging.metrics import psnr_db
from clearcall.reporting.page import Page
from clearcall.reporting.tables import markdown_table

if TYPE_CHECKING:
    from clearcall.evaluation.adaptation import AdaptationScore
    from clearcall.training.adapt import Adaptation

BESIDE = (".md", ".png", ".json")  # suffixes of what is written beside a model
_SIDE_PX = 80


def write_adaptation(
    adaptation: "Adaptation", output: Path, model: str, teacher: str, recordings: Sequence[str], command: str
) -> Path:
    """Write OUTPUT.md, OUTPUT.png and OUTPUT.json beside the model `output`, and return the page's path.

    `teacher` and `recordings` are names, the former empty if the sharp frames were known. The JSON holds the page's
    figures, for `dvc metrics`.
    """
    figures = ({**asdict(one), "gain_db": one.adapted_db - one.general_db} for one in adaptation.experts)
    write_json(output.with_suffix(".json"), {one.pop("name"): one for one in figures})
    picture = output.with_suffix(".png")
    with atomic_path(picture) as temporary:
        _draw(adaptation).save(temporary, "PNG", optimize=True)
    page = Page(f"`{output.name}`: `{model}`, adapted")
    page.made_by(command)
    learnt = (
        f"learnt what `{teacher}` makes of them. No sharp image was there, so that the figures are against the teacher"
        if teacher
        else "learnt to restore them after real encoders. The figures are against the frames as they were sent"
    )
    page.add(
        f"Made from {', '.join(f'`{name}`' for name in recordings)} and from nothing else, on this machine: the "
        f"experts of `{model}` to which these frames are routed {learnt}, on frames that were held back from training: "
        "PSNR of RGB in dB. The model is for calls like these; for others, use the general one. Its weights come from "
        "these recordings: hand the file on only with the consent of those who are in them."
    )
    rows = [
        [
            one.name,
            one.frames,
            *(f"{db:.2f}" for db in (one.received_db, one.general_db, one.adapted_db)),
            "adapted" if one.kept else "general, which is no worse",
        ]
        for one in adaptation.experts
    ]
    headers = ["expert", "frames", "as received", model, "adapted", "in the file"]
    page.add(markdown_table(headers, rows))
    page.add(f"![received, general, adapted and {'teacher' if teacher else 'sharp'}]({picture.name})")
    return page.write(output.with_suffix(".md"))


def write_adaptation_benchmark(scores: Sequence["AdaptationScore"], reports: Path, command: str) -> str:
    """Write adapt.md and adapt.csv, which tell what adaptation gains against hidden references; return the table.

    Without a teacher they are called adapt_sharp.
    """
    name = "adapt_sharp" if scores[0].teacher is None else "adapt"
    write_csv(reports / f"{name}.csv", scores)
    page = Page("What adaptation gains")
    page.made_by(command)
    first = scores[0]
    how = "before it is sent" if first.teacher is None else f"as it arrives, by its teacher `{first.teacher}`,"
    page.add(
        f"Each clip is downscaled by 2, which is the hidden reference, then degraded. `{first.model}` adapts to the "
        f"first third {how} and is measured on the last half: luma PSNR in dB over what arrives, by the runtime, as "
        f"for a video. Every value is in [{name}.csv]({name}.csv)."
    )
    settings = dict.fromkeys(one.setting for one in scores)
    means = [_mean([one for one in scores if one.setting == setting]) for setting in settings]
    rows = []
    for one in [*scores, *means]:
        gained_db = one.adapted_db - one.general_db
        figures = (one.general_db, one.adapted_db, gained_db, one.teacher_db)
        gains = ("-" if db is None else f"{db:+.2f}" for db in figures)
        rows.append([one.clip, one.setting, f"{one.input_db:.2f}", *gains, f"{one.seconds:.0f}"])
    headers = ["clip", "setting", "input", "general", "adapted", "gained by it", "teacher", "s"]
    table = markdown_table(headers, rows)
    page.add(table)
    page.write(reports / f"{name}.md")
    return table


def _mean(scores: "Sequence[AdaptationScore]") -> "AdaptationScore":
    figures = ["input_db", "general_db", "adapted_db", "seconds"]
    figures += [] if scores[0].teacher is None else ["teacher_db"]
    means = {name: float(np.mean([getattr(score, name) for score in scores])) for name in figures}
    return replace(scores[0], clip="**mean**", **means)  # type: ignore[arg-type]  # of floats


def _draw(adaptation: "Adaptation") -> Image.Image:
    """Draw for each expert the part of a held-back frame that its aim changes most, as each makes it, at 3x."""
    cell = max(LEAST_CELL, _SIDE_PX * ZOOM)
    cells = []
    for name, frame, made in adaptation.examples():
        cells += _row(name, frame, made, cell)
    return draw_cells(cells, cell, columns=5)


def _row(name: str, frame: Frame, made: Mapping[str, Frame], cell: int) -> list[tuple[Image.Image, str, str]]:
    aim = list(made)[-1]
    top, left = choose_crop(made[aim], frame, _SIDE_PX)
    row = [(draw_overview(frame, top, left, _SIDE_PX, cell), name, f"{frame.shape[1]} x {frame.shape[0]}")]
    for title, image in {"as received": frame, **made}.items():
        told = "" if title == aim else f"{psnr_db(made[aim], image):.2f} dB to the {aim}"
        row.append((enlarge(image[top : top + _SIDE_PX, left : left + _SIDE_PX]), title, told))
    return row
