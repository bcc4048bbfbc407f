"""Real blurred pictures, which have no sharp version: before and after side by side, and how blurred each is."""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from clearcall.core.console import track
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_folder, atomic_path, cache_folder, write_text
from clearcall.data.ingest.fetch import LOW_RESOLUTION_PHOTOGRAPHS, fetch_dataset, unpack
from clearcall.data.ingest.sources import image_names
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.grid import LEAST_CELL, ZOOM, choose_crop, draw_cells, draw_overview, enlarge
from clearcall.reporting.tables import markdown_table

DATASETS: Mapping[str, str] = {"low_resolution_photographs": LOW_RESOLUTION_PHOTOGRAPHS}
NAME = "real_pictures"
MIN_SIDE = 12  # pixels; the measure's window is 11 wide


@dataclass(frozen=True)
class Look:
    """One picture: its file, its size in pixels, and its blur from 0 (sharp) to 1 before and after sharpening."""

    name: str
    width: int
    height: int
    blur_before: float
    blur_after: float


def blur(picture: Frame) -> float:
    """Return how blurred an 8-bit RGB picture is, from 0 (not at all) to 1, without a sharp one to compare with.

    The measure of Crete et al. 2007 as scikit-image has it: how little another blur would change. A flat
    picture, in which nothing could, has 1.
    """
    from skimage.measure import blur_effect  # noqa: PLC0415  # takes a second to import

    return float(blur_effect(picture, channel_axis=-1))  # type: ignore[no-untyped-call]  # the library ships no types


def look(source: str, reports: Path, sharpen: Restore, model: str, shown: int, side: int) -> list[Look]:
    """Sharpen all pictures of a folder, or of a data set by name, and write real_pictures.md with figures and pictures.

    `shown` pictures, spread evenly, are drawn with the square of `side` pixels that changes most. Raises UserError
    naming a picture that cannot be read; then nothing is written.
    """
    with TemporaryDirectory() as unpacked, atomic_folder(reports / NAME) as building:
        folder = _folder(source, Path(unpacked))
        names = image_names(folder)
        chosen = set(np.linspace(0, len(names) - 1, min(shown, len(names))).round().astype(int))
        looks = list[Look]()
        drawn = list[str]()
        for index, name in enumerate(track(names, len(names), "sharpening")):
            before = np.asarray(read_rgb(folder / name, MIN_SIDE))
            after = sharpen(before)
            looks.append(Look(name, before.shape[1], before.shape[0], blur(before), blur(after)))
            if index in chosen:
                drawn.append(f"{len(drawn) + 1}.png")
                _draw(before, after, looks[-1], side).save(building / drawn[-1], optimize=True)
    with atomic_path(reports / f"{NAME}.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(looks[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, looks))
    write_text(reports / f"{NAME}.md", _text(source, model, looks, drawn))
    return looks


def _folder(source: str, unpacked: Path) -> Path:
    """Return the folder that is meant: as it is, or a data set of that name downloaded and unpacked."""
    folder = Path(source)
    if not folder.is_dir() and source in DATASETS:
        unpack(fetch_dataset(DATASETS[source], cache_folder(), "give this command its folder"), unpacked)
        return unpacked
    if not folder.is_dir():
        raise UserError(f"there is no folder {source}: give one of pictures, or the data set {', '.join(DATASETS)}")
    return folder


def _draw(before: Frame, after: Frame, found: Look, side: int) -> Image.Image:
    top, left = choose_crop(after, before, side)
    cell = max(LEAST_CELL, side * ZOOM)
    cells = [(draw_overview(before, top, left, side, cell), "whole picture", f"{found.width} x {found.height}")]
    for picture, title, value in ((before, "as it is", found.blur_before), (after, "sharpened", found.blur_after)):
        cells.append((enlarge(picture[top : top + side, left : left + side]), title, f"blur {value:.3f}"))
    return draw_cells(cells, cell, columns=3)


def _text(source: str, model: str, looks: list[Look], drawn: list[str]) -> str:
    before, after = ([getattr(one, name) for one in looks] for name in ("blur_before", "blur_after"))
    values = [
        [name, *(f"{f(blurs):.3f}" for f in (np.mean, np.median, min, max))]
        for name, blurs in (("as they are", before), ("sharpened", after))
    ]
    sharper = sum(one.blur_after < one.blur_before for one in looks)
    pictures = "\n".join(f"![before and after]({NAME}/{name})\n" for name in drawn)
    return (
        "# Real pictures, before and after\n\n"
        f"{len(looks)} pictures of `{Path(source).name}`, sharpened by `{model}` with `clearcall look`. Nobody has "
        "sharp versions of them, so that there is no SSIM or PSNR here. Blur is the measure of Crete et al. 2007 "
        "(`skimage.measure.blur_effect`): 0 is sharp, 1 is blurred. Noise and artefacts lower it as well as detail "
        "does: it says that something was sharpened, the pictures whether that is for the better.\n\n"
        f"{markdown_table(['blur', 'mean', 'median', 'least', 'most'], values)}\n\n"
        f"{sharper} of {len(looks)} pictures have less blur afterwards; each stands in [{NAME}.csv]({NAME}.csv).\n\n"
        f"Below, the part that changed most, at {ZOOM}x.\n\n{pictures}"
    )
