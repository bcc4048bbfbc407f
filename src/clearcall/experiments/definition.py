"""An experiment's file: values of params.yaml by dotted name, and what to run with them."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearcall.core.errors import UserError
from clearcall.models.build import check_model_names
from clearcall.params import Overrides, Params, read_yaml, with_overrides

FOLDER = Path("experiments")
PARAMS = Path("params.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(_Strict):
    """What a report prints of one network; SSIM of whatever kind, MSE of images in [0, 1]."""

    ssim: float | None = None
    psnr_db: float | None = None
    mse: float | None = None
    megabytes: float | None = None
    parameters: int | None = None
    fps: float | None = None


class Published(_Strict):
    """A published system: where it is described, its figures, and remarks on them."""

    report: str
    teacher: Figures = Figures()
    student: Figures = Figures()
    notes: tuple[str, ...] = ()


class Setting(_Strict):
    """Under what a study's points are compared."""

    train_photographs: int | None = Field(default=None, ge=1)  # the first ones only; None: all
    seeds: tuple[int, ...] | None = None  # None: those of the study
    values: Overrides = {}


class Study(_Strict):
    """Short trainings of the student: each point's values over the experiment's, once for each seed.

    With `settings`, every point is trained under each of them and compared with the first point under the same.
    """

    finding: str = ""  # the author's conclusion from the table
    seeds: tuple[int, ...] = Field(min_length=1)
    train_photographs: int | None = Field(default=None, ge=1)  # of settings that name none
    settings: dict[str, Setting] = {}
    train_scale: float | None = None  # of the training pairs; None: all scales
    test_pairs: int | None = Field(default=None, ge=1)  # as many of each degradation; None: all
    points: dict[str, Overrides] = Field(min_length=1)

    def trainings(self) -> list["PointInSetting"]:
        """Return each point under each setting, setting by setting, as the table lists them."""
        return [
            PointInSetting(
                name=", ".join(filter(None, [point, title])),
                first=", ".join(filter(None, [next(iter(self.points)), title])),
                train_photographs=setting.train_photographs or self.train_photographs,
                seeds=setting.seeds or self.seeds,
                overrides={**setting.values, **overrides},
            )
            for title, setting in (self.settings or {"": Setting()}).items()
            for point, overrides in self.points.items()
        ]


class PointInSetting(_Strict):
    """What a study trains once for each seed; `first` is the name of what it is compared with."""

    name: str
    first: str
    train_photographs: int | None
    seeds: tuple[int, ...]
    overrides: Overrides


class Experiment(_Strict):
    """What to run: with `study` its short trainings, without it a recipe, which is a run of the whole pipeline.

    `extends` names an experiment whose values hold where this one sets none; `small` holds values for a first result
    on a laptop; the file's name is the experiment's.
    """

    name: str = ""
    about: str
    extends: str | None = None
    values: Overrides
    small: Overrides = {}
    small_notes: tuple[str, ...] = ()  # what the small run leaves out, in words
    published: Published | None = None
    study: Study | None = None

    @property
    def kind(self) -> Literal["recipe", "study"]:
        """Return which command runs it."""
        return "study" if self.study else "recipe"

    def require_study(self) -> Study:
        """Return the study; raise UserError for a recipe."""
        if self.study is None:
            raise UserError(f"{self.name} is a recipe: run it by `clearcall experiment recipe {self.name}`")
        return self.study

    def overrides(self, *, small: bool) -> Overrides:
        """Return a recipe's values by dotted name."""
        return {**self.values, **self.small} if small else dict(self.values)

    def all_overrides(self) -> Iterator[Overrides]:
        """Yield the values of each run that the file describes."""
        yield from (self.overrides(small=False), self.overrides(small=True))
        yield from ({**self.values, **one.overrides} for one in (self.study.trainings() if self.study else ()))


def load_experiment(name: str) -> Experiment:
    """Read an experiment by its name in experiments/ or by its path, which ends in .yaml.

    Raises UserError, with what is wrong, for a file that is missing, not an experiment, or with values that do not fit
    params.yaml.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    found = _read(path)
    document = read_yaml(PARAMS)
    for overrides in found.all_overrides():
        try:
            check_model_names(with_overrides(document, overrides))
        except UserError as error:
            raise UserError(f"with {path}, {error}") from None
    return found


def list_experiments() -> list[Experiment]:
    """Return the experiments of this project, sorted by name."""
    if not FOLDER.is_dir():
        raise UserError(f"there is no folder {FOLDER.resolve()}: run this in the project's top folder")
    return [load_experiment(path.stem) for path in sorted(FOLDER.glob("*.yaml"))]


def published_recipes() -> list[Experiment]:
    """Return the recipes that reproduce a published system."""
    return [found for found in list_experiments() if found.published is not None]


def params_with(overrides: Overrides) -> Params:
    """Return params.yaml of this folder with values by dotted name in it."""
    return with_overrides(read_yaml(PARAMS), overrides)


def _read(path: Path, extended_by: tuple[Path, ...] = ()) -> Experiment:
    """Return an experiment with the values of those that it extends; `extended_by` are the files on the way here."""
    if path in extended_by:
        raise UserError(f"{extended_by[0]} extends itself, by {extended_by[-1]}: remove one `extends`")
    if not path.is_file():
        known = sorted(found.stem for found in path.parent.glob("*.yaml"))
        close = get_close_matches(path.stem, known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"there is no experiment {path}; {meant}known here: {', '.join(known) or 'none'}")
    try:
        found = Experiment.model_validate(read_yaml(path)).model_copy(update={"name": path.stem})
    except ValidationError as error:
        problems = "\n  ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UserError(
            f"{path} is not an experiment; it has `about`, `values` by dotted name, such as "
            "distill_student.training.steps: 3000, and may have `extends`, `small`, `published` and `study`:\n"
            f"  {problems}"
        ) from None
    if found.extends is None:
        return found
    base = _read(path.parent / f"{found.extends}.yaml", (*extended_by, path))
    return found.model_copy(update={"values": base.values | found.values, "small": base.small | found.small})
