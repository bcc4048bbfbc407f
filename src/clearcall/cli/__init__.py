"""The command `clearcall`. Heavy libraries are imported by the command that needs them: `--help` is instant."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

import clearcall
from clearcall.core import errors
from clearcall.imaging.looks import DEFAULT_LOOK, VIDEO_LOOK, Look

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sharpen blurred, low-bandwidth video-call pictures in real time. The pipeline itself is run by `dvc repro`.",
)


def _resolved(model: str) -> str:
    """Return a model's file where an MLflow URI was given: nothing below the commands knows of MLflow."""
    if not model.startswith(("models:/", "runs:/")):
        return model
    from clearcall.tracking.runs import download_model  # noqa: PLC0415

    return str(download_model(model))


def _all_resolved(models: list[str] | None) -> list[str]:
    return [_resolved(model) for model in models or []]


_Model = Annotated[
    str,
    typer.Option(
        callback=_resolved,
        help="fast, quality, an ONNX file that clearcall exported, an MLflow URI, or auto: the best, for video and "
        "camera the best that holds the frame rate here.",
    ),
]
_Provider = Annotated[Literal["auto", "onnxruntime", "openvino"], typer.Option(help="The runtime; auto measures.")]
_Threads = Annotated[int | None, typer.Option(min=1, help="How many threads; measured if not given.")]
_Strength = Annotated[float, typer.Option(min=0, max=2, help="How much of what the network adds is added.")]
_Look = Annotated[Look, typer.Option(help="natural, or crisp: with a mild unsharp mask behind the network.")]
_PastFrames = Annotated[
    bool,
    typer.Option(
        "--past-frames/--no-past-frames", help="Use what earlier frames show of each, where most of the picture moves."
    ),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]


def _show_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"clearcall {clearcall.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _show_version(wanted=value), is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def gate(
    *,
    replace_champion: Annotated[
        bool, typer.Option(help="Take the alias `champion` even from a model measured on other test pictures.")
    ] = False,
    registry: Annotated[
        bool, typer.Option("--registry/--no-registry", help="Promote the model in the MLflow registry, or only judge.")
    ] = True,
) -> None:
    """Fail with exit code 1 unless the trained student may be shipped.

    Each check is printed with its value and its limit; the limits stand in params.yaml under `gate`. A model that
    passes becomes `champion` in the MLflow registry if its SSIM is higher than the present champion's on the same test
    pictures. If the registry cannot be used, or the two cannot be compared, the exit code is 1 too.

    Example: dvc repro && clearcall gate
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from clearcall.params import load_params  # noqa: PLC0415
    from clearcall.tracking.gate import judge, read_reports  # noqa: PLC0415

    params = load_params()
    found = read_reports(params.paths)
    checks = judge(found, params.gate)
    table = Table("check", "value", "at least", "")
    for check in checks:
        verdict = "[green]passed[/]" if check.passed else "[red]FAILED[/]"
        table.add_row(check.name, f"{check.value:.6g}", f"{check.limit:g}", verdict)
    Console().print(table)

    from clearcall.tracking.registry import mark_failed, promote  # noqa: PLC0415

    model = (params.publish.model_name, found["export_onnx"]["student"]["sha256"])
    if failed := [check.name for check in checks if not check.passed]:
        if registry:
            mark_failed(*model)
        errors.fail(f"the gate is not passed: {', '.join(failed)}")
    typer.echo(promote(*model, replace=replace_champion) if registry else "the gate is passed")


@app.command()
def measured_here() -> None:
    """Succeed if the fps in the reports was measured on this machine; otherwise say where it was, with exit code 1.

    Example: clearcall measured-here || dvc repro -f -s benchmark_fps
    """
    from clearcall.params import load_params  # noqa: PLC0415
    from clearcall.tracking.gate import require_same_machine  # noqa: PLC0415

    require_same_machine(load_params().paths.reports)


@app.command()
def params() -> None:
    """Check params.yaml: unknown keys, wrong types and values out of range are named, with exit code 1.

    Example: clearcall params
    """
    from clearcall.models.build import check_model_names  # noqa: PLC0415
    from clearcall.params import load_params  # noqa: PLC0415

    check_model_names(load_params())
    typer.echo("params.yaml is right")


@app.command()
def mend() -> None:
    """Free DVC's locks of killed processes, and restore a dvc.lock that was cut; `make repro` does it first.

    Example: clearcall mend && dvc repro
    """
    from clearcall.experiments.dvc import mend_dvc  # noqa: PLC0415
    from clearcall.tracking.runs import project_root  # noqa: PLC0415

    mend_dvc(project_root())


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A study in experiments/, for example ablation.")],
    *,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings side by side, each on one thread.")] = 2,
    time: Annotated[bool, typer.Option("--time", help="Time the networks at 1080p too, on a quiet machine.")] = False,
) -> None:
    """Train every point of a study and write reports/<study>.csv and .md; what is in the CSV already is not redone.

    The pairs are those of the last `dvc repro`, the teacher too where a point needs one.

    Example: clearcall study ablation
    """
    from clearcall.experiments.experiment import load_experiment  # noqa: PLC0415
    from clearcall.experiments.study import run_study, time_study  # noqa: PLC0415
    from clearcall.params import load_params  # noqa: PLC0415
    from clearcall.reporting.experiments import over_first, results_table, write_study  # noqa: PLC0415

    found, reports = load_experiment(name), load_params().paths.reports
    if time:
        time_study(found, reports)
    rows = run_study(found, reports, jobs, partial(write_study, found, reports))
    typer.echo(results_table(rows, over_first(rows)))


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="A recipe in experiments/, for example fast.")],
    *,
    small: Annotated[
        bool, typer.Option("--small", help="With the values that make it small, where it has some.")
    ] = False,
) -> None:
    """Print a recipe's values as arguments of `dvc exp run`, checked against params.yaml.

    Example: eval "dvc exp run $(clearcall recipe fast)"
    """
    from clearcall.experiments.dvc import as_arguments  # noqa: PLC0415
    from clearcall.experiments.experiment import load_experiment  # noqa: PLC0415
    from clearcall.params import read_yaml  # noqa: PLC0415

    typer.echo(as_arguments(load_experiment(name).overrides(small=small), read_yaml(Path("params.yaml"))))


@app.command()
def recipes(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Recipes in experiments/; all published systems if none."),
    ] = None,
    *,
    photos: Annotated[
        Path | None, typer.Option(help="A folder of photographs, in place of the source that the recipe names.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Of these photographs.")] = "unknown",
    full: Annotated[bool, typer.Option("--full", help="The whole schedule as published, which takes days.")] = False,
    budget: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of each training's steps that is run.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The folder of recipes.md.")] = Path("reports"),
) -> None:
    """Run published systems as DVC experiments and write reports/recipes.md: their figures beside ours.

    Each is made small enough for ten minutes on two cores, unless told otherwise. The working tree stays as it is;
    `dvc exp show` lists the experiments, `dvc exp apply recipe-NAME` takes one over.

    Example: clearcall recipes luminous dncnn --photos ../photos
    """
    from clearcall.experiments.recipe import plan_recipes, run_recipes  # noqa: PLC0415
    from clearcall.reporting.experiments import write_recipe  # noqa: PLC0415

    runs = plan_recipes(names or [], full=full, budget=budget, photos=photos, licence=licence)
    run_recipes(runs, lambda outcome: typer.echo(write_recipe(output, outcome)))


@app.command()
def ship(
    name: Annotated[str, typer.Argument(help="The name under which users will call it, for example fast.")],
    *,
    made_by: Annotated[str, typer.Option(help="The command that trained it, for the model card.")] = "dvc repro",
) -> None:
    """Take the student of the last `dvc repro` into the package: ONNX, safetensors and model card.

    Example: clearcall ship fast --made-by "make ship NAME=fast PHOTOS=../photos"
    """
    from clearcall.params import load_params  # noqa: PLC0415
    from clearcall.reporting.card import model_card  # noqa: PLC0415
    from clearcall.runtime.sharpener import SHIPPED  # noqa: PLC0415
    from clearcall.tracking.ship import ship as take  # noqa: PLC0415

    params = load_params()
    typer.echo(f"written: {take(name, params, SHIPPED, made_by, partial(model_card, name, params, made_by))}")


@app.command()
def ship_filter(
    photographs: Annotated[Path, typer.Argument(metavar="PHOTOS", help="A folder of photographs to learn from.")],
    *,
    licence: Annotated[str, typer.Option(help="Of the photographs, for the card.")] = "unknown",
) -> None:
    """Fit what says how much of earlier frames each part of a frame gets, and take it into the package.

    Photographs and pages of text pan and zoom, or bend as faces do, some with noise or lights that change, and are sent
    through all codecs; photographs below 352 pixels a side are left out. A quarter of an hour for 200 on two cores.

    Example: clearcall ship-filter ../photos/train
    """
    from clearcall.data.clips import clip_files  # noqa: PLC0415
    from clearcall.experiments.fit_filter import ship_filter as fit  # noqa: PLC0415
    from clearcall.imaging.decode import SUFFIXES  # noqa: PLC0415
    from clearcall.temporal.filter import WEIGHTS  # noqa: PLC0415

    files = [path for path in clip_files(photographs) if path.suffix.lower() in SUFFIXES]
    gain_db = fit(files, licence, WEIGHTS)
    typer.echo(f"{gain_db:+.3f} dB of luma on what it learnt from; written: {WEIGHTS}")


@app.command()
def image(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A PNG, JPEG, WebP or TIFF picture.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The result; its suffix tells the format.")],
    *,
    model: _Model = "auto",
    provider: _Provider = "auto",
    threads: _Threads = None,
    strength: _Strength = 1.0,
    look: _Look = DEFAULT_LOOK,
    overwrite: _Overwrite = False,
) -> None:
    """Sharpen one picture; its depth, transparency, EXIF and colour profile are kept.

    Example: clearcall image blurred.jpg sharp.jpg --strength 0.8
    """
    from clearcall.media.images import picture_sharpener, sharpen_file  # noqa: PLC0415

    sharpener = picture_sharpener(model, provider, threads, strength, look)
    sharpen_file(sharpener, source, target, overwrite=overwrite)
    typer.echo(f"{target} ({sharpener.choice})")


@app.command()
def folder(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of pictures; those in its folders too.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of the results, under the same names.")],
    *,
    model: _Model = "auto",
    provider: _Provider = "auto",
    threads: _Threads = None,
    strength: _Strength = 1.0,
    look: _Look = DEFAULT_LOOK,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do all again, and replace files that are not ours.")
    ] = False,
) -> None:
    """Sharpen every picture of a folder; run again, it goes on where it was and does what has changed.

    One that cannot be read is named and the others go on, with exit code 1 at the end.

    Example: clearcall folder photos sharpened
    """
    from clearcall.media.folder import sharpen_folder  # noqa: PLC0415
    from clearcall.media.images import picture_sharpener  # noqa: PLC0415

    sharpener = picture_sharpener(model, provider, threads, strength, look)
    result = sharpen_folder(sharpener, source, target, overwrite=overwrite)
    typer.echo(f"{result} ({sharpener.choice or 'nothing to do'})")
    if result.failed:
        errors.fail(f"{result.failed} of the pictures could not be sharpened; each is named above")


@app.command()
def look(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER", help="A folder of pictures, or low_resolution_photographs.")
    ],
    *,
    model: _Model = "auto",
    provider: _Provider = "auto",
    threads: _Threads = None,
    strength: _Strength = 1.0,
    pictures: Annotated[int, typer.Option(min=1, help="How many are shown.")] = 6,
    crop: Annotated[int, typer.Option(min=16, help="Side in pixels of what is shown of each, at 3x.")] = 96,
    output: Annotated[Path, typer.Option(help="The folder of real_pictures.md.")] = Path("reports"),
) -> None:
    """Sharpen really blurred pictures, which have no sharp version: side by side, and how blurred each is.

    The data set low_resolution_photographs is downloaded by Kaggle's client where that is installed and logged in.

    Example: clearcall look old_pictures --model quality
    """
    from clearcall.media.images import picture_sharpener  # noqa: PLC0415
    from clearcall.reporting.real_images import look as compare  # noqa: PLC0415
    from clearcall.runtime.sharpener import named_model  # noqa: PLC0415

    model = named_model(model)
    looks = compare(source, output, picture_sharpener(model, provider, threads, strength), model, pictures, crop)
    sharper = sum(one.blur_after < one.blur_before for one in looks)
    typer.echo(f"{sharper} of {len(looks)} have less blur; written: {output / 'real_pictures.md'}")


@app.command()
def video(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A video in any format that FFmpeg reads, or an animated WebP.")
    ],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The result: .mp4, .m4v, .mov, .mkv or .webm; none with --dry-run."),
    ] = None,
    *,
    model: _Model = "auto",
    provider: _Provider = "auto",
    threads: _Threads = None,
    strength: _Strength = 1.0,
    look: _Look = VIDEO_LOOK,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Input to the left, result beside it.")] = False,
    split: Annotated[bool, typer.Option("--split", help="Left half input, right half result.")] = False,
    size: Annotated[
        str | None, typer.Option(help="Width x height of the result; the largest that occurs, if not given.")
    ] = None,
    crf: Annotated[int | None, typer.Option(min=0, max=51, help="Quality: less is better; 18, in WebM 24.")] = None,
    past_frames: _PastFrames = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: how fast are decoding and sharpening here?")
    ] = False,
    overwrite: _Overwrite = False,
) -> None:
    """Sharpen a film; sound, subtitles, times, colours, rotation, chapters and metadata are kept.

    The result is H.264, in WebM VP9; HDR stays HDR, as 10-bit HEVC, in WebM AV1. Smaller frames are upscaled to the
    largest. Ctrl-C leaves a video of what was done until then.

    Example: clearcall video call.mp4 sharp.mp4

    Example: clearcall video call.mp4 --dry-run
    """
    from functools import partial  # noqa: PLC0415

    from clearcall.core.console import warn  # noqa: PLC0415
    from clearcall.imaging.sizes import parse_size  # noqa: PLC0415
    from clearcall.media.video.run import sharpen_video, time_video  # noqa: PLC0415
    from clearcall.runtime.family import sharpener_for  # noqa: PLC0415  # the runtime takes a moment
    from clearcall.runtime.sharpener import Sharpener  # noqa: PLC0415

    if side_by_side and split:
        errors.fail("--side-by-side and --split exclude each other: choose one")
    if target is None and not dry_run:
        errors.fail("name a file for the result, or say --dry-run to write none: clearcall video call.mp4 sharp.mp4")
    if dry_run and (target is not None or side_by_side or split or crf is not None):
        errors.fail("--dry-run writes nothing: leave out OUT, --side-by-side, --split and --crf")
    asked = None if size is None else parse_size(size)
    make = partial(Sharpener, provider=provider, threads=threads, strength=strength, look=look)
    sharpener = sharpener_for(model, make, "video")
    view: Literal["plain", "side-by-side", "split"] = "side-by-side" if side_by_side else "split" if split else "plain"
    if target is None:
        summary = time_video(sharpener, source, size=asked, past_frames=past_frames)
    else:
        summary = sharpen_video(
            sharpener,
            source,
            target,
            view=view,
            size=asked,
            crf=crf,
            past_frames=past_frames,
            overwrite=overwrite,
        )
    typer.echo(f"{target or source}: {summary}")
    if summary.interrupted:
        warn(f"interrupted: {f'{target} holds' if target else 'that is of'} what was done until then")
        raise typer.Exit(130)


@app.command()
def camera(
    source: Annotated[
        str | None,
        typer.Argument(help="A camera, or a film, which is played at its own pace. [default: /dev/video0]"),
    ] = None,
    *,
    model: _Model = "auto",
    provider: _Provider = "auto",
    threads: _Threads = None,
    strength: _Strength = 1.0,
    look: _Look = VIDEO_LOOK,
    past_frames: _PastFrames = True,
    fps: Annotated[int | None, typer.Option(min=1, max=240, help="The fixed rate; the source's if not given.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Width x height; 1280x720, of a video its largest, if not given.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="preview, virtual or a film's name; repeatable. preview if not given.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after this time.")] = None,
    overlay: Annotated[
        bool | None, typer.Option("--overlay/--no-overlay", help="Status on the picture; on the preview if not given.")
    ] = None,
    again: Annotated[bool, typer.Option("--loop", help="Play a film over and over.")] = False,
    overwrite: _Overwrite = False,
) -> None:
    """Sharpen a camera live, at a fixed rate: a frame that would be late is passed through as it came.

    If the machine cannot hold the rate, frames are processed at a smaller size. In the preview, space switches
    sharpening off and on, q ends. Ctrl-C ends too; a film of what was done until then is kept.

    Example: clearcall camera --output virtual --output preview
    """
    from functools import partial  # noqa: PLC0415

    from clearcall.imaging.sizes import parse_size  # noqa: PLC0415
    from clearcall.media.camera.run import Settings, run_camera  # noqa: PLC0415
    from clearcall.runtime.family import CAMERA_HEADROOM, sharpener_for  # noqa: PLC0415
    from clearcall.runtime.sharpener import Sharpener  # noqa: PLC0415

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
    )
    make = partial(Sharpener, provider=provider, threads=threads, strength=strength, look=look, video=True)
    summary = run_camera(sharpener_for(model, make, "camera", CAMERA_HEADROOM), settings)
    typer.echo(summary)
    if summary.trouble:
        errors.fail(summary.trouble)


@app.command()
def compare(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A picture, or a film, of which the middle is shown.")],
    target: Annotated[
        Path | None, typer.Argument(metavar="[OUT.png]", help="The result; beside IN if not given.", show_default=False)
    ] = None,
    *,
    model: _Model = "auto",
    provider: _Provider = "auto",
    threads: _Threads = None,
    strength: _Strength = 1.0,
    overwrite: _Overwrite = False,
) -> None:
    """Show input and output beside each other in one picture, and their most detailed part enlarged.

    Example: clearcall compare blurred.jpg
    """
    from clearcall.media.compare import write_before_after  # noqa: PLC0415
    from clearcall.runtime.sharpener import Sharpener  # noqa: PLC0415

    sharpener = Sharpener(model, provider, threads, strength)
    typer.echo(f"written: {write_before_after(sharpener, source, target, overwrite=overwrite)}")


@app.command()
def calls(
    clips: Annotated[
        Path, typer.Argument(metavar="CLIPS", help="A folder of films, or of photographs to move; or bundled.")
    ],
    *,
    model: _Model = "auto",
    provider: _Provider = "auto",
    threads: _Threads = None,
    strength: _Strength = 1.0,
    codec: Annotated[
        list[str] | None, typer.Option(help="h264, vp8, vp9 or av1; repeatable. All of them if not given.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Frames of each clip.")] = 10,
    height: Annotated[int, typer.Option(min=64, help="Pixels; higher clips are made smaller.")] = 720,
    motion: Annotated[
        Literal["pan", "bend"],
        typer.Option(help="Of photographs: a camera pans over them, or they stand still and bend as faces do."),
    ] = "pan",
    output: Annotated[Path, typer.Option(help="The folder of calls.md, .csv and .png.")] = Path("reports"),
) -> None:
    """Send clips through real encoders at four quantizers, sharpen what arrives in both looks, and measure each frame.

    The word `bundled` stands for the photographs that come with the pipeline's packages.

    Example: clearcall calls clips --model quality --codec h264
    """
    import shlex  # noqa: PLC0415
    from functools import partial  # noqa: PLC0415

    from clearcall.data.clips import clip_files, read_clip  # noqa: PLC0415
    from clearcall.evaluation.calls import measure_clips  # noqa: PLC0415
    from clearcall.media.images import picture_sharpener  # noqa: PLC0415
    from clearcall.params import call_codecs  # noqa: PLC0415
    from clearcall.reporting.calls import verdict, write_calls  # noqa: PLC0415
    from clearcall.runtime.sharpener import named_model  # noqa: PLC0415

    files, codecs, model = clip_files(clips), call_codecs(codec or ()), named_model(model)
    looks = {look: picture_sharpener(model, provider, threads, strength, look) for look in get_args(Look)}
    for sharpener in looks.values():
        sharpener.coded = True
    scores, strips = measure_clips(
        files, partial(read_clip, frames=frames, height=height, motion=motion), codecs, looks
    )
    command = ["clearcall", "calls", clips.name, "--model", model, *(f"--codec={one}" for one in codec or ())]
    for option, value, default in (
        ("frames", frames, 10),
        ("height", height, 720),
        ("motion", motion, "pan"),
        ("strength", strength, 1.0),
    ):
        command += [f"--{option}={value}"] if value != default else []
    typer.echo(write_calls(scores, strips, model, shlex.join(command), output, motion))
    typer.echo(f"{verdict(scores)} Written: {output / 'calls.md'}")


@app.command()
def benchmark(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            callback=_all_resolved, help="A model beside the shipped ones: an ONNX file or MLflow URI; repeatable."
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

    Example: clearcall benchmark --size 1920x1080 --images photos --output here
    """
    from clearcall.evaluation.comparison import LEAST_SIDE, Settings, compare  # noqa: PLC0415
    from clearcall.imaging.sizes import parse_size  # noqa: PLC0415
    from clearcall.reporting.benchmark import write_comparison  # noqa: PLC0415
    from clearcall.reporting.terminal import print_comparison  # noqa: PLC0415

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


@app.command()
def benchmark_films(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            callback=_all_resolved, help="Repeatable; the last sharpens the camera. fast and quality if not given."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="How long the camera runs.")] = 60,
    output: Annotated[Path, typer.Option(help="The folder of films.md.")] = Path("reports"),
) -> None:
    """Measure a 1080p film, with past frames and without, and a 720p camera; as it stands, in about six minutes.

    Example: clearcall benchmark-films --model quality --seconds 600 --output here
    """
    import shlex  # noqa: PLC0415

    try:
        from clearcall.reporting.media_speed import benchmark_films as measure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        errors.fail(f"{error.name} is not installed: pip install 'clearcall[pipeline]'")
    models = model or ["fast", "quality"]
    command = ["clearcall", "benchmark-films", *(f"--model={one}" for one in model or ()), f"--seconds={seconds:g}"]
    typer.echo(f"written: {measure(models, shlex.join(command), output, seconds=seconds)}")


@app.command()
def summary() -> None:
    """Print the result table of the last run and where its report is.

    Example: clearcall summary
    """
    from clearcall.params import load_params  # noqa: PLC0415
    from clearcall.reporting.terminal import print_summary  # noqa: PLC0415

    print_summary(load_params().paths.reports)


@app.command()
def ui(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Show runs, curves and registered models in the MLflow UI, reachable from this machine only.

    Example: clearcall ui --port 5001
    """
    import os  # noqa: PLC0415

    from clearcall.tracking.runs import prepare_store, tracking_uri  # noqa: PLC0415

    if (uri := tracking_uri()).startswith("http"):
        typer.echo(f"MLFLOW_TRACKING_URI names a server: open {errors.redact(uri)}")
        return
    prepare_store()
    typer.echo(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    mlflow = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri  # no argument: others see those, and a password may be in it
    os.execv(sys.executable, mlflow)  # noqa: S606  # a list, no shell


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 1."""
    errors.run(lambda: sys.exit(app(standalone_mode=True)))
