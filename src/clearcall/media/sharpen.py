"""Sharpen an image, a video, or a folder of both: what the input is decides."""

import sys
from dataclasses import dataclass
from pathlib import Path

from clearcall.core.errors import UserError
from clearcall.media.folder import sharpen_folder
from clearcall.media.images import FORMATS, KINDS, is_image, sharpen_file
from clearcall.media.options import SharpenerOptions, VideoOptions
from clearcall.media.video.animation import is_animation
from clearcall.media.video.read import VIDEO_SUFFIXES
from clearcall.media.video.run import pipe_video, sharpen_video, time_video

PIPE = "-"  # in place of a file: standard input or output
_UNTIL_THEN = "what was done until then"


@dataclass(frozen=True)
class Done:
    """Result in one line ("" in a pipe), failed files, and what an interrupt left of a video."""

    text: str
    failed: str = ""
    interrupted: str = ""
    note: str = ""  # for standard error, where standard output holds the result


def sharpen(
    source: Path,
    target: Path | None,
    options: SharpenerOptions,
    video: VideoOptions,
    *,
    dry_run: bool = False,
    overwrite: bool = False,
) -> Done:
    """Sharpen `source` into `target`; with `dry_run` time a video and write nothing.

    A file that exists is replaced only with `overwrite`. Raises UserError for options that contradict each other or do
    not fit the input, and for whatever `sharpen_file`, `sharpen_folder` and `sharpen_video` refuse.
    """
    if PIPE in {str(source), str(target)}:
        return _pipe(source, target, options, video, dry_run=dry_run)
    if source.is_dir():
        _refuse(source, "a folder", ["--dry-run"] if dry_run else [])
        summary = sharpen_folder(options, source, _required(target, source, "folder"), video, overwrite=overwrite)
        failed = f"{summary.failed} of the files could not be sharpened; each is named above" if summary.failed else ""
        return Done(str(summary), failed=failed)
    if is_image(source):
        _refuse(source, "an image", [*(["--dry-run"] if dry_run else []), *video.given()])
        sharpener, target = options.for_images(), _required(target, source, "file")
        sharpen_file(sharpener, source, target, video.size, overwrite=overwrite)
        return Done(f"{target} ({sharpener.choice})")
    if dry_run:
        return _time_video(source, target, options, video)
    target = _required(target, source, "file", ", or say --dry-run to write none")
    if not source.exists():
        raise UserError(f"there is no image, video or folder {source}")
    if target.suffix.lower() in FORMATS and source.suffix.lower() not in VIDEO_SUFFIXES and not is_animation(source):
        raise UserError(
            f"{source} is no image that can be read ({KINDS}): save it as PNG first; of a video the result ends in .mp4"
        )
    done = sharpen_video(options.for_videos(), source, target, **vars(video), overwrite=overwrite)
    kept = f"{target} holds {_UNTIL_THEN}; run again with --overwrite to go on"
    return Done(f"{target}: {done}", interrupted=kept if done.interrupted else "")


def _pipe(source: Path, target: Path | None, options: SharpenerOptions, video: VideoOptions, *, dry_run: bool) -> Done:
    """Sharpen a video or standard input into standard output."""
    if target is None or str(target) != PIPE or dry_run:
        raise UserError("standard input is sharpened into standard output alone: say `clearcall sharpen - -`")
    if is_image(source):
        raise UserError(f"{source} is an image, and a pipe carries video: name a file for the result")
    if video.view != "plain" or video.crf is not None or video.codec is not None:
        raise UserError(
            "a pipe carries plain frames that are not encoded: leave out --side-by-side, --split, --codec and --crf"
        )
    if sys.stdout.isatty():
        raise UserError("standard output is a terminal, which shows no video: pipe it on, with `| mpv -` for example")
    given = None if str(source) == PIPE else source
    made = options.for_videos()
    summary = pipe_video(made, given, size=video.size, past_frames=video.past_frames, part=video.part)
    kept = f"standard output holds {_UNTIL_THEN}" if summary.interrupted else ""
    return Done("", interrupted=kept, note=f"{source}: {summary}")


def _time_video(source: Path, target: Path | None, options: SharpenerOptions, video: VideoOptions) -> Done:
    if target is not None or video.view != "plain" or video.crf is not None or video.codec is not None:
        raise UserError("--dry-run writes nothing: leave out OUT, --side-by-side, --split, --codec and --crf")
    made = options.for_videos()
    summary = time_video(made, source, size=video.size, past_frames=video.past_frames, part=video.part)
    kept = f"that is of {_UNTIL_THEN}" if summary.interrupted else ""
    return Done(f"{source}: {summary}; nothing was encoded or written", interrupted=kept)


def _refuse(source: Path, kind: str, options: list[str]) -> None:
    """Raise UserError if options of a video were given for something else."""
    if options:
        raise UserError(f"{source} is {kind}: leave out {', '.join(options)}, which a single video takes")


def _required(target: Path | None, source: Path, kind: str, otherwise: str = "") -> Path:
    if target is None:
        raise UserError(f"name a {kind} for the result{otherwise}: clearcall sharpen {source} OUT")
    if kind == "file" and target.is_dir():
        example = target / f"sharp_{source.name}"
        raise UserError(f"{target} is a folder and {source} a file: name a file, such as {example}")
    return target
