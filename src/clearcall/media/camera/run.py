"""A camera or video, the loop and the outputs put together."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction

from clearcall.core.console import ProgressBar
from clearcall.core.processes import stopped_by_interrupt
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size
from clearcall.media.camera.loop import Loop, Outputs
from clearcall.media.camera.outputs import check_output, open_outputs
from clearcall.media.camera.process import Live, Processor, Worker
from clearcall.media.camera.source import default_camera, open_source
from clearcall.media.camera.status import Status, Summary
from clearcall.media.video.read import failure_told
from clearcall.runtime.family import SharpenerFor, settled
from clearcall.runtime.graph import Graph
from clearcall.runtime.sharpener import Sharpener

_TELL_EVERY = 15  # frames


@dataclass(frozen=True)
class Settings:
    """Settings of a camera run.

    `source` is a camera or video, None for the first camera; `outputs` are `preview`, `virtual` or videos; `fps` None
    is the rate of the source, `size` None its own in pixels, `seconds` None without end. `overlay` None writes the
    status onto the preview alone; `again` plays a video over and over; `past_frames` applies the temporal filter;
    `overwrite` lets video files be replaced. `adapting` returns what adapts a network while it plays.
    """

    source: str | None = None
    outputs: tuple[str, ...] = ("preview",)
    fps: int | None = None
    size: Size | None = None
    seconds: float | None = None
    overlay: bool | None = None
    again: bool = False
    past_frames: bool = True
    overwrite: bool = False
    adapting: Callable[[Graph], AbstractContextManager[Live]] | None = None


class _Told:
    """Passes frames on to the outputs, and tells the terminal how it goes."""

    def __init__(self, outputs: Outputs, bar: ProgressBar) -> None:
        self._outputs, self._bar = outputs, bar
        self._left = 0

    def show(self, slot: int, frame: Frame, status: Status) -> str:
        """Put out a frame and count it."""
        keys = self._outputs.show(slot, frame, status)
        self._bar.advance()
        self._left -= 1
        if self._left < 0:
            self._left = _TELL_EVERY
            self._bar.note(", ".join(status.lines()))
        return keys


def run_camera(sharpener: Sharpener | SharpenerFor, settings: Settings) -> Summary:
    """Sharpen a camera until it ends, Ctrl-C, q or a given time; return the summary.

    `sharpener` may be what chooses one for a frame size and rate.
    Videos are complete, also of what came before a camera was lost, or not there if no frame came. Raises
    UserError if the source or an output is not to be had.
    """
    name = settings.source or default_camera()
    for output in settings.outputs:
        check_output(output, name, overwrite=settings.overwrite)
    with (
        failure_told(f"{name} cannot be sharpened into {', '.join(settings.outputs)}"),
        stopped_by_interrupt() as stop,
        open_source(name, settings.size, settings.fps, again=settings.again) as source,
    ):
        fps = Fraction(settings.fps) if settings.fps else source.rate
        chosen = settled(sharpener, source.size, fps)
        process = Processor(chosen, *source.size, past_frames=settings.past_frames)
        # The frames by which it was warmed up have no part in what is chosen.
        chosen.begin_video(coded=source.coded, live=True)
        adapting = nullcontext() if settings.adapting is None else settings.adapting(chosen.graph)
        with (
            adapting as live,
            process.adapted_by(live),
            open_outputs(list(settings.outputs), source.size, fps, overlay=settings.overlay) as outputs,
            Worker(process) as worker,
            ProgressBar("camera", None) as bar,
        ):
            source.begin()
            summary = Loop(source, worker, _Told(outputs, bar), fps).run(stop, settings.seconds)
            if not summary.shown:
                raise KeyboardInterrupt  # came so early that there is nothing to keep
        return summary
