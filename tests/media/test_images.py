"""Images and folders: real files in, the result decoded again and held against the Sharpener itself."""

import errno
import io
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, JpegImagePlugin
from PIL.TiffImagePlugin import IFDRational
from tests.make.images import GREY, GREY_ALPHA, RGB, Samples, chunk, grey_of, huge_png, png, stored

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db
from clearcall.imaging.sizes import resized
from clearcall.media import folder as folders
from clearcall.media import images
from clearcall.media.folder import RECORD, sharpen_folder
from clearcall.media.images import is_image, sharpen_file, sharpen_pixels
from clearcall.media.options import SharpenerOptions
from clearcall.runtime.sharpener import Sharpener

if TYPE_CHECKING:
    from torch import nn

HEIGHT, WIDTH = 70, 93  # more rows than a strip of ours has, and no multiples of a stride
PLAIN = images.Decoded(np.zeros((1, 1), np.uint8), "TIFF", b"", b"", b"", None, b"", 0, lossless=False)
# How a stored image is turned upright, by its EXIF orientation.
UPRIGHT: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}
EXIF_IFD, GPS_IFD = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


@pytest.fixture(scope="module")
def sharpener(student_onnx: "tuple[nn.Module, Path]") -> Sharpener:
    return Sharpener(student_onnx[1], "onnxruntime", 1)


@pytest.fixture(scope="module")
def options(student_onnx: "tuple[nn.Module, Path]") -> SharpenerOptions:
    return SharpenerOptions(str(student_onnx[1]), "onnxruntime", 1)


@pytest.fixture(scope="module")
def rgb(photos: dict[str, Frame]) -> Frame:
    return np.ascontiguousarray(photos["astronaut"][80 : 80 + HEIGHT, 190 : 190 + WIDTH])


@pytest.fixture(scope="module")
def alpha() -> Frame:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


@pytest.fixture(scope="module")
def icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_of(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.DateTime] = "2024:01:02 03:04:05"
    exif.get_ifd(EXIF_IFD).update(
        {33434: IFDRational(1, 60), 36867: "2024:01:02 03:04:05", 37500: b"note\0of the maker"}
    )
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (48.0, 12.0, 3.5)})
    return exif


def deepened(pixels: Frame) -> Samples:
    """16-bit pixels near those of 8, with low bytes of their own."""
    noise = np.random.default_rng(1).integers(-120, 121, pixels.shape)
    return np.asarray(np.clip(pixels.astype(np.int64) * 257 + noise, 0, 65535), np.uint16)


def sharp(sharpener: Sharpener, pixels: Frame) -> Frame:
    """What the Sharpener makes of RGB or grey."""
    return sharpener(pixels) if pixels.ndim == 3 else sharpener(np.dstack([pixels] * 3))[..., 0]


def sharp_deep(sharpener: Sharpener, pixels: Samples) -> Samples:
    """The promise for 16 bits, in whole numbers."""
    shallow = ((pixels.astype(np.int64) + 128) // 257).astype(np.uint8)
    added = sharp(sharpener, shallow).astype(np.int64) - shallow
    return np.asarray(np.clip(pixels.astype(np.int64) + 257 * added, 0, 65535), np.uint16)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


# Eight bits a channel


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_formats_keep_mode_and_alpha_and_hold_what_the_sharpener_makes(
    sharpener: Sharpener, rgb: Frame, alpha: Frame, tmp_path: Path, mode: str, suffix: str
) -> None:
    colour = grey_of(rgb) if mode.startswith("L") else rgb
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    Image.fromarray(np.dstack([colour, alpha]) if mode.endswith("A") else colour).save(source)
    sharpen_file(sharpener, source, target)
    result = opened(target)
    assert (result.format, result.mode) == (opened(source).format, mode)
    pixels = np.atleast_3d(np.asarray(result))
    np.testing.assert_array_equal(pixels[..., : np.atleast_3d(colour).shape[2]].squeeze(), sharp(sharpener, colour))
    assert not np.array_equal(sharp(sharpener, colour), colour)
    if mode.endswith("A"):
        np.testing.assert_array_equal(pixels[..., -1], alpha)


def test_palette_and_black_and_white_become_rgb_and_grey(sharpener: Sharpener, rgb: Frame, tmp_path: Path) -> None:
    palette = Image.fromarray(rgb).quantize(64)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "see_through.png", transparency=3)
    Image.fromarray(grey_of(rgb) > 100).save(tmp_path / "bits.png")
    for name in ("palette", "see_through", "bits"):
        sharpen_file(sharpener, tmp_path / f"{name}.png", tmp_path / f"{name}_out.png")
    expected = sharpener(np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(opened(tmp_path / "palette_out.png")), expected)
    see_through = np.asarray(opened(tmp_path / "see_through_out.png"))
    np.testing.assert_array_equal(see_through[..., :3], expected)
    np.testing.assert_array_equal(see_through[..., 3], np.where(np.asarray(palette) == 3, 0, 255))
    black_white = np.where(grey_of(rgb) > 100, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(tmp_path / "bits_out.png")), sharp(sharpener, black_white))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("WEBP", {}),
        ("AVIF", {"subsampling": "4:4:4"}),
        *(("JPEG", {"subsampling": subsampling}) for subsampling in (0, 1, 2)),
    ],
)
def test_lossy_formats_are_written_at_quality_95_and_a_jpeg_keeps_its_subsampling(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    Image.fromarray(rgb).save(source, quality=70, **options)
    sharpen_file(sharpener, source, target)
    expected = io.BytesIO()
    Image.fromarray(sharpener(np.asarray(opened(source)))).save(expected, kind, quality=95, **options)
    result = opened(target)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(Image.open(expected)))
    if isinstance(result, JpegImagePlugin.JpegImageFile):
        assert JpegImagePlugin.get_sampling(result) == options["subsampling"]


def test_a_grey_jpeg_stays_grey_and_another_format_becomes_one_without_subsampling(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path
) -> None:
    Image.fromarray(grey_of(rgb)).save(tmp_path / "grey.jpg")
    Image.fromarray(rgb).save(tmp_path / "colour.png")
    sharpen_file(sharpener, tmp_path / "grey.jpg", tmp_path / "grey_out.jpg")
    sharpen_file(sharpener, tmp_path / "colour.png", tmp_path / "colour_out.JPG")
    assert opened(tmp_path / "grey_out.jpg").mode == "L"
    colour = opened(tmp_path / "colour_out.JPG")
    assert isinstance(colour, JpegImagePlugin.JpegImageFile)
    assert JpegImagePlugin.get_sampling(colour) == 0


def test_a_lossless_webp_stays_lossless_to_the_colours_below_transparency(
    sharpener: Sharpener, rgb: Frame, alpha: Frame, icc: bytes, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.webp", tmp_path / "out.webp"
    hidden = np.where(alpha > 99, alpha, 0).astype(np.uint8)
    Image.fromarray(np.dstack([rgb, hidden])).save(source, lossless=True, exact=True, icc_profile=icc)
    sharpen_file(sharpener, source, target)
    np.testing.assert_array_equal(np.asarray(opened(target)), np.dstack([sharpener(rgb), hidden]))


def test_the_smallest_image_and_strength_nought(student_onnx: "tuple[nn.Module, Path]", rgb: Frame) -> None:
    idle = Sharpener(student_onnx[1], "onnxruntime", 1, strength=0)
    for pixels in (rgb[:1, :1], rgb, rgb[..., 0], deepened(rgb), deepened(rgb[..., 0])):
        result = sharpen_pixels(idle, pixels)
        assert result.dtype == pixels.dtype
        np.testing.assert_array_equal(result, pixels)


def test_an_rgb_network_leaves_grey_grey(
    teacher_onnx: "tuple[nn.Module, Path]", rgb: Frame, alpha: Frame, tmp_path: Path
) -> None:
    network = Sharpener(teacher_onnx[1], "onnxruntime", 1)
    grey = grey_of(rgb)
    Image.fromarray(np.dstack([grey, alpha])).save(tmp_path / "in.png")
    sharpen_file(network, tmp_path / "in.png", tmp_path / "out.png")
    expected = grey_of(network(np.dstack([grey] * 3)))
    np.testing.assert_array_equal(np.asarray(opened(tmp_path / "out.png")), np.dstack([expected, alpha]))


# What the file says besides


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_profile_exif_and_xmp_are_kept_to_the_byte_and_pixels_stay_as_stored(
    sharpener: Sharpener, rgb: Frame, icc: bytes, tmp_path: Path, suffix: str
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    Image.fromarray(rgb).save(source, icc_profile=icc, exif=exif_of(6), xmp=XMP, dpi=(200, 200))
    sharpen_file(sharpener, source, target)
    before, after = opened(source), opened(target)
    assert after.size == (WIDTH, HEIGHT)  # the tag turns it, as before
    assert after.getexif()[ExifTags.Base.Orientation] == 6
    assert before.info["exif"]
    for key in ("icc_profile", "exif", "xmp", "dpi"):
        assert after.info.get(key) == before.info.get(key)
    assert after.info["icc_profile"] == icc


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_comes_out_upright_with_the_rest_of_its_exif(
    sharpener: Sharpener, rgb: Frame, icc: bytes, tmp_path: Path, orientation: int, *, deep: bool
) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    exif, pixels = exif_of(orientation), deepened(rgb) if deep else rgb
    if deep:  # which Pillow does not write; that our own writer does is tested below
        told = replace(PLAIN, exif=exif.tobytes().removeprefix(b"Exif\0\0"), icc=icc, xmp=XMP)
        source.write_bytes(images._tiff(pixels, told))
        assert stored(source).shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    else:
        Image.fromarray(rgb).save(source, exif=exif.tobytes(), icc_profile=icc)
    sharpen_file(sharpener, source, target)
    upright = np.ascontiguousarray(UPRIGHT[orientation](pixels))
    expected = sharp_deep(sharpener, upright) if deep else sharpener(upright)
    np.testing.assert_array_equal(stored(target), expected)
    result = opened(target)
    after = result.getexif()
    assert after.get(ExifTags.Base.Orientation, 1) == 1
    assert after[ExifTags.Base.Make] == "Maker"
    assert after.get_ifd(EXIF_IFD) == exif.get_ifd(EXIF_IFD)
    assert after.get_ifd(GPS_IFD) == exif.get_ifd(GPS_IFD)
    assert result.info["icc_profile"] == icc
    assert result.info.get("xmp", b"") == (XMP if deep else b"")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("target_suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_what_is_told_is_kept_from_format_to_format(
    sharpener: Sharpener, rgb: Frame, icc: bytes, tmp_path: Path, suffix: str, target_suffix: str
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{target_suffix}"
    Image.fromarray(rgb).save(source, icc_profile=icc, exif=exif_of(1).tobytes())
    sharpen_file(sharpener, source, target)
    result = opened(target)
    assert result.info["icc_profile"] == icc
    for told in (EXIF_IFD, GPS_IFD):
        assert result.getexif().get_ifd(told) == exif_of().get_ifd(told)
    assert np.asarray(result).shape == rgb.shape


def test_a_telephones_heic_becomes_another_format(
    sharpener: Sharpener, options: SharpenerOptions, rgb: Frame, icc: bytes, tmp_path: Path
) -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install 'clearcall[heif]'")
    source = tmp_path / "in" / "IMG_1.HEIC"
    source.parent.mkdir()
    Image.fromarray(rgb).save(source, icc_profile=icc, exif=exif_of(6).tobytes())
    sharpen_file(sharpener, source, tmp_path / "out.png")
    result = opened(tmp_path / "out.png")
    assert result.info["icc_profile"] == icc
    assert result.getexif()[ExifTags.Base.Orientation] == 1  # the decoder has turned it
    assert result.getexif().get_ifd(GPS_IFD) == exif_of().get_ifd(GPS_IFD)
    np.testing.assert_array_equal(np.asarray(result), sharpener(np.asarray(Image.open(source))))
    assert np.asarray(result).shape == np.rot90(rgb).shape
    assert sharpen_folder(options, source.parent, tmp_path / "out").done == 1
    assert opened(tmp_path / "out" / "IMG_1.jpg").format == "JPEG"
    with pytest.raises(UserError, match=r"out\.heic must end in one of \.png, "):
        sharpen_file(sharpener, source, tmp_path / "out.heic")


def test_a_transparent_heic_becomes_a_png_in_a_folder(
    options: SharpenerOptions, rgb: Frame, alpha: Frame, tmp_path: Path
) -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install 'clearcall[heif]'")
    source = tmp_path / "in" / "cut_out.heic"
    source.parent.mkdir()
    Image.fromarray(np.dstack([rgb, alpha])).save(source, quality=-1)  # lossless
    assert str(sharpen_folder(options, source.parent, tmp_path / "out")).startswith("1 sharpened, 0 skipped, 0 failed")
    with Image.open(tmp_path / "out" / "cut_out.png") as result:
        assert result.format == "PNG"
        np.testing.assert_array_equal(np.asarray(result)[..., 3], alpha)
    assert sharpen_folder(options, source.parent, tmp_path / "out").skipped == 1


@pytest.mark.parametrize("name", ["in.bmp", "in.gif", "IN.GIF", "clear.gif", "grey.bmp", "black.bmp", "really.png.bmp"])
def test_a_bmp_and_a_still_gif_become_another_format(
    sharpener: Sharpener, options: SharpenerOptions, rgb: Frame, tmp_path: Path, name: str
) -> None:
    source = tmp_path / "in" / name
    source.parent.mkdir()
    image = Image.fromarray(rgb)
    mode = {"grey.bmp": "L", "black.bmp": "1"}.get(name, "P" if source.suffix.lower() == ".gif" else "RGB")
    transparency = {"transparency": 0} if name == "clear.gif" else {}
    kind = "PNG" if name == "really.png.bmp" else source.suffix[1:].upper()
    image.convert(mode).save(source, kind, **transparency)
    with Image.open(source) as stored:
        shown = np.asarray(stored.convert("RGBA" if transparency else "L" if mode in "L1" else "RGB"))
    assert is_image(source)
    sharpen_file(sharpener, source, tmp_path / "out.png")
    wanted = sharpen_pixels(sharpener, shown)
    np.testing.assert_array_equal(np.asarray(opened(tmp_path / "out.png")), wanted)
    assert sharpen_folder(options, source.parent, tmp_path / "out").done == 1
    with Image.open(tmp_path / "out" / f"{source.stem}.png") as result:
        assert result.format == "PNG"
        np.testing.assert_array_equal(np.asarray(result), wanted)


def test_without_its_decoder_a_heic_tells_what_to_install(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install 'clearcall[heif]'")
    Image.fromarray(rgb).save(tmp_path / "in.heic")
    monkeypatch.setattr("clearcall.imaging.decode._UNREAD", {"HEIF"})
    with pytest.raises(UserError, match=r"in\.heic cannot be read: it is HEIC: run `pip install pillow-heif`"):
        sharpen_file(sharpener, tmp_path / "in.heic", tmp_path / "out.png")


def test_all_that_a_png_tells_is_kept(sharpener: Sharpener, rgb: Frame, tmp_path: Path) -> None:
    told = [
        chunk(b"gAMA", struct.pack(">I", 45455)),
        chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        chunk(b"sRGB", b"\0"),
        chunk(b"pHYs", struct.pack(">IIB", 7874, 7874, 1)),
        chunk(b"tEXt", b"Title\0An image"),
        chunk(b"eXIf", exif_of().tobytes().removeprefix(b"Exif\0\0")),
    ]
    pixels = deepened(rgb)
    # Of how the pixels are stored (here the bits that count) nothing is kept: these are others.
    (tmp_path / "in.png").write_bytes(png(pixels, RGB, 16, before=chunk(b"sBIT", b"\x0c" * 3) + b"".join(told)))
    sharpen_file(sharpener, tmp_path / "in.png", tmp_path / "out.png")
    result = (tmp_path / "out.png").read_bytes()
    assert all(one in result for one in told)
    assert b"sBIT" not in result
    np.testing.assert_array_equal(stored(tmp_path / "out.png"), sharp_deep(sharpener, pixels))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("profile", ["none", "its own", "corrupt", "of RGB"])
def test_cmyk_is_converted_with_its_profile_or_as_stated(
    student_onnx: "tuple[nn.Module, Path]",
    cmyk_profile: bytes,
    icc: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    profile: str,
) -> None:
    inks = Image.new("CMYK", (64, 32), (255, 0, 0, 0))
    inks.paste((0, 0, 0, 255), (32, 0, 64, 32))
    embedded = {"none": None, "its own": cmyk_profile, "corrupt": b"profile" * 40, "of RGB": icc}[profile]
    inks.save(tmp_path / f"in{suffix}", icc_profile=embedded, quality=100)  # a TIFF is not compressed
    idle = Sharpener(student_onnx[1], "onnxruntime", 1, strength=0)
    sharpen_file(idle, tmp_path / f"in{suffix}", tmp_path / "out.png")
    left, right = ((119, 119, 119) if profile == "its own" else (0, 255, 255)), (0, 0, 0)
    result = opened(tmp_path / "out.png")
    np.testing.assert_allclose(np.asarray(result)[:, 4:28].reshape(-1, 3), [left] * 768, atol=3)
    np.testing.assert_allclose(np.asarray(result)[:, 36:60].reshape(-1, 3), [right] * 768, atol=3)
    assert "icc_profile" not in result.info  # it was of the inks
    how = {
        "none": "RGB as (1 - C)(1 - K), it has no colour profile",
        "its own": "sRGB by its colour profile",
    }.get(profile, "RGB as (1 - C)(1 - K), its colour profile cannot be used")
    assert capsys.readouterr().err == f"warning: {tmp_path / f'in{suffix}'}: CMYK converted to {how}\n"


def test_a_file_that_exists_is_replaced_only_if_that_is_wanted(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path
) -> None:
    Image.fromarray(rgb).save(tmp_path / "in.png")
    (tmp_path / "out.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"out\.png exists: name another file for the result, or --overwrite"):
        sharpen_file(sharpener, tmp_path / "in.png", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == b"mine"
    with pytest.raises(UserError, match="is the input itself"):
        sharpen_file(sharpener, tmp_path / "in.png", tmp_path / "in.png", overwrite=True)
    sharpen_file(sharpener, tmp_path / "in.png", tmp_path / "out.png", overwrite=True)
    assert opened(tmp_path / "out.png").size == (WIDTH, HEIGHT)


def test_broken_exif_is_a_warning_with_the_files_name(
    sharpener: Sharpener,
    rgb: Frame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    Image.fromarray(rgb).save(tmp_path / "in.jpg", exif=exif_of().tobytes()[:60])
    sharpen_file(sharpener, tmp_path / "in.jpg", tmp_path / "out.jpg")
    assert f"warning: {tmp_path / 'in.jpg'}: " in capsys.readouterr().err
    assert not recwarn.list
    assert opened(tmp_path / "out.jpg").size == (WIDTH, HEIGHT)


# Sixteen bits a channel


@pytest.mark.parametrize("target_suffix", [".png", ".tif"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_their_fine_levels_and_alpha(
    sharpener: Sharpener, rgb: Frame, alpha: Frame, tmp_path: Path, suffix: str, target_suffix: str, channels: int
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{target_suffix}"
    colour = deepened(grey_of(rgb) if channels == 1 else rgb)
    see_through = deepened(alpha)
    pixels = np.dstack([colour, see_through]) if channels == 4 else colour
    cv2.imwrite(str(source), pixels if channels == 1 else pixels[..., [2, 1, 0, 3][:channels]])
    sharpen_file(sharpener, source, target)
    result = stored(target)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result[..., :3] if channels == 4 else result, sharp_deep(sharpener, colour))
    if channels == 4:
        np.testing.assert_array_equal(result[..., 3], see_through)
    # Levels between those of 8 bits are still there, and what was added is more than nothing.
    assert np.unique(result % 257).size > 100
    assert np.abs(result[..., :3].astype(int) - pixels[..., :3]).max() >= 257
    assert opened(target).mode == {1: "I;16", 3: "RGB", 4: "RGBA"}[channels]


def test_sixteen_bits_are_clipped_at_black_and_white(sharpener: Sharpener, tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    pixels[::2, ::3] = 65535
    cv2.imwrite(str(tmp_path / "in.png"), pixels)
    sharpen_file(sharpener, tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_array_equal(stored(tmp_path / "out.png"), sharp_deep(sharpener, pixels))


def test_grey_of_sixteen_bits_with_alpha(sharpener: Sharpener, rgb: Frame, alpha: Frame, tmp_path: Path) -> None:
    grey, see_through = deepened(grey_of(rgb)), deepened(alpha)
    (tmp_path / "channel.png").write_bytes(png(np.dstack([grey, see_through]), GREY_ALPHA, 16))
    level = chunk(b"tRNS", int(grey[0, 0]).to_bytes(2, "big"))
    (tmp_path / "level.png").write_bytes(png(np.atleast_3d(grey), GREY, 16, before=level))
    (tmp_path / "colour.png").write_bytes(png(deepened(rgb), RGB, 16, before=chunk(b"tRNS", bytes(6))))
    for name in ("channel", "level", "colour"):
        sharpen_file(sharpener, tmp_path / f"{name}.png", tmp_path / f"{name}_out.png")
    # OpenCV has no grey with alpha, so it is written as RGB whose channels are the same.
    expected = sharp_deep(sharpener, grey)
    np.testing.assert_array_equal(stored(tmp_path / "channel_out.png"), np.dstack([expected] * 3 + [see_through]))
    transparent = np.where(grey == grey[0, 0], 0, 65535)
    np.testing.assert_array_equal(stored(tmp_path / "level_out.png"), np.dstack([expected] * 3 + [transparent]))
    colour = stored(tmp_path / "colour_out.png")
    np.testing.assert_array_equal(colour[..., :3], sharp_deep(sharpener, deepened(rgb)))
    assert (colour[..., 3] == 65535).all()


# Refusals, each one message


def save_cut(path: Path, rgb: Frame) -> None:
    Image.fromarray(rgb).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def save_deep_cut(path: Path, rgb: Frame) -> None:
    cv2.imwrite(str(path), deepened(rgb))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def save_two(path: Path, rgb: Frame) -> None:
    Image.fromarray(rgb).save(path, save_all=True, append_images=[Image.fromarray(255 - rgb)])


def save_bomb(path: Path, rgb: Frame) -> None:
    path.write_bytes(huge_png(60_000, 16))


def save_float(path: Path, rgb: Frame) -> None:
    Image.fromarray(rgb[..., 0].astype(np.float32)).save(path)


def save_white_is_zero(path: Path, rgb: Frame) -> None:
    tiff = images._tiff(deepened(rgb[..., 0]), PLAIN)
    black_is_zero = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert tiff.count(black_is_zero) == 1
    path.write_bytes(tiff.replace(black_is_zero, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))


def save_text(path: Path, rgb: Frame) -> None:
    path.write_text("no image", encoding="utf-8")


def save_nothing(path: Path, rgb: Frame) -> None:
    path.write_bytes(b"")


FAULTS: list[tuple[str, Callable[[Path, Frame], None], str]] = [
    ("cut.png", save_cut, "cannot be read"),
    ("cut.jpg", save_cut, "cannot be read: image file is truncated"),
    ("cut.webp", save_cut, "cannot be read"),
    ("cut.tif", save_cut, "cannot be read"),
    ("deep.png", save_deep_cut, "cannot be read"),
    ("deep.tif", save_deep_cut, "cannot be read"),
    ("moving.webp", save_two, "is an animation of 2 frames: name a video file for the result"),
    ("moving.png", save_two, "is an animation of 2 frames: name a video file for the result"),
    ("pages.tif", save_two, "holds 2 pages"),
    ("bomb.png", save_bomb, "60000 x 60000 pixels, more than 200000000"),
    ("float.tif", save_float, "32 bits a channel in mode F"),
    ("negative.tif", save_white_is_zero, "only RGB and grey where 0 is black"),
    (
        "text.png",
        save_text,
        "its content is not PNG, JPEG, WebP, TIFF, BMP, AVIF, HEIC or GIF, or corrupt",
    ),
    ("nothing.tif", save_nothing, "cannot be read: its content is not PNG, JPEG, WebP, TIFF, BMP, AVIF, HEIC or GIF"),
]


@pytest.mark.parametrize(("name", "save", "message"), FAULTS, ids=[name for name, _, _ in FAULTS])
def test_what_cannot_be_kept_as_it_is_is_one_message_with_its_name(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, name: str, save: Callable[[Path, Frame], None], message: str
) -> None:
    save(tmp_path / name, rgb)
    with pytest.raises(UserError) as raised:
        sharpen_file(sharpener, tmp_path / name, tmp_path / f"out{Path(name).suffix}")
    assert message in str(raised.value)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_format_that_would_lose_something_is_refused(
    sharpener: Sharpener, rgb: Frame, alpha: Frame, tmp_path: Path
) -> None:
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "alpha.png")
    cv2.imwrite(str(tmp_path / "deep.png"), deepened(rgb))
    for source, target, lost in (
        ("alpha.png", "out.jpg", "no transparency"),
        ("deep.png", "out.jpg", "8 bits a channel"),
        ("deep.png", "out.webp", "8 bits a channel"),
    ):
        with pytest.raises(UserError, match=lost):
            sharpen_file(sharpener, tmp_path / source, tmp_path / target)
        assert not (tmp_path / target).exists()


def test_an_image_wider_than_a_format_allows_is_one_message(sharpener: Sharpener, tmp_path: Path) -> None:
    Image.new("RGB", (16384, 2)).save(tmp_path / "wide.png")
    with pytest.raises(UserError, match="cannot be sharpened into WEBP: encoding error"):
        sharpen_file(sharpener, tmp_path / "wide.png", tmp_path / "wide.webp")


def test_of_a_phones_jpeg_with_a_preview_the_image_is_kept_with_a_warning(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview = Image.fromarray(np.ascontiguousarray(rgb[::2, ::2]))
    Image.fromarray(rgb).save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[preview])
    sharpen_file(sharpener, tmp_path / "in.jpg", tmp_path / "out.jpg")
    result = opened(tmp_path / "out.jpg")
    assert (result.format, result.size) == ("JPEG", (WIDTH, HEIGHT))
    assert "of the 2 images in the file only the first is kept" in capsys.readouterr().err


def test_wrong_names_are_one_message_each(sharpener: Sharpener, rgb: Frame, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(rgb).save(source)
    before = source.read_bytes()
    (tmp_path / "folder.png").mkdir()
    for target, message in (
        ("out.gif", "must end in one of"),
        ("out", "must end in one of"),
        ("in.png", "is the input itself"),
        ("folder.png", "is a folder"),
        ("in.png/out.png", "in.png is a file or below one: name a folder for out.png"),
        (f"{'x' * 300}.png", "cannot be sharpened"),
    ):
        with pytest.raises(UserError, match=message):
            sharpen_file(sharpener, source, tmp_path / target)
    with pytest.raises(UserError, match="there is no image"):
        sharpen_file(sharpener, tmp_path / "none.png", tmp_path / "out.png")
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "in.png"]


def test_the_sharpener_for_images_has_one_runtime_settled(student_onnx: "tuple[nn.Module, Path]", rgb: Frame) -> None:
    settled = SharpenerOptions(str(student_onnx[1]), strength=0.5).for_images()
    assert settled.strength == 0.5
    choices = [settled.choice]  # takes seconds, so not before there is an image
    for image in (rgb, rgb[:40]):
        settled(image)
        choices.append(settled.choice)
    assert choices[0] is None and choices[1] is not None and choices[1] is choices[2]


# Folders


@pytest.fixture
def folder(rgb: Frame, alpha: Frame, tmp_path: Path) -> Path:
    """Five images in three folders, one of them a PNG that is named a JPEG, and what is no image."""
    source = tmp_path / "in"
    (source / "Ümlaut 图片").mkdir(parents=True)
    (source / ".hidden").mkdir()
    Image.fromarray(rgb).save(source / "a.png")
    Image.fromarray(rgb[:50]).save(source / "b.jpg")
    Image.fromarray(np.dstack([rgb, alpha])).save(source / "misnamed.jpg", "PNG")
    Image.fromarray(rgb[:, :60]).save(source / "Ümlaut 图片" / "é.WebP", lossless=True)
    cv2.imwrite(str(source / "Ümlaut 图片" / "a.tif"), deepened(rgb)[..., ::-1])
    (source / "notes.txt").write_text("no image", encoding="utf-8")
    (source / "._a.png").write_bytes(b"of another system")
    Image.fromarray(rgb).save(source / ".hidden" / "a.png")
    return source


NAMES = ["a.png", "b.jpg", "misnamed.jpg", "Ümlaut 图片/a.tif", "Ümlaut 图片/é.WebP"]


def results(target: Path) -> list[str]:
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


def test_a_folder_comes_out_with_the_same_names_and_formats(
    sharpener: Sharpener,
    options: SharpenerOptions,
    rgb: Frame,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "new" / "out"
    summary = sharpen_folder(options, folder, target)
    assert (summary.done, summary.skipped, summary.failed) == (5, 0, 0)
    assert summary.ignored == ["._a.png", "notes.txt"]
    assert (
        "ignored, neither PNG, JPEG, WebP, TIFF, AVIF, HEIC, BMP or GIF nor a video: ._a.png, notes.txt"
        in capsys.readouterr().err
    )
    assert results(target) == sorted([RECORD, *NAMES])
    assert [opened(target / name).format for name in NAMES] == ["PNG", "JPEG", "PNG", "TIFF", "WEBP"]
    np.testing.assert_array_equal(stored(target / "a.png"), sharpener(rgb))
    np.testing.assert_array_equal(stored(target / NAMES[3]), sharp_deep(sharpener, deepened(rgb)))
    record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    assert sorted(record) == sorted(NAMES)
    for name in NAMES:
        assert record[name]["input"] == sha256_of(folder / name)
        assert record[name]["output"] == sha256_of(target / name)


def test_what_was_done_is_skipped_and_what_changed_is_done_again(
    student_onnx: "tuple[nn.Module, Path]", teacher_onnx: "tuple[nn.Module, Path]", folder: Path, tmp_path: Path
) -> None:
    target, options = tmp_path / "out", SharpenerOptions(str(student_onnx[1]), "onnxruntime", 1)

    def run(*, overwrite: bool = False) -> tuple[int, int, int]:
        summary = sharpen_folder(options, folder, target, overwrite=overwrite)
        return summary.done, summary.skipped, summary.failed

    assert run() == (5, 0, 0)
    first = {name: (target / name).read_bytes() for name in NAMES}
    times = {name: (target / name).stat().st_mtime_ns for name in NAMES}
    assert run() == (0, 5, 0)
    assert {name: (target / name).stat().st_mtime_ns for name in NAMES} == times
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")  # another input
    (target / "b.jpg").write_bytes(first["b.jpg"][:-9])  # a damaged output
    (target / NAMES[3]).unlink()  # a lost one
    assert run() == (3, 2, 0)
    assert opened(target / "a.png").size == (20, 20)
    assert (target / "b.jpg").read_bytes() == first["b.jpg"]
    assert (target / NAMES[3]).read_bytes() == first[NAMES[3]]
    assert run(overwrite=True) == (5, 0, 0)
    options = replace(options, strength=0.5)
    assert run() == (5, 0, 0)
    assert run() == (0, 5, 0)
    options = replace(options, model=str(teacher_onnx[1]))
    assert run() == (5, 0, 0)
    assert run() == (0, 5, 0)


def test_a_broken_record_is_as_none_and_a_stale_one_is_not_believed(
    options: SharpenerOptions, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    sharpen_folder(options, folder, target)
    record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    for text in ("{", "[1]", '"text"', ""):
        (target / RECORD).write_text(text, encoding="utf-8")
        assert sharpen_folder(options, folder, target).done == 5
        assert "is corrupt: every file is sharpened again" in capsys.readouterr().err
    record["a.png"]["output"] = "0" * 64
    record["b.jpg"] = None
    del record["misnamed.jpg"]
    (target / RECORD).write_text(json.dumps(record), encoding="utf-8")
    summary = sharpen_folder(options, folder, target)
    assert (summary.done, summary.skipped) == (3, 2)


def test_files_that_are_not_ours_are_replaced_only_if_that_is_wanted(
    options: SharpenerOptions, folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "a.png").write_bytes(b"mine")
    (target / "other.png").write_bytes(b"mine too")
    with pytest.raises(UserError, match=r"holds files, but no \.clearcall\.json"):
        sharpen_folder(options, folder, target)
    assert results(target) == ["a.png", "other.png"]
    assert (target / "a.png").read_bytes() == b"mine"
    assert sharpen_folder(options, folder, target, overwrite=True).done == 5
    assert opened(target / "a.png").size == (WIDTH, HEIGHT)
    assert (target / "other.png").read_bytes() == b"mine too"


def test_one_bad_file_is_named_and_the_others_go_on(
    options: SharpenerOptions, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "aa_broken.png").write_bytes((folder / "a.png").read_bytes()[:900])
    (folder / "no_link.png").symlink_to(folder / "nowhere.png")
    target = tmp_path / "out"
    (target / "b.jpg").mkdir(parents=True)  # where a result should go
    summary = sharpen_folder(options, folder, target, overwrite=True)
    assert (summary.done, summary.skipped, summary.failed) == (4, 0, 3)
    failures = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert [name in line for name, line in zip(("aa_broken.png", "b.jpg", "no_link.png"), failures, strict=True)]
    assert not list(target.rglob(".*.png")) and not (target / "aa_broken.png").exists()
    assert sharpen_folder(options, folder, target).skipped == 4


@pytest.mark.parametrize(
    ("source", "target"), [("in", "in"), ("in", "in/out"), ("in/../in", "in/Ümlaut 图片"), ("in", "."), ("in", "link")]
)
def test_folders_that_overlap_are_refused(
    options: SharpenerOptions, folder: Path, tmp_path: Path, source: str, target: str
) -> None:
    (tmp_path / "link").symlink_to(folder)
    before = results(folder)
    with pytest.raises(UserError, match="overlap"):
        sharpen_folder(options, tmp_path / source, tmp_path / target)
    assert results(folder) == before


def test_folders_that_cannot_be_used_are_one_message_each(
    options: SharpenerOptions, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for source, target, message in (
        (tmp_path / "none", "out", "there is no folder"),
        (folder / "a.png", "out", "there is no folder"),
        (tmp_path / "empty", "out", "holds no image"),
        (folder, "file", "is a file or below one"),
        (folder, "file/out", "is a file or below one"),
    ):
        with pytest.raises(UserError, match=message):
            sharpen_folder(options, source, tmp_path / target)
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_results_does_not_lead_back_to_the_images(
    options: SharpenerOptions, folder: Path, tmp_path: Path
) -> None:
    target, before = tmp_path / "out", sha256_of(folder / NAMES[3])
    target.mkdir()
    (target / "Ümlaut 图片").symlink_to(folder / "Ümlaut 图片")
    assert sharpen_folder(options, folder, target, overwrite=True).failed == 2
    assert sha256_of(folder / NAMES[3]) == before


def test_two_images_never_share_a_result(
    sharpener: Sharpener, options: SharpenerOptions, rgb: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two folders that are one in the results stand for a file system that takes `A` and `a` for the same.
    source, target = tmp_path / "in", tmp_path / "out"
    for name in ("A", "a"):
        (source / name).mkdir(parents=True)
    Image.fromarray(rgb).save(source / "A" / "x.png")
    Image.fromarray(255 - rgb).save(source / "a" / "x.png")
    (target / "A").mkdir(parents=True)
    (target / "a").symlink_to(target / "A")
    summary = sharpen_folder(options, source, target, overwrite=True)
    assert (summary.done, summary.failed) == (1, 1)
    assert "would replace the result of A/x.png" in capsys.readouterr().err
    np.testing.assert_array_equal(stored(target / "A" / "x.png"), sharpener(rgb))


def test_a_name_that_is_no_text_is_sharpened_too(
    sharpener: Sharpener, options: SharpenerOptions, rgb: Frame, tmp_path: Path
) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "in").mkdir()
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "PNG")
    try:
        (tmp_path / "in" / name).write_bytes(encoded.getvalue())
    except OSError:
        pytest.skip("this file system takes text alone")
    assert sharpen_folder(options, tmp_path / "in", tmp_path / "out").done == 1
    assert sharpen_folder(options, tmp_path / "in", tmp_path / "out").skipped == 1
    np.testing.assert_array_equal(stored(tmp_path / "out" / name), sharpener(rgb))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_ends_it(
    sharpener: Sharpener,
    options: SharpenerOptions,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    # Root may write anywhere, so a folder's mode would not do.
    def refuse(*, dir: Path, **_: Any) -> None:
        raise OSError(number, os.strerror(number), str(dir))

    monkeypatch.setattr("clearcall.core.files.tempfile.mkstemp", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        sharpen_folder(options, folder, tmp_path / "out")
    with pytest.raises(OSError, match=os.strerror(number)):
        sharpen_file(sharpener, folder / "a.png", tmp_path / "out.png")
    assert results(tmp_path / "out") == []


def test_a_full_disk_ends_it_with_what_was_done_on_record(
    options: SharpenerOptions, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = images.write_image

    def fill(path: Path, data: bytes) -> None:
        if path.name == "b.jpg":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(folders, "write_image", fill)
    with pytest.raises(OSError, match="No space"):
        sharpen_folder(options, folder, tmp_path / "out")
    monkeypatch.setattr(folders, "write_image", write)
    summary = sharpen_folder(options, folder, tmp_path / "out")
    assert (summary.done, summary.skipped) == (4, 1)


def test_a_killed_run_resumes_where_it_was(
    student_onnx: "tuple[nn.Module, Path]", sharpener: Sharpener, rgb: Frame, tmp_path: Path
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = [f"{number:03}.png" for number in range(8)]
    for number, name in enumerate(names):
        Image.fromarray(np.roll(rgb, number, axis=1)).save(source / name)
    # It kills itself before the fifth image; the record is written after every one.
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom clearcall.media import folder\n"
        "from clearcall.media.options import SharpenerOptions\nfolder._RECORD_SECONDS = 0\nwrite = folder.write_image\n"
        "def write_or_die(path, data):\n    if path.name == '004.png':\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, data)\n"
        "folder.write_image = write_or_die\n"
        "options = SharpenerOptions(sys.argv[1], 'onnxruntime', 1)\n"
        "folder.sharpen_folder(options, Path(sys.argv[2]), Path(sys.argv[3]))\n"
    )
    arguments = [sys.executable, "-c", program, str(student_onnx[1]), str(source), str(target)]
    assert subprocess.run(arguments, stderr=subprocess.DEVNULL, check=False).returncode == -signal.SIGKILL
    assert results(target) == [RECORD, *names[:4]]
    summary = sharpen_folder(SharpenerOptions(str(student_onnx[1]), "onnxruntime", 1), source, target)
    assert (summary.done, summary.skipped) == (4, 4)
    for number, name in enumerate(names):
        np.testing.assert_array_equal(stored(target / name), sharpener(np.roll(rgb, number, axis=1)))


def test_a_network_that_fails_is_not_called_a_corrupt_image(
    student_onnx: "tuple[nn.Module, Path]", rgb: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours keeps its traceback; what is too large for the machine is one line."""
    Image.fromarray(rgb).save(tmp_path / "in.png")
    sharpener = Sharpener(student_onnx[1], "onnxruntime", 1)
    for raised, expected in ((RuntimeError("a bug"), RuntimeError), (MemoryError(), UserError)):

        def fail(*_: object, raised: Exception = raised) -> None:
            raise raised

        monkeypatch.setattr(images, "sharpen_pixels", fail)
        with pytest.raises(expected) as caught:
            sharpen_file(sharpener, tmp_path / "in.png", tmp_path / "out.png")
        assert "corrupt" not in str(caught.value)
    assert not (tmp_path / "out.png").exists()


def test_a_photograph_is_enlarged_by_the_expert_for_it(photos: dict[str, Frame], tmp_path: Path) -> None:
    """Nearer to the photograph than bicubic interpolation alone."""
    sharp = photos["astronaut"]
    small, sharpener = resized(sharp, (256, 256)), Sharpener("fast", "onnxruntime", 1)
    Image.fromarray(small).save(tmp_path / "small.png")
    sharpen_file(sharpener, tmp_path / "small.png", tmp_path / "large.png", 2.0)
    assert sharpener.expert == "bicubic_x2.0"
    with Image.open(tmp_path / "large.png") as file:
        assert psnr_db(sharp, np.asarray(file)) > psnr_db(sharp, resized(small, (512, 512))) + 0.5


@pytest.mark.parametrize(
    ("factor", "expert"),
    [(1.1, None), (1.25, "bicubic_x1.25"), (2.4, "bicubic_x2.0"), (2.5, "bicubic_x3.0"), (8, "bicubic_x3.0")],
)
def test_the_nearest_expert_enlarges(factor: float, expert: str | None) -> None:
    assert images.upscaling_expert(Sharpener("fast", "onnxruntime", 1), factor) == expert


@pytest.mark.parametrize("samples", [GREY, GREY_ALPHA, RGB])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pixels_of_any_kind_are_resized_as_pillow_does(rgb: Frame, kind: type, samples: int) -> None:
    channels = {GREY: 1, GREY_ALPHA: 2, RGB: 3}[samples]
    scale = 257 if kind == np.uint16 else 1
    pixels: images.Pixels = np.squeeze(rgb[..., :channels].astype(kind) * scale)
    if samples == GREY_ALPHA:
        pixels[..., 1] = np.iinfo(kind).max
        rgb = np.dstack([rgb[..., 0], np.full_like(rgb[..., 0], 255)])
    larger = images.resize_pixels(pixels, (2 * WIDTH, 2 * HEIGHT))
    assert larger.dtype == kind and larger.shape == (2 * HEIGHT, 2 * WIDTH, *pixels.shape[2:])
    expected = np.asarray(Image.fromarray(rgb).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC))
    difference = np.atleast_3d(larger) / scale - expected[..., :channels]
    assert np.abs(difference).max() <= 1.5  # Pillow rounds 8 bits twice


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_transparent_does_not_colour_what_is_beside_it(kind: type) -> None:
    white = np.iinfo(kind).max
    pixels: images.Pixels = np.zeros((24, 24, 4), kind)  # black where nothing is to be seen
    pixels[8:16, 8:16] = white
    larger = images.resize_pixels(pixels, (48, 48))
    seen = larger[larger[..., 3] > 0]
    assert len(seen) > 256
    assert (seen[:, :3] == white).all()
    # By hand: 0.75 and 1.75 pixels from the first two opaque ones; a bicubic kernel of a = -0.5 gives 0.2266 - 0.0234.
    assert larger[24, 15, 3] / white == pytest.approx(0.2031, abs=0.003)


@pytest.mark.parametrize("height", [513, 700, 768])
def test_a_large_image_in_strips_is_that_in_one_piece(
    photos: dict[str, Frame], monkeypatch: pytest.MonkeyPatch, height: int
) -> None:
    sharpener = Sharpener("fast", "onnxruntime", 1)
    small = Image.fromarray(photos["astronaut"][:400, :64]).resize((32, height // 2), Image.Resampling.BICUBIC)
    frame = np.asarray(small.resize((64, height), Image.Resampling.BICUBIC))
    whole = images.sharpen_pixels(sharpener, frame)
    expert = sharpener.expert
    assert expert != "identity"
    monkeypatch.setattr(images, "_STRIP_PIXELS", 1)
    striped = images.sharpen_pixels(sharpener, frame, expert)
    assert np.abs(striped.astype(int) - whole).max() <= 1  # sums of floats in another order
    assert (striped == whole).mean() > 0.99
    images.sharpen_pixels(sharpener, frame)
    assert sharpener.expert != "identity"  # the router's own choice, of all strips together


@pytest.mark.parametrize(("orientation", "size"), [(1, (160, 120)), (6, (120, 160))])
def test_a_size_is_that_of_what_is_shown(
    sharpener: Sharpener, orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """160 x 120 as stored, inside 160 x 200 as shown."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "in.jpg", exif=exif)
    sharpen_file(sharpener, tmp_path / "in.jpg", tmp_path / "out.jpg", (160, 200) if orientation == 1 else (120, 200))
    with Image.open(tmp_path / "out.jpg") as file:
        upright = ImageOps.exif_transpose(file)
    assert upright.size == size


def test_an_image_that_would_become_too_large_is_refused(sharpener: Sharpener, tmp_path: Path) -> None:
    Image.new("L", (4000, 3000)).save(tmp_path / "in.png")
    with pytest.raises(UserError, match=r"in\.png would have 32000 x 24000 pixels, more than"):
        sharpen_file(sharpener, tmp_path / "in.png", tmp_path / "out.png", 8)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(60)
def test_a_named_pipe_is_not_waited_for(options: SharpenerOptions, rgb: Frame, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.heic", "c"):
        os.mkfifo(tmp_path / "in" / name)
    Image.fromarray(rgb).save(tmp_path / "in" / "d.png")
    done = sharpen_folder(options, tmp_path / "in", tmp_path / "out")
    assert (done.done, done.failed, done.ignored) == (1, 2, ["c"])
    with pytest.raises(UserError, match=r"a\.png cannot be used: it is not a regular file"):
        read_rgb(tmp_path / "in" / "a.png", 1)
