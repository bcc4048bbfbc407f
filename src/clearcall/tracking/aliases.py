"""Aliases of a registered model: move one, and record who moved it, when, why, and from which version."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from clearcall.core.errors import UserError
from clearcall.tracking.runs import client, origin, server_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

CANDIDATE, CHAMPION = "candidate", "champion"
KEPT = 50  # records of each alias; the oldest are removed
MAX_REASON = 500  # characters; a database may cut a tag of a registered model at 5000
_PREFIX, _TIME = "alias", "%Y-%m-%dT%H-%M-%S.%fZ"  # a tag's key may not hold a colon everywhere

Action = Literal["set", "roll back", "remove"]


@dataclass(frozen=True)
class Change:
    """One change of an alias: the versions before and after, None for no version; `when` is UTC, ISO 8601."""

    alias: str
    when: str
    action: Action
    before: str | None
    after: str | None
    by: str
    commit: str
    reason: str


def history(model: "RegisteredModel") -> list[Change]:
    """Return the recorded changes of all aliases, oldest first; tags that are no records are skipped."""
    changes = (_read(key, value) for key, value in model.tags.items())
    return sorted((change for change in changes if change is not None), key=lambda change: change.when)


def move_alias(name: str, alias: str, version: str | None, reason: str, action: Action = "set") -> None:
    """Point an alias at a version, or remove it if that is None; nothing is recorded if it stands there already.

    The record comes first and the alias last: what fails in between leaves the alias as it was.
    """
    model = client().get_registered_model(name)
    before = str(model.aliases[alias]) if alias in model.aliases else None
    if before == version:
        return
    tags, now = origin(), datetime.now(UTC)
    change = {
        "action": action,
        "from": before,
        "to": version,
        "by": tags.get("mlflow.user", "unknown"),
        "commit": tags.get("mlflow.source.git.commit", ""),
        "reason": reason,
    }
    key = f"{_PREFIX}.{alias}.{now.strftime(_TIME)}"
    client().set_registered_model_tag(name, key, json.dumps(change, ensure_ascii=False))
    try:
        if version is None:
            client().delete_registered_model_alias(name, alias)
        else:
            client().set_registered_model_alias(name, alias, version)
    except Exception:
        with suppress(*server_errors()):
            client().delete_registered_model_tag(name, key)
        raise
    older = sorted(tag for tag in model.tags if tag.startswith(f"{_PREFIX}.{alias}."))
    for tag in older[: max(0, len(older) + 1 - KEPT)]:
        client().delete_registered_model_tag(name, tag)


def champions_before(changes: Iterable[Change], present: str) -> list[str]:
    """Return the versions that were champion before the present one, latest first, each once.

    A rollback undoes what it went back over: after it, the next one goes further back.
    """
    line: list[str] = []
    for change in changes:
        if change.alias != CHAMPION or change.after is None:
            continue
        if not line and change.before is not None:
            line.append(change.before)  # older records were removed
        if change.action == "roll back" and change.after in line:
            _cut_after_last(line, change.after)
        else:
            line.append(change.after)
    # The alias may have been moved elsewhere, or a record left by a process that was killed.
    if present in line:
        _cut_after_last(line, present)
    return [version for version in dict.fromkeys(reversed(line)) if version != present]


def clean_reason(reason: str) -> str:
    """Return a reason as one line of printable characters; raise UserError if it is too long to be kept."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split())
    if len(text) > MAX_REASON:
        raise UserError(f"--reason has {len(text)} characters: write at most {MAX_REASON}")
    return text


def _cut_after_last(line: list[str], version: str) -> None:
    del line[len(line) - line[::-1].index(version) :]


def _read(key: str, value: str) -> Change | None:
    prefix, _, rest = key.partition(".")
    alias, _, time = rest.partition(".")
    if prefix != _PREFIX:
        return None
    try:
        when, fields = datetime.strptime(time, _TIME).replace(tzinfo=UTC), json.loads(value)
        return Change(
            alias,
            when.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            fields["action"],
            fields["from"],
            fields["to"],
            fields["by"],
            fields["commit"],
            fields["reason"],
        )
    except (ValueError, TypeError, KeyError):  # written by hand, or by another program
        return None
