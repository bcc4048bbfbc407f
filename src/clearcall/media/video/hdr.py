"""HDR: what cannot be kept of it, and the metadata that encoders are given."""

from pathlib import Path
from typing import Literal

import numpy as np
from av.video.frame import VideoFrame

from clearcall.core.errors import UserError
from clearcall.media.video.read import is_hdr, side_data

_CHROMATICITY, _LUMINANCE = 50_000, 10_000  # units of HEVC: 0.00002, and 0.0001 cd/m2
_DYNAMIC = {"DYNAMIC_HDR_PLUS": "HDR10+", "DYNAMIC_HDR_VIVID": "HDR Vivid", "DOVI_METADATA": "Dolby Vision"}


def check_hdr(path: Path, first: VideoFrame) -> None:
    """Raise UserError for HDR whose colours only metadata of Dolby Vision tell."""
    if "Dolby Vision" in lost_metadata(first) and not is_hdr(first):
        raise UserError(
            f"{path} is HDR in Dolby Vision alone, whose metadata cannot be kept: convert it to HDR10 or SDR first"
        )


def lost_metadata(frame: VideoFrame) -> list[str]:
    """Return the kinds of dynamic metadata that a frame has, which cannot be kept."""
    return [name for key, name in _DYNAMIC.items() if side_data(frame, key) is not None]


def hdr_metadata(first: VideoFrame, codec: Literal["hevc", "av1"]) -> dict[str, str]:
    """Return the encoder's option that holds the static metadata of the first frame, if it has some.

    PyAV hands no side data to encoders, which take these as options too.
    """
    if codec == "av1":
        metadata = _static_metadata(first, "mastering-display", "content-light", 1, 1, digits=5)
        return {"svtav1-params": ":".join(metadata)} if metadata else {}
    metadata = _static_metadata(first, "master-display", "max-cll", _CHROMATICITY, _LUMINANCE, digits=0)
    return {"x265-params": ":".join(["log-level=error", *metadata])}


def _static_metadata(
    frame: VideoFrame, display: str, light: str, chromaticity: int, luminance: int, *, digits: int
) -> list[str]:
    """Return the encoder's options, of these names and in these units, for what a frame has of static metadata."""
    options = []
    if (data := side_data(frame, "MASTERING_DISPLAY_METADATA")) is not None:
        # AVMasteringDisplayMetadata: red, green, blue, white and luminance, of two rationals each, and what is known.
        *rationals, has_primaries, has_luminance = np.frombuffer(data, np.int32).astype(np.float64)
        values = np.divide(rationals[::2], rationals[1::2]).reshape(5, 2)
        values *= np.array([[has_primaries * chromaticity]] * 4 + [[has_luminance * luminance]])
        red, green, blue, white, (least, most) = (
            tuple(f"{value:.{digits}f}" for value in pair) for pair in np.nan_to_num(values)
        )
        places = {"G": green, "B": blue, "R": red, "WP": white, "L": (most, least)}
        options.append(f"{display}=" + "".join(f"{name}({one},{two})" for name, (one, two) in places.items()))
    if (data := side_data(frame, "CONTENT_LIGHT_LEVEL")) is not None:
        most, average = np.frombuffer(data, np.uint32)
        options.append(f"{light}={most},{average}")
    return options
