"""The commands of an opinion study: create, serve, report."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from clearcall.cli.options import Overwrite

_StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="The folder that `create` has written.")]


def create(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of sharp images and videos.")],
    *,
    output: Annotated[Path, typer.Option(metavar="STUDY", help="The folder of the study.")],
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="input, unsharp or a shipped network; repeatable. input, unsharp, fast, quality if not given."
        ),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="Degradation; repeatable. bicubic_x2 and h264_x2_qp32 if not given."),
    ] = None,
    method: Annotated[
        Literal["acr", "pairs"], typer.Option(help="Rate each image from 1 to 5, or say which of two is better.")
    ] = "acr",
    crop: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of the part that is shown.")] = "512x512",
    seconds: Annotated[float, typer.Option(min=0.1, max=10, help="Length of the clip of a video.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Determines codec motion, file names and orders.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Degrade and restore the most detailed part of each image or video, and write the stimuli with study.json.

    A hidden reference is among them. A study that holds votes is never replaced.

    Example: clearcall opinion create photos --output study --system input --system quality
    """
    from clearcall.imaging.sizes import parse_size
    from clearcall.opinion.stimuli import CONDITIONS, SYSTEMS, create_study

    study = create_study(
        folder,
        output,
        systems=system or SYSTEMS,
        conditions=condition or CONDITIONS,
        method=method,
        crop=parse_size(crop, 64),
        seconds=seconds,
        seed=seed,
        overwrite=overwrite,
    )
    unit = "pairs" if method == "pairs" else "images"
    typer.echo(f"written: {output}, {len(study.rated)} {unit} to rate; next: clearcall opinion serve {output}")


def serve(
    study: _StudyFolder,
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 is any free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 need CLEARCALL_PASSWORD.")
    ] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Serve the page on which raters vote; each vote is stored at once. Ctrl-C ends it.

    Example: clearcall opinion serve study --port 8000 --no-open
    """
    from clearcall.opinion import server

    server.serve(study, port, host, open_browser=open_browser)


def report(
    study: _StudyFolder,
    *,
    output: Annotated[Path, typer.Option(help="The folder of opinion.md, opinion.png and votes.csv.")] = Path(
        "reports"
    ),
) -> None:
    """Report mean opinion scores with their intervals, screening of raters and paired tests.

    Example: clearcall opinion report study --output reports
    """
    from clearcall.opinion.stimuli import load_study
    from clearcall.reporting.opinion import write_opinion

    command = shlex.join(["clearcall", "opinion", "report", study.resolve().name])
    typer.echo(f"written: {write_opinion(load_study(study), output, command)}")
