"""Serve the page on which raters vote."""

import hashlib
import os
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, StrictInt

from clearcall.core.errors import UserError
from clearcall.opinion.stimuli import CATEGORIES, PREFERENCE, SCALES, Item, Study, load_study
from clearcall.opinion.votes import Votes
from clearcall.web.guard import ISOLATION, LOOPBACK, Guard, Password, listen

STATIC = Path(__file__).with_name("static")
COMMAND, VARIABLE, LEAST_PASSWORD = "clearcall opinion", "CLEARCALL_PASSWORD", 12
_HALF = 0.5
_LOOPBACK = {LOOPBACK, "localhost", "::1"}
_ALL_INTERFACES = {"0.0.0.0", "::"}  # noqa: S104  # where a password is needed
HEADERS = {
    **ISOLATION,
    "Referrer-Policy": "same-origin",  # without a referrer, a browser sends the login form with the origin "null"
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Shown(NamedTuple):
    """An item as one rater sees it; a pair may be swapped."""

    item: Item
    swapped: bool


class _Scores(BaseModel):
    scores: dict[str, Annotated[StrictInt, Field(ge=-1, le=5)]]


def order_for(study: Study, rater: str) -> list[Shown]:
    """Return all items in the order and arrangement of one rater, drawn by the study's seed and the rater's code.

    Training comes first. Of the rest, two of one source image follow each other only where no others are left.
    """
    digest = hashlib.sha256(f"{study.seed}/{rater}".encode()).digest()
    draw = random.Random(digest)  # noqa: S311  # an order, no secret
    training = [item for item in study.items.values() if item.training]
    rest = study.rated
    draw.shuffle(training)
    draw.shuffle(rest)
    ordered, last = list[Item](), ""
    while rest:
        left = [_image(study, item) for item in rest]
        most = max(set(left), key=lambda image: (left.count(image), image))
        # An image of which more than half is left would end in a row of its own.
        crowded = most != last and left.count(most) * 2 > len(left)
        found = next((at for at, one in enumerate(left) if (one == most if crowded else one != last)), 0)
        ordered.append(rest.pop(found))
        last = left[found]
    return [Shown(item, len(item.stimuli) > 1 and draw.random() < _HALF) for item in training + ordered]


def _image(study: Study, item: Item) -> str:
    return study.stimuli[item.stimuli[0]].image


@dataclass(frozen=True)
class _Desk:
    """Hands out items and takes votes, in the order and arrangement of each rater."""

    study: Study
    votes: Votes

    def session(self, rater: str) -> dict[str, Any]:
        """Return what the page needs to go on where a rater was."""
        shown, given = self._shown_to(rater), self.votes.of_rater(rater)
        for one in shown:
            if one.swapped and one.item.id in given:
                given[one.item.id][PREFERENCE] *= -1
        return {
            "code": rater,
            "method": self.study.method,
            "scales": SCALES,
            "categories": CATEGORIES,
            "items": [
                {"id": item.id, "stimuli": item.stimuli[:: -1 if swapped else 1], "training": item.training}
                for item, swapped in shown
            ],
            "votes": given,
        }

    def store(self, rater: str, item: str, scores: Mapping[str, int]) -> None:
        """Store a vote; raise HTTPException for one that does not count."""
        shown = next((one for one in self._shown_to(rater) if one.item.id == item), None)
        if shown is None or shown.item.training:
            raise HTTPException(404, "this item is not counted")
        lowest, highest = (1, len(CATEGORIES)) if self.study.method == "acr" else (-1, 1)
        if set(scores) != set(self.study.scales) or not all(lowest <= one <= highest for one in scores.values()):
            raise HTTPException(422, "a score is missing or out of range")
        sign = -1 if shown.swapped else 1
        self.votes.vote(rater, item, {scale: sign * score for scale, score in scores.items()})

    def _shown_to(self, rater: str) -> list[Shown]:
        if not self.votes.has_rater(rater):
            raise HTTPException(404, "this code is not known here")
        return order_for(self.study, rater)


def create_app(study: Study, votes: Votes, guard: Guard) -> FastAPI:
    """Return the application; what it serves names no system."""
    app, desk = FastAPI(openapi_url=None), _Desk(study, votes)
    guard.install(app)

    @app.get("/stimuli/{name}")
    def stimulus(name: str) -> Response:
        try:
            content = study.read_stimulus(name)
            return Response(content, media_type=f"image/{study.stimuli[name].suffix[1:]}")
        except KeyError:
            raise HTTPException(404) from None
        except UserError:
            raise HTTPException(409, "this image has changed since the study was made") from None

    @app.post("/api/raters")
    def add_rater() -> dict[str, str]:
        return {"code": votes.add_rater()}

    @app.get("/api/session")
    def session(rater: Annotated[str, Header()] = "") -> dict[str, Any]:
        return desk.session(rater)

    @app.put("/api/votes/{item}")
    def vote(item: str, given: _Scores, rater: Annotated[str, Header()] = "") -> dict[str, bool]:
        desk.store(rater, item, given.scores)
        return {"stored": True}

    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def required_password(host: str) -> str | None:
    """Return the password that serving on a host needs, None for the loopback interface; raise UserError without."""
    if host in _LOOPBACK:
        return None
    password = os.environ.get(VARIABLE, "")
    if len(password) < LEAST_PASSWORD:
        raise UserError(
            f"{host} may be reached from other machines: set {VARIABLE} to a password of at least {LEAST_PASSWORD} "
            f"characters, or serve on {LOOPBACK}"
        )
    return password


def allowed_hosts(host: str, port: int) -> frozenset[str] | None:
    """Return the Host headers that are answered on a host: any (none given) for one that stands for all interfaces."""
    if host in _ALL_INTERFACES:
        return frozenset()
    return None if host in {LOOPBACK, "localhost"} else frozenset({f"{f'[{host}]' if ':' in host else host}:{port}"})


def outward_address(host: str) -> str:
    """Return this machine's address where its default route leaves, or its name if it has no route; nothing is sent."""
    # Kept for documentation by RFC 5737 and RFC 3849.
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((elsewhere, 9))
        address = str(probe.getsockname()[0])
        return f"[{address}]" if ":" in address else address
    return socket.gethostname()


def serve(folder: Path, port: int, host: str, *, open_browser: bool) -> None:
    """Serve a study until Ctrl-C; port 0 is any free one.

    Raises UserError if there is no study, a stimulus has changed, the host needs a password, or the port is taken.
    """
    study, password = load_study(folder), required_password(host)
    for name in study.stimuli:
        study.read_stimulus(name)
    votes = Votes(study)
    asked = password and Password(password, (STATIC / "login.html").read_bytes(), ("/style.css",))

    def make_app(token: str, port: int) -> FastAPI:
        if host in _ALL_INTERFACES:
            print(f"on other machines: http://{outward_address(host)}:{port}/", flush=True)
        guard = Guard(token, port, COMMAND, HEADERS, allowed_hosts(host, port), asked or None)
        return create_app(study, votes, guard)

    listen(make_app, COMMAND, port, open_browser=open_browser, host=host, show_token=not asked)
