"""Sharpen image files in their own format and depth, with their metadata.

Kept are alpha, 16 bits a channel, the colour profile, EXIF and XMP, and all text and colour chunks of a PNG. Pixels
stay as stored, and the EXIF orientation with them; only a TIFF comes out upright and without that tag, because both
libraries turn it when they read it.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin

from clearcall.core.console import warn
from clearcall.core.errors import UserError, describe
from clearcall.core.files import atomic_path, check_target
from clearcall.imaging.decode import ANIMATED, MAX_PIXELS, SUFFIXES, WITH_GIF, cmyk_to_rgb, image_errors, open_image
from clearcall.imaging.frame import Frame
from clearcall.imaging.luma import luma_of
from clearcall.imaging.sizes import NewSize, Size, scaled
from clearcall.media.video.animation import is_animation
from clearcall.media.video.read import VIDEO_SUFFIXES
from clearcall.runtime.sharpener import Sharpener

Pixels = npt.NDArray[np.uint8 | np.uint16]  # (height, width) or (height, width, 2, 3 or 4): grey, RGB, and their alpha
FORMATS = {suffix: kind for suffix, kind in SUFFIXES.items() if kind not in {"BMP", "HEIF"}}
READ_ONLY = {".gif", *(suffix for suffix in SUFFIXES if suffix not in FORMATS)}
KINDS = "PNG, JPEG, WebP, TIFF, AVIF, HEIC, BMP or GIF"
_MAX_FILE_BYTES = 2**31
_MODES = {
    "1": "L", "L": "L", "LA": "LA", "La": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA",
    "RGBa": "RGBA", "YCbCr": "RGB", "CMYK": "RGB",
}  # fmt: skip
_QUALITY = 95
_EXIF_PREFIX = b"Exif\0\0"
# The chunks of a PNG that hold for other pixels of any colour type too.
_PNG_CHUNKS = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"}
_PNG_HEADER_BYTES = 33  # the signature and IHDR, which has the depth in byte 24 and the colour type in byte 25
_GREY_ALPHA = 4
_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# A TIFF keeps how its pixels are stored in the same directory as its descriptive tags: these are the latter.
_TOLD = {
    *_IFDS,
    *(ExifTags.Base.Orientation, ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit),
    *(ExifTags.Base.DocumentName, ExifTags.Base.ImageDescription, ExifTags.Base.Artist, ExifTags.Base.Copyright),
    *(ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software, ExifTags.Base.HostComputer),
    *(ExifTags.Base.DateTime, ExifTags.Base.Rating, ExifTags.Base.RatingPercent),
    *(ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor),
    *(ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject),
}
_STRIP_ROWS = 64
_STRIP_PIXELS, _OVERLAP_ROWS = 2**23, 64  # of a frame in strips; 30 layers of 3 x 3 at stride 2 see 60 rows
_COPIED_ROWS = 512
_LYING = range(5, 9)  # EXIF orientations whose rows are the columns of what is shown
_UPSCALED = "bicubic_x"  # before the factor, in the name of an expert for frames that were upscaled
_WITH_ALPHA = (2, 4)
# OpenCV's order of channels, by their number; the same way there and back. It has no grey with alpha.
_BGR = {2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}


@dataclass(frozen=True)
class Decoded:
    """A decoded image and its metadata, as stored; b"" where there is none."""

    pixels: Pixels
    format: str
    icc: bytes
    exif: bytes
    xmp: bytes
    dpi: tuple[float, float] | None
    png_chunks: bytes
    subsampling: int  # of a JPEG, as Pillow counts it; 0, none, where unknown
    lossless: bool  # of a WebP


def is_image(path: Path) -> bool:
    """Return whether a file is a still image: by its suffix, or by its content if it has neither suffix of ours."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and (suffix in VIDEO_SUFFIXES or not path.is_file() or not _is_decodable(path)):
        return False
    return not is_animation(path)


def sharpen_file(
    sharpener: Sharpener, source: Path, target: Path, size: NewSize | None = None, *, overwrite: bool = False
) -> None:
    """Sharpen one image into `target`, whose suffix tells the format; raise UserError if that cannot be done.

    For `size` see `sharpen_image`. A file that exists is replaced only with `overwrite`.
    """
    kind = FORMATS.get(target.suffix.lower())
    if kind is None:
        raise UserError(f"{target} must end in one of {', '.join(FORMATS)}: the suffix tells the format")
    try:
        data = read_image(source)
        check_target(target, source, overwrite=overwrite)
        write_image(target, sharpen_image(sharpener, data, source, kind, size))
    except OSError as error:
        if describe(error):
            raise
        raise UserError(f"{source} cannot be sharpened into {target}: {error}") from None


def sharpen_pixels(sharpener: Sharpener, pixels: Pixels, expert: str | None = None) -> Pixels:
    """Sharpen pixels; shape and depth stay, alpha is copied. `expert` takes the place of the router.

    Of 16 bits a channel the network gets the nearest 8; its residual is scaled and added to the 16.
    """
    stacked = np.atleast_3d(pixels)
    colours = 1 if stacked.shape[2] < 3 else 3  # noqa: PLR2004  # grey or RGB, with or without alpha
    colour, alpha = np.ascontiguousarray(stacked[..., :colours]), stacked[..., colours:]
    deep = pixels.dtype == np.uint16
    # No level of 16 bits lies halfway between two of 8: this is the nearest.
    frame = np.asarray(cv2.convertScaleAbs(colour, alpha=1 / 257) if deep else colour, np.uint8).reshape(colour.shape)
    sharp = _in_strips(sharpener, np.repeat(frame, 3, axis=2) if colours == 1 else frame, expert)
    if colours == 1:
        sharp = luma_of(sharp)[..., np.newaxis]
    if not deep:
        sharp = np.concatenate([sharp, alpha], axis=2) if alpha.size else sharp
        return sharp.reshape(pixels.shape)
    added = cv2.subtract(sharp, frame, dtype=cv2.CV_16S).reshape(colour.shape)
    deep_sharp = cv2.addWeighted(colour, 1, added, 257, 0, dtype=cv2.CV_16U).reshape(colour.shape)
    return np.concatenate([deep_sharp.astype(np.uint16, copy=False), alpha], axis=2).reshape(pixels.shape)


def _in_strips(sharpener: Sharpener, frame: Frame, expert: str | None) -> Frame:
    """Sharpen RGB; a large frame in strips that overlap, by one expert, so that the network's memory is bounded.

    A luma network looks no further than the overlap. RGB networks, which may look at all of a frame, get all of it.
    """
    height, width = frame.shape[:2]
    rows = max(4 * _OVERLAP_ROWS, _STRIP_PIXELS // width // 4 * 4)
    if sharpener.graph.kind == "rgb" or height <= rows:
        return sharpener(frame, expert=expert)
    # Of one height, so that the network is compiled once; the last one begins earlier, and may be a few rows shorter.
    step, last = rows - 2 * _OVERLAP_ROWS, (height - rows + 3) // 4 * 4
    tops = [*range(0, last, step), last]
    strips = [frame[top : top + rows] for top in tops]
    if expert is None and sharpener.experts:
        whole = [strip for strip in strips if len(strip) == rows]
        expert = sharpener.experts[int(np.mean([sharpener.scores(strip) for strip in whole], axis=0).argmax())]
    result = np.empty_like(frame)
    done = 0
    for top, strip in zip(tops, strips, strict=True):
        sharp = sharpener(strip, expert=expert)
        end = height if top == last else top + rows - _OVERLAP_ROWS
        result[done:end] = sharp[done - top : end - top]
        done = end
    return result


def resize_pixels(pixels: Pixels, size: Size) -> Pixels:
    """Return pixels at (width, height) by bicubic interpolation, as in training; depth and channels stay.

    A colour counts as much as it is opaque: otherwise the colours below full transparency, which nobody sees, would
    fringe what is beside them.
    """
    limit = float(np.iinfo(pixels.dtype).max)
    stacked = np.atleast_3d(pixels)

    def resized(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.array(
            Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC), np.float32
        )  # which is written to

    planes = [stacked[..., index].astype(np.float32) for index in range(stacked.shape[2])]
    colours = [resized(plane) for plane in planes]
    if len(planes) in _WITH_ALPHA and planes[-1].min() < limit:
        *colours, alpha = colours
        for index, colour in enumerate(colours):
            weighted = resized(planes[index] * planes[-1])
            np.divide(weighted, alpha, out=colour, where=alpha >= 1)
        colours.append(alpha)
    result = np.stack([np.rint(np.clip(plane, 0, limit)) for plane in colours], axis=-1).astype(pixels.dtype)
    return result.reshape(size[1], size[0], *pixels.shape[2:])


def upscaling_expert(sharpener: Sharpener, factor: float) -> str | None:
    """Return the expert that has learnt from frames upscaled by about a factor; None if there is none."""
    learnt = {name: float(name.removeprefix(_UPSCALED)) for name in sharpener.experts if name.startswith(_UPSCALED)}
    if factor < min(learnt.values(), default=np.inf):
        return None
    return min(learnt, key=lambda name: abs(np.log(learnt[name] / factor)))


def sharpen_image(
    sharpener: Sharpener, data: bytes, path: Path, kind: str | None = None, size: NewSize | None = None
) -> bytes:
    """Return the content of a file of the sharpened image; without `kind` in the input's format, or PNG or JPEG.

    `data` is the content of `path`. The result is `size` times larger, or the largest of the same shape inside `size`.
    Raises UserError for an image that cannot be read, sharpened or stored as `kind`.
    """
    with image_errors(path):
        image = _decode(data, path)
    kind = kind or image.format
    try:
        pixels = _sharpened(sharpener, image, path, size)
        # Frees those that came, of a panorama half a GiB; a slice would hold the others.
        image = replace(image, pixels=np.empty(0, np.uint8))
    except (MemoryError, cv2.error) as error:  # of an image that is too large for this machine, not a corrupt one
        raise UserError(f"{path} cannot be sharpened: {' '.join(str(error).split()) or 'too little memory'}") from None
    with image_errors(path, f"cannot be sharpened into {kind}"):
        # Pillow copies what it saves: of a panorama 0.7 GiB, beside which half a GiB of pixels need not stay.
        content = pixels if kind == "TIFF" or pixels.dtype == np.uint16 else Image.fromarray(pixels)
        del pixels
        return _encode(content, image, kind)


def _sharpened(sharpener: Sharpener, image: Decoded, path: Path, new: NewSize | None) -> Pixels:
    """Return pixels brought to a new size, as it is shown, and sharpened, by the expert for it if upscaled."""
    pixels, exif = image.pixels, Image.Exif()
    height, width = pixels.shape[:2]
    if isinstance(new, tuple) and image.format != "TIFF":  # which comes upright
        exif.load(image.exif)
        new = new[::-1] if exif.get(ExifTags.Base.Orientation, 1) in _LYING else new
    size = scaled((width, height), new)
    if size == (width, height):
        return sharpen_pixels(sharpener, pixels)
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(
            f"{path} would have {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}: choose a smaller size"
        )
    return sharpen_pixels(sharpener, resize_pixels(pixels, size), upscaling_expert(sharpener, size[0] / width))


def read_image(path: Path) -> bytes:
    """Return the content of an image file; raise UserError if there is none, or more than 2 GiB."""
    if not path.is_file():
        raise UserError(f"there is no image {path}")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise UserError(f"{path} is larger than 2 GiB")
    return path.read_bytes()


def write_image(path: Path, data: bytes) -> None:
    """Write the content of an image file in one piece."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def result_suffix(path: Path) -> str:
    """Return the suffix of an image's result in a folder: its own if it can be written, else that of PNG or JPEG."""
    suffix = path.suffix.lower()
    if suffix not in READ_ONLY:
        return path.suffix
    if SUFFIXES.get(suffix) != "HEIF":
        return ".png"
    try:
        with open_image(path, formats=WITH_GIF) as image:
            return ".png" if image.has_transparency_data else ".jpg"
    except Exception:  # noqa: BLE001  # a decoder may raise anything for a corrupt file; whoever reads it says so
        return ".jpg"


def _is_decodable(path: Path) -> bool:
    try:
        with open_image(path, formats=WITH_GIF):
            return True
    except Exception:  # noqa: BLE001  # a decoder may raise anything for what is no image
        return False


def _decode(data: bytes, path: Path) -> Decoded:
    """Decode an image; raise ValueError for a kind that cannot be stored again, and what Pillow raises."""
    with open_image(data, formats=WITH_GIF) as image:
        kind, frames = str(image.format), getattr(image, "n_frames", 1)
        # A phone's JPEG may hold a preview or a depth map behind the image: that is not another page.
        if frames > 1 and kind in ANIMATED:
            raise ValueError(f"it is an animation of {frames} frames: name a video file for the result, such as .mp4")
        if frames > 1 and kind not in {"MPO", "HEIF"}:
            raise ValueError(f"it holds {frames} pages: save one of them by itself")
        deep = _is_deep(image, data)
        subsampling = JpegImagePlugin.get_sampling(image) if isinstance(image, JpegImagePlugin.JpegImageFile) else 0
        image.load()
        info = dict(image.info)
        if image.mode == "CMYK":
            rgb, note = cmyk_to_rgb(image)
            pixels: Pixels = np.asarray(rgb)
            info.pop("icc_profile", None)  # it describes the CMYK
            warn(f"{path}: {note}")
        else:
            pixels = _deep_pixels(image, data) if deep else _plain_pixels(image)
        exif = _told(image.getexif()).tobytes() if kind == "TIFF" else info.get("exif") or b""  # None in HEIC
    if frames > 1:
        warn(f"{path}: of the {frames} images in the file only the first is kept")
    photograph = kind == "MPO" or (kind == "HEIF" and not _has_alpha(pixels))
    return Decoded(
        pixels=pixels,
        format="JPEG" if photograph else "PNG" if kind in {"BMP", "GIF", "HEIF"} else kind,
        icc=info.get("icc_profile") or b"",
        exif=exif.removeprefix(_EXIF_PREFIX),
        xmp=b"" if kind == "MPO" else info.get("xmp") or b"",  # there it tells where the other images are
        dpi=info.get("dpi"),
        png_chunks=b"".join(_png_chunks(data)) if kind == "PNG" else b"",
        subsampling=max(0, subsampling),
        lossless=kind == "WEBP" and _is_lossless(data),
    )


def _has_alpha(pixels: Pixels) -> bool:
    return np.atleast_3d(pixels).shape[2] in _WITH_ALPHA


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Return whether an image has 16 bits a channel; raise ValueError for depths and colours that are not handled."""
    bits: int = data[24] if image.format == "PNG" else 8
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        if bits > 8 and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) not in (1, 2):  # noqa: PLR2004  # levels
            raise ValueError("of more than 8 bits only RGB and grey where 0 is black are handled")
    if bits > 8 and (bits != 16 or image.mode not in ("I;16", "I;16B", "RGB", "RGBA")):  # noqa: PLR2004  # bits
        raise ValueError(f"{bits} bits a channel in mode {image.mode}: save it with 8 or 16 bits, grey or RGB")
    if bits <= 8 and image.mode not in _MODES:  # noqa: PLR2004  # bits
        raise ValueError(f"{image.mode} is not handled: convert it to RGB first, with its colour profile")
    return bits > 8  # noqa: PLR2004  # bits


def _plain_pixels(image: Image.Image) -> Pixels:
    mode = _MODES[image.mode]
    if image.has_transparency_data and not mode.endswith("A"):
        mode += "A"
    return _as_array(image if image.mode == mode else image.convert(mode))


def _as_array(image: Image.Image) -> Frame:
    """Return the pixels of an image of 8 bits a channel, copied in parts: Pillow would hold them three times."""
    width, height = image.size
    channels = len(image.getbands())
    pixels = np.empty((height, width, channels)[: 2 if channels == 1 else 3], np.uint8)
    for top in range(0, height, _COPIED_ROWS):
        below = min(height, top + _COPIED_ROWS)
        pixels[top:below] = np.asarray(image.crop((0, top, width, below)))
    return pixels


def _deep_pixels(image: Image.Image, data: bytes) -> Pixels:
    """Return 16-bit pixels, of which Pillow holds grey ones only; the rest OpenCV reads."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        if "transparency" not in image.info:
            return grey
        return np.dstack([grey, np.where(grey == image.info["transparency"], 0, 65535).astype(np.uint16)])
    if image.format == "PNG" and struct.unpack(">II", data[16:24]) != image.size:  # OpenCV heeds the first header
        raise ValueError("it has two headers that differ")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    shallow, key = np.asarray(image), image.info.get("transparency")
    height, width, channels = shallow.shape
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape != (height, width, channels + bool(key)):
        raise ValueError("OpenCV cannot read its 16 bits a channel: save it as PNG")
    pixels = decoded[..., _BGR[decoded.shape[2]]].astype(np.uint16, copy=False)
    # The two may decode rare layouts (separate planes, premultiplied alpha) differently: then neither is trusted.
    if cv2.norm((pixels[..., :channels] >> 8).astype(np.uint8), shallow, cv2.NORM_INF) > 1:
        raise ValueError("its 16 bits a channel are stored in an unusual way: save it as PNG")
    return pixels[..., [0, 3]] if image.format == "PNG" and data[25] == _GREY_ALPHA else pixels


def _told(exif: Image.Exif) -> Image.Exif:
    """Return the descriptive tags of a TIFF, without those of its pixels' layout."""
    told = Image.Exif()
    for tag in _TOLD & set(exif):
        told[tag] = exif[tag]
        if tag in _IFDS:  # less what is but an offset into the old file
            told[tag] = {key: value for key, value in exif.get_ifd(tag).items() if key != ExifTags.IFD.Interop}
    return told


def _png_chunks(data: bytes) -> Iterator[bytes]:
    start = 8
    while data[start + 4 : start + 8] not in {b"", b"IEND"}:
        length = int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in _PNG_CHUNKS:
            yield data[start : start + 12 + length]
        start += 12 + length


def _is_lossless(webp: bytes) -> bool:
    start = 12
    while start + 8 <= len(webp):
        if webp[start : start + 4] == b"VP8L":
            return True
        length = int.from_bytes(webp[start + 4 : start + 8], "little")
        start += 8 + length + length % 2
    return False


def _encode(content: Pixels | Image.Image, image: Decoded, kind: str) -> bytes:
    """Return an image file of what Pillow saves, or of pixels, which are a TIFF's or have 16 bits.

    Raises ValueError if the format cannot hold them.
    """
    if kind == "PNG":
        return _png(content, image)
    if not isinstance(content, Image.Image):
        if kind != "TIFF":
            raise ValueError("it holds 8 bits a channel, the image has 16: name a .png or .tif")
        return _tiff(content, image)
    if kind == "JPEG" and "A" in content.getbands():
        raise ValueError("it holds no transparency: name a .png, .webp or .tif")
    options: dict[str, Any] = {"icc_profile": image.icc, "xmp": image.xmp, "quality": _QUALITY}
    if kind == "JPEG":
        exif = _EXIF_PREFIX + image.exif if image.exif else b""
        options |= {"exif": exif, "subsampling": image.subsampling}
        if image.dpi:
            options["dpi"] = image.dpi
    elif kind == "AVIF":
        options |= {"exif": image.exif, "subsampling": "4:4:4"}
    else:
        # `exact` leaves the colours below full transparency as they are.
        options |= {"exif": image.exif, "lossless": image.lossless, "exact": True}
    return _saved(content, kind, **options)


def _png(content: Pixels | Image.Image, image: Decoded) -> bytes:
    """Return a PNG with the input's chunks, or with some made from its metadata."""
    if isinstance(content, Image.Image):
        encoded = _saved(content, "PNG")
    else:
        ordered = content if content.ndim == 2 else content[..., _BGR[content.shape[2]]]  # noqa: PLR2004  # grey
        encoded = cv2.imencode(".png", ordered)[1].tobytes()
    made = {
        b"iCCP": b"ICC profile\0\0" + zlib.compress(image.icc) if image.icc else b"",
        b"eXIf": image.exif,
        b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + image.xmp if image.xmp else b"",
    }
    chunks = image.png_chunks or b"".join(_png_chunk(kind, content) for kind, content in made.items() if content)
    return encoded[:_PNG_HEADER_BYTES] + chunks + encoded[_PNG_HEADER_BYTES:]


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _tiff(pixels: Pixels, image: Decoded) -> bytes:
    """Return a deflated TIFF: Pillow writes no 16-bit RGB, and OpenCV no metadata."""
    stacked = np.atleast_3d(pixels)
    height, width, channels = stacked.shape
    differences = stacked.astype(stacked.dtype.newbyteorder("<"))
    differences[:, 1:] = stacked[:, 1:] - stacked[:, :-1]
    strips = [zlib.compress(differences[row : row + _STRIP_ROWS].tobytes()) for row in range(0, height, _STRIP_ROWS)]
    sizes = [len(strip) for strip in strips]
    exif = Image.Exif()
    exif.load(image.exif)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in _told(exif).items():
        tags[tag] = value
    if image.icc:
        tags[TiffImagePlugin.ICCPROFILE] = image.icc
    if image.xmp:
        tags[TiffImagePlugin.XMP] = image.xmp
    if channels in _WITH_ALPHA:
        tags[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha by which the colours are not multiplied
    tags[TiffImagePlugin.IMAGEWIDTH] = width
    tags[TiffImagePlugin.IMAGELENGTH] = height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (8 * stacked.itemsize,) * channels
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2 if channels > 2 else 1  # noqa: PLR2004  # RGB or grey
    tags[TiffImagePlugin.COMPRESSION] = 8  # deflate
    tags[TiffImagePlugin.PREDICTOR] = 2  # differences of neighbours
    tags[TiffImagePlugin.ROWSPERSTRIP] = _STRIP_ROWS
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = tuple(sizes)
    # From the end of the directory, where `save` moves them.
    tags[TiffImagePlugin.STRIPOFFSETS] = tuple(accumulate(sizes[:-1], initial=0))
    file = io.BytesIO()
    tags.save(file)
    return file.getvalue() + b"".join(strips)


def _saved(content: Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401  # Pillow's own
    file = io.BytesIO()
    content.save(file, kind, **options)
    return file.getvalue()
