"""Decode images, also corrupt or malicious ones, with one kind of error."""

import io
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from clearcall.core.console import warn
from clearcall.core.errors import UserError

try:
    from pillow_heif import register_heif_opener
except ImportError:  # optional: its wheels contain x265 (GPL)
    _UNREAD = {"HEIF"}
else:
    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    _UNREAD = set()
ANIMATED = ("GIF", "PNG", "WEBP")  # which may hold more than one frame
MAX_PIXELS = 200_000_000  # width x height: the largest panoramas of telephones
# Bytes of pixels per byte of file; flat images reach 1032 in PNG, 511 in JPEG, 1690 in lossy WebP, 1840 in TIFF.
_MAX_EXPANSION = 2000
# In these, flat areas may cost next to nothing (lossless WebP, fax codes, AVIF): so many pixels are cheap to decode.
_CHEAP_PIXELS = dict.fromkeys(("WEBP", "TIFF", "AVIF", "HEIF"), 2**24)
_TURN = RLock()  # of threads, since warnings and Pillow's limit are those of all
_GREY_STEPS = {"L;2": 255 // 3, "L;4": 255 // 15}
_SPELLED = {"WEBP": "WebP", "HEIF": "HEIC"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}
# Raw modes of 16 bits a channel; "BGR;16" is not among them: it is 16 bits a pixel.
_DEEP = re.compile(r"'(I|L|LA|RGB|RGBX|RGBA|RGBa|CMYK);16")
SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
    ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF",
}  # fmt: skip
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))  # as Pillow names them
WITH_GIF = (*FORMATS, "GIF")  # what can be sharpened; of 256 colours a network would learn their steps
KINDS = "PNG, JPEG, WebP, TIFF, BMP, AVIF or HEIC"


@contextmanager
def image_errors(name: object, problem: str = "cannot be read") -> Iterator[None]:
    """Raise UserError, in one line, for whatever a codec raises: on a corrupt image that may be any exception.

    Warnings, of metadata that Pillow cannot read, are printed with the file's name.
    """
    try:
        with _TURN, warnings.catch_warnings(record=True) as told:
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
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise ValueError("it is not a regular file")  # to open a named pipe would wait for ever
    with _TURN:
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
        readable = sorted(set(formats) - _UNREAD)
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=readable)
    except UnidentifiedImageError:
        if _UNREAD and _is_heic(source):
            raise ValueError("it is HEIC: run `pip install pillow-heif` to read it, or save it as JPEG") from None
        *first, last = (_SPELLED.get(name, name) for name in dict.fromkeys(formats))
        raise ValueError(f"its content is not {', '.join(first)} or {last}, or corrupt") from None


def _is_heic(source: Path | bytes) -> bool:
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(12)
    return source[4:8] == b"ftyp" and source[8:12] in _HEIC_BRANDS


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


def read_rgb(path: Path, min_side: int) -> Image.Image:
    """Return an image as upright 8-bit RGB, transparency over white.

    Raises UserError if it cannot be read, or if a side is below `min_side` pixels.
    """
    with image_errors(path, "cannot be used"):
        return read_picture(path, min_side, MAX_PIXELS, WITH_GIF).pixels


class Picture(NamedTuple):
    """A decoded photograph: upright 8-bit RGB pixels, the file's mode and format, and what was changed."""

    pixels: Image.Image
    mode: str
    format: str
    changes: list[str]


def read_picture(path: Path, min_side: int, max_pixels: int, formats: Collection[str] = FORMATS) -> Picture:
    """Decode an image file to upright 8-bit RGB; the first frame if it has several, transparency over white.

    Grey and palette images, CMYK and 16 bits a channel are converted. Sides are in pixels and checked before
    anything is decoded. Raises ValueError, or what else Pillow raises, if the file cannot be used: see `image_errors`.
    """
    with open_image(path, max_pixels, formats) as image:
        if (problem := refused_size(*image.size, min_side, max_pixels)) is not None:
            raise ValueError(problem)
        if image.mode in ("I", "F"):
            raise ValueError(f"mode {image.mode} says not which value is white: save it with 8 or 16 bits a channel")
        mode, kind = image.mode, "JPEG" if image.format == "MPO" else str(image.format)
        frames = getattr(image, "n_frames", 1)
        # Loading forgets the raw mode, and may already turn the image: so look at both first.
        deep = mode.startswith("I;16") or _DEEP.search(str(getattr(image, "tile", "")))
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        pixels = ImageOps.exif_transpose(image)
    changes = [f"first of {frames} frames"] if frames > 1 else []
    changes += ["decoded from HEIC"] if kind == "HEIF" else []  # so that later stages can do without its decoder
    if mode not in ("RGB", "RGBA"):
        pixels, change = _of_8_bits(pixels, mode)
        changes.append(change)
    if deep:
        changes.append("16 to 8 bit")
    if pixels.has_transparency_data:
        changes.append("alpha onto white")
        pixels = Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels.convert("RGBA"))
    if turned:
        changes.append("rotated upright by EXIF")
    pixels = pixels.convert("RGB")
    pixels.info = {}  # a colour profile or an orientation of the original no longer holds
    return Picture(pixels, mode, kind, changes)


def _of_8_bits(pixels: Image.Image, mode: str) -> tuple[Image.Image, str]:
    """Return pixels of 8 bits a channel that Pillow converts to RGB as they are, and what that changes."""
    if mode.startswith("I;16"):
        # 65535 / 257 = 255: this is the nearest level, where dropping the low byte may be one off.
        pixels = Image.fromarray(((np.asarray(pixels, dtype=np.uint32) + 128) // 257).astype(np.uint8))
    if mode in ("1", "L", "LA", "La") or mode.startswith("I;16"):
        return pixels, "grey to RGB"
    if mode == "CMYK":
        return cmyk_to_rgb(pixels)
    return pixels, "palette to RGB" if mode in ("P", "PA") else f"{mode} to RGB"


def refused_size(width: int, height: int, min_side: int, max_pixels: int) -> str | None:
    """Return why an image of a size is too small or too large to be used, None if it is neither."""
    if min(width, height) < min_side:
        return f"{width} x {height} pixels, a side is below min_side {min_side}"
    if width * height > max_pixels:
        return f"{width} x {height} pixels, more than {max_pixels}"
    return None
