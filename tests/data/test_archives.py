"""Archives: downloaded over loopback from a small server, resumed, checked and unpacked."""

import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.make.photographs import download_params

from clearcall.core.errors import UserError
from clearcall.core.files import cache_folder
from clearcall.data.ingest.archives import Archive, fetch, unpack
from clearcall.data.ingest.download import download
from clearcall.data.manifest import Split
from clearcall.params import DownloadData

BODY = np.random.default_rng(1).bytes(50_000)


class Server:
    """Serves `files`; each of the next `cuts` ends a reply after that many bytes. Remembers the Range headers."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.knows_range = True
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = owner.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                asked = self.headers.get("Range")
                owner.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and owner.knows_range else 0
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                end = start + owner.cuts.pop(0) if owner.cuts else len(body)
                self.wfile.write(body[start:end])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def offer(self, name: str, body: bytes, split: Split = "train") -> Archive:
        """Serve a body under a name and return its true description."""
        self.files[f"/{name}"] = body
        url = f"http://127.0.0.1:{self._server.server_port}/{name}"
        return Archive(url, hashlib.sha256(body).hexdigest(), len(body), split)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def photo(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def div2k_settings() -> DownloadData:
    return download_params(Path("photos"), source="div2k")


# Downloading


def test_fetch_downloads_once(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = server.offer("a.zip", BODY)
    for _ in range(2):
        assert fetch(archive, tmp_path / "cache").read_bytes() == BODY
    assert server.ranges == [None]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.zip"]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_cut_is_resumed_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cuts = [20_000, 10_000]
    assert fetch(server.offer("a.zip", BODY), tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=20000-", "bytes=30000-"]


def test_a_later_run_goes_on_from_the_part_file(server: Server, tmp_path: Path) -> None:
    archive = server.offer("a.zip", BODY)
    server.cuts = [20_000, 0]
    with pytest.raises(UserError, match=r"the connection was cut. 20000 of 50000 bytes are kept"):
        fetch(archive, tmp_path)
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:20_000]
    assert fetch(archive, tmp_path).read_bytes() == BODY
    assert server.ranges[-1] == "bytes=20000-"
    assert not (tmp_path / "a.zip.part").exists()


def test_a_server_without_range_starts_over(server: Server, tmp_path: Path) -> None:
    server.knows_range = False
    server.cuts = [20_000]
    assert fetch(server.offer("a.zip", BODY), tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=20000-"]


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(server: Server, tmp_path: Path) -> None:
    server.knows_range = False
    server.cuts = [20_000] * 9
    with pytest.raises(UserError, match="the connection was cut"):
        fetch(server.offer("a.zip", BODY), tmp_path)
    assert len(server.ranges) == 2


def test_a_part_file_longer_than_the_archive_is_not_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(bytes(60_000))
    assert fetch(server.offer("a.zip", BODY), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("name", ["a.zip", "a.zip.part"])
def test_wrong_checksum_deletes_the_file(server: Server, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(30_000))
    archive = server.offer("a.zip", BODY)
    with pytest.raises(UserError, match="was deleted"):
        fetch(archive, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch(archive, tmp_path).read_bytes() == BODY


def test_a_server_that_sends_too_much_is_cut_off(server: Server, tmp_path: Path) -> None:
    archive = server.offer("a.zip", BODY)
    server.files["/a.zip"] = BODY * 3
    assert fetch(archive, tmp_path).read_bytes() == BODY


def test_server_down_and_missing_file(server: Server, tmp_path: Path) -> None:
    archive = server.offer("a.zip", BODY)
    server.files.clear()
    with pytest.raises(UserError, match="HTTP Error 404"):
        fetch(archive, tmp_path)
    server.close()
    with pytest.raises(UserError) as caught:
        fetch(archive, tmp_path)
    message = str(caught.value)
    assert "refused" in message and f"put it at {tmp_path / 'a.zip'}" in message and "bundled" in message


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEARCALL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CLEARCALL_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "clearcall"


# Unpacking


def unpacked(tmp_path: Path, body: bytes, **limits: int) -> list[str]:
    (tmp_path / "a.zip").write_bytes(body)
    unpack(tmp_path / "a.zip", tmp_path / "out" / "in", **limits)
    return sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())


def test_unpack_takes_images_only(tmp_path: Path) -> None:
    body = zipped({"x/1.png": photo(1), "x/2.PNG": photo(2), "x/run.sh": b"", "README": b""})
    assert unpacked(tmp_path, body) == ["a.zip", "out/in/x/1.png", "out/in/x/2.PNG"]


@pytest.mark.parametrize("name", ["../1.png", "x/../../1.png", "/tmp/1.png", "..\\1.png", "C:\\1.png", "C:1.png"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="outside of its own folder"):
        unpacked(tmp_path, zipped({"ok.png": photo(1), name: photo(2)}))
    assert not (tmp_path / "out").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"link a\.png"):
        unpacked(tmp_path, buffer.getvalue())


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 files of 1000000 bytes"):
        unpacked(tmp_path, zipped({"a.png": bytes(10**6)}), max_bytes=10**6 - 1)
    with pytest.raises(UserError, match="3 files of 0 bytes"):
        unpacked(tmp_path, zipped({f"{n}.png": b"" for n in range(3)}), max_files=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content_bytes", "refused"), [(90_000_000, False), (110_000_000, True)])
def test_a_zip_bomb_is_known_by_its_ratio(tmp_path: Path, content_bytes: int, *, refused: bool) -> None:
    body = zipped({"a.png": bytes(content_bytes)})
    assert len(body) < 200_000
    if not refused:
        assert unpacked(tmp_path, body) == ["a.zip", "out/in/a.png"]
        return
    with pytest.raises(UserError, match="1 files of 110000000 bytes in all, more than"):
        unpacked(tmp_path, body)
    assert not (tmp_path / "out").exists()


FLAGS, METHOD = 6, 8  # places in a local header; two bytes further on in the directory's


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (FLAGS, 1, r"is encrypted \(b\.png\)"),
        (FLAGS, 1 << 6 | 1, r"is encrypted \(b\.png\)"),
        (FLAGS, 1 << 5, r"unsupported method \(b\.png"),
        (METHOD, 97, r"unsupported method \(b\.png, method 97\)"),
    ],
)
def test_an_encrypted_image_or_an_unknown_method_is_one_message_and_nothing_is_unpacked(
    tmp_path: Path, place: int, value: int, message: str
) -> None:
    body = bytearray(zipped({"a.png": photo(1), "b.png": photo(2)}))
    local, central = body.rfind(b"PK\x03\x04"), body.rfind(b"PK\x01\x02")
    for at in (local + place, central + place + 2):
        body[at : at + 2] = value.to_bytes(2, "little")
    with pytest.raises(UserError, match=message) as raised:
        unpacked(tmp_path, bytes(body))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_corrupt_member_is_one_message(tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.png", photo(1))
    body = bytearray(buffer.getvalue())
    body[len(body) // 3 : len(body) // 2] = bytes(len(body) // 2 - len(body) // 3)
    with pytest.raises(UserError, match="is not a whole zip file"):
        unpacked(tmp_path, bytes(body))


@pytest.mark.parametrize("names", [("a.png", "a.png/b.png"), ("x" * 300 + ".png",)])
def test_names_that_no_files_can_have_are_one_message(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="is not a whole zip file"):
        unpacked(tmp_path, zipped({name: photo(1) for name in names}))


def test_a_member_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    body = zipped({"a.png": bytes(10**6)})
    lying = body.replace((10**6).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(UserError, match="not a whole zip file"):
        unpacked(tmp_path, lying, max_bytes=2000)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.png")) <= 1000


@pytest.mark.parametrize("body", [b"", b"no zip", zipped({"a.png": photo(1)})[:-30]])
def test_corrupt_zip(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(UserError, match="not a whole zip file"):
        unpacked(tmp_path, body)


# The whole source


def test_div2k_becomes_train_validation_and_test(server: Server, tmp_path: Path) -> None:
    archives = (
        server.offer("train.zip", zipped({f"HR/{n:04}.png": photo(n) for n in range(10)}), "train"),
        server.offer("valid.zip", zipped({f"HR/{n:04}.png": photo(n) for n in range(90, 93)}), "test"),
    )
    raw = tmp_path / "data" / "raw"
    records = download(div2k_settings(), raw, archives, tmp_path / "cache").records
    assert [sum(r.split == split for r in records) for split in ("train", "validation", "test")] == [9, 1, 3]
    assert {r.path for r in records if r.split == "test"} == {f"test/00{n}.png" for n in range(90, 93)}
    assert all("academic research" in r.licence for r in records)
    assert sorted(path.name for path in raw.iterdir()) == ["manifest.csv", "test", "train", "validation"]
    assert len({path.name for path in (tmp_path / "cache").iterdir()}) == 2


def test_a_failed_download_leaves_the_former_raw_folder(server: Server, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "former").touch()
    archive = server.offer("a.zip", BODY)
    server.files.clear()
    with pytest.raises(UserError):
        download(div2k_settings(), raw, (archive,), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["raw", "former"]


def test_the_gopro_archive_becomes_pairs(server: Server, tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for seed, scene in enumerate(["train/a", "train/b", "test/c"]):
        members |= {
            f"GOPRO_Large/{scene}/{side}/000001.png": photo(10 * seed + len(side)) for side in ("blur", "sharp")
        }
    archive = server.offer("GOPRO_Large.zip", zipped(members))
    values = div2k_settings().model_dump() | {
        "source": "gopro",
        "archive": {"url": archive.url, "sha256": archive.sha256, "size": archive.size},
    }
    records = download(DownloadData.model_validate(values), tmp_path / "raw", cache=tmp_path / "cache").records
    assert {(record.group, record.split) for record in records} >= {("c", "test")}
    assert sorted(record.split for record in records) == ["test", "train", "validation"]
    for record in records:
        name = record.source.removeprefix("gopro: ").replace("sharp", "blur")
        assert (tmp_path / "raw" / record.degraded).read_bytes() == members[f"GOPRO_Large/{name}"]
    assert not (tmp_path / "raw" / "unpacked").exists()
