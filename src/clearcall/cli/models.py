"""Commands for registered models: list, show, compare, promote, roll back, retire."""

from typing import Annotated

import typer

_Which = Annotated[str, typer.Argument(metavar="VERSION|ALIAS", help="A version's number, or an alias.")]
_Name = Annotated[
    str | None, typer.Option("--model", help="A registered model, if not publish.model_name of params.yaml.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is recorded. At most 500 characters.")]


def list_models(
    *,
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help="version, ssim, psnr_db, ssim_over_unsharp, psnr_db_over_unsharp, fps, parameters, macs or when.",
        ),
    ] = "version",
    ascending: Annotated[bool, typer.Option("--ascending", help="The smallest or oldest first.")] = False,
    model: _Name = None,
    json: _Json = False,
) -> None:
    """List the registered versions, the newest first: figures, gains over the unsharp mask, and where they come from.

    Example: clearcall models list --sort psnr_db
    """
    from clearcall.reporting.registered import as_json, print_versions
    from clearcall.tracking.models import list_versions

    name = _name(model)
    found = list_versions(name, sort, ascending=ascending)
    typer.echo(as_json(found)) if json else print_versions(name, found)


def show(version: _Which, *, model: _Name = None, json: _Json = False) -> None:
    """Show everything known of a version: figures, tags, params, and who moved its aliases when and why.

    Example: clearcall models show champion
    """
    from clearcall.reporting.registered import as_json, print_version
    from clearcall.tracking.models import show_version

    found = show_version(_name(model), version)
    typer.echo(as_json(found)) if json else print_version(found)


def diff(
    first: _Which,
    second: _Which,
    *,
    model: _Name = None,
    json: _Json = False,
) -> None:
    """Compare two versions: metrics with the difference, second minus first, and the params that differ.

    Example: clearcall models diff champion candidate
    """
    from clearcall.reporting.registered import as_json, print_comparison
    from clearcall.tracking.models import compare_versions

    found = compare_versions(_name(model), first, second)
    typer.echo(as_json(found)) if json else print_comparison(found)


def promote(
    version: _Which,
    *,
    reason: _Reason = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Promote a version that is worse than the champion, cannot be compared with it, or is retired. "
            "Needs --reason; the limits of the gate hold all the same.",
        ),
    ] = False,
    model: _Name = None,
) -> None:
    """Make a version the champion if it passes the gate's limits and its SSIM is not below the champion's.

    Both must have been measured on the same test pairs and the same machine. Otherwise nothing changes, and the exit
    code is 1.

    Example: clearcall models promote 4 --reason "sharper text"
    """
    from clearcall.params import load_params
    from clearcall.tracking.models import promote_version

    typer.echo(promote_version(_name(model), version, load_params().gate, reason, force=force))


def rollback(*, reason: _Reason = "", model: _Name = None) -> None:
    """Make the champion before the present one champion again; run again, it goes further back.

    Example: clearcall models rollback --reason "halos on glasses"
    """
    from clearcall.tracking.models import roll_back

    typer.echo(roll_back(_name(model), reason))


def retire(version: _Which, *, reason: _Reason = "", model: _Name = None) -> None:
    """Tag a version as retired and remove its aliases; the champion is refused.

    Example: clearcall models retire 2 --reason "trained on blurred photographs"
    """
    from clearcall.tracking.models import retire_version

    typer.echo(retire_version(_name(model), version, reason))


def _name(model: str | None) -> str:
    if model is not None:
        return model
    from clearcall.params import load_params

    return load_params().publish.model_name
