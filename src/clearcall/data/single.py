"""Pictures that are measured one by one, beside the pipeline."""

from pathlib import Path

from PIL import Image

from clearcall.data.download import read_picture
from clearcall.decoding import MAX_PIXELS, image_errors


def read_rgb(path: Path, min_side: int) -> Image.Image:
    """Return a picture as upright 8-bit RGB, transparency over white; raise UserError if it cannot be, or is too small.

    `min_side` in pixels.
    """
    with image_errors(path, "cannot be used"):
        return read_picture(path, min_side, MAX_PIXELS).pixels
