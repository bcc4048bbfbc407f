"""Data sets of Kaggle, downloaded by Kaggle's own client, which is no dependency of ours."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from clearcall.errors import UserError

UNSPLASH_SR = "quadeer15sh/image-super-resolution-from-unsplash"
LOW_RESOLUTION_PHOTOGRAPHS = "noobyogi0100/low-resolution-photographs"


def dataset_page(dataset: str) -> str:
    """Return where a data set, named owner/name, is described and can be downloaded by hand."""
    return f"https://www.kaggle.com/datasets/{dataset}"


def fetch_dataset(dataset: str, cache: Path, otherwise: str) -> Path:
    """Return the zip file of a data set in the cache, downloading it if need be.

    Raises UserError if the client is not installed, if its user is not logged in, or if the download fails; `otherwise`
    is what the message tells to do with a copy downloaded by hand.
    """
    path = cache / f"{dataset.rpartition('/')[2]}.zip"
    if path.is_file():
        return path
    by_hand = f"download {dataset_page(dataset)} by hand and {otherwise}"
    if importlib.util.find_spec("kaggle") is None:
        raise UserError(f"{by_hand}; or install Kaggle's client (pip install kaggle), log in and run this again")
    cache.mkdir(parents=True, exist_ok=True)
    # In a process of its own: the client ends the one that imports it where nobody is logged in.
    command = [sys.executable, "-m", "kaggle.cli", "datasets", "download", "--dataset", dataset, "--path", str(cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode or not path.is_file():
        said = next((line for line in done.stdout.splitlines() if line.strip()), f"exit code {done.returncode}")
        raise UserError(f"Kaggle's client says: {said} Log in with it and run this again, or {by_hand}")
    return path
