"""PNGs written by hand, of every kind and also wrong ones, and the pixels of a file as they are stored."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.imaging.frame import Frame

Samples = npt.NDArray[np.uint16]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
COLOURS = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)  # of a palette
# First column, first row, and the steps of both, of the seven passes of an interlaced PNG.
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, depth: int = 8, colour: int = RGB, interlace: int = 0) -> bytes:
    """Return the chunk with a PNG's size and kind."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(samples: Samples, colour: int, depth: int, *, interlace: bool = False, before: bytes = b"") -> bytes:
    """Return a PNG with samples (height, width, channels), and chunks `before` its pixels."""
    height, width = samples.shape[:2]
    passes = [samples[y::down, x::right] for x, y, right, down in _ADAM7] if interlace else [samples]
    pixels = chunk(b"IDAT", zlib.compress(b"".join(_rows(part, depth) for part in passes)))
    plte = chunk(b"PLTE", COLOURS[: 2**depth].tobytes()) if colour == PALETTE else b""
    return SIGNATURE + header(width, height, depth, colour, interlace) + plte + before + pixels + chunk(b"IEND")


def huge_png(side: int, depth: int = 8) -> bytes:
    """Return a small PNG that says that it has `side` x `side` pixels."""
    return SIGNATURE + header(side, side, depth) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND")


def _rows(samples: Samples, depth: int) -> bytes:
    height, width = samples.shape[:2]
    if not height or not width:
        return b""
    bits = np.unpackbits(samples.astype(">u2").reshape(height, -1, 1).view(np.uint8), axis=2)[..., 16 - depth :]
    return b"".join(b"\0" + row.tobytes() for row in np.packbits(bits.reshape(height, -1), axis=1))


def stored(path: Path) -> npt.NDArray[Any]:
    """Return an image's pixels as stored, 16 bits too: grey (height, width), else RGB with or without alpha."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def grey_of(rgb: Frame) -> Frame:
    """Return the luma of RGB."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
