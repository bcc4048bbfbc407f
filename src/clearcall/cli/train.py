"""Commands that train and ship: params.yaml, recipes and studies, networks for the package, and the MLflow UI."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

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
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Recipes in experiments/; all published systems if none."),
    ] = None,
    *,
    photos: Annotated[
        Path | None, typer.Option(help="A folder of photographs, in place of the source that the recipe names.")
    ] = None,
    licence: _Licence = "unknown",
    full: Annotated[
        bool | None,
        typer.Option("--full/--small", help="The full schedule, which may take days, or a small one. [default: small]"),
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
    from clearcall.experiments.recipe import plan_recipes, run_recipes
    from clearcall.reporting.experiments import write_recipe

    full = only_print if full is None else full
    runs = plan_recipes(names or [], full=full, budget=budget, photos=photos, licence=licence)
    if only_print:
        for run in runs:
            typer.echo(run.arguments)
        return
    run_recipes(runs, lambda outcome: typer.echo(write_recipe(output, outcome)))


def study(
    name: Annotated[str, typer.Argument(help="A study in experiments/, for example ablation.")],
    *,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel trainings, each on one thread.")] = 2,
    time: Annotated[bool, typer.Option("--time", help="Time the networks at 1080p too, on a quiet machine.")] = False,
) -> None:
    """Train every point of a study and write reports/NAME.csv and .md; points in the CSV are skipped.

    The pairs are those of the last `dvc repro`, the teacher too where a point needs one.

    Example: clearcall experiment study ablation
    """
    from clearcall.experiments.definition import load_experiment
    from clearcall.experiments.study import run_study, time_study
    from clearcall.params import load_params
    from clearcall.reporting.experiments import over_first, results_table, write_study

    found, reports = load_experiment(name), load_params().paths.reports
    if time:
        time_study(found, reports)
    rows = run_study(found, reports, jobs, partial(write_study, found, reports))
    typer.echo(results_table(rows, over_first(found.require_study(), rows)))


def list_experiments() -> None:
    """List the recipes and studies of this project.

    Example: clearcall experiment list
    """
    from clearcall.reporting.terminal import print_experiments

    print_experiments()


def ship(
    name: Annotated[str, typer.Argument(help="The name under which users will call it, for example fast.")],
    *,
    made_by: Annotated[str, typer.Option(help="The command that trained it, for the model card.")] = "dvc repro",
) -> None:
    """Take the student of the last `dvc repro` into the package: ONNX, safetensors and model card.

    `clearcall models ship teacher` takes its teacher instead: safetensors in half precision, and a card.

    Example: clearcall models ship fast --made-by "make ship NAME=fast PHOTOS=../photos"
    """
    from clearcall.core.files import SHIPPED, TEACHER
    from clearcall.params import load_params
    from clearcall.reporting.card import model_card, teacher_card
    from clearcall.tracking.ship import ship as take

    params = load_params()
    card = partial(teacher_card, params, made_by) if name == TEACHER else partial(model_card, name, params, made_by)
    typer.echo(f"written: {take(name, params, SHIPPED, made_by, card)}")


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
