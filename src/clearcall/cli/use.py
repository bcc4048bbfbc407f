"""Commands that sharpen: images, videos, folders of both, and a camera."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clearcall.cli.options import LookOption, LowPower, Model, Overwrite, Provider, Strength, Threads, refuse_folder
from clearcall.core import errors
from clearcall.imaging.looks import DEFAULT_LOOK

if TYPE_CHECKING:
    from clearcall.media.options import SharpenerOptions
    from clearcall.media.video.write import VideoCodec

_OF_VIDEOS, _OF_FOLDERS = "Options of videos", "Options of folders"


def sharpen(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="An image, a video, a folder of both, or - for a pipe of YUV4MPEG.")
    ],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The result; its suffix sets the format. None with --dry-run."),
    ] = None,
    *,
    model: Model = "auto",
    provider: Provider = "auto",
    threads: Threads = None,
    low_power: LowPower = False,
    strength: Strength = 1.0,
    look: LookOption = DEFAULT_LOOK,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists; of a folder, redo all files.")
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Input left, result right.", rich_help_panel=_OF_VIDEOS)
    ] = False,
    split: Annotated[
        bool, typer.Option("--split", help="Left half input, right half result.", rich_help_panel=_OF_VIDEOS)
    ] = False,
    scale: Annotated[float | None, typer.Option(min=1, max=8, help="Enlarge images and videos by this factor.")] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Width x height of the result; images keep their shape within, videos get bars."),
    ] = None,
    codec: Annotated[
        Literal["h264", "hevc", "av1", "vp9"] | None,
        typer.Option(help="Codec of the result; h264, in WebM vp9, of HDR hevc.", rich_help_panel=_OF_VIDEOS),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(min=0, max=51, help="Quality: less is better; 18, of VP9 and AV1 24.", rich_help_panel=_OF_VIDEOS),
    ] = None,
    start: Annotated[str, typer.Option(help="Where to begin: seconds, or 1:30.", rich_help_panel=_OF_VIDEOS)] = "0",
    duration: Annotated[
        str | None, typer.Option(help="How much to sharpen: seconds, or 1:30.", rich_help_panel=_OF_VIDEOS)
    ] = None,
    past_frames: Annotated[
        bool,
        typer.Option("--past-frames/--no-past-frames", help="Filter over time.", rich_help_panel=_OF_VIDEOS),
    ] = True,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt", help="Adapt the network to this video first, in about a minute.", rich_help_panel=_OF_VIDEOS
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Write nothing; print the fps here.", rich_help_panel=_OF_VIDEOS),
    ] = False,
) -> None:
    """Sharpen an image, a video, or a folder of both.

    Images (PNG, JPEG, WebP, TIFF, AVIF) keep depth, transparency, EXIF and colour profile. Videos keep sound,
    subtitles, times, colours, rotation, chapters and metadata; the result (MP4, M4V, MOV, MKV, WebM) is H.264, in WebM
    VP9, or --codec; HDR stays HDR, as 10-bit HEVC, in WebM AV1. Ctrl-C leaves a video of what was done until then; the
    same command goes on from there, also after a crash.

    A folder's files keep their names; other containers than these become MKV. Run again, it resumes and skips what is
    up to date. A file that cannot be read is named and the others go on, with exit code 1 at the end.

    Example: clearcall sharpen blurred.jpg sharp.jpg --strength 0.8

    Example: clearcall sharpen call.mp4 sharp.mp4

    Example: clearcall sharpen call.mp4 preview.mp4 --start 1:30 --duration 10 --split

    Example: clearcall sharpen small.png large.png --scale 2

    Example: clearcall sharpen call.mp4 sharp.mp4 --adapt

    Example: clearcall sharpen holiday sharpened

    Example: clearcall sharpen call.mp4 - | mpv -
    """
    from clearcall.core.console import warn
    from clearcall.core.machine import hold_one_core
    from clearcall.imaging.sizes import parse_size
    from clearcall.media.options import SharpenerOptions, VideoOptions
    from clearcall.media.sharpen import sharpen as run
    from clearcall.media.video.part import Part, parse_time

    if low_power:
        hold_one_core()
    if side_by_side and split:
        errors.fail("--side-by-side and --split exclude each other: choose one")
    if scale is not None and size is not None:
        errors.fail("--scale and --size exclude each other: choose one")
    view: Literal["plain", "side-by-side", "split"] = "side-by-side" if side_by_side else "split" if split else "plain"
    part = Part(parse_time(start), None if duration is None else parse_time(duration))
    video = VideoOptions(view, scale if size is None else parse_size(size), codec, crf, past_frames, part)
    options = SharpenerOptions(model, provider, threads, strength, look)
    with _adapted(options, source, target, codec, overwrite=overwrite) if adapt else nullcontext(model) as chosen:
        done = run(source, target, replace(options, model=chosen), video, dry_run=dry_run, overwrite=overwrite)
    if done.text:
        typer.echo(done.text)
    if done.note:
        typer.echo(done.note, err=True)
    if done.interrupted:
        warn(f"interrupted: {done.interrupted}")
        raise typer.Exit(130)
    if done.failed:
        errors.fail(done.failed)


@contextmanager
def _adapted(
    options: "SharpenerOptions", source: Path, target: Path | None, codec: "VideoCodec | None", *, overwrite: bool
) -> Iterator[str]:
    """Yield the network for a video, adapted to it, or unchanged if adapting does not improve it."""
    from clearcall.core.console import warn
    from clearcall.core.files import TEACHER, check_target
    from clearcall.media.images import is_image
    from clearcall.media.sharpen import PIPE
    from clearcall.media.video.read import opened, rate_of, video_stream
    from clearcall.media.video.write import container_of
    from clearcall.runtime.family import settled
    from clearcall.runtime.sharpener import shipped_name
    from clearcall.training.adapt import adapt, write_adapted

    if target is None or source.is_dir() or is_image(source):
        errors.fail(f"{source}: --adapt takes a single video and its result: leave it out")
    if str(target) != PIPE:
        check_target(target, source, overwrite=overwrite)
        container_of(target, codec)
    with opened(source) as video:
        stream = video_stream(video, source)
        graph = settled(options.for_videos(), (stream.width, stream.height), rate_of(stream)).graph
    if (name := shipped_name(graph)) is None:
        errors.fail(f"{options.model} cannot be adapted: leave out --adapt, or give --model a shipped network")
    with TemporaryDirectory() as folder:
        output = Path(folder) / f"{name}_adapted.onnx"
        try:
            write_adapted(adapt([source], name, TEACHER), output)
        except errors.NothingToLearnError as error:
            warn(f"not adapted: {error}")
            yield name
            return
        yield str(output)


def camera(
    source: Annotated[
        str | None,
        typer.Argument(
            callback=refuse_folder,
            help="A camera, rtsp:// or http:// for one of the network, or a video. [default: /dev/video0]",
        ),
    ] = None,
    *,
    model: Model = "auto",
    provider: Provider = "auto",
    threads: Threads = None,
    low_power: LowPower = False,
    strength: Strength = 1.0,
    look: LookOption = DEFAULT_LOOK,
    past_frames: Annotated[bool, typer.Option("--past-frames/--no-past-frames", help="Filter over time.")] = True,
    fps: Annotated[int | None, typer.Option(min=1, max=240, help="Fixed rate; the source's if not given.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Width x height; 1280x720, of a video its largest, if not given.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="preview, virtual or a video file; repeatable. preview if not given.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after this time.")] = None,
    overlay: Annotated[
        bool | None, typer.Option("--overlay/--no-overlay", help="Status on the frames; on the preview if not given.")
    ] = None,
    again: Annotated[bool, typer.Option("--loop", help="Repeat a video without end.")] = False,
    adapt: Annotated[bool, typer.Option("--adapt", help="Adapt the network to the call in the background.")] = False,
    overwrite: Overwrite = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List cameras and outputs, with what to do where one does not work.")
    ] = False,
) -> None:
    """Sharpen a camera live at a fixed rate; a frame that would be late is passed through as it came.

    If the machine cannot hold the rate, frames are processed at a smaller size. In the preview, space switches
    sharpening off and on, q ends. Ctrl-C ends too; a video of what was done until then is kept.

    Example: clearcall camera --output virtual --output preview

    Example: clearcall camera rtsp://192.168.1.20/stream
    """
    from clearcall.core.machine import hold_one_core
    from clearcall.imaging.sizes import parse_size
    from clearcall.media.camera.listing import list_devices
    from clearcall.media.camera.run import Settings, run_camera
    from clearcall.media.options import SharpenerOptions
    from clearcall.training.live import LiveAdaptation

    if listed:
        for line in list_devices():
            typer.echo(line)
        return
    if low_power:
        hold_one_core()
    settings = Settings(
        source=source,
        outputs=tuple(output or ("preview",)),
        fps=fps,
        size=None if size is None else parse_size(size),
        seconds=seconds,
        overlay=overlay,
        again=again,
        past_frames=past_frames,
        overwrite=overwrite,
        adapting=LiveAdaptation if adapt else None,
    )
    summary = run_camera(SharpenerOptions(model, provider, threads, strength, look).for_camera(), settings)
    typer.echo(summary)
    if summary.trouble:
        errors.fail(summary.trouble)


def compare(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="An image, a video, of which the middle is shown, a folder of images, or the data set "
            "low_resolution_photographs.",
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A PNG, beside IN if not given, or an HTML page with a slider, which plays 5 s of a video; of a "
            "folder, where real_images.md goes."
        ),
    ] = None,
    model: Model = "auto",
    provider: Provider = "auto",
    threads: Threads = None,
    strength: Strength = 1.0,
    look: LookOption = DEFAULT_LOOK,
    overwrite: Overwrite = False,
    examples: Annotated[
        int | None, typer.Option(min=1, help="How many images are shown; 6.", rich_help_panel=_OF_FOLDERS)
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(min=16, help="Side in pixels of what is shown at 3x; 96.", rich_help_panel=_OF_FOLDERS),
    ] = None,
) -> None:
    """Show input and output side by side with their most detailed part enlarged, or on a page with a slider.

    Of a folder of blurred images, which have no sharp versions, the blur of each is measured before and after as well.
    The data set low_resolution_photographs is downloaded by Kaggle's client where that is installed and logged in.

    Example: clearcall compare blurred.jpg

    Example: clearcall compare call.mp4 --output call.html

    Example: clearcall compare old_photographs --model quality --output old
    """
    from clearcall.media.options import SharpenerOptions

    options = SharpenerOptions(model, provider, threads, strength, look)
    if source.is_dir() or not (source.is_file() or source.suffix):
        from clearcall.reporting.real_images import compare_folder

        reports = output or Path("reports")
        typer.echo(compare_folder(str(source), reports, options, examples or 6, crop or 96, overwrite=overwrite))
        return
    from clearcall.media.compare import write_before_after
    from clearcall.media.images import is_image

    if examples or crop:
        errors.fail(f"{source} is not a folder: leave out --examples and --crop")
    sharpener = options.for_images() if is_image(source) else options.for_videos()
    typer.echo(f"written: {write_before_after(sharpener, source, output, overwrite=overwrite)}")
