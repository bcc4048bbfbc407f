"""A small study of two photographs, and its server in this process."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from tests.make.servers import request, running

from clearcall.imaging.frame import Frame
from clearcall.opinion.server import COMMAND, HEADERS, create_app
from clearcall.opinion.stimuli import Method, Study, create_study
from clearcall.opinion.votes import Votes
from clearcall.web.guard import Guard, Password

TOKEN = "the-token"  # noqa: S105  # of these tests
MakeStudy = Callable[..., Study]


@dataclass(frozen=True)
class Site:
    """A running server of a study."""

    port: int
    study: Study
    votes: Votes

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", body: object = None, **given: str) -> tuple[Any, bytes]:
        """Send one request with the cookie, of which the path is taken as it is; `given` are further headers."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Host": f"127.0.0.1:{self.port}", "Cookie": f"clearcall-{self.port}={TOKEN}"}
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))} if data else {}
        headers |= {name.replace("_", "-"): value for name, value in given.items()}
        return request(self.port, path, method, headers, data)


@contextmanager
def served(study: Study, password: Password | None = None) -> Iterator[Site]:
    votes = Votes(study)

    def make_app(port: int) -> FastAPI:
        return create_app(study, votes, Guard(TOKEN, port, COMMAND, HEADERS, password=password))

    with running(make_app) as port:
        yield Site(port, study, votes)


@pytest.fixture(scope="session")
def sharp_folder(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Frame]) -> Path:
    folder = tmp_path_factory.mktemp("sharp")
    for name in ("astronaut", "coffee"):
        Image.fromarray(photos[name]).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def make_study(tmp_path: Path, sharp_folder: Path) -> MakeStudy:
    def make(method: Method = "acr", **options: Any) -> Study:
        given = {"systems": ["input", "unsharp"], "conditions": ["bicubic_x2"], "crop": (128, 96)} | options
        return create_study(sharp_folder, tmp_path / "study", method=method, **given)

    return make


@pytest.fixture
def site(make_study: MakeStudy) -> Iterator[Site]:
    with served(make_study()) as running:
        yield running
