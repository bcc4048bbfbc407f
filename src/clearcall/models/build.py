"""Registry of architectures: the listing of the folders."""

import importlib
import inspect
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ConfigDict, validate_call
from torch import nn

from clearcall.core.errors import UserError
from clearcall.params import Params

Kind = Literal["teachers", "students"]


def known_models(kind: Kind) -> list[str]:
    """Return the names of the architectures of one kind."""
    return sorted(path.stem for path in (Path(__file__).parent / kind).glob("*.py") if path.stem != "__init__")


def check_model_names(params: Params) -> None:
    """Raise UserError if params.yaml names an unknown architecture."""
    require_known("teachers", params.train_teacher.model.name)
    require_known("students", params.distill_student.model.name)


def require_known(kind: Kind, name: str) -> None:
    """Raise UserError, with the known names, unless the architecture exists."""
    if name not in (known := known_models(kind)):
        raise UserError(f"there is no {kind[:-1]} named {name!r}; known: {', '.join(known)}")


def build_model(kind: Kind, name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build an architecture by name; raise UserError for a wrong name or arguments."""
    require_known(kind, name)
    build = importlib.import_module(f"clearcall.models.{kind}.{name}").build
    signature = inspect.signature(build)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UserError(f"{kind[:-1]} {name} takes {signature}: {error}") from None
    try:
        # Strict: "48" or 2.5 channels are mistakes. Its ValidationError is a ValueError.
        return cast(nn.Module, validate_call(config=ConfigDict(strict=True))(build)(**arguments))
    except ValueError as error:
        raise UserError(f"{kind[:-1]} {name}: {error}") from None
