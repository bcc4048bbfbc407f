"""The votes of a study in SQLite: one transaction a vote, one vote a rater and item."""

import hashlib
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from clearcall.core.errors import UserError
from clearcall.opinion.stimuli import STUDY, VOTES, Study

SYNTHETIC = "synthetic-"  # begins the codes of tests; no rater is ever given such a code
_LETTERS, _CODE_LENGTH = "23456789abcdefghjkmnpqrstuvwxyz", 10  # none that is taken for another
_BUSY_S = 10
_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (sha256 TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS raters (
  code TEXT PRIMARY KEY,
  synthetic INTEGER NOT NULL CHECK (synthetic = (code GLOB 'synthetic-*')),
  started TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS votes (
  rater TEXT NOT NULL REFERENCES raters (code),
  item TEXT NOT NULL REFERENCES items (id),
  scale TEXT NOT NULL,
  score INTEGER NOT NULL,
  voted TEXT NOT NULL,
  PRIMARY KEY (rater, item, scale),
  CHECK (CASE scale WHEN 'preference' THEN score BETWEEN -1 AND 1 ELSE score BETWEEN 1 AND 5 END)
) STRICT;
"""


@dataclass(frozen=True)
class Vote:
    """One score: 1 to 5, or of a pair -1, 0 or 1. `voted` is the time in UTC, `synthetic` 1 for a test's."""

    rater: str
    item: str
    scale: str
    score: int
    voted: str
    synthetic: int


class Votes:
    """The votes of a study; any thread may call any method."""

    def __init__(self, study: Study) -> None:
        self._study, self._path = study, study.folder / VOTES
        digest = hashlib.sha256((study.folder / STUDY).read_bytes()).hexdigest()
        with self._connected() as database:
            database.executescript(f"PRAGMA journal_mode=WAL; {_SCHEMA}")
            with database:
                of = database.execute("SELECT sha256 FROM study").fetchone()
                if of and of[0] != digest:
                    raise UserError(f"{self._path} holds the votes of another {STUDY}: move one of them away")
                if not of:
                    database.execute("INSERT INTO study VALUES (?)", (digest,))
                    database.executemany("INSERT INTO items VALUES (?)", [(item.id,) for item in study.rated])

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as database:
                database.execute("PRAGMA foreign_keys=ON")
                yield database
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise UserError(f"{self._path} cannot be used: {error}") from None

    def add_rater(self, code: str | None = None) -> str:
        """Add a rater and return the code, a random one if none is given (tests give one)."""
        code = code or "".join(secrets.choice(_LETTERS) for _ in range(_CODE_LENGTH))
        with self._connected() as database, database:
            row = (code, code.startswith(SYNTHETIC), _now())
            database.execute("INSERT INTO raters VALUES (?, ?, ?)", row)
        return code

    def has_rater(self, code: str) -> bool:
        """Return whether a rater's code is known."""
        with self._connected() as database:
            return database.execute("SELECT 1 FROM raters WHERE code = ?", (code,)).fetchone() is not None

    def vote(self, rater: str, item: str, scores: Mapping[str, int]) -> None:
        """Store a rater's scores of one item, in place of earlier ones.

        Raises ValueError if the scales are not those of the study, sqlite3.IntegrityError for an unknown rater or item
        and scores out of range.
        """
        if set(scores) != set(self._study.scales):
            raise ValueError(f"scores must be given for {', '.join(self._study.scales)}")
        rows = [(rater, item, scale, score, _now()) for scale, score in scores.items()]
        with self._connected() as database, database:
            database.executemany(
                "INSERT INTO votes VALUES (?, ?, ?, ?, ?) ON CONFLICT (rater, item, scale) "
                "DO UPDATE SET score = excluded.score, voted = excluded.voted",
                rows,
            )

    def of_rater(self, rater: str) -> dict[str, dict[str, int]]:
        """Return a rater's scores by item and scale."""
        found: dict[str, dict[str, int]] = {}
        for vote in self.all():
            if vote.rater == rater:
                found.setdefault(vote.item, {})[vote.scale] = vote.score
        return found

    def all(self) -> list[Vote]:
        """Return all votes, by rater, item and scale."""
        with self._connected() as database:
            rows = database.execute(
                "SELECT rater, item, scale, score, voted, synthetic FROM votes JOIN raters ON code = rater "
                "ORDER BY rater, item, scale"
            ).fetchall()
        return [Vote(*row) for row in rows]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
