"""The page's server, run in this process on a free port."""

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from tests.make.servers import request, running

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
        headers = {"Host": host or f"127.0.0.1:{self.port}"} | ({"Cookie": cookie} if cookie else {})
        return request(self.port, path, method, headers)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with running(partial(create_app, TOKEN)) as port:
        yield Site(port)
