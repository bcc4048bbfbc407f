"""The command that adapts a model to recordings of one's own."""

import shlex
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from clearcall.cli.options import Overwrite


def adapt(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORDING...", help="Videos as you received them, or folders of videos; with --sharp, your own."
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            help="The adapted model: .onnx, or .npz for the changed weights alone, of some 15 KB; a Markdown page, a "
            "PNG and a JSON file are written beside it."
        ),
    ],
    model: Annotated[str, typer.Option(help="The shipped network that is adapted.")] = "fast",
    teacher: Annotated[
        str, typer.Option(help="The teacher: `teacher`, which is shipped, or a shipped student.")
    ] = "teacher",
    sharp: Annotated[
        bool, typer.Option("--sharp", help="They are sharp, from your own camera; the model is for those you call.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each expert.")] = 800,
    overwrite: Overwrite = False,
) -> None:
    """Adapt a model to your own calls: it learns from what a larger one, the teacher, makes of your recordings.

    No sharp video is needed, and nothing leaves this machine. It takes a minute or two; a killed run resumes. Without a
    gain on frames that were held back, nothing is written.

    With --sharp it learns, from a sharp video of your own camera, to restore what encoders remove: give the file to
    those you call.

    Example: clearcall adapt monday.mp4 tuesday.mp4 --output me.onnx

    Example: clearcall sharpen wednesday.mp4 sharp.mp4 --model me.onnx

    Example: clearcall adapt meeting_room --output room.onnx

    Example: clearcall adapt my_camera.mp4 --sharp --output me.npz
    """
    from clearcall.core.errors import fail
    from clearcall.core.files import TEACHER, check_target
    from clearcall.data.clips import video_files
    from clearcall.reporting.adaptation import BESIDE, write_adaptation
    from clearcall.runtime.graph import PERSONAL
    from clearcall.training.adapt import adapt as run
    from clearcall.training.adapt import adapt_to_camera, write_adapted

    if output.suffix not in {".onnx", PERSONAL}:
        fail(f"{output} must end in .onnx, or in .npz for the changed weights alone")
    files = [file for path in recordings for file in (video_files(path) if path.is_dir() else [path])]
    for recording, suffix in product(files, (output.suffix, *BESIDE)):
        check_target(output.with_suffix(suffix), recording, overwrite=overwrite)
    if sharp and teacher != TEACHER:
        fail("--sharp needs no --teacher: it learns from the sharp frames")
    teacher = "" if sharp else teacher
    done = adapt_to_camera(files, model, steps) if sharp else run(files, model, teacher, steps)
    write_adapted(done, output)
    names = [path.resolve().name for path in recordings]
    command = ["clearcall", "adapt", *names, "--output", output.name, "--model", model]
    command += [*(["--sharp"] if sharp else ["--teacher", teacher]), f"--steps={steps}"]
    page = write_adaptation(done, output, model, teacher, names, shlex.join(command))
    aim = "sharp ones" if sharp else "teacher"
    for one in done.experts:
        kept = "" if one.kept else ", not kept"
        typer.echo(
            f"{one.name}: {one.general_db:.2f} -> {one.adapted_db:.2f} dB to the {aim} on held-back frames{kept}"
        )
    typer.echo(f"written: {output}, {page}")
    # Elsewhere than in a project there is no registry, and what is personal is for whom one gives it to.
    if not Path("params.yaml").is_file() or output.suffix == PERSONAL:
        return
    from clearcall.params import load_params
    from clearcall.tracking.registry import register_adapted

    values = {"adapted_from": model, "teacher": teacher or "none", "recordings": ", ".join(names)}
    typer.echo(register_adapted(load_params(), output, page, values, done.curves))


def bench_adapt(
    clips: Annotated[Path, typer.Argument(help="A folder of videos of sharp talking heads.")],
    *,
    model: Annotated[str, typer.Option(help="The shipped network that is adapted.")] = "fast",
    teacher: Annotated[
        str, typer.Option(help="The teacher: `teacher`, which is shipped, or a shipped student.")
    ] = "teacher",
    sharp: Annotated[bool, typer.Option("--sharp", help="Adapt to the sharp clips; write adapt_sharp.md.")] = False,
    frames: Annotated[int, typer.Option(min=24, help="Frames of each clip.")] = 150,
    height: Annotated[int, typer.Option(min=64, help="Clips are downscaled to this height.")] = 720,
    output: Annotated[Path, typer.Option(help="The folder of adapt.md.")] = Path("reports"),
) -> None:
    """Measure what `clearcall adapt` gains on clips against hidden references; write adapt.md and adapt.csv.

    Example: clearcall bench adapt ../heads
    """
    from functools import partial

    from clearcall.data.clips import clip_files, read_clip
    from clearcall.evaluation.adaptation import measure_adaptation
    from clearcall.reporting.adaptation import write_adaptation_benchmark

    read = partial(read_clip, frames=frames, height=height)
    scores = measure_adaptation(clip_files(clips), read, model, None if sharp else teacher)
    command = ["clearcall", "bench", "adapt", clips.resolve().name, "--model", model]
    command += ["--sharp"] if sharp else ["--teacher", teacher]
    typer.echo(write_adaptation_benchmark(scores, output, shlex.join(command)))
