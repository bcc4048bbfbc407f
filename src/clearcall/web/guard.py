"""Who is answered by a server of ours, which headers it sends, and how it listens."""

import math
import secrets
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from clearcall.core.errors import UserError

LOOPBACK = "127.0.0.1"
LOGIN = "/login"
WRONG = b'id="wrong"'  # of a form's element, hidden until a password is refused
ISOLATION = {  # WebAssembly threads need a page that is isolated from others
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TOKEN_BYTES = 32
_GRACE_S = 1  # for open requests, after Ctrl-C
_MAX_BODY_BYTES = 10_000
_FREE_FAILURES, _LOCK_S, _MAX_ADDRESSES = 5, 60.0, 10_000


@dataclass
class Password:
    """A password, the page (HTML) that asks for it, and the paths that page needs.

    After five failures within a minute an address waits until the minute is over.
    """

    password: str
    form: bytes
    paths: Collection[str] = ()
    _failures: dict[str, list[float]] = field(default_factory=dict)

    def wait_s(self, address: str) -> float:
        """Return for how many seconds an address may not try."""
        recent = [at for at in self._failures.get(address, []) if at > monotonic() - _LOCK_S]
        return 0.0 if len(recent) < _FREE_FAILURES else recent[0] + _LOCK_S - monotonic()

    def accepts(self, given: str, address: str) -> bool:
        """Return whether a password is right, compared in constant time; a wrong one is counted."""
        if same(given, self.password):
            self._failures.pop(address, None)
            return True
        if len(self._failures) >= _MAX_ADDRESSES:
            self._failures.clear()
        self._failures[address] = [*self._failures.get(address, []), monotonic()][-_FREE_FAILURES:]
        return False


def same(given: str, secret: str) -> bool:
    """Compare two texts in constant time."""
    return secrets.compare_digest(given.encode(errors="replace"), secret.encode())


def new_token() -> str:
    """Return a random token for an address or a cookie."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


@dataclass(frozen=True)
class Guard:
    """Answers only who has the token as a cookie, with `headers` on every answer.

    The cookie is given to who opens the address with `?token=`, or, where there is a `password`, to who knows that.
    `hosts` are the allowed names with their port: by default those of the loopback interface; if empty, any.
    """

    token: str
    port: int
    command: str
    headers: Mapping[str, str]
    hosts: Collection[str] | None = None
    password: Password | None = None

    def install(self, app: FastAPI) -> None:
        """Let an application's routes answer only what the guard lets through."""

        @app.middleware("http")
        async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
            response = self._refused(request) or await self._admitted(request) or await call_next(request)
            response.headers.update(self.headers)
            is_asset = request.url.path != "/" and response.status_code in {200, 304}
            response.headers["Cache-Control"] = "no-cache" if is_asset else "no-store"
            return response

    @property
    def _cookie(self) -> str:
        return f"clearcall-{self.port}"

    def _refused(self, request: Request) -> Response | None:
        """Refuse a wrong host, data of another site's page, and more of it than any form of ours has."""
        host = request.headers.get("host", "")
        allowed = {f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"} if self.hosts is None else self.hosts
        if allowed and host not in allowed:  # a name that an attacker's DNS points here
            return PlainTextResponse("wrong host", 403)
        if request.method in {"GET", "HEAD"}:
            return None
        origin = request.headers.get("origin")
        if origin is not None and origin not in {f"http://{host}", f"https://{host}"}:
            return PlainTextResponse("wrong origin", 403)
        length = request.headers.get("content-length", "0")
        if "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            return PlainTextResponse("too much data", 413)
        return None

    async def _admitted(self, request: Request) -> Response | None:
        """Return the answer to who comes without the cookie, or brings the token; None for who has the cookie."""
        known = same(request.cookies.get(self._cookie, ""), self.token)
        if self.password is None:
            if same(request.query_params.get("token", ""), self.token):
                return self._admit()
            text = f"open the address that `{self.command}` has printed"
            return None if known else PlainTextResponse(text, 403)
        if known or request.url.path in self.password.paths:
            return None
        if request.url.path == LOGIN and request.method == "POST":
            return await self._login(request, self.password)
        return Response(self.password.form, 200 if request.url.path == "/" else 403, media_type="text/html")

    async def _login(self, request: Request, password: Password) -> Response:
        form = parse_qs((await request.body()).decode(errors="replace"))
        # Nothing is awaited from here on: requests that are sent together are counted one by one.
        address = request.client.host if request.client else ""
        if (wait_s := math.ceil(password.wait_s(address))) > 0:
            said = f"too many wrong passwords: go back and try again in {wait_s} s"
            return PlainTextResponse(said, 429, {"Retry-After": str(wait_s)})
        if password.accepts(form.get("password", [""])[0], address):
            return self._admit()
        return Response(password.form.replace(WRONG + b" hidden", WRONG), 403, media_type="text/html")

    def _admit(self) -> Response:
        response = RedirectResponse("/", 303)  # the token stays out of the history
        response.set_cookie(self._cookie, self.token, httponly=True, samesite="strict")
        return response


def listen(
    make_app: Callable[[str, int], FastAPI],
    command: str,
    port: int,
    *,
    open_browser: bool,
    host: str = LOOPBACK,
    show_token: bool = True,
) -> None:
    """Serve what `make_app` returns for a token and a port until Ctrl-C, and print its address.

    Port 0 is any free one. Raises UserError if host or port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            where = f"port {port}" if host == LOOPBACK else f"{host}, port {port}"
            raise UserError(f"{where} cannot be used: {error.strerror}; choose another, or 0 for any") from None
        listener.listen()
        port, token = listener.getsockname()[1], new_token()
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/" + (f"?token={token}" if show_token else "")
        print(f"{command}: {url} (Ctrl-C ends it)", flush=True)
        if open_browser:  # in a thread: a browser on the terminal returns when it is closed
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        settings = uvicorn.Config(
            make_app(token, port),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_GRACE_S,
        )
        try:
            uvicorn.Server(settings).run([listener])
        except KeyboardInterrupt:
            print("ended")
