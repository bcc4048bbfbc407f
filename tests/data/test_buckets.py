"""Photographs in S3: a real server on the loopback interface, and what can go wrong."""

import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fsspec.registry import _registry
from PIL import Image
from pydantic import ValidationError
from tests.make.photographs import download_params

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.data.ingest.download import download

needs_s3 = pytest.mark.skipif(not find_spec("s3fs") or not find_spec("moto"), reason="no S3 here: run `make cluster`")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, photos_folder: Path) -> Iterator[str]:
    """Yield the URL of a folder with six photographs and other files."""
    import s3fs

    for name, value in {
        "ENDPOINT_URL": server,
        "ACCESS_KEY_ID": "someone",
        "SECRET_ACCESS_KEY": "a-secret",
        "DEFAULT_REGION": "us-east-1",
        "CONFIG_FILE": "/nowhere",
        "SHARED_CREDENTIALS_FILE": "/nowhere",
        "EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("pictures")
    files.put(str(photos_folder), "pictures/photos", recursive=True)
    files.pipe("pictures/photos/model.bin", b"large")
    files.pipe("pictures/elsewhere.png", b"another folder's")
    yield "s3://pictures/photos"
    files.invalidate_cache()
    files.rm("pictures", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def photos_folder(tmp_path: Path) -> Path:
    for split in ("train", "validation", "test"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng([len(split), number]).integers(0, 256, (16, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / split / f"{number}.png")
    return tmp_path / "photos"


@needs_s3
def test_a_bucket_gives_the_same_raw_folder_as_its_copy(bucket: str, photos_folder: Path, tmp_path: Path) -> None:
    found = []
    for folder in (photos_folder, bucket):
        download(download_params(folder), tmp_path / "raw")
        found.append({path.relative_to(tmp_path): sha256_of(path) for path in (tmp_path / "raw").rglob("*.*")})
    assert found[0] == found[1]
    assert len(found[1]) == 7  # with the manifest, without what was fetched


@needs_s3
@pytest.mark.parametrize(
    ("folder", "environment", "said"),
    [
        ("s3://nowhere/photos", {}, "cannot read s3://nowhere/photos .*bucket does not exist"),
        ("s3://pictures/none", {}, "s3://pictures/none holds no image or video"),
        ("s3://pictures/photos", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, r"cannot read .*127\.0\.0\.1:9"),
        (
            "s3://pictures/photos",
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "cannot read .*[cC]redentials.*AWS_ACCESS_KEY_ID",
        ),
    ],
)
def test_a_bucket_that_cannot_be_read_is_named(
    folder: str,
    environment: dict[str, str | None],
    said: str,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    __import__("s3fs").S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=said):
        download(download_params(folder), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@needs_s3
def test_a_bucket_larger_than_the_disk_is_refused(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="1000 free: free some"):
        download(download_params(bucket), tmp_path / "raw")


@needs_s3
def test_a_name_that_leads_out_is_refused(bucket: str, tmp_path: Path) -> None:
    import s3fs

    s3fs.S3FileSystem().pipe("pictures/photos/../../evil.png", b"?")
    with pytest.raises(UserError, match=r"evil\.png', a name that may lead out of a folder"):
        download(download_params(bucket), tmp_path / "raw")
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_what_a_storage_needs_is_named(
    scheme: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # not installed
    monkeypatch.delitem(_registry, scheme, raising=False)  # where another test has used it
    said = rf"{scheme}://pictures needs a further package: run `pip install '\.\[{scheme}\]'`"
    with pytest.raises(UserError, match=said):
        download(download_params(f"{scheme}://pictures"), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("folder", ["az://pictures/photos", "s3://", "gs:///photos/", "https://nowhere.org/photos"])
def test_another_storage_is_refused(folder: str) -> None:
    said = f"must be a folder on this machine, or s3://bucket/folder or gs://bucket/folder, not {folder}"
    with pytest.raises(ValidationError, match=said):
        download_params(folder)
