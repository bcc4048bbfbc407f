"""What a camera can be taken from and put out to on this machine."""

import sys
from collections.abc import Iterator
from fractions import Fraction

import av

from clearcall.core.errors import UserError
from clearcall.media.camera.outputs import PREVIEW, VIRTUAL, open_outputs
from clearcall.media.camera.source import FORMATS
from clearcall.media.video.write import FORMATS as SUFFIXES

_TRIED_SIZE, _TRIED_FPS = (640, 480), Fraction(30)


def list_devices() -> Iterator[str]:
    """Yield a line for each camera and each output, with what to do where one does not work.

    The outputs are opened for a moment, since only that tells whether they work.
    """
    cameras = _cameras()
    yield from (f"camera   {name}: {description}" for name, description in cameras)
    if not cameras:
        yield "camera   none found: plug one in, or name rtsp:// or http:// for one of the network, or a video"
    for name in (PREVIEW, VIRTUAL):
        try:
            with open_outputs([name], _TRIED_SIZE, _TRIED_FPS, overlay=None):
                yield f"output   {name}: works"
        except UserError as error:
            yield f"output   {name}: {error}"
    yield f"output   a file: {', '.join(SUFFIXES)}"


def _cameras() -> list[tuple[str, str]]:
    """Return name and description of each camera; none where the system cannot list them."""
    kind = FORMATS.get(sys.platform)
    try:
        found = av.enumerate_input_devices(kind) if kind else []
    except (OSError, ValueError, av.FFmpegError):
        return []
    cameras = [(one.name, one.description) for one in found if "video" in (one.media_types or ["video"])]
    # dshow, alone, wants the kind before the name.
    return [(f"video={name}" if kind == "dshow" else name, description) for name, description in cameras]
