"""Crops of test photographs side by side, taken where the degradation did most harm."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db, ssim

ZOOM = 3
GAP, CAPTION_HEIGHT, FONT_SIZE = 8, 46, 16  # pixels
LEAST_CELL = 240  # pixels: a caption's width


def choose_crop(sharp: Frame, degraded: Frame, side: int) -> tuple[int, int]:
    """Return top and left of the square of `side` pixels with the largest error."""
    error = np.square(sharp.astype(np.float64) - degraded).sum(axis=2)
    return largest_sum(error, min(side, error.shape[0]), min(side, error.shape[1]))


def largest_sum(values: npt.NDArray[np.float64], rows: int, columns: int) -> tuple[int, int]:
    """Return top and left of the part of a plane of integers with the largest sum."""
    sums = np.asarray(cv2.boxFilter(values, -1, (columns, rows), anchor=(0, 0), normalize=False))
    inside = sums[: values.shape[0] - rows + 1, : values.shape[1] - columns + 1]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return int(top), int(left)


def draw_comparison(
    sharp: Frame, shown: Mapping[str, Frame], note: str, side: int, columns: int, titles: Mapping[str, str]
) -> Image.Image:
    """Draw a photograph, and the same crop of each image with its SSIM and PSNR.

    `shown` holds 8-bit RGB by contender, `degraded` among them, `sharp` if wanted. SSIM and PSNR are of the full
    images. Crops of `side` pixels are magnified without smoothing; there are `columns` cells in a row. `note` stands
    under the photograph, and `titles`, by contender, under the crops.
    """
    top, left = choose_crop(sharp, shown["degraded"], side)
    cell = max(LEAST_CELL, side * ZOOM)
    cells = [(draw_overview(sharp, top, left, side, cell), "full frame", note)]
    for name, image in shown.items():
        crop = enlarge(image[top : top + side, left : left + side])
        title, figures = titles.get(name, name), "what it should be"
        if name != "sharp":
            figures = f"SSIM {ssim(sharp, image):.4f}   PSNR {psnr_db(sharp, image):.2f} dB"
        cells.append((crop, title, figures))
    return draw_cells(cells, cell, columns)


def draw_cells(cells: Sequence[tuple[Image.Image, str, str]], cell: int, columns: int) -> Image.Image:
    """Draw images of at most `cell` by `cell` pixels, `columns` in a row, each with a title and a line beneath it."""
    rows = -(-len(cells) // columns)
    size = (columns * (cell + GAP) + GAP, rows * (cell + CAPTION_HEIGHT + GAP) + GAP)
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for index, (image, title, figures) in enumerate(cells):
        x, y = GAP + index % columns * (cell + GAP), GAP + index // columns * (cell + CAPTION_HEIGHT + GAP)
        canvas.paste(image, (x + (cell - image.width) // 2, y + (cell - image.height) // 2))
        draw.text((x + cell / 2, y + cell + 4), title, "black", font, anchor="ma")
        draw.text((x + cell / 2, y + cell + 24), figures, "#444444", font, anchor="ma")
    return canvas


def enlarge(frame: Frame) -> Image.Image:
    """Return an RGB image at 3x, its pixels as squares."""
    height, width = frame.shape[:2]
    return Image.fromarray(frame).resize((width * ZOOM, height * ZOOM), Image.Resampling.NEAREST)


def draw_overview(sharp: Frame, top: int, left: int, side: int, cell: int) -> Image.Image:
    """Return a photograph fitted into a cell, with the crop framed."""
    height, width = sharp.shape[:2]
    scale = cell / max(height, width)
    overview = Image.fromarray(sharp).resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    box = [round(edge * scale) for edge in (left, top, min(left + side, width), min(top + side, height))]
    draw = ImageDraw.Draw(overview)
    # Yellow in black is seen on any photograph.
    for out, colour in ((1, "black"), (2, "yellow"), (3, "yellow"), (4, "black")):
        draw.rectangle((box[0] - out, box[1] - out, box[2] - 1 + out, box[3] - 1 + out), outline=colour)
    return overview
