"""Input and output side by side in one image, with magnified details, or in a page with a slider between them."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, check_target
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.grid import ZOOM, enlarge, largest_sum
from clearcall.media.images import is_image
from clearcall.media.slider import slider_page
from clearcall.media.video.read import frame_at, is_coded, opened, planar, plane_of, quarter_turns, video_stream
from clearcall.runtime.sharpener import Sharpener

_GAP, _CAPTION_HEIGHT, _FONT_SIZE = 8, 28, 18  # pixels
_BLUR = 5  # pixels: what such a blur takes away is detail


def write_before_after(sharpener: Sharpener, source: Path, target: Path | None, *, overwrite: bool = False) -> Path:
    """Draw an image, or the middle frame of a video, before and after; return the file that was written.

    It is `target`, a PNG or a page with a slider (HTML), or `<name>_compare.png` beside the input; a file that exists
    is replaced only with `overwrite`. Raises UserError if that cannot be done.
    """
    path = target or source.with_name(f"{source.stem}_compare.png")
    check_target(path, source, overwrite=overwrite)
    if path.suffix.lower() not in {".png", ".html"}:
        raise UserError(f"{path} must end in .png, or in .html for a page with a slider")
    before, after = (_image if is_image(source) else _middle_frame)(sharpener, source)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".png":
            draw_before_after(before, after).save(temporary, "PNG")
        else:
            temporary.write_text(slider_page(source.name, {source.name: (before, after)}), encoding="utf-8")
    return path


def draw_before_after(before: Frame, after: Frame) -> Image.Image:
    """Draw two RGB images side by side, and below the most detailed third of each."""
    height, width = before.shape[:2]
    rows, columns = max(1, height // ZOOM), max(1, width // ZOOM)
    top, left = most_detailed(before, rows, columns)
    canvas = Image.new("RGB", (2 * width + 3 * _GAP, _CAPTION_HEIGHT + height + ZOOM * rows + 2 * _GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_SIZE)
    for x, caption, frame in ((_GAP, "input", before), (width + 2 * _GAP, "output", after)):
        draw.text((x + width / 2, _CAPTION_HEIGHT / 2), caption, "black", font, anchor="mm")
        canvas.paste(Image.fromarray(frame), (x, _CAPTION_HEIGHT))
        crop = frame[top : top + rows, left : left + columns]
        canvas.paste(enlarge(crop), (x, _CAPTION_HEIGHT + height + _GAP))
    return canvas


def most_detailed(frame: Frame, rows: int, columns: int) -> tuple[int, int]:
    """Return top and left of the part of an RGB image that a blur changes most."""
    detail = cv2.absdiff(frame, np.asarray(cv2.blur(frame, (_BLUR, _BLUR)))).sum(axis=2, dtype=np.float64)
    return largest_sum(detail, rows, columns)


def _image(sharpener: Sharpener, path: Path) -> tuple[Frame, Frame]:
    """Return an image as 8-bit RGB, upright and without transparency, and the result."""
    if not path.is_file():
        raise UserError(f"there is no image {path}")
    before = np.asarray(read_rgb(path, min_side=1), np.uint8)
    return before, sharpener(before)


def _middle_frame(sharpener: Sharpener, path: Path) -> tuple[Frame, Frame]:
    """Return a video's middle frame as displayed RGB, and with its luma sharpened."""
    with opened(path) as video:
        sharpener.coded = is_coded(video_stream(video, path))
    stored = frame_at(path, 0.5)
    frame = planar(stored, stored.width, stored.height)
    before = frame.to_ndarray(format="rgb24")
    frame.make_writable()
    luma = plane_of(frame, 0)
    luma[:] = sharpener(luma, "gray")
    after = frame.to_ndarray(format="rgb24")
    turns = quarter_turns(stored)
    return tuple(np.ascontiguousarray(np.rot90(rgb, turns), np.uint8) for rgb in (before, after))  # type: ignore[return-value]  # two
