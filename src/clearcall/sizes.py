"""Sizes of frames, as a command line gives them."""

import re

from clearcall.errors import UserError

Size = tuple[int, int]  # width, height
MOST_SIDE = 8192  # pixels of a side: 8K, beyond which encoders and memory end


def parse_size(text: str, least: int = 2) -> Size:
    """Return width and height of a text such as 1280x720, of even sides from `least` to 8192 pixels.

    Raises UserError if it is something else.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(width, height) < least or max(width, height) > MOST_SIDE or width % 2 or height % 2:
        raise UserError(
            f"size {text!r}: give width x height as even numbers from {least} to {MOST_SIDE}, such as 1280x720"
        )
    return width, height
