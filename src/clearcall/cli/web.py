"""The command that serves a page for the browser."""

from typing import Annotated

import typer


def web(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 is any free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Sharpen images, videos and the camera on a page in the browser; nothing leaves this machine.

    The page is reachable from this machine only, by the address that is printed. `make web` installs its runtime once.
    Ctrl-C ends it.

    Example: clearcall web --port 8000 --no-open
    """
    from clearcall.web.server import serve

    serve(port, open_browser=open_browser)
