"""Frame outputs: preview window, virtual camera and video files."""

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, check_target
from clearcall.imaging.frame import NEUTRAL, Frame
from clearcall.imaging.sizes import Size
from clearcall.media.camera.loop import QUIT
from clearcall.media.camera.source import ITU601
from clearcall.media.camera.status import Status
from clearcall.media.video.read import LIMITED
from clearcall.media.video.write import FORMATS, Writer

PREVIEW, VIRTUAL = "preview", "virtual"
# As quick as encoders can be: they share the cores with the network.
_H264 = {"crf": "20", "preset": "ultrafast"}
_VP9 = {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"}
_WIDEST = 960  # pixels of the window, whose toolkit is slow with larger images
_REST = 2.0  # pause after drawing a frame, relative to the time that drawing took
_HINTS = {
    "linux": "load the module v4l2loopback: sudo modprobe v4l2loopback exclusive_caps=1",
    "darwin": "install OBS and start its virtual camera once",
    "win32": "install OBS, or Unity Capture",
}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE_PART, _LEAST_LINE = 1 / 26, 10  # of the height; pixels
_FONT_HEIGHT = 32  # pixels of a line at scale 1
_WHITE, _DARK = 235, 40


class Sink(Protocol):
    """One place where frames go."""

    def show(self, slot: int, frame: Frame) -> str:
        """Output an I420 frame, shown from slot / rate s on; return the keys pressed."""
        ...


class Fan:
    """Passes each frame to several sinks, with the status overlay where wanted."""

    def __init__(self, sinks: list[tuple[Sink, bool]]) -> None:
        self._sinks = sinks
        self._any_overlay = any(overlay for _, overlay in sinks)

    def show(self, slot: int, frame: Frame, status: Status) -> str:
        """Put out a frame everywhere; return all keys that were pressed."""
        written = draw_overlay(frame, status.lines()) if self._any_overlay else frame
        return "".join(sink.show(slot, written if overlay else frame) for sink, overlay in self._sinks)


class VideoFile:
    """Writes a video of a fixed rate; an empty slot lengthens the frame before."""

    def __init__(self, writer: Writer, fps: Fraction) -> None:
        self._writer, self._time_base = writer, 1 / fps
        self.empty = True

    def show(self, slot: int, frame: Frame) -> str:
        """Hand a copy of a frame to the encoder; there are no keys."""
        encoded = VideoFrame.from_ndarray(frame, "yuv420p")
        encoded.pts, encoded.time_base, encoded.duration = slot, self._time_base, 1
        encoded.colorspace, encoded.color_range = ITU601, LIMITED
        self._writer.put(encoded)
        self.empty = False
        return ""


class VirtualCamera:
    """Sends frames to a camera of pyvirtualcam."""

    def __init__(self, camera: Any) -> None:  # noqa: ANN401  # of a package that may not be there
        self._camera = camera

    def show(self, _slot: int, frame: Frame) -> str:
        """Send a frame; there are no keys."""
        self._camera.send(frame)
        return ""


class Preview:
    """Shows frames in a window. Space and q are its keys; closing it is q too.

    After a frame is drawn, those of twice that time are skipped: the rate comes first.
    """

    def __init__(self, window: "Window", clock: Callable[[], float] = time.perf_counter) -> None:
        self._window, self._clock = window, clock
        self._next_s = 0.0

    def show(self, _slot: int, frame: Frame) -> str:
        """Draw a frame if there is time for it, and return the keys that were pressed."""
        started = self._clock()
        if started >= self._next_s:
            self._window.draw(_for_window(frame))
            ended = self._clock()
            self._next_s = ended + _REST * (ended - started)
        return self._window.keys()


def _for_window(frame: Frame) -> Frame:
    """Return an I420 frame as RGB, not wider than the window."""
    rgb = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_I420)
    height, width = rgb.shape[:2]
    if width > _WIDEST:
        rgb = cv2.resize(rgb, (_WIDEST, round(height * _WIDEST / width)), interpolation=cv2.INTER_AREA)
    return np.asarray(rgb, np.uint8)


class Window(Protocol):
    """A window of some toolkit."""

    def draw(self, rgb: Frame) -> None:
        """Show an RGB image of (height, width, 3)."""
        ...

    def keys(self) -> str:
        """Return the keys pressed since the last call; QUIT if the window was closed."""
        ...


class TkWindow:
    """A window of Tk, which comes with Python: the locked OpenCV has none. Raises UserError without a screen."""

    def __init__(self, title: str) -> None:
        try:
            import tkinter as tk  # noqa: PLC0415  # not part of every Python
        except ModuleNotFoundError:
            raise UserError(
                "the preview needs Tk, which this Python lacks: install python3-tk, or choose --output FILE or "
                "--output virtual"
            ) from None
        try:
            self._root = tk.Tk()
        except tk.TclError as error:
            raise UserError(
                f"there is no screen for the preview ({error}): choose --output FILE or --output virtual"
            ) from None
        self._root.title(title)
        self._root.resizable(width=False, height=False)
        self._image = tk.PhotoImage(master=self._root)
        tk.Label(self._root, image=self._image, borderwidth=0).pack()
        self._pressed = ""
        self._root.bind("<Key>", self._press)
        self._root.protocol("WM_DELETE_WINDOW", lambda: self._press(None))

    def _press(self, event: Any) -> None:  # noqa: ANN401  # tkinter is imported by the constructor alone
        self._pressed += QUIT if event is None else event.char

    def draw(self, rgb: Frame) -> None:
        """Show an RGB image of (height, width, 3)."""
        height, width = rgb.shape[:2]
        self._image.configure(data=b"P6 %d %d 255\n" % (width, height) + rgb.tobytes(), width=width, height=height)

    def keys(self) -> str:
        """Let the window live, and return the keys that were pressed."""
        self._root.update()
        pressed, self._pressed = self._pressed, ""
        return pressed

    def close(self) -> None:
        """Close the window."""
        self._root.destroy()


def check_output(name: str, source: str, *, overwrite: bool = False) -> None:
    """Raise UserError unless a name is `preview`, `virtual` or a video file that may be written: see `check_target`."""
    if name in {PREVIEW, VIRTUAL}:
        return
    path = Path(name)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{name} is no output: name preview, virtual, or a video in {', '.join(FORMATS)}")
    check_target(path, Path(source), overwrite=overwrite)


@contextmanager
def open_outputs(names: list[str], size: Size, fps: Fraction, *, overlay: bool | None) -> Iterator[Fan]:
    """Open outputs by name: `preview`, `virtual` or the path of a video.

    `overlay` writes the status onto the frames of all, or of none; None: of the preview alone. Raises UserError for
    what is not to be had here.
    """
    with ExitStack() as stack:
        sinks: list[tuple[Sink, bool]] = []
        for name in sorted(names, key=lambda name: name == PREVIEW):  # which may wait
            opened: Sink
            if name == PREVIEW:
                opened = stack.enter_context(_preview())
            elif name == VIRTUAL:
                opened = stack.enter_context(_virtual_camera(size, fps))
            else:
                opened = stack.enter_context(_video_file(Path(name), size, fps))
            sinks.append((opened, name == PREVIEW if overlay is None else overlay))
        yield Fan(sinks)


@contextmanager
def _preview() -> Iterator[Preview]:
    window = TkWindow(f"clearcall (space: on/off, {QUIT}: quit)")
    try:
        yield Preview(window)
    finally:
        window.close()


@contextmanager
def _virtual_camera(size: Size, fps: Fraction) -> Iterator[VirtualCamera]:
    try:
        pyvirtualcam = importlib.import_module("pyvirtualcam")
    except ModuleNotFoundError:
        raise UserError("the virtual camera needs pyvirtualcam: pip install pyvirtualcam") from None
    try:
        camera = pyvirtualcam.Camera(*size, float(fps), fmt=pyvirtualcam.PixelFormat.I420)
    except RuntimeError as error:
        hint = _HINTS.get(sys.platform, "see the documentation of pyvirtualcam")
        raise UserError(f"there is no virtual camera here: {hint} (pyvirtualcam says: {error})") from None
    with camera:
        yield VirtualCamera(camera)


@contextmanager
def _video_file(path: Path, size: Size, fps: Fraction) -> Iterator[VideoFile]:
    kind, failure = FORMATS[path.suffix.lower()], None
    codec, options = ("libvpx-vp9", _VP9) if kind == "webm" else ("libx264", _H264)
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format=kind) as out:
        stream = cast(VideoStream, out.add_stream(codec, fps, options, width=size[0], height=size[1]))
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / fps
        stream.codec_context.colorspace, stream.codec_context.color_range = ITU601, LIMITED
        out.start_encoding()
        with Writer(out, stream) as writer:
            video = VideoFile(writer, fps)
            try:
                yield video
            except Exception as error:
                if video.empty:
                    raise
                failure = error  # of something else, raised once what was recorded is complete
    if failure is not None:
        raise failure


def draw_overlay(frame: Frame, lines: list[str]) -> Frame:
    """Return a copy of an I420 frame with lines of text in its upper left corner."""
    frame = frame.copy()
    height, width = frame.shape[0] // 3 * 2, frame.shape[1]
    line = max(_LEAST_LINE, round(height * _LINE_PART))
    scale, thickness = line / _FONT_HEIGHT, max(1, round(line / 20))
    text_width = max(cv2.getTextSize(text, _FONT, scale, thickness)[0][0] for text in lines)
    bottom, right = min(height, (len(lines) * line + line) // 2 * 2), min(width, (text_width + line) // 2 * 2)
    frame[:bottom, :right] //= 3
    frame[:bottom, :right] += _DARK // 3
    chroma = frame[height:].reshape(2, height // 2, width // 2)
    chroma[:, : bottom // 2, : right // 2] = NEUTRAL
    luma = np.ascontiguousarray(frame[:height])
    for number, text in enumerate(lines):
        at = line // 2, (number + 1) * line + line // 4
        cv2.putText(luma, text, at, _FONT, scale, _WHITE, thickness, cv2.LINE_AA)
    frame[:height] = luma
    return frame
