"""A DVC remote over SSH, on a server of this process's own: what docs/team.md says of it."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import asyncssh
import pytest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a folder of an SSH server that takes one key, `id` in `tmp_path`."""
    key, loop = asyncssh.generate_private_key("ssh-ed25519"), asyncio.new_event_loop()
    key.write_private_key(tmp_path / "id")
    key.write_public_key(tmp_path / "id.pub")
    (tmp_path / "served").mkdir()
    files = partial(asyncssh.SFTPServer, chroot=str(tmp_path / "served").encode())
    host_key, keys = asyncssh.generate_private_key("ssh-ed25519"), str(tmp_path / "id.pub")
    listening = asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=keys, sftp_factory=files
    )
    port = loop.run_until_complete(listening).get_port()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"ssh://anna@127.0.0.1:{port}/clearcall"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.skipif(not find_spec("dvc_ssh"), reason="no SSH here: run `make cluster`")
def test_what_is_pushed_over_ssh_can_be_pulled(server: str, tmp_path: Path) -> None:
    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True)

    dvc("init", "--no-scm", "--quiet")
    (tmp_path / "weights").write_bytes(b"weights")
    dvc("add", "weights")
    dvc("remote", "add", "--default", "team", server)
    dvc("remote", "modify", "--local", "team", "keyfile", str(tmp_path / "id"))
    dvc("push")
    assert [path.read_bytes() for path in (tmp_path / "served").rglob("*") if path.is_file()] == [b"weights"]
    (tmp_path / "weights").unlink()
    for path in (tmp_path / ".dvc" / "cache" / "files").rglob("*"):
        if path.is_file():
            path.unlink()
    dvc("pull")
    assert (tmp_path / "weights").read_bytes() == b"weights"
