"""The page's server, run in this process on a free port."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from clearcall.web.server import create_app

TOKEN = "the-token"  # noqa: S105  # of these tests


@dataclass(frozen=True)
class Site:
    """A running server."""

    port: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/?token={TOKEN}"

    @property
    def cookie(self) -> str:
        return f"clearcall-{self.port}={TOKEN}"

    def ask(
        self, path: str, method: str = "GET", *, host: str | None = None, cookie: str = ""
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request, of which the path is taken as it is; return the answer and its content."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        if cookie:
            connection.putheader("Cookie", cookie)
        connection.endheaders()
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(create_app(TOKEN, port), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Site(port)
        server.should_exit = True
        thread.join(10)
