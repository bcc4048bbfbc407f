"""Serve the page of `clearcall web` on the loopback interface; no endpoint takes data."""

import mimetypes
import secrets
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED
from clearcall.runtime.sharpener import shipped_models

STATIC = Path(__file__).with_name("static")
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_LOOPBACK = "127.0.0.1"
_TOKEN_BYTES = 32
_GRACE_S = 1  # for open requests, after Ctrl-C
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_HEADERS = {
    # WebAssembly threads need a page that is isolated from others.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def check_runtime(static: Path = STATIC) -> None:
    """Raise UserError if the JavaScript runtime is not installed."""
    if not all((static / "vendor" / name).is_file() for name in _RUNTIME):
        raise UserError("onnxruntime-web is not installed: run `make web` in the project's folder")


def create_app(token: str, port: int, static: Path = STATIC) -> FastAPI:
    """Return the application for one port; only who knows the token is answered.

    The token is a query parameter of the first request, and a cookie from then on.
    """
    for suffix, kind in _TYPES.items():  # a registry of the system may say otherwise
        mimetypes.add_type(kind, suffix)
    app = FastAPI(openapi_url=None)
    hosts, cookie = {f"{_LOOPBACK}:{port}", f"localhost:{port}"}, f"clearcall-{port}"

    def answer_first(request: Request) -> Response | None:
        """Return what keeps a request from being answered by its route."""
        if request.headers.get("host") not in hosts:  # a name that an attacker's DNS points here
            return PlainTextResponse("wrong host", 403)
        if _same(request.query_params.get("token", ""), token):
            response = RedirectResponse("/", 303)  # the token stays out of the history
            response.set_cookie(cookie, token, httponly=True, samesite="strict")
            return response
        if not _same(request.cookies.get(cookie, ""), token):
            return PlainTextResponse("open the address that `clearcall web` has printed", 403)
        return None

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = answer_first(request) or await call_next(request)
        response.headers.update(_HEADERS)
        is_asset = request.url.path != "/" and response.status_code in {200, 304}
        response.headers["Cache-Control"] = "no-cache" if is_asset else "no-store"
        return response

    @app.get("/models/{name}.onnx")
    def model(name: str) -> FileResponse:
        if name not in shipped_models():
            raise HTTPException(404)
        return FileResponse(SHIPPED / f"{name}.onnx", media_type="application/octet-stream")

    app.mount("/", StaticFiles(directory=static, html=True))
    return app


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def serve(port: int, *, open_browser: bool) -> None:
    """Serve the page until Ctrl-C; port 0 is any free one. Prints the address, with its token.

    Raises UserError if the port is taken or the JavaScript runtime is missing.
    """
    check_runtime()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_LOOPBACK, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used: {error.strerror}; choose another, or 0 for any") from None
        listener.listen()
        port, token = listener.getsockname()[1], secrets.token_urlsafe(_TOKEN_BYTES)
        url = f"http://{_LOOPBACK}:{port}/?token={token}"
        print(f"clearcall web: {url} (Ctrl-C ends it)", flush=True)
        if open_browser:  # in a thread: a browser on the terminal returns when it is closed
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        settings = uvicorn.Config(
            create_app(token, port),
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
