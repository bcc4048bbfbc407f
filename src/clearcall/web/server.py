"""Serve the page of `clearcall web` on the loopback interface; no endpoint takes data."""

import mimetypes
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED
from clearcall.runtime.sharpener import shipped_models
from clearcall.web.guard import ISOLATION, Guard, listen

STATIC = Path(__file__).with_name("static")
NETWORK_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_RUNTIME = (*NETWORK_RUNTIME, "mediabunny.min.mjs")
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_HEADERS = {
    **ISOLATION,
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


def check_runtime(static: Path = STATIC) -> None:
    """Raise UserError if the JavaScript runtime is not installed."""
    if not all((static / "vendor" / name).is_file() for name in _RUNTIME):
        raise UserError("the page's JavaScript runtime is not installed: run `make web` in the project's folder")


def create_app(token: str, port: int, static: Path = STATIC) -> FastAPI:
    """Return the application for one port; only who knows the token is answered.

    The token is a query parameter of the first request, and a cookie from then on.
    """
    for suffix, kind in _TYPES.items():  # a registry of the system may say otherwise
        mimetypes.add_type(kind, suffix)
    app = FastAPI(openapi_url=None)
    Guard(token, port, "clearcall web", _HEADERS).install(app)

    @app.get("/models/{name}.onnx")
    def model(name: str) -> FileResponse:
        if name not in shipped_models():
            raise HTTPException(404)
        return FileResponse(SHIPPED / f"{name}.onnx", media_type="application/octet-stream")

    app.mount("/", StaticFiles(directory=static, html=True))
    return app


def serve(port: int, *, open_browser: bool) -> None:
    """Serve the page until Ctrl-C; port 0 is any free one. Prints the address, with its token.

    Raises UserError if the port is taken or the JavaScript runtime is missing.
    """
    check_runtime()
    listen(create_app, "clearcall web", port, open_browser=open_browser)
