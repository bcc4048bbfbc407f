"""Pictures that are measured one by one, beside the pipeline."""

from pathlib import Path

from PIL import Image

from clearcall.data.download import BROKEN, read_picture
from clearcall.errors import UserError
from clearcall.pictures import MAX_PIXELS


def read_rgb(path: Path, min_side: int) -> Image.Image:
    """Return a picture as upright 8-bit RGB, transparency over white; raise UserError if it cannot be, or is too small.

    `min_side` in pixels.
    """
    try:
        return read_picture(path, min_side, MAX_PIXELS).pixels
    except BROKEN as error:
        raise UserError(f"{path} cannot be used ({error}): mend or remove it") from None
