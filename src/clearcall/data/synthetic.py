"""Synthetic clips and images: pans, zooms, bends, changing light, noise, softness, pages of text."""

from collections.abc import Sequence
from string import ascii_letters, digits
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import divided, resized

MAX_BEND = 3.0  # pixels
MAX_PAN, MAX_ZOOM = 3.0, 1.01  # of a still, a frame: pixels and magnification
SOFTNESS = 1.2, 2.5  # factors by which soft images are downscaled and upscaled again
_BENDS, _TURNS = (2, 12), (0.01, 0.08)  # grid points along a side that move; turns a frame
_LIGHTS = 1, 8  # grid points along a side whose brightness changes
_LEAST_APART_PX = 24  # of grid points: nearer ones would fold the image over itself
_LINE_PX = 9, 28


def enlarged(image: Frame, factor: float) -> Frame:
    """Return an RGB image downscaled by a factor and upscaled again, as soft as many cameras record."""
    size = image.shape[1], image.shape[0]
    return resized(resized(image, divided(size, factor)), size)


def bent(clip: Sequence[Frame], sigma: float, draw: np.random.Generator) -> list[Frame]:
    """Return a clip of RGB frames of one size, warped smoothly: each grid point moves on an ellipse.

    `sigma` is the standard deviation of the grid points' motion in pixels; between them it is a little less.
    """
    height, width = clip[0].shape[:2]
    count, turns = int(draw.integers(*_BENDS, endpoint=True)), draw.uniform(*_TURNS)
    count = max(_BENDS[0], min(count, min(width, height) // _LEAST_APART_PX))
    one, other = (_smooth(draw.normal(0, sigma, (count, count, 2)), width, height) for _ in range(2))
    here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    moved = []
    for index, frame in enumerate(clip):
        turn = 2 * np.pi * turns * index
        places = here + one * np.float32(np.cos(turn)) + other * np.float32(np.sin(turn))
        moved.append(
            cast(Frame, cv2.remap(frame, places, np.empty(0), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101))
        )
    return moved


def lit(clip: Sequence[Frame], level: float, draw: np.random.Generator) -> list[Frame]:
    """Return a clip of RGB frames of one size whose brightness changes smoothly in space and time.

    `level` is the standard deviation of the change at the grid points in 8-bit levels.
    """
    height, width = clip[0].shape[:2]
    count, turns = int(draw.integers(*_LIGHTS, endpoint=True)), draw.uniform(*_TURNS)
    one, other = (_smooth(draw.normal(0, level, (count, count)), width, height) for _ in range(2))
    changed = []
    for index, frame in enumerate(clip):
        turn = 2 * np.pi * turns * index
        light = np.rint(one * np.cos(turn) + other * np.sin(turn))
        changed.append(np.clip(frame + light[..., None], 0, 255).astype(np.uint8))
    return changed


def with_noise(clip: Sequence[Frame], level: float, grain: float, draw: np.random.Generator) -> list[Frame]:
    """Return a clip of RGB frames with a camera's noise, new in each frame, the same in R, G and B.

    `level` is its standard deviation in 8-bit levels before rounding, `grain` the sigma in pixels by which it is
    blurred, as a camera's own processing does.
    """
    noisy = []
    for frame in clip:
        noise = cv2.GaussianBlur(draw.normal(0, 1, frame.shape[:2]).astype(np.float32), (0, 0), grain)
        noise = np.rint(noise * (level / noise.std()))
        noisy.append(np.clip(frame + noise[..., None], 0, 255).astype(np.uint8))
    return noisy


def _smooth(field: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.float32]:
    enlarged = cv2.resize(field.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged, np.float32)


def text_page(height: int, width: int, draw: np.random.Generator) -> Frame:
    """Return a page of random letters, grey RGB, dark on light or light on dark, lit from one side."""
    line = int(draw.integers(*_LINE_PX))
    ink, paper = draw.permutation([draw.uniform(0, 90), draw.uniform(170, 255)]).tolist()
    page = np.full((height, width), paper, np.uint8)
    letters = np.array([*ascii_letters, *digits, *" " * 12])
    for bottom in range(line, height + line, round(1.6 * line)):
        text = "".join(draw.choice(letters, width // 4))
        scale, thickness = line / 30, 1 + line // 20  # 30 is about the height of a line at scale 1
        cv2.putText(page, text, (line, bottom), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)
    lit = page * np.linspace(draw.uniform(0.8, 1), 1, width)
    return np.dstack([np.rint(lit).astype(np.uint8)] * 3)


def pan_and_zoom(still: Frame, frames: int, pan: tuple[float, float], zoom: float) -> list[Frame]:
    """Return a clip that pans by (x, y) pixels and zooms by a factor in each frame, and ends with the still."""
    height, width = still.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    clip = []
    for left in range(frames - 1, 0, -1):
        scale = zoom**-left
        moved = middle - scale * middle - left * np.array(pan)
        matrix = np.array([[scale, 0, moved[0]], [0, scale, moved[1]]])
        warped = cv2.warpAffine(
            still, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        clip.append(np.asarray(warped, np.uint8))
    return [*clip, still]
