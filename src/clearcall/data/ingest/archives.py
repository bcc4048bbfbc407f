"""Published archives: downloaded with resume, checked by SHA-256, unpacked safely."""

import http.client
import importlib.util
import lzma
import ssl
import stat
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from clearcall.core.errors import UserError, describe
from clearcall.core.files import sha256_of
from clearcall.data.manifest import Split
from clearcall.imaging.decode import SUFFIXES

TIMEOUT_SECONDS = 30
MAX_FILES = 20_000
MAX_BYTES = 50 * 10**9
MAX_RATIO = 50  # unpacked bytes per byte of archive; images are compressed already, and BMP hardly shrinks so much
_UNSUSPICIOUS_BYTES = 10**8  # so much may be unpacked of any archive
_ENCRYPTED, _PATCHED = 1 << 0 | 1 << 6, 1 << 5  # flags of a member
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_CHUNK = 1 << 20
# What zipfile and its decompressors raise for a corrupt archive; OSError: bz2, or a name that no file can have.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError, struct.error),
)
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


DIV2K_LICENCE = "DIV2K: academic research only, copyright stays with the photographers"
UNSPLASH_SR = "quadeer15sh/image-super-resolution-from-unsplash"
LOW_RESOLUTION_PHOTOGRAPHS = "noobyogi0100/low-resolution-photographs"


@dataclass(frozen=True)
class Archive:
    """A zip file on the network: its SHA-256 in hexadecimal, size in bytes, and split."""

    url: str
    sha256: str
    size: int
    split: Split

    @property
    def name(self) -> str:
        """The file's name in the cache."""
        return self.url.rpartition("/")[2]


# Sizes and SHA-256 as listed by TensorFlow Datasets (tensorflow_datasets/datasets/div2k/checksums.tsv).
DIV2K = (
    Archive(
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",
        "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
        3_530_603_713,
        "train",
    ),
    Archive(
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
        448_993_893,
        "test",
    ),
)


def fetch(archive: Archive, cache: Path) -> Path:
    """Return the archive's checked file in the cache; download or resume it if need be.

    Raises UserError if the network or the server fails, and, after deleting the file, if its SHA-256 is wrong.
    """
    path = cache / archive.name
    file = path if path.is_file() else _download(archive, path)
    if (found := sha256_of(file)) != archive.sha256:
        file.unlink()
        raise UserError(
            f"{file} has the SHA-256 {found}, not {archive.sha256}, and was deleted: run the same command again, "
            "and if that fails too, the published archive has changed"
        )
    return file.replace(path)


def unpack(archive: Path, folder: Path, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a zip file's images into a folder.

    Raises UserError if it is corrupt, too big or would write elsewhere, or if an image in it is encrypted or compressed
    by an unknown method; all but corrupt content is seen before anything is unpacked.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [member for member in zipped.infolist() if not member.is_dir()]
            # zipfile never yields more than a member's declared size, so this sum bounds what is written.
            size = sum(member.file_size for member in members)
            allowed = min(max_bytes, max(_UNSUSPICIOUS_BYTES, MAX_RATIO * archive.stat().st_size))
            if len(members) > max_files or size > allowed:
                raise UserError(
                    f"{archive} would unpack to {len(members)} files of {size} bytes in all, more than the {max_files} "
                    f"files and {allowed} bytes allowed for its size: get it again from where it is published"
                )
            for member in members:
                _refuse_place(archive, member)
            images = [one for one in members if PurePosixPath(one.filename).suffix.lower() in SUFFIXES]
            for image in images:
                _refuse_content(archive, image)
            for image in images:
                zipped.extract(image, folder)
    except _ZIP_ERRORS as error:
        if describe(error):  # a full disk, a missing permission
            raise
        raise UserError(
            f"{archive} is not a whole zip file ({error}): delete it and run the same command again"
        ) from None


def _refuse_place(archive: Path, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.filename:
        raise UserError(f"{archive} holds the path {member.filename}, outside of its own folder: delete it")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(f"{archive} holds the link {member.filename}, which may lead anywhere: delete it")


def _refuse_content(archive: Path, image: zipfile.ZipInfo) -> None:
    if image.flag_bits & _ENCRYPTED:
        raise UserError(f"{archive} is encrypted ({image.filename}): unpack it by hand and name its folder")
    if image.compress_type not in _METHODS or image.flag_bits & _PATCHED:
        raise UserError(
            f"{archive} is compressed by an unsupported method ({image.filename}, method {image.compress_type}): "
            "unpack it by hand and name its folder"
        )


def _download(archive: Archive, path: Path) -> Path:
    """Download to `.part` until it has the archive's size, and return that file.

    A cut connection is taken up again at once as long as each attempt gets further than the one before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("ab") as file:
        if file.tell() > archive.size:  # left by another version of the archive
            file.truncate(0)
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"downloading {archive.url} ({archive.size / 1e6:.1f} MB) to {path}", file=sys.stderr, flush=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(archive.name, total=archive.size)
        while (have := part.stat().st_size) < archive.size:
            problem = "the connection was cut"
            try:
                _receive(archive, part, have, progress, task)
            except _NETWORK_ERRORS as error:
                problem = str(error).strip("<>")
            if (got := part.stat().st_size) <= have:
                raise UserError(
                    f"cannot download {archive.url}: {problem}. {got} of {archive.size} bytes are kept: check the "
                    f"network and run the same command again to go on. Or download it by hand and put it at {path}, "
                    "or set download_data.source in params.yaml to folder or bundled"
                )
    return part


def _receive(archive: Archive, part: Path, have: int, progress: Progress, task: TaskID) -> None:
    headers = {"User-Agent": "clearcall"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(archive.url, headers=headers)  # noqa: S310  # a URL of ours, not of a stranger
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # likewise
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the server ignores Range and sends the whole file
        with part.open("ab" if have else "wb") as file:
            progress.update(task, completed=have)
            while chunk := response.read(min(_CHUNK, archive.size - have)):
                file.write(chunk)
                have += len(chunk)
                progress.update(task, completed=have)


def dataset_page(dataset: str) -> str:
    """Return the web page of a data set, named owner/name."""
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
