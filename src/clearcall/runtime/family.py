"""The best shipped model that holds a frame rate on this machine."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from clearcall.imaging.sizes import Size
from clearcall.runtime.sharpener import AUTO, Sharpener, best_first

# Of the frame rate: what a model must reach alone, since decoding, the temporal filter and encoding share the cores.
VIDEO_HEADROOM = 1.2
CAMERA_HEADROOM = 1.5  # more: the period of a frame also holds the filter and putting out, one after another

SharpenerFor = Callable[[Size, Fraction], Sharpener]  # of a frame size in pixels and a frame rate


@dataclass(frozen=True)
class Chosen:
    """A shipped model: its name, its Sharpener, its frames a second."""

    name: str
    sharpener: Sharpener
    fps: float


def choose_model(make: Callable[[str], Sharpener], size: Size, fps: float, headroom: float = VIDEO_HEADROOM) -> Chosen:
    """Return the best shipped model that reaches `headroom` times `fps`, else the fastest.

    `make` returns the Sharpener of a name. Models are measured one after another at `size`, width and height in pixels,
    the best first, until one is fast enough.
    """
    tried = list[Chosen]()
    for name in best_first():
        sharpener = make(name)
        tried.append(Chosen(name, sharpener, sharpener.measure_fps(*size)))
        if tried[-1].fps >= headroom * fps:
            return tried[-1]
    return max(tried, key=lambda one: one.fps)


def sharpener_for(
    model: str, make: Callable[[str], Sharpener], source: str, headroom: float = VIDEO_HEADROOM
) -> Sharpener | SharpenerFor:
    """Return a model's Sharpener; for `auto` a function that chooses one and prints which.

    `make` returns the Sharpener of a name; `source` is `video` or `camera`.
    """
    if model != AUTO:
        return make(model)

    def choose(size: Size, fps: Fraction) -> Sharpener:
        found = choose_model(make, size, float(fps), headroom)
        rates = f"{found.fps:.0f} frames/s at {size[0]}x{size[1]}, the {source} has {float(fps):.4g}"
        print(f"model {found.name}: {rates}", file=sys.stderr, flush=True)
        return found.sharpener

    return choose


def settled(sharpener: Sharpener | SharpenerFor, size: Size, fps: Fraction) -> Sharpener:
    """Return the Sharpener for a frame size and rate: the given or the chosen one."""
    return sharpener if isinstance(sharpener, Sharpener) else sharpener(size, fps)
