"""clearcall: sharpen blurred, low-bandwidth video-call pictures in real time on an ordinary CPU."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearcall.runtime.sharpener import Sharpener
    from clearcall.temporal.filter import TemporalFilter

__all__ = ["Sharpener", "TemporalFilter", "__version__"]
__version__ = "0.1.0"

# Read by libraries when they are imported or first used. Some call home, which nothing in this project may.
for _name, _value in {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "SVT_LOG": "1",  # the encoder of AV1 tells each of its settings otherwise
    # PyTorch gives the memory of each large tensor back at once; in pages of 2 MiB it gets it anew in half the time.
    "THP_MEM_ALLOC_ENABLE": "1",
}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the module holds
    # On demand: `clearcall --help` and the pipeline's light stages need no runtime.
    if module := {"Sharpener": "runtime.sharpener", "TemporalFilter": "temporal.filter"}.get(name):
        return getattr(importlib.import_module(f"clearcall.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
