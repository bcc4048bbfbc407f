"""Published weights: a file or a local server's, checked by hash, loaded without running anything."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.models.weights import fetch_weights, load_published

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], tensor) for name, tensor in other.items())


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of the folder `web`, with the cache beside it."""
    (tmp_path / "web").mkdir()
    monkeypatch.setenv("CLEARCALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "web"))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_is_downloaded_once_into_the_cache(url: str, tmp_path: Path) -> None:
    served = tmp_path / "web" / "net.pth"
    torch.save(STATE, served)
    sha256 = sha256_of(served)
    assert same(load_published(f"{url}/net.pth", sha256), STATE)
    served.unlink()
    assert same(load_published(f"{url}/net.pth", sha256), STATE)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["net.pth"]


def test_a_file_put_into_the_cache_by_hand_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARCALL_CACHE", str(tmp_path))
    torch.save(STATE, tmp_path / "net.pth")
    assert fetch_weights("http://127.0.0.1:9/net.pth", sha256_of(tmp_path / "net.pth")) == tmp_path / "net.pth"


@pytest.mark.parametrize("offered", [None, b"another file"])
def test_what_cannot_be_had_or_is_another_is_refused_and_not_kept(
    url: str, tmp_path: Path, offered: bytes | None
) -> None:
    if offered is not None:
        (tmp_path / "web" / "net.pth").write_bytes(offered)
    with pytest.raises(UserError, match=f"cannot download {url}/net.pth: .*put it at {tmp_path}/cache/net.pth"):
        fetch_weights(f"{url}/net.pth", hashlib.sha256(b"the file").hexdigest())
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_file_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with pytest.raises(UserError, match=r"there is no file .*net\.pth"):
        fetch_weights(str(path), "0" * 64)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match=r"has the SHA-256 2cf24dba.*, not 0000"):
        fetch_weights(str(path), "0" * 64)
    assert fetch_weights(str(path), hashlib.sha256(b"hello").hexdigest()) == path


@pytest.mark.parametrize("name", ["params", "params_ema", "state_dict", None])
def test_weights_are_found_below_their_usual_names(tmp_path: Path, name: str | None) -> None:
    path = tmp_path / "net.pth"
    torch.save({name: STATE} if name else STATE, path)
    assert same(load_published(str(path), sha256_of(path)), STATE)


def test_the_older_form_is_read(tmp_path: Path) -> None:
    """That of torch before 1.6, in which VGG-19 is published."""
    path = tmp_path / "net.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert same(load_published(str(path), sha256_of(path)), STATE)


def test_the_average_of_weights_is_preferred(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"params": {"conv.bias": torch.zeros(1)}, "params_ema": STATE}, path)
    assert same(load_published(str(path), sha256_of(path)), STATE)


def test_safetensors_are_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(STATE, path)
    assert same(load_published(str(path), sha256_of(path)), STATE)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_file_that_wants_to_run_something_is_refused_without_running_it(tmp_path: Path) -> None:
    path, trace = tmp_path / "net.pth", tmp_path / "trace"
    torch.save({"conv.bias": Trap(trace)}, path)
    with pytest.raises(UserError, match="holds no weights that can be read"):
        load_published(str(path), sha256_of(path))
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(2)], ids=["list", "numbers", "tensor"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"net\.pth holds no weights by name"):
        load_published(str(path), sha256_of(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello" * 40], ids=["empty", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds no weights that can be read"):
        load_published(str(path), sha256_of(path))
