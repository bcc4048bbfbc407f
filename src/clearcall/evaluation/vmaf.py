"""VMAF, by Netflix's own libvmaf in a build of FFmpeg that has it: PyAV's has not."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from clearcall.core.errors import UserError
from clearcall.core.files import read_json
from clearcall.imaging.frame import Frame

# Both come with libvmaf. The second, "no enhancement gain", leaves out of its scores most of what mere contrast adds:
# Li et al. 2020, "Toward a better quality metric for the video community".
_MODELS = {"vmaf": "vmaf_v0.6.1", "neg": "vmaf_v0.6.1neg"}
_FILTER = "libvmaf='model={}:log_fmt=json:log_path=scores.json:n_threads=1'"


class Vmaf(NamedTuple):
    """Means over a clip's frames, 0 to 100, of the model for 1080p and of its variant without enhancement gain."""

    vmaf: float
    neg: float


@cache
def vmaf_program() -> str | None:
    """Return the FFmpeg with libvmaf that there is, on PATH or of the package imageio-ffmpeg; None without one."""
    for program in (shutil.which("ffmpeg"), _packaged()):
        if program is not None:
            told = subprocess.run([program, "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
            if " libvmaf " in told.stdout:
                return program
    return None


def vmaf(sharp: Sequence[Frame], other: Sequence[Frame], program: str) -> Vmaf:
    """Score a clip against the sharp one: 8-bit RGB of one size, an odd last row or column left out.

    `program` is that of `vmaf_program`. Raises UserError with its words if it fails.
    """
    height, width = (side - side % 2 for side in sharp[0].shape[:2])
    models = "|".join(rf"version={version}\:name={name}" for name, version in _MODELS.items())
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-i"]
    with tempfile.TemporaryDirectory() as folder:
        for name, frames in (("sharp", sharp), ("other", other)):
            with (Path(folder) / name).open("wb") as file:
                file.writelines(_i420(frame[:height, :width]) for frame in frames)
        done = subprocess.run(
            [program, "-v", "error", *raw, "other", *raw, "sharp", "-lavfi", _FILTER.format(models), "-f", "null", "-"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip  # as one types it
        if done.returncode:
            raise UserError(f"{program} could not compute VMAF: {done.stderr.strip()}")
        pooled = read_json(Path(folder) / "scores.json")["pooled_metrics"]
    return Vmaf(**{name: float(pooled[name]["mean"]) for name in _MODELS})


def _i420(frame: Frame) -> bytes:
    return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2YUV_I420).tobytes()


def _packaged() -> str | None:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415  # of the extra `vmaf`

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # not installed; no program for this system
        return None
