"""Commands that measure: speed, calls and videos on this machine, and the gate of the trained student."""

import shlex
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import typer

from clearcall.cli.options import Model, Provider, Strength, resolve_models
from clearcall.core import errors
from clearcall.imaging.looks import Look


def speed(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            callback=resolve_models,
            help="A model beside the shipped ones: an ONNX file or MLflow URI; repeatable.",
        ),
    ] = None,
    size: Annotated[list[str] | None, typer.Option(help="Frame size such as 1920x1080; repeatable.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Number of threads; repeatable.")] = None,
    provider: Annotated[list[str] | None, typer.Option(help="onnxruntime or openvino; repeatable.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames for each contender; 200 if not given.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of images: measure quality on it, of all, too.")] = None,
    peers: Annotated[
        Path | None, typer.Option(help="Published weights as safetensors: imdn_x2, imdn_rtc_x2, clearsight_imdn_x2.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: 640x360, all cores, 20 frames.")] = False,
    output: Annotated[Path, typer.Option(help="The folder of benchmark.json, .md and the chart.")] = Path("reports"),
) -> None:
    """Compare our models, published networks and classical filters on this machine, in one run.

    Unless told otherwise: 720p, 1080p and 2160p, one thread and all cores, every runtime that is installed; about ten
    minutes. With --images the quality after bicubic x2 and H.264 too; filters are tuned on the folders `validation` or
    `train` in it and reported on `test`, or else on every other image and reported on the rest.

    Example: clearcall bench speed --size 1920x1080 --images photos --output here
    """
    from clearcall.evaluation.comparison import LEAST_SIDE, Settings, compare
    from clearcall.imaging.sizes import parse_size
    from clearcall.reporting.benchmark import write_comparison
    from clearcall.reporting.terminal import print_comparison

    settings = Settings(
        models=tuple(model or ()),
        sizes=tuple(parse_size(text, LEAST_SIDE) for text in size or ()),
        threads=tuple(threads or ()),
        providers=tuple(provider or ()),
        frames=frames or 0,
        quick=quick,
        images=images,
        peers=peers,
    )
    document = compare(settings)
    path = write_comparison(document, output)
    print_comparison(document)
    typer.echo(f"written: {path}")


def calls(
    clips: Annotated[
        Path, typer.Argument(metavar="CLIPS", help="A folder of videos, or of photographs to move; or bundled.")
    ],
    *,
    model: Model = "auto",
    provider: Provider = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Settings at a time; one a core if not given.")] = None,
    strength: Strength = 1.0,
    codec: Annotated[
        list[str] | None, typer.Option(help="h264, vp8, vp9 or av1; repeatable. All of them if not given.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Frames of each clip.")] = 10,
    height: Annotated[int, typer.Option(min=64, help="Pixels; higher clips are downscaled.")] = 720,
    motion: Annotated[
        Literal["pan", "bend"],
        typer.Option(help="Of photographs: a camera pans over them, or they stand still and bend as faces do."),
    ] = "pan",
    output: Annotated[Path, typer.Option(help="The folder of calls.md, .csv and .png.")] = Path("reports"),
) -> None:
    """Send clips through real encoders at four quantizers, sharpen the result in both looks, and measure each frame.

    The word `bundled` stands for the photographs that come with the pipeline's packages.

    Example: clearcall bench calls clips --model quality --codec h264
    """
    from functools import partial

    from clearcall.data.clips import clip_files, read_clip
    from clearcall.evaluation.calls import measure_clips
    from clearcall.media.options import SharpenerOptions
    from clearcall.params import call_codecs
    from clearcall.reporting.calls import verdict, write_calls
    from clearcall.runtime.sharpener import Choice, Sharpener, find_model, named_model

    files, codecs, model = clip_files(clips), call_codecs(codec or ()), named_model(model)
    measured = SharpenerOptions(model, provider, threads=1).for_images()
    measured.measure_fps(1280, 720)
    runtime = cast(Choice, measured.choice).provider  # there were frames
    sharpener = partial(Sharpener, find_model(model), runtime, 1, strength, video=True)
    looks = {look: partial(sharpener, look=look) for look in get_args(Look)}
    read = partial(read_clip, frames=frames, height=height, motion=motion)
    scores, strips = measure_clips(files, read, codecs, looks, threads)
    command = ["clearcall", "bench", "calls", clips.resolve().name, "--model", model]
    command += [f"--codec={one}" for one in codec or ()]
    given = {"frames": (frames, 10), "height": (height, 720), "motion": (motion, "pan"), "strength": (strength, 1.0)}
    command += [f"--{option}={value}" for option, (value, default) in given.items() if value != default]
    typer.echo(write_calls(scores, strips, model, shlex.join(command), output, motion))
    typer.echo(f"{verdict(scores)} Written: {output / 'calls.md'}")


def video(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            callback=resolve_models, help="Repeatable; the last sharpens the camera. fast and quality if not given."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=10, help="Frames of each video.")] = 150,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="How long the camera runs.")] = 60,
    output: Annotated[Path, typer.Option(help="The folder of video.md.")] = Path("reports"),
) -> None:
    """Measure 1080p videos of a panning and of a still camera, and a 720p camera; in about eight minutes by default.

    Example: clearcall bench video --model quality --seconds 600 --output here
    """
    from clearcall.reporting.media_speed import benchmark_videos

    models = model or ["fast", "quality"]
    command = ["clearcall", "bench", "video", *(f"--model={one}" for one in models)]
    command += [f"--frames={frames}", f"--seconds={seconds:g}"]
    typer.echo(f"written: {benchmark_videos(models, shlex.join(command), output, seconds=seconds, frames=frames)}")


def gate(
    *,
    replace_champion: Annotated[
        bool, typer.Option(help="Take the alias `champion` even from a model measured on other test images.")
    ] = False,
    registry: Annotated[
        bool, typer.Option("--registry/--no-registry", help="Promote the model in the MLflow registry, or only judge.")
    ] = True,
) -> None:
    """Fail with exit code 1 unless the trained student may be shipped.

    Each check is printed with its value and its limit; the limits stand in params.yaml under `gate`. A model that
    passes becomes `champion` in the MLflow registry if its SSIM is higher than the present champion's on the same test
    images. If the registry cannot be used, or the two cannot be compared, the exit code is 1 too.

    Example: dvc repro && clearcall gate
    """
    from clearcall.params import load_params
    from clearcall.reporting.terminal import print_checks
    from clearcall.tracking.gate import judge, read_reports
    from clearcall.tracking.registry import mark_failed, promote

    params = load_params()
    found = read_reports(params.paths)
    checks = judge(found, params.gate)
    print_checks(checks)
    model = (params.publish.model_name, found["export_onnx"]["student"]["sha256"])
    if failed := [check.name for check in checks if not check.passed]:
        if registry:
            mark_failed(*model)
        errors.fail(f"the gate is not passed: {', '.join(failed)}")
    typer.echo(promote(*model, replace=replace_champion) if registry else "the gate is passed")


def measured_here() -> None:
    """Succeed if the fps in the reports was measured on this machine; otherwise say where it was, with exit code 1.

    Example: clearcall measured-here || dvc repro -f -s benchmark_fps
    """
    from clearcall.params import load_params
    from clearcall.tracking.gate import require_same_machine

    require_same_machine(load_params().paths.reports)


def summary() -> None:
    """Print the result table of the last run and where its report is.

    Example: clearcall summary
    """
    from clearcall.params import load_params
    from clearcall.reporting.terminal import print_summary

    print_summary(load_params().paths.reports)
