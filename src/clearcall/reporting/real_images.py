"""Blurred images without a sharp version: before and after side by side, and the blur of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from clearcall.core.console import track
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_folder, cache_folder, check_target, write_csv
from clearcall.data.ingest.archives import LOW_RESOLUTION_PHOTOGRAPHS, fetch_dataset, unpack
from clearcall.data.ingest.sources import image_names
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.grid import LEAST_CELL, ZOOM, choose_crop, draw_cells, draw_overview, enlarge
from clearcall.media.options import SharpenerOptions
from clearcall.reporting.page import Page
from clearcall.reporting.tables import markdown_table
from clearcall.runtime.sharpener import named_model

DATASETS: Mapping[str, str] = {"low_resolution_photographs": LOW_RESOLUTION_PHOTOGRAPHS}
NAME = "real_images"
MIN_SIDE = 12  # pixels; the measure's window is 11 wide


@dataclass(frozen=True)
class Compared:
    """One image: its file, its size in pixels, and its blur from 0 (sharp) to 1 before and after sharpening."""

    name: str
    width: int
    height: int
    blur_before: float
    blur_after: float


def blur(image: Frame) -> float:
    """Return the blur of an 8-bit RGB image, from 0 (sharp) to 1, without a reference.

    The measure of Crete et al. 2007 as scikit-image has it: how little another blur would change. A flat image has 1.
    """
    from skimage.measure import blur_effect  # noqa: PLC0415  # takes a second to import

    return float(blur_effect(image, channel_axis=-1))  # type: ignore[no-untyped-call]  # the library ships no types


def compare_folder(
    source: str, reports: Path, options: SharpenerOptions, shown: int, side: int, *, overwrite: bool = False
) -> str:
    """Sharpen all images of a folder, or of a data set by name, and write real_images.md; return what came of it.

    `shown` images, spread evenly, are drawn with the square of `side` pixels that changes most. Raises UserError for a
    report that exists, unless `overwrite`, and for an image that cannot be read; then nothing is written.
    """
    path, model = reports / f"{NAME}.md", named_model(options.model)
    check_target(path, Path(source), overwrite=overwrite)
    with TemporaryDirectory() as unpacked:
        folder = _folder(source, Path(unpacked))
        names, sharpen = image_names(folder), options.for_images()
        with atomic_folder(reports / NAME) as building:
            chosen = set(np.linspace(0, len(names) - 1, min(shown, len(names))).round().astype(int))
            compared = list[Compared]()
            drawn = list[str]()
            for index, name in enumerate(track(names, len(names), "sharpening")):
                before = np.asarray(read_rgb(folder / name, MIN_SIDE))
                after = sharpen(before)
                compared.append(Compared(name, before.shape[1], before.shape[0], blur(before), blur(after)))
                if index in chosen:
                    drawn.append(f"{len(drawn) + 1}.png")
                    _draw(before, after, compared[-1], side).save(building / drawn[-1], optimize=True)
    write_csv(reports / f"{NAME}.csv", compared)
    sharper = sum(one.blur_after < one.blur_before for one in compared)
    _page(source, Path(model).name, compared, sharper, drawn).write(path)
    return f"{sharper} of {len(compared)} have less blur; written: {path}"


def _folder(source: str, unpacked: Path) -> Path:
    """Return a folder as it is, or of a data set's name where it was downloaded and unpacked."""
    folder = Path(source)
    if not folder.is_dir() and source in DATASETS:
        unpack(fetch_dataset(DATASETS[source], cache_folder(), "give this command its folder"), unpacked)
        return unpacked
    if not folder.is_dir():
        raise UserError(f"there is no folder {source}: give one of images, or the data set {', '.join(DATASETS)}")
    return folder


def _draw(before: Frame, after: Frame, found: Compared, side: int) -> Image.Image:
    top, left = choose_crop(after, before, side)
    cell = max(LEAST_CELL, side * ZOOM)
    cells = [(draw_overview(before, top, left, side, cell), "full image", f"{found.width} x {found.height}")]
    for image, title, value in ((before, "input", found.blur_before), (after, "sharpened", found.blur_after)):
        cells.append((enlarge(image[top : top + side, left : left + side]), title, f"blur {value:.3f}"))
    return draw_cells(cells, cell, columns=3)


def _page(source: str, model: str, compared: list[Compared], sharper: int, drawn: list[str]) -> Page:
    before, after = ([getattr(one, name) for one in compared] for name in ("blur_before", "blur_after"))
    values = [
        [name, *(f"{f(blurs):.3f}" for f in (np.mean, np.median, min, max))]
        for name, blurs in (("input", before), ("sharpened", after))
    ]
    page = Page("Blurred images, before and after")
    page.add(
        f"{len(compared)} images of `{Path(source).name}`, sharpened by `{model}` with `clearcall compare`. They have "
        "no sharp versions, so there is no SSIM or PSNR. Blur is the measure of Crete et al. 2007 "
        "(`skimage.measure.blur_effect`): 0 is sharp, 1 is blurred. Noise and artefacts lower it as detail does: it "
        "says that something was sharpened, the images below whether they are better."
    )
    page.add(
        markdown_table(["blur", "mean", "median", "least", "most"], values),
        f"{sharper} of {len(compared)} images have less blur afterwards; each stands in [{NAME}.csv]({NAME}.csv).",
        f"Below, the part that changed most, at {ZOOM}x.",
        *(f"![before and after]({NAME}/{name})" for name in drawn),
    )
    return page
