"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clearcall.core.errors import UserError
from clearcall.imaging.looks import Look


def resolve_model(model: str) -> str:
    """Return the downloaded file of an MLflow URI, anything else as it is: nothing below the commands knows MLflow."""
    if not model.startswith(("models:/", "runs:/")):
        return model
    from clearcall.tracking.runs import download_model

    return str(download_model(model))


def resolve_models(models: list[str] | None) -> list[str]:
    """Return the same of several models."""
    return [resolve_model(model) for model in models or []]


def refuse_folder(name: str | None) -> str | None:
    """Raise UserError for a folder, which is neither a camera nor a video."""
    if name is not None and Path(name).is_dir():
        raise UserError(f"{name} is a folder: name a camera or a video; `clearcall sharpen` takes a folder")
    return name


Model = Annotated[
    str,
    typer.Option(
        callback=resolve_model,
        help="A shipped network such as fast or quality, an ONNX file that clearcall exported, an MLflow URI, or auto: "
        "the best network, for video and camera the best that holds the frame rate here.",
    ),
]
Provider = Annotated[Literal["auto", "onnxruntime", "openvino"], typer.Option(help="Runtime; auto measures.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Number of threads; measured if not given.")]
Strength = Annotated[float, typer.Option(min=0, max=2, help="Factor of the residual that the network adds.")]
LookOption = Annotated[Look, typer.Option("--look", help="natural, or crisp: an unsharp mask after the network.")]
LowPower = Annotated[
    bool,
    typer.Option("--low-power", help="Use one core alone, so that the rest of the machine stays free and cool."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]
