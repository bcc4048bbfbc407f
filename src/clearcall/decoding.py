"""Decode image files that may be corrupt or malicious: bounded size, verified checksums, one kind of error."""

import io
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from clearcall.console import warn
from clearcall.errors import UserError

ANIMATED = ("GIF", "PNG", "WEBP")  # which may hold more than one frame
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")  # as Pillow names them
MAX_PIXELS = 178_000_000  # above, Pillow takes an image for an attack
# Bytes of pixels per byte of file; flat images reach 1032 in PNG, 511 in JPEG, 1690 in lossy WebP, 1840 in TIFF.
_MAX_EXPANSION = 2000
# In these, flat areas may cost next to nothing (lossless WebP, fax codes): so many pixels are cheap to decode anyway.
_CHEAP_PIXELS = {"WEBP": 2**24, "TIFF": 2**24}
_GREY_STEPS = {"L;2": 255 // 3, "L;4": 255 // 15}
_SPELLED = {"WEBP": "WebP"}


@contextmanager
def image_errors(name: object, problem: str = "cannot be read") -> Iterator[None]:
    """Raise UserError, in one line, for whatever a codec raises: on a corrupt image that may be any exception.

    Warnings, of metadata that Pillow cannot read, are printed with the file's name.
    """
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            yield
    except UserError:
        raise
    except Exception as error:  # corrupt files make decoders raise AssertionError, KeyError, TypeError and more
        raise UserError(f"{f'{name} {problem}'.rstrip()}: {_reason(error)}") from error
    for message in dict.fromkeys(str(warning.message) for warning in told):
        warn(f"{name}: {message}")


@contextmanager
def open_image(
    source: Path | bytes, max_pixels: int = MAX_PIXELS, formats: Collection[str] = FORMATS
) -> Iterator[Image.Image]:
    """Yield an image that is opened but not decoded, of a size that its file can hold; use it within `image_errors`.

    `source` is a file or its content. Raises ValueError if the image declares more than `max_pixels`, or far more than
    its file can hold, and what Pillow raises for a PNG with a wrong checksum.
    """
    # The limits here decide what is too large to decode: Pillow's is a global one.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with _opened(source, formats) as image:
            _refuse_size(image, len(source) if isinstance(source, bytes) else source.stat().st_size, max_pixels)
            if image.mode in {"P", "PA"} and image.palette is None:
                raise ValueError("it has no palette")
            image.verify()  # of a PNG the checksums, which decoding skips; after it the file must be opened anew
        with _opened(source, formats) as image:
            _scale_transparent_grey(image)
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def cmyk_to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a CMYK image as sRGB, by its colour profile where it has one, and a note that says how."""
    profile = image.info.get("icc_profile")
    how = "it has no colour profile"
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError):
            converted, how = None, "its colour profile cannot be used"
        if converted is not None:
            return converted, "CMYK converted to sRGB by its colour profile"
    return image.convert("RGB"), f"CMYK converted to RGB as (1 - C)(1 - K), {how}"


def _opened(source: Path | bytes, formats: Collection[str]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=sorted(set(formats)))
    except UnidentifiedImageError:
        *first, last = (_SPELLED.get(name, name) for name in dict.fromkeys(formats))
        raise ValueError(f"its content is not {', '.join(first)} or {last}, or corrupt") from None


def _scale_transparent_grey(image: Image.Image) -> None:
    """Give the transparent grey of a PNG of 2 or 4 bits the scale of its pixels, which Pillow brings to 8 bits."""
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(key, int) and isinstance(image, ImageFile.ImageFile):
        image.info["transparency"] = key * _GREY_STEPS.get(str(image.tile[0].args), 1)


def _refuse_size(image: Image.Image, file_bytes: int, max_pixels: int) -> None:
    width, height = image.size
    pixels, channels = width * height, len(image.getbands())
    if pixels < 1:
        raise ValueError(f"{width} x {height} pixels: it is empty")
    if pixels > max_pixels:
        raise ValueError(f"{width} x {height} pixels, more than {max_pixels}")
    held = _MAX_EXPANSION * file_bytes * (8 if channels == 1 else 1)  # one channel may have one bit a pixel
    if pixels * channels > held and pixels > _CHEAP_PIXELS.get(str(image.format), 0):
        raise ValueError(
            f"{width} x {height} pixels in a file of {file_bytes} bytes: truncated or a decompression bomb"
        )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "too little memory"
    if text and isinstance(error, (OSError, SyntaxError, ValueError)):  # a decoder's own words
        return text
    return f"it is corrupt ({type(error).__name__}{': ' if text else ''}{text})"
