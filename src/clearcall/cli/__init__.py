"""The command `clearcall`. Heavy libraries are imported by the command that needs them: `--help` is instant."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import clearcall
from clearcall.cli import adapt, measure, models, opinion, train, use, web
from clearcall.core import errors

_WEB = {"fastapi", "uvicorn"}  # of the extra of that name


def _group(about: str, **commands: Callable[..., None]) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=about)
    for name, command in commands.items():
        group.command(name.replace("_", "-"))(command)
    return group


_PANELS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Use": {
        "sharpen": use.sharpen,
        "camera": use.camera,
        "web": web.web,
        "compare": use.compare,
        "adapt": adapt.adapt,
    },
    "Measure": {
        "bench": _group(
            "Measure speed, calls, videos and adaptation on this machine.",
            speed=measure.speed,
            calls=measure.calls,
            video=measure.video,
            adapt=adapt.bench_adapt,
        ),
        "opinion": _group(
            "Ask people how good results look: make a study, serve it, report mean opinion scores.",
            create=opinion.create,
            serve=opinion.serve,
            report=opinion.report,
        ),
        "gate": measure.gate,
    },
    "Train and ship": {
        "params": train.params,
        "experiment": _group(
            "Run recipes and studies.", recipe=train.recipe, study=train.study, list=train.list_experiments
        ),
        "models": _group(
            "Manage registered models, and take networks into the package.",
            list=models.list_models,
            show=models.show,
            diff=models.diff,
            promote=models.promote,
            rollback=models.rollback,
            retire=models.retire,
            ship=train.ship,
            ship_filter=train.ship_filter,
        ),
        "ui": train.ui,
    },
}
_OF_THE_MAKEFILE = {"mend": train.mend, "measured-here": measure.measured_here, "summary": measure.summary}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Sharpen blurred, low-bandwidth video calls, videos and images in real time. `dvc repro` runs the pipeline.",
)
for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_command)
for _name, _command in _OF_THE_MAKEFILE.items():
    app.command(_name, hidden=True)(_command)


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


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 1."""
    errors.run(_run)


def _run() -> None:
    try:
        sys.exit(app())
    except ModuleNotFoundError as error:
        package = (error.name or "clearcall").split(".")[0]
        if package == "clearcall":
            raise
        extra = "web" if package in _WEB else "pipeline"
        raise errors.UserError(f"{package} is not installed: pip install 'clearcall[{extra}]'") from None
