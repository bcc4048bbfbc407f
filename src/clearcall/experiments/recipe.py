"""A recipe's file: values of params.yaml by dotted name, those that make it small, and what was published of it."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from clearcall.core.errors import UserError
from clearcall.models.build import check_model_names
from clearcall.params import Overrides, Params, read_yaml, with_overrides


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(_Strict):
    """What a report prints of one network; SSIM of whatever kind, MSE of pictures in [0, 1]."""

    ssim: float | None = None
    psnr_db: float | None = None
    mse: float | None = None
    megabytes: float | None = None
    parameters: int | None = None
    fps: float | None = None


class Published(_Strict):
    """A published system: where it is described, its figures, and what is to be known of them."""

    report: str
    teacher: Figures = Figures()
    student: Figures = Figures()
    notes: tuple[str, ...] = ()


class Recipe(_Strict):
    """What to train and how: `values`, and those in `small` over them for a first result on a laptop.

    `extends` names a recipe of the same folder whose values hold where these say nothing.
    """

    about: str
    extends: str | None = None
    values: Overrides
    small: Overrides = {}
    small_notes: tuple[str, ...] = ()  # what these values leave out, in words
    published: Published | None = None

    def overrides(self, *, small: bool) -> Overrides:
        """Return the values by dotted name."""
        return {**self.values, **self.small} if small else dict(self.values)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; raise UserError saying what is wrong with it, or which of its values do not fit params.yaml."""
    document = read_yaml(Path("params.yaml"))
    if not path.is_file():
        raise UserError(f"there is no recipe {path}; known here: {', '.join(known_recipes(path.parent)) or 'none'}")
    try:
        recipe = Recipe.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "\n  ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UserError(
            f"{path} is not a recipe; it has `about`, `values` by dotted name, such as "
            f"distill_student.training.steps: 3000, and may have `extends`, `small` and `published`:\n  {problems}"
        ) from None
    if recipe.extends is not None:
        base = load_recipe(path.parent / f"{recipe.extends}.yaml")
        if base.extends is not None:
            raise UserError(f"{path} extends {recipe.extends}, which extends {base.extends}: name that one instead")
        recipe = recipe.model_copy(update={"values": base.values | recipe.values, "small": base.small | recipe.small})
    for small in (False, True):
        try:
            check_model_names(with_overrides(document, recipe.overrides(small=small)))
        except UserError as error:
            raise UserError(f"with {path}, {error}") from None
    return recipe


def known_recipes(folder: Path) -> list[str]:
    """Return the names of a folder's recipes."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def published_recipes(folder: Path) -> list[str]:
    """Return the names of those recipes of a folder that reproduce a published system."""
    return [name for name in known_recipes(folder) if load_recipe(folder / f"{name}.yaml").published is not None]


def recipe_params(overrides: Overrides) -> Params:
    """Return params.yaml of this folder with a recipe's values in it."""
    return with_overrides(read_yaml(Path("params.yaml")), overrides)


def experiment_arguments(overrides: Overrides, document: Mapping[str, Any]) -> list[str]:
    """Return overrides as arguments of `dvc exp run`; `document` is params.yaml as it stands.

    `++` also adds what params.yaml leaves out. A mapping is removed first: Hydra would mix old and new keys.
    """
    arguments: list[str] = []
    for name, value in overrides.items():
        if isinstance(value, Mapping) and _has(document, name):
            arguments += ["-S", f"~{name}"]
        arguments += ["-S", f"++{name}={_hydra(value)}"]
    return arguments


def as_arguments(overrides: Overrides, document: Mapping[str, Any]) -> str:
    """Return the same for a shell."""
    return shlex.join(experiment_arguments(overrides, document))


def as_yaml(overrides: Overrides) -> str:
    """Return overrides as a recipe's file has them, a value a line."""
    return "\n".join(
        f"{name}: {yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).split(chr(10))[0]}"
        for name, value in overrides.items()
    )


def _has(document: Mapping[str, Any], name: str) -> bool:
    found: Any = document
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _hydra(value: object) -> str:
    """Return a value in the grammar of Hydra's overrides, whose keys take no quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_hydra, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
