"""The server of the page: who is answered, with what, and what is refused."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.make.commands import run_command
from tests.web.conftest import TOKEN, Site

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED
from clearcall.web.server import STATIC, check_runtime

PATHS = ("/", "/page.js", "/models/fast.onnx", "/nothing")
# Serves without the JavaScript runtime, which is not needed to be asked.
PROGRAM = """
import sys
import clearcall.web.server as server
from clearcall.core import errors
server.check_runtime = lambda: None
errors.run(lambda: server.serve(0, open_browser=False))
"""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", ["", "clearcall-1=the-token", "{name}=wrong", "{name}=fälschlich"])
def test_without_the_token_nothing_is_answered(site: Site, path: str, cookie: str) -> None:
    answer, content = site.ask(path, cookie=cookie.format(name=f"clearcall-{site.port}").encode().decode("latin-1"))
    assert answer.status == 403 and b"address" in content
    assert answer.getheader("Set-Cookie") is None


@pytest.mark.parametrize("token", ["wrong", "", "the-token-", "%E4"])
def test_a_wrong_token_is_refused(site: Site, token: str) -> None:
    assert site.ask(f"/?token={token}")[0].status == 403


def test_the_token_becomes_a_cookie_and_leaves_the_address(site: Site) -> None:
    answer, _ = site.ask(f"/?token={TOKEN}")
    assert answer.status == 303 and answer.getheader("Location") == "/"
    given = (answer.getheader("Set-Cookie") or "").lower()
    assert site.cookie in given and "httponly" in given and "samesite=strict" in given
    assert answer.getheader("Cache-Control") == "no-store"
    page, content = site.ask("/", cookie=site.cookie)
    assert page.status == 200 and b"<title>clearcall</title>" in content
    assert page.getheader("Cache-Control") == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}"])
def test_another_host_is_refused_with_the_token_too(site: Site, host: str) -> None:
    for path in ("/", f"/?token={TOKEN}"):
        answer, _ = site.ask(path, host=host.format(port=site.port), cookie=site.cookie)
        assert answer.status == 403 and answer.getheader("Set-Cookie") is None


def test_localhost_is_answered(site: Site) -> None:
    assert site.ask("/", host=f"localhost:{site.port}", cookie=site.cookie)[0].status == 200


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_isolates_the_page_and_allows_this_origin_alone(site: Site, path: str) -> None:
    for cookie in ("", site.cookie):
        headers = site.ask(path, cookie=cookie)[0].headers
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
        assert not re.search(r"unsafe-inline|'unsafe-eval'|https?:|\*", policy)


def test_the_page_has_the_same_policy_for_hosts_that_send_none(site: Site) -> None:
    answer, content = site.ask("/", cookie=site.cookie)
    stated = re.search(r'Content-Security-Policy" content="([^"]+)"', content.decode())
    assert stated and answer.headers["Content-Security-Policy"] == f"{stated[1]}; frame-ancestors 'none'"


def test_no_file_of_the_page_names_another_site() -> None:
    for path in STATIC.glob("*.*"):
        assert "//" not in re.sub(r"^\s*//.*$| // .*$|/\*.*?\*/", "", path.read_text(), flags=re.MULTILINE), path


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/page.js", "text/javascript"), ("/style.css", "text/css"), ("/models/fast.onnx", "application/octet-stream")],
)
def test_files_come_with_their_type_and_are_asked_for_again(site: Site, path: str, kind: str) -> None:
    answer, content = site.ask(path, cookie=site.cookie)
    folder = SHIPPED if "models" in path else STATIC
    assert content == (folder / Path(path).name).read_bytes()
    assert answer.getheader("Content-Type", "").split(";")[0] == kind
    assert answer.getheader("Cache-Control") == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        *("/../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "/static/..%2f..%2fserver.py", "//etc/passwd"),
        *("/models/teacher.onnx", "/models/..%2ffast.onnx", "/models/fast.json", "/models/", "/%00", "/vendor"),
        *("/docs", "/openapi.json", "/upload"),
    ],
)
def test_nothing_else_can_be_read(site: Site, path: str) -> None:
    answer, content = site.ask(path, cookie=site.cookie)
    assert answer.status in {307, 404}
    assert b"import" not in content and b"root:" not in content


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_takes_data(site: Site, method: str, path: str) -> None:
    assert site.ask(path, method, cookie=site.cookie)[0].status in {404, 405}


def test_without_the_javascript_runtime_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="run `make web`"):
        check_runtime(tmp_path)
    monkeypatch.setattr("clearcall.web.server._RUNTIME", ("missing.wasm",))
    done = run_command("web", "--no-open")
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]*make web[^\n]*\n", done.stderr)


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearcall.web.server._RUNTIME", ())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_command("web", "--no-open", "--port", str(port))
    assert done.returncode == 1 and f"port {port} cannot be used" in done.stderr


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGTERM])
def test_it_is_reachable_from_this_machine_alone_and_ends_cleanly(send: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.match(r"clearcall web: http://127\.0\.0\.1:(\d+)/\?token=([\w-]{40,}) ", process.stdout.readline())
        assert found
        site = Site(int(found[1]))
        assert site.ask(f"/?token={found[2]}")[0].status == 303
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", site.port), 5)
        process.send_signal(send)
        _, said = process.communicate(timeout=20)
    assert process.returncode == (0 if send == signal.SIGINT else 128 + signal.SIGTERM) and said == ""
