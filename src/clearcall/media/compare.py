"""Input and output side by side in one image, with magnified details, or in a page with a slider between them."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image, ImageDraw, ImageFont

from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, check_target, write_text
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.grid import ZOOM, enlarge, largest_sum
from clearcall.imaging.yuv import CONVERSION
from clearcall.media.images import is_image
from clearcall.media.slider import slider_page
from clearcall.media.video.part import Part
from clearcall.media.video.read import (
    frame_at,
    is_coded,
    opened,
    planar,
    plane_of,
    quarter_turns,
    rate_of,
    video_span_s,
    video_stream,
)
from clearcall.media.video.run import sharpen_frame, split_video
from clearcall.runtime.family import SharpenerFor, settled
from clearcall.runtime.sharpener import Sharpener

_GAP, _CAPTION_HEIGHT, _FONT_SIZE = 8, 28, 18  # pixels
_PLAYED_S = 5
_BLUR = 5  # pixels: what such a blur takes away is detail


def write_before_after(
    sharpener: Sharpener | SharpenerFor, source: Path, target: Path | None, *, overwrite: bool = False
) -> Path:
    """Show an image or a video before and after; return the file that was written.

    It is `target`, a PNG or a page with a slider (HTML), or `<name>_compare.png` beside the input. Of a video, a PNG
    shows the middle frame, and a page plays the middle five seconds. A file that exists is replaced only with
    `overwrite`. Raises UserError if that cannot be done.
    """
    path = target or source.with_name(f"{source.stem}_compare.png")
    check_target(path, source, overwrite=overwrite)
    if path.suffix.lower() not in {".png", ".html"}:
        raise UserError(f"{path} must end in .png, or in .html for a page with a slider")
    is_video = not is_image(source)
    if path.suffix.lower() == ".png":
        drawing = draw_before_after(*(_middle_frame if is_video else _image)(sharpener, source))
        with atomic_path(path) as temporary:
            drawing.save(temporary, "PNG")
    else:
        shown = split_video(sharpener, source, _middle(source)) if is_video else _image(sharpener, source)
        write_text(path, slider_page(source.name, {source.name: shown}))
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


def _image(sharpener: Sharpener | SharpenerFor, path: Path) -> tuple[Frame, Frame]:
    """Return an image as 8-bit RGB, upright and without transparency, and the result."""
    if not path.is_file():
        raise UserError(f"there is no image {path}")
    before = np.asarray(read_rgb(path, min_side=1), np.uint8)
    return before, settled(sharpener, (before.shape[1], before.shape[0]), Fraction(1))(before)


def _middle(path: Path) -> Part:
    """Return the middle five seconds of a video, or all of a shorter one."""
    begin = Fraction(max(0.0, video_span_s(path)[1] - _PLAYED_S) / 2).limit_denominator(1000)
    return Part(begin, Fraction(_PLAYED_S))


def _middle_frame(sharpener: Sharpener | SharpenerFor, path: Path) -> tuple[Frame, Frame]:
    """Return a video's middle frame as displayed RGB, before and after."""
    stored = frame_at(path, 0.5)
    with opened(path) as video:
        main = video_stream(video, path)
        chosen = settled(sharpener, (stored.width, stored.height), rate_of(main))
        chosen.coded = is_coded(main)
    frame = planar(stored, stored.width, stored.height)
    before = _rgb(frame)
    frame.make_writable()
    for index, plane in enumerate(sharpen_frame(chosen, frame)):
        plane_of(frame, index)[:] = plane
    turns = quarter_turns(stored)
    return tuple(np.ascontiguousarray(np.rot90(rgb, turns)) for rgb in (before, _rgb(frame)))  # type: ignore[return-value]  # two


def _rgb(frame: VideoFrame) -> Frame:
    return np.asarray(frame.reformat(format="rgb24", interpolation=CONVERSION).to_ndarray(), np.uint8)
