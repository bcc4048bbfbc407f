"""Copies a folder of object storage to this machine, through fsspec."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec

from clearcall.core.errors import UserError, describe
from clearcall.imaging.decode import KINDS, SUFFIXES
from clearcall.media.video.read import VIDEO_SUFFIXES

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, allow to read it, and AWS_ENDPOINT_URL if it is "
    "not on AWS",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`, allow to read it",
}


def fetch_folder(url: str, folder: Path) -> None:
    """Copy the images and videos below a URL, s3://bucket/photos, to a new folder, under their names there.

    Raises UserError if the URL cannot be read, holds no image, or more than the disk has room for, or if a name would
    lead out of the folder.
    """
    folder.mkdir(parents=True)
    with _storage_errors(url):
        files, root = fsspec.url_to_fs(url)
        sizes = {
            name: int(info["size"])
            for name, info in files.find(root, detail=True).items()
            if PurePosixPath(name).suffix.lower() in SUFFIXES.keys() | VIDEO_SUFFIXES
        }
    if not sizes:
        raise UserError(f"{url} holds no image or video ({KINDS}), or is not there: correct download_data.folder")
    names = {name: PurePosixPath(name).relative_to(root) for name in sizes}
    if outside := [name for name, inner in names.items() if ".." in inner.parts or "\\" in name]:
        raise UserError(f"{url} holds {outside[0]!r}, a name that may lead out of a folder: rename it")
    size, free = sum(sizes.values()), shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{url} holds {size} bytes, but {folder} has {free} free: free some, or move paths.raw")
    print(f"copying {len(sizes)} files ({size / 1e6:.1f} MB) from {url}", file=sys.stderr, flush=True)
    with _storage_errors(url):
        files.get([*names], [str(folder / inner) for inner in names.values()])


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    scheme = url.partition("://")[0]
    try:
        yield
    except ImportError as error:
        raise UserError(f"{url} needs a further package: run `pip install '.[{scheme}]'` ({error})") from None
    except Exception as error:  # each storage has its own errors
        if not isinstance(error, PermissionError) and describe(error):  # a full disk
            raise
        raise UserError(
            f"cannot read {url} ({type(error).__name__}: {error}): check its name, and that {_CREDENTIALS[scheme]}"
        ) from None
