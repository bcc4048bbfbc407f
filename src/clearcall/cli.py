"""The command `clearcall`. Heavy libraries are imported by the command that needs them: `--help` is instant."""

import sys
from typing import Annotated

import typer

import clearcall
from clearcall import errors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sharpen blurred, low-bandwidth video-call pictures in real time. The pipeline itself is run by `dvc repro`.",
)


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
) -> None:
    """Fail with exit code 1 unless the trained student may be shipped.

    Each check is printed with its value and its limit; the limits stand in params.yaml under `gate`. A model that
    passes becomes `champion` in the MLflow registry if its SSIM is higher than the present champion's on the same test
    pictures.

    Example: dvc repro && clearcall gate
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from clearcall.files import read_json  # noqa: PLC0415
    from clearcall.gate import judge, read_reports  # noqa: PLC0415
    from clearcall.params import load_params  # noqa: PLC0415

    params = load_params()
    found = read_reports(params.paths)
    checks = judge(found, params.gate)
    table = Table("check", "value", "at least", "")
    for check in checks:
        verdict = "[green]passed[/]" if check.passed else "[red]FAILED[/]"
        table.add_row(check.name, f"{check.value:.6g}", f"{check.limit:g}", verdict)
    Console().print(table)

    from clearcall.registry import Published, crown, mark_failed  # noqa: PLC0415

    path = params.paths.reports / "publish.json"
    published = Published(**read_json(path)) if path.is_file() else None
    registered = published is not None and published.onnx_sha256 == found["export_onnx"]["student"]["sha256"]
    if failed := [check.name for check in checks if not check.passed]:
        if published is not None and registered:
            mark_failed(published)
        errors.fail(f"the gate is not passed: {', '.join(failed)}")
    if published is None or not registered:
        errors.fail("the gate is passed, but this model is not registered: run `dvc repro publish`, then this again")
    typer.echo(crown(published, replace=replace_champion))


@app.command()
def measured_here() -> None:
    """Succeed if the fps in the reports was measured on this machine; otherwise say where it was, with exit code 1.

    Example: clearcall measured-here || dvc repro -f -s benchmark_fps
    """
    from clearcall.gate import require_same_machine  # noqa: PLC0415
    from clearcall.params import load_params  # noqa: PLC0415

    require_same_machine(load_params().paths.reports)


@app.command()
def params() -> None:
    """Check params.yaml: unknown keys, wrong types and values out of range are named, with exit code 1.

    Example: clearcall params
    """
    from clearcall.architectures import check_model_names  # noqa: PLC0415
    from clearcall.params import load_params  # noqa: PLC0415

    check_model_names(load_params())
    typer.echo("params.yaml is right")


@app.command()
def summary() -> None:
    """Print the result table of the last run and where its report is.

    Example: clearcall summary
    """
    from clearcall.params import load_params  # noqa: PLC0415
    from clearcall.summary import print_summary  # noqa: PLC0415

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

    from clearcall.tracking import tracking_uri  # noqa: PLC0415

    if (uri := tracking_uri()).startswith("http"):
        typer.echo(f"MLFLOW_TRACKING_URI names a server: open {uri}")
        return
    typer.echo(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    mlflow = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [*mlflow, "--backend-store-uri", uri])  # noqa: S606  # a list, no shell


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 1."""
    errors.run(lambda: sys.exit(app(standalone_mode=True)))
