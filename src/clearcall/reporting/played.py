"""Videos of a run's student for look.html: a face and text in a call, input left and output right."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from clearcall.core.console import track
from clearcall.data.clips import bundled_files
from clearcall.data.degrade.codecs import FRAMES_PER_SECOND, send
from clearcall.data.synthetic import bent, pan_and_zoom
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.sizes import resized
from clearcall.media.slider import SplitVideo
from clearcall.media.video.write import join_halves

_QP, _FACTOR = 27, 2  # of H.264; by which frames are upscaled on arrival
_FACE = slice(0, 192), slice(96, 352)  # rows and columns
_BEND = 1.0  # pixels by which it moves in places
_TEXT = slice(0, 144), slice(0, 288)
_PAN = 0.25, 0.1  # pixels a frame, across and down: the page is large enough for ten seconds


def play_calls(restore: Restore, seconds: float) -> dict[str, SplitVideo]:
    """Return two videos by name: bundled photographs that move, as they arrive in a call, and each frame restored."""
    frames = round(seconds * FRAMES_PER_SECOND)
    portrait, *_, page = (np.asarray(read_rgb(path, min_side=1), np.uint8) for path in bundled_files())
    clips = {
        "Face in a call": bent([portrait[_FACE]] * frames, _BEND, np.random.default_rng(1)),
        "Text in a call": [frame[_TEXT] for frame in pan_and_zoom(page, frames, _PAN, zoom=1)],
    }
    return {name: _play(name, clip, restore) for name, clip in clips.items()}


def _play(name: str, clip: Sequence[Frame], restore: Restore) -> SplitVideo:
    height, width = clip[0].shape[:2]
    size = _FACTOR * width, _FACTOR * height
    note = (
        "A photograph that comes with scikit-image, the same whatever the run was trained on: moved, sent in "
        f"{width}x{height} through H.264 at QP {_QP} and upscaled by {_FACTOR}. The student restored each frame alone."
    )
    arrived = (resized(frame, size) for frame in track(send(clip, "h264", _QP), len(clip), name))
    return join_halves(((frame, restore(frame)) for frame in arrived), size, Fraction(FRAMES_PER_SECOND), note)
