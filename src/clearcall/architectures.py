"""Which architectures there are: the folders' listing is the registry. No torch is needed to read it."""

from pathlib import Path
from typing import Literal

from clearcall.errors import UserError
from clearcall.params import Params

Kind = Literal["teachers", "students"]


def known_models(kind: Kind) -> list[str]:
    """Return the names of the architectures of one kind."""
    return sorted(
        path.stem for path in (Path(__file__).parent / "models" / kind).glob("*.py") if path.stem != "__init__"
    )


def check_model_names(params: Params) -> None:
    """Raise UserError, with the known names, if params.yaml names an architecture that is not there."""
    require_known("teachers", params.train_teacher.model.name)
    require_known("students", params.distill_student.model.name)


def require_known(kind: Kind, name: str) -> None:
    """Raise UserError, with the known names, unless there is such an architecture."""
    if name not in (known := known_models(kind)):
        raise UserError(f"there is no {kind[:-1]} named {name!r}; known: {', '.join(known)}")
