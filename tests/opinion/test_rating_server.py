"""The server over HTTP: who is answered, what is refused, what is stored."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import pytest
from tests.make.commands import run_command
from tests.opinion.conftest import MakeStudy, Site, served

from clearcall.core.errors import UserError
from clearcall.opinion.server import allowed_hosts, order_for, outward_address, required_password
from clearcall.web.guard import Password

PASSWORD = "correct horse battery"  # noqa: S105  # of these tests
SCORES = {"clarity": 4, "edges": 3, "naturalness": 5}
PATHS = ("/", "/page.js", "/api/session", "/stimuli/0123456789abcdef")


@pytest.mark.parametrize("path", PATHS)
def test_without_token_or_with_another_host_nothing_is_answered(site: Site, path: str) -> None:
    for headers in ({"Cookie": ""}, {"Cookie": f"clearcall-{site.port}=wrong"}, {"Host": "evil.example"}):
        answer, content = site.ask(path, **headers)
        assert answer.status == 403 and answer.getheader("Set-Cookie") is None
        assert b"<html" not in content


def test_the_page_allows_this_origin_alone(site: Site) -> None:
    answer, content = site.ask("/")
    assert answer.status == 200 and b"<title>clearcall opinion</title>" in content
    policy = answer.getheader("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'self';") and not re.search(r"unsafe|https?:|\*", policy)


@pytest.mark.parametrize(
    "path",
    [
        *("/stimuli/..%2fstudy.json", "/stimuli/../study.json", "/../study.json", "/..%2f..%2fvotes.db", "/study.json"),
        *("/votes.db", "/%2e%2e/server.py", "/stimuli/", "/stimuli/nothing", "/stimuli/%00", "/openapi.json"),
    ],
)
def test_nothing_else_can_be_read(site: Site, path: str) -> None:
    answer, content = site.ask(path)
    assert answer.status in {307, 404}
    assert b"seed" not in content and b"SQLite" not in content and b"import" not in content


def test_a_stimulus_is_served_as_it_was_made_or_not_at_all(site: Site) -> None:
    name = next(iter(site.study.stimuli))
    path = site.study.folder / "stimuli" / f"{name}.png"
    answer, content = site.ask(f"/stimuli/{name}")
    assert answer.status == 200 and answer.getheader("Content-Type") == "image/png" and content == path.read_bytes()
    for other in (content + b"0", b""):
        path.write_bytes(other)
        assert site.ask(f"/stimuli/{name}")[0].status == 409
    path.unlink()
    assert site.ask(f"/stimuli/{name}")[0].status == 409
    done = run_command("opinion", "serve", str(site.study.folder), "--no-open")
    assert done.returncode == 1 and "has changed" in done.stderr


def new_rater(site: Site) -> str:
    return str(json.loads(site.ask("/api/raters", "POST")[1])["code"])


def test_a_rater_votes_goes_back_and_resumes(site: Site) -> None:
    rater, item = new_rater(site), site.study.rated[0].id
    for clarity in (2, 5):
        answer, _ = site.ask(f"/api/votes/{item}", "PUT", {"scores": SCORES | {"clarity": clarity}}, rater=rater)
        assert answer.status == 200
    session = json.loads(site.ask("/api/session", rater=rater)[1])
    assert session["votes"] == {item: SCORES | {"clarity": 5}}
    assert [one["id"] for one in session["items"]] == [one.item.id for one in order_for(site.study, rater)]
    said = json.dumps(session)
    assert not re.search("unsharp|reference|bicubic|astronaut|coffee|input", said)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"scores": {"clarity": 4}}, 422),
        ({"scores": SCORES | {"clarity": 6}}, 422),
        ({"scores": SCORES | {"clarity": 0}}, 422),
        ({"scores": SCORES | {"clarity": 4.5}}, 422),
        ({"scores": SCORES | {"clarity": True}}, 422),
        ({"scores": SCORES | {"taste": 4}}, 422),
        (b"{", 422),
        (b" " * 20_000, 413),
    ],
)
def test_what_is_no_vote_is_refused(site: Site, body: Any, status: int) -> None:
    rater, item = new_rater(site), site.study.rated[0].id
    assert site.ask(f"/api/votes/{item}", "PUT", body, rater=rater)[0].status == status
    assert site.votes.all() == []


def test_strangers_training_and_other_sites_do_not_vote(site: Site) -> None:
    rater, item, body = new_rater(site), site.study.rated[0].id, {"scores": SCORES}
    training = next(one.id for one in site.study.items.values() if one.training)
    assert site.ask(f"/api/votes/{item}", "PUT", body)[0].status == 404
    assert site.ask(f"/api/votes/{item}", "PUT", body, rater="synthetic-1")[0].status == 404
    assert site.ask(f"/api/votes/{training}", "PUT", body, rater=rater)[0].status == 404
    assert site.ask("/api/votes/nothing", "PUT", body, rater=rater)[0].status == 404
    assert site.ask(f"/api/votes/{item}", "PUT", body, rater=rater, Cookie="")[0].status == 403
    for origin in ("http://evil.example", f"http://localhost:{site.port}", "null"):
        assert site.ask(f"/api/votes/{item}", "PUT", body, rater=rater, Origin=origin)[0].status == 403
    assert site.votes.all() == []
    assert site.ask(f"/api/votes/{item}", "PUT", body, rater=rater, Origin=site.origin)[0].status == 200


def test_votes_of_swapped_pairs_are_stored_for_the_system(make_study: MakeStudy) -> None:
    with served(make_study("pairs")) as site:
        rater = new_rater(site)
        for shown in order_for(site.study, rater)[2:]:
            body = {"scores": {"preference": -1}}  # the one on the left
            assert site.ask(f"/api/votes/{shown.item.id}", "PUT", body, rater=rater)[0].status == 200
            stored = site.votes.of_rater(rater)[shown.item.id]
            assert stored == {"preference": 1 if shown.swapped else -1}
        given = json.loads(site.ask("/api/session", rater=rater)[1])["votes"]
        assert {one["preference"] for one in given.values()} == {-1}
        item = site.study.rated[0].id
        assert site.ask(f"/api/votes/{item}", "PUT", {"scores": {"preference": 2}}, rater=rater)[0].status == 422


def log_in(site: Site, password: str) -> Any:
    body = urlencode({"password": password}).encode()
    return site.ask("/login", "POST", body, Cookie="", Content_Type="application/x-www-form-urlencoded")[0]


def test_a_password_is_asked_for_and_failures_are_limited(make_study: MakeStudy, monkeypatch: Any) -> None:
    now = 0.0
    monkeypatch.setattr("clearcall.web.guard.monotonic", lambda: now)
    with served(make_study(), Password(PASSWORD, b"<form>", ("/style.css",))) as site:
        assert site.ask("/", Cookie="")[1] == b"<form>"
        assert site.ask("/style.css", Cookie="")[0].status == 200
        for path in PATHS[1:]:
            assert site.ask(path, Cookie="")[0].status == 403
        assert site.ask("/?token=the-token", Cookie="")[1] == b"<form>"
        entered = log_in(site, PASSWORD)
        cookie = entered.getheader("Set-Cookie")
        assert entered.status == 303 and "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert site.ask("/api/raters", "POST", Cookie=cookie.split(";")[0])[0].status == 200
        assert [log_in(site, wrong).status for wrong in ("", "x", PASSWORD[:-1], PASSWORD + "x", "ä")] == [403] * 5
        locked = log_in(site, PASSWORD)
        assert locked.status == 429 and 0 < int(locked.getheader("Retry-After")) <= 61
        now = 61.0
        assert log_in(site, PASSWORD).status == 303


def test_passwords_that_are_sent_together_are_counted_one_by_one(make_study: MakeStudy) -> None:
    body = urlencode({"password": "wrong"}).encode()
    with served(make_study(), Password(PASSWORD, b"<form>")) as site:
        waiting = []
        for _ in range(8):
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
            connection.putrequest("POST", "/login")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:1])
            waiting.append(connection)
        assert site.ask("/", Cookie="")[0].status == 200  # the others have been asked for by now
        for connection in waiting:
            connection.send(body[1:])
        assert sorted(one.getresponse().status for one in waiting) == [403] * 5 + [429] * 3


@pytest.mark.parametrize("password", [None, "", "elevenchars"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])  # noqa: S104  # refused
def test_other_hosts_need_a_password(monkeypatch: Any, host: str, password: str | None) -> None:
    monkeypatch.delenv("CLEARCALL_PASSWORD", raising=False)
    if password is not None:
        monkeypatch.setenv("CLEARCALL_PASSWORD", password)
    with pytest.raises(UserError, match="CLEARCALL_PASSWORD to a password of at least 12"):
        required_password(host)
    monkeypatch.setenv("CLEARCALL_PASSWORD", PASSWORD)
    assert required_password(host) == PASSWORD
    for loopback in ("127.0.0.1", "localhost", "::1"):
        assert required_password(loopback) is None


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        *(("192.168.1.5", {"192.168.1.5:80"}), ("example.org", {"example.org:80"}), ("::1", {"[::1]:80"})),
        *(("0.0.0.0", set()), ("::", set()), ("127.0.0.1", None), ("localhost", None)),  # noqa: S104
    ],
)
def test_hosts_that_are_answered(host: str, answered: Any) -> None:
    assert allowed_hosts(host, 80) == answered


def test_a_machine_without_a_route_is_named(monkeypatch: Any) -> None:
    route = mock.Mock(side_effect=OSError)
    monkeypatch.setattr("socket.socket.connect", route)
    assert outward_address("0.0.0.0") == socket.gethostname()  # noqa: S104
    route.assert_called_once_with(("192.0.2.1", 9))


def test_the_command_serves_on_all_interfaces_with_a_password_alone(make_study: MakeStudy, monkeypatch: Any) -> None:
    monkeypatch.delenv("CLEARCALL_PASSWORD", raising=False)
    study = make_study()
    arguments = ["opinion", "serve", str(study.folder), "--no-open", "--host", "0.0.0.0"]  # noqa: S104
    assert "set CLEARCALL_PASSWORD" in run_command(*arguments).stderr
    monkeypatch.setenv("CLEARCALL_PASSWORD", PASSWORD)
    program = f"import sys; sys.argv[1:] = {arguments}; from clearcall.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.fullmatch(r"clearcall opinion: http://0\.0\.0\.0:(\d+)/ \(.*\)\n", process.stdout.readline())
        assert found
        other = re.fullmatch(r"on other machines: http://([^/]+):(\d+)/\n", process.stdout.readline())
        assert other and other[2] == found[1] and other[1] != "0.0.0.0"  # noqa: S104
        site = Site(int(found[1]), study, None)  # type: ignore[arg-type]
        assert b'type="password"' in site.ask("/", Cookie="", Host="my.name")[1]
        assert log_in(site, "wrong").status == 403 and log_in(site, PASSWORD).status == 303
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
