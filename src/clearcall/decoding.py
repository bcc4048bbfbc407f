"""What every reader of pictures needs of Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image


@contextmanager
def pillow_limit_off() -> Iterator[None]:
    """Let the caller's own limit decide what is too large to decode: Pillow's is a global one."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
