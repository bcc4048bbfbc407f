"""Commands that train and ship: params.yaml, recipes and studies, networks for the package, and the MLflow UI."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clearcall.core import errors

_Licence = Annotated[str, typer.Option(help="Licence of the photographs.")]


def params() -> None:
    """Check params.yaml: unknown keys, wrong types and values out of range are named, with exit code 1.

    Example: clearcall params
    """
    from clearcall.models.build import check_model_names
    from clearcall.params import load_params

    check_model_names(load_params())
    typer.echo("params.yaml is right")


def mend() -> None:
    """Free DVC's locks of killed processes, and restore a truncated dvc.lock; `make repro` does it first.

    Example: clearcall mend && dvc repro
    """
    from clearcall.experiments.dvc import mend_dvc
    from clearcall.tracking.runs import project_root

    mend_dvc(project_root())


def recipe(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Files in recipes/; all published systems if none.")
    ] = None,
    *,
    photos: Annotated[
        Path | None, typer.Option(help="A folder of photographs, in place of the source that the recipe names.")
    ] = None,
    licence: _Licence = "unknown",
    full: Annotated[
        bool | None,
        typer.Option(
            "--full/--small", help="The whole schedule, which may take days, or a small one. [default: small]"
        ),
    ] = None,
    budget: Annotated[float | None, typer.Option(min=0, max=1, help="Fraction of each training's steps.")] = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the values for `dvc exp run`, by default --full; run nothing.")
    ] = False,
    output: Annotated[Path, typer.Option(help="The folder of recipes.md.")] = Path("reports"),
) -> None:
    """Run recipes as DVC experiments and write reports/recipes.md: the figures of published systems beside ours.

    Each is made small enough for ten minutes on two cores, unless told otherwise. The working tree stays as it is;
    `dvc exp show` lists the experiments, `dvc exp apply recipe-NAME` takes one over.

    Example: clearcall experiment recipe luminous dncnn --photos ../photos

    Example: eval "dvc exp run $(clearcall experiment recipe fast --print)"
    """
    from clearcall.experiments.recipe import as_arguments, load_recipe, published_recipes
    from clearcall.experiments.run import run_recipe
    from clearcall.params import PAIRED, read_yaml
    from clearcall.reporting.recipes import verdict, write_recipes

    folder, full = Path("recipes"), only_print if full is None else full
    chosen = {name: load_recipe(folder / f"{name}.yaml") for name in names or published_recipes(folder)}
    if not chosen:
        errors.fail(f"there are no recipes in {folder.resolve()}: run this in the project's top folder")
    if not full and (long := [name for name, found in chosen.items() if not found.small]):
        errors.fail(f"{', '.join(long)}: no values that make it small; add `small` to its file, or say --full")
    changes: dict[str, object] = {}
    options = ["--full"] if full else []
    if budget is not None:
        changes["budget"] = budget
        options.append(f"--budget {budget:g}")
    if photos is not None:
        if not photos.is_dir():
            errors.fail(f"there is no folder {photos}")
        changes |= {"download_data.folder": str(photos.resolve()), "download_data.licence": licence}
        options.append(f"--photos {photos.name}")
    for name, found in chosen.items():
        command = " ".join(["clearcall experiment recipe", name, *options])
        overrides = {**found.overrides(small=not full), **changes}
        if photos is not None and overrides.get("download_data.source") not in PAIRED:
            overrides["download_data.source"] = "folder"
        if only_print:
            typer.echo(as_arguments(overrides, read_yaml(Path("params.yaml"))))
            continue
        outcome = run_recipe(name, found, overrides, small=not full, command=command)
        path = write_recipes([outcome], output)  # at once: the next may fail
        typer.echo(f"{name}: {verdict(outcome.document)} Written: {path}")


def study(
    name: Annotated[str, typer.Argument(help="A study, for example ablation for studies/ablation.yaml.")],
    *,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel trainings, each on one thread.")] = 2,
    time: Annotated[bool, typer.Option("--time", help="Time the networks at 1080p too, on a quiet machine.")] = False,
) -> None:
    """Train every point of a study and write reports/NAME.csv and .md; points in the CSV are skipped.

    The pairs are those of the last `dvc repro`, the teacher too where a point needs one.

    Example: clearcall experiment study ablation
    """
    from clearcall.experiments.study import load_study, run_study, time_study
    from clearcall.params import load_params
    from clearcall.reporting.studies import write_study

    file = Path("studies", f"{name}.yaml")
    found, reports = load_study(file), load_params().paths.reports
    rows = run_study(file, reports, jobs)
    if time:
        time_study(name, found, reports)
    typer.echo(write_study(name, found, rows, reports))


def list_experiments() -> None:
    """List the recipes and studies of this project.

    Example: clearcall experiment list
    """
    from clearcall.reporting.terminal import print_experiments

    print_experiments(Path("recipes"), Path("studies"))


def ship(
    name: Annotated[str, typer.Argument(help="The name under which users will call it, for example fast.")],
    *,
    made_by: Annotated[str, typer.Option(help="The command that trained it, for the model card.")] = "dvc repro",
) -> None:
    """Take the student of the last `dvc repro` into the package: ONNX, safetensors and model card.

    Example: clearcall models ship fast --made-by "make ship NAME=fast PHOTOS=../photos"
    """
    from clearcall.params import load_params
    from clearcall.reporting.card import model_card
    from clearcall.runtime.sharpener import SHIPPED
    from clearcall.tracking.ship import ship as take

    params = load_params()
    typer.echo(f"written: {take(name, params, SHIPPED, made_by, partial(model_card, name, params, made_by))}")


def ship_filter(
    photographs: Annotated[Path, typer.Argument(metavar="PHOTOS", help="A folder of photographs to learn from.")],
    *,
    licence: _Licence = "unknown",
) -> None:
    """Fit the blending weights of the temporal filter, and take them into the package.

    Photographs and pages of text pan and zoom, or bend as faces do, some with noise or lights that change, and are sent
    through all codecs; photographs below 352 pixels a side are left out. A quarter of an hour for 200 on two cores.

    Example: clearcall models ship-filter ../photos/train
    """
    from clearcall.data.clips import clip_files
    from clearcall.experiments.fit_filter import ship_filter as fit
    from clearcall.imaging.decode import SUFFIXES
    from clearcall.temporal.filter import WEIGHTS

    files = [path for path in clip_files(photographs) if path.suffix.lower() in SUFFIXES]
    gain_db = fit(files, licence, WEIGHTS)
    typer.echo(f"{gain_db:+.3f} dB of luma on the training clips; written: {WEIGHTS}")


def ui(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Show runs, curves and registered models in the MLflow UI, reachable from this machine only.

    Example: clearcall ui --port 5001
    """
    from clearcall.tracking.ui import serve

    serve(port)
