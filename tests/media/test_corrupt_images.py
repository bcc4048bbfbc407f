"""PNGs of every kind, corrupt ones, and mutated files of every format: each is sharpened, or refused in one line."""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.make.images import (
    COLOURS,
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    SIGNATURE,
    Samples,
    chunk,
    header,
    huge_png,
    png,
    stored,
)
from tests.make.probe import EXAMPLES, MUTATIONS, Mutation, Probe, mutated

from clearcall.core.errors import UserError
from clearcall.data.checks import _file_facts
from clearcall.imaging.decode import read_rgb
from clearcall.media.folder import sharpen_folder
from clearcall.media.images import sharpen_file
from clearcall.media.options import SharpenerOptions
from clearcall.runtime.sharpener import Sharpener

CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}


@pytest.fixture(scope="module")
def idle() -> Sharpener:
    """A Sharpener that leaves pixels as they are, so that what is read and written can be compared."""
    return Sharpener("fast", "onnxruntime", 1, strength=0)


def made(colour: int, depth: int, size: tuple[int, int] = (13, 11)) -> Samples:
    """Random samples of (height, width, channels)."""
    shape = (size[1], size[0], CHANNELS[colour])
    return np.random.default_rng(depth).integers(0, 2**depth, shape).astype(np.uint16)


def meant(samples: Samples, colour: int, depth: int, alpha: Samples | None = None) -> Samples:
    """The pixels that a PNG means, of as many bits as ours has: 16, or 8 where it has fewer."""
    top = 65535 if depth == 16 else 255
    pixels = COLOURS[samples[..., 0]] if colour == PALETTE else samples.astype(np.uint32) * top // (2**depth - 1)
    return np.dstack([pixels] if alpha is None else [pixels, alpha * np.uint32(top)]).astype(np.uint16)


def same(path: Path, expected: Samples) -> None:
    """Compare the pixels of a file; OpenCV reads and writes grey with alpha as RGB with alpha."""
    if expected.shape[2] == 2:
        expected = expected[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(np.atleast_3d(stored(path)), expected)


# Kinds of PNG, as in PngSuite


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize(("colour", "depth"), [(colour, depth) for colour in DEPTHS for depth in DEPTHS[colour]])
def test_every_kind_of_png_is_read_as_meant(
    idle: Sharpener, tmp_path: Path, colour: int, depth: int, *, interlace: bool
) -> None:
    for size in ((13, 11), (1, 1), (1, 9), (5, 2)):
        samples = made(colour, depth, size)
        (tmp_path / "in.png").write_bytes(png(samples, colour, depth, interlace=interlace))
        sharpen_file(idle, tmp_path / "in.png", tmp_path / "out.png", overwrite=True)
        same(tmp_path / "out.png", meant(samples, colour, depth))
        assert read_rgb(tmp_path / "in.png", 1).size == size


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize(
    ("colour", "depth"), [(colour, depth) for colour in (GREY, RGB, PALETTE) for depth in DEPTHS[colour]]
)
def test_a_transparent_colour_becomes_alpha(
    idle: Sharpener, tmp_path: Path, colour: int, depth: int, *, interlace: bool
) -> None:
    samples = made(colour, depth)
    chosen = samples[3, 4]
    trns = bytes(int(value != chosen[0]) * 255 for value in range(2**depth)) if colour == PALETTE else b""
    trns = trns or chosen.astype(">u2").tobytes()
    (tmp_path / "in.png").write_bytes(png(samples, colour, depth, interlace=interlace, before=chunk(b"tRNS", trns)))
    sharpen_file(idle, tmp_path / "in.png", tmp_path / "out.png")
    alpha = (samples != chosen).any(axis=2)
    same(tmp_path / "out.png", meant(samples, colour, depth, alpha.astype(np.uint16)))


FURTHER = {
    b"gAMA": struct.pack(">I", 45455),
    b"bKGD": bytes(6),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"sBIT": b"\5\6\5",
    b"pHYs": struct.pack(">IIB", 1, 4, 0),
    b"hIST": bytes(512),
    b"sPLT": b"name\0\x08" + bytes(6),
    b"tIME": struct.pack(">HBBBBB", 2000, 1, 1, 12, 34, 56),
    b"tEXt": b"Title\0PngSuite",
    b"zTXt": b"Title\0\0" + zlib.compress(b"PngSuite"),
    b"iTXt": b"Title\0\0\0de\0\0" + "Größe".encode(),
    b"sRGB": b"\0",
    b"exIf": b"unknown",
}


@pytest.mark.parametrize("kind", FURTHER, ids=bytes.decode)
def test_further_chunks_change_no_pixel(idle: Sharpener, tmp_path: Path, kind: bytes) -> None:
    samples = made(RGB, 8)
    (tmp_path / "in.png").write_bytes(png(samples, RGB, 8, before=chunk(kind, FURTHER[kind])))
    sharpen_file(idle, tmp_path / "in.png", tmp_path / "out.png")
    same(tmp_path / "out.png", meant(samples, RGB, 8))


def test_what_follows_the_end_of_a_png_is_not_copied(idle: Sharpener, tmp_path: Path) -> None:
    trailing = chunk(b"tEXt", b"Title\0hidden")[:-4] + b"none"
    (tmp_path / "in.png").write_bytes(png(made(RGB, 8), RGB, 8) + trailing)
    sharpen_file(idle, tmp_path / "in.png", tmp_path / "out.png")
    assert b"hidden" not in (tmp_path / "out.png").read_bytes()
    stored(tmp_path / "out.png")


# Corrupt ones


def _wrong_checksum(data: bytes, kind: bytes) -> bytes:
    at = data.index(kind)
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:end] + bytes(byte ^ 1 for byte in data[end : end + 4]) + data[end + 4 :]


def corrupt_images() -> dict[str, bytes]:
    """The corrupt kinds of PngSuite, under its names, and further ones."""
    good = png(made(RGB, 8), RGB, 8)
    end, idat = chunk(b"IEND"), good[good.index(b"IDAT") - 4 : good.index(b"IEND") - 4]

    def headed(*values: int) -> bytes:
        return SIGNATURE + header(*values) + idat + end

    bomb = zlib.compress(bytes(2**21))
    deep, first = made(RGB, 16), header(13, 11, 16, RGB)
    twice = png(deep, RGB, 16).replace(first, header(9, 9, 16, RGB) + first)
    jpeg = BytesIO()
    Image.fromarray(COLOURS[None].repeat(40, axis=0)).save(jpeg, "JPEG")
    return {
        "xs1.png": b"\x09" + good[1:],
        "xs2.png": good[:1] + b"p" + good[2:],
        "xs4.png": good[:3] + b"g" + good[4:],
        "xs7.png": good[:6] + b"\0" + good[7:],
        "xcr.png": good.replace(b"\n", b"\r\n"),
        "xlf.png": good.replace(b"\r\n", b"\n"),
        "xhd.png": _wrong_checksum(good, b"IHDR"),
        "xc1.png": headed(13, 11, 8, 1),
        "xc9.png": headed(13, 11, 8, 9),
        "xd0.png": headed(13, 11, 0, RGB),
        "xd3.png": headed(13, 11, 3, RGB),
        "xd9.png": headed(13, 11, 99, RGB),
        "xdt.png": headed(13, 11).replace(idat, b""),
        "xcs.png": _wrong_checksum(good, b"IDAT"),
        "depth_of_palette.png": headed(13, 11, 16, PALETTE),
        "depth_of_colour.png": headed(13, 11, 4, RGB),
        "no_palette.png": png(made(PALETTE, 8), PALETTE, 8).replace(chunk(b"PLTE", COLOURS.tobytes()), b""),
        "no_end.png": good.removesuffix(end),
        "no_width.png": headed(0, 11),
        "no_height.png": headed(13, 0),
        "short_header.png": SIGNATURE + chunk(b"IHDR", bytes(9)) + idat + end,
        "short_transparency.png": png(made(RGB, 8), RGB, 8, before=chunk(b"tRNS", b"\0")),
        "no_pixels.png": SIGNATURE + header(13, 11) + chunk(b"IDAT", zlib.compress(b"")) + end,
        "no_deflate.png": SIGNATURE + header(13, 11) + chunk(b"IDAT", b"\xff" * 400) + end,
        "text_bomb.png": png(made(RGB, 8), RGB, 8, before=chunk(b"zTXt", b"Title\0\0" + bomb)),
        "profile_bomb.png": png(made(RGB, 8), RGB, 8, before=chunk(b"iCCP", b"name\0\0" + bomb)),
        "two_headers.png": twice,
        "empty.png": b"",
        "signature.png": SIGNATURE,
        "head.jpg": jpeg.getvalue()[:300],
        "half.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "riff.webp": b"RIFF\x0c\0\0\0WEBPVP8 ",
        "tags.tif": b"II*\0\x08\0\0\0\xff\xff",
    }


CORRUPT = corrupt_images()


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_image_is_one_line_with_its_name_everywhere(idle: Sharpener, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CORRUPT[name])
    works: list[Callable[[], Any]] = [lambda: sharpen_file(idle, path, tmp_path / f"out{path.suffix}")]
    if name != "two_headers.png":  # of which Pillow and OpenCV see different ones; the pipeline asks but Pillow
        works.append(lambda: read_rgb(path, 1))
        assert _file_facts(path)["readable"] is False
    for work in works:
        with pytest.raises(UserError) as raised:
            work()
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_no_corrupt_image_ends_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, data in CORRUPT.items():
        (source / name).write_bytes(data)
    (source / "zz_good.png").write_bytes(png(made(RGB, 8), RGB, 8))
    summary = sharpen_folder(SharpenerOptions("fast", "onnxruntime", 1, strength=0), source, tmp_path / "out")
    assert (summary.done, summary.failed) == (1, len(CORRUPT))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert [name in line for name, line in zip(sorted(CORRUPT), told, strict=True)] == [True] * len(CORRUPT)


# Sizes that a file cannot hold, and mutated files

WORKS = """
from clearcall.imaging.decode import read_rgb
from clearcall.media.images import sharpen_file
from clearcall.runtime.sharpener import Sharpener
sharpener = Sharpener("fast", "onnxruntime", 1)
works = [
    lambda path: sharpen_file(sharpener, path, path.with_name(f"out{path.suffix}"), overwrite=True),
    lambda path: read_rgb(path, 1),  # as the pipeline does
]
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    one = Probe(tmp_path_factory.mktemp("mutated_images"), WORKS)
    yield one
    one.end()
    assert "Traceback" not in one.stderr.read_text()  # libtiff and libpng print lines of their own


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def declared(data: bytes, *places: tuple[bytes, int, str], side: int = 13_000) -> bytes:
    """A file that says that it is `side` by `side` pixels: at so many bytes behind a mark, as struct writes it."""
    lying = bytearray(data)
    for mark, offset, form in places:
        struct.pack_into(form, lying, lying.index(mark) + offset, *(side,) * (len(form) - 1))
    return bytes(lying)


def huge_images() -> dict[str, bytes]:
    small = Image.fromarray(COLOURS[None].repeat(16, axis=0))
    short, long = (  # the tags of width and height, as libtiff and as Pillow write them
        [(mark + form + b"\0\1\0\0\0", 8, "<I") for mark in (b"\0\1", b"\1\1")] for form in (b"\3", b"\4")
    )
    return {
        "huge.jpg": declared(saved(small, "JPEG", quality=1), (b"\xff\xc0", 5, ">HH")),
        "huge_progressive.jpg": declared(saved(small, "JPEG", progressive=True), (b"\xff\xc2", 5, ">HH")),
        "huge.png": huge_png(13_000),
        "huge_deep.png": huge_png(13_000, 16),
        "huge.webp": declared(saved(small, "WEBP"), (b"\x9d\x01\x2a", 3, "<HH")),
        "huge.tif": declared(saved(small, "TIFF", compression="tiff_lzw"), *short),
        "huge_plain.tif": declared(saved(small, "TIFF"), *long),
    }


HUGE = huge_images()


@pytest.mark.parametrize("name", HUGE)
def test_a_size_that_the_file_cannot_hold_is_refused_before_it_costs_memory(probe: Probe, name: str) -> None:
    found = probe.work(name, HUGE[name])
    found.check(name)
    for said in found.said:
        assert "13000 x 13000 pixels in a file of" in said or "corrupt" in said
    assert found.mib < 400


def test_a_jpeg_that_declares_more_than_it_can_hold_is_not_filled_with_grey(tmp_path: Path) -> None:
    small = saved(Image.new("RGB", (16, 16)), "JPEG", optimize=True)
    (tmp_path / "in.jpg").write_bytes(declared(small, (b"\xff\xc0", 5, ">HH"), side=1000))
    with pytest.raises(UserError, match="1000 x 1000 pixels in a file of"):
        read_rgb(tmp_path / "in.jpg", 1)


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("RGB", "png"), ("RGB", "jpg"), ("RGB", "tif")])
def test_a_large_flat_image_in_a_small_file_is_read(tmp_path: Path, mode: str, suffix: str) -> None:
    size = (4200, 4100)
    options: dict[str, dict[str, Any]] = {"tif": {"compression": "tiff_adobe_deflate"}, "jpg": {"progressive": True}}
    Image.new(mode, size, "white").save(tmp_path / f"in.{suffix}", **options.get(suffix, {}))
    assert (tmp_path / f"in.{suffix}").stat().st_size < 4200 * 4100 / 150
    assert read_rgb(tmp_path / f"in.{suffix}", 1).size == size


def seeds() -> dict[str, list[bytes]]:
    """Small files of each format to be mutated, of many kinds."""
    y, x = np.mgrid[0:20, 0:24]
    rgb = np.dstack([10 * x, 12 * y, 5 * (x + y)]).astype(np.uint8)
    image, deep = Image.fromarray(rgb), rgb.astype(np.uint16) * 257
    grey, see_through = image.convert("L"), Image.fromarray(np.dstack([rgb, rgb[..., 0]]))
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    about: dict[str, Any] = {"exif": exif.tobytes(), "xmp": b"<x:xmpmeta/>"}
    palette = image.quantize(32)
    return {
        ".png": [
            saved(image, "PNG", exif=exif.tobytes()),
            saved(palette, "PNG", transparency=3),
            saved(see_through, "PNG"),
            png(made(GREY, 2), GREY, 2, interlace=True),
            png(made(RGB, 16), RGB, 16, interlace=True, before=chunk(b"tRNS", bytes(6))),
            png(made(RGB, 8), RGB, 8, before=b"".join(map(chunk, FURTHER, FURTHER.values()))),
        ],
        ".jpg": [
            saved(image, "JPEG", **about),
            saved(image, "JPEG", progressive=True, subsampling=0),
            saved(grey, "JPEG", restart_marker_blocks=1),
            saved(image.convert("CMYK"), "JPEG"),
            saved(image, "MPO", save_all=True, append_images=[grey.convert("RGB")]),
        ],
        ".webp": [
            saved(image, "WEBP", **about),
            saved(see_through, "WEBP", lossless=True),
            saved(see_through, "WEBP", quality=50),
        ],
        ".tif": [
            *(
                saved(image, "TIFF", compression=name, **about)
                for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
            ),
            saved(image.convert("1"), "TIFF", compression="group4"),
            saved(palette, "TIFF"),
            saved(image.convert("CMYK"), "TIFF"),
            cv2.imencode(".tif", deep)[1].tobytes(),
        ],
    }


SEEDS = seeds()


def with_checksums(data: bytes) -> bytes:
    """The chunks of a PNG with the checksums that belong to them: a mutation behind a wrong one is hardly looked at."""
    at, result = 8, data[:8]
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        result += data[at : at + 4] + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        at += 12 + length
    return result


@pytest.mark.parametrize("suffix", SEEDS)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=MUTATIONS, data=st.data())
def test_a_mutated_image_is_done_or_one_line(
    probe: Probe, suffix: str, mutations: list[Mutation], data: st.DataObject
) -> None:
    image = mutated(data.draw(st.sampled_from(SEEDS[suffix])), mutations)
    if suffix == ".png" and data.draw(st.booleans()):
        image = with_checksums(image)
    name = f"mutated{suffix}"
    probe.work(name, image).check(name)
