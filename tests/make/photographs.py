"""The committed params of download_data with changes: what tests read photographs with."""

from functools import cache
from pathlib import Path
from typing import Any

from clearcall.params import DownloadData, load_params


@cache
def _committed() -> DownloadData:
    return load_params(Path(__file__).parents[2] / "params.yaml").download_data


def download_params(folder: Path | str, **changes: Any) -> DownloadData:
    """Return the committed params with a folder as the source, small photographs allowed, and such changes."""
    values = _committed().model_dump() | {"source": "folder", "folder": folder, "min_side": 8}
    return DownloadData.model_validate(values | changes)
