"""Tables of registered models on the terminal."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.markup import escape

from clearcall.core.console import print_table
from clearcall.tracking.aliases import Change
from clearcall.tracking.models import Comparison, Details, Version

_PRECISION = {
    "ssim": ".4f",
    "psnr_db": ".2f",
    "ssim_over_unsharp": "+.4f",
    "psnr_db_over_unsharp": "+.2f",
    "fps": ".1f",
    "parameters": ",.0f",
    "macs": ".3g",
}
_TITLES = {
    "ssim": "SSIM",
    "psnr_db": "PSNR dB",
    "ssim_over_unsharp": "gain SSIM",
    "psnr_db_over_unsharp": "gain dB",
    "fps": "fps",
    "parameters": "parameters",
    "macs": "MACs",
}
_SHOWN = {*_TITLES, "gate", "retired", "registered_by", "commit"}  # tags that have a line of their own


def print_versions(name: str, versions: Iterable[Version]) -> None:
    """Print a row for each version."""
    headers = ("version", "aliases", "run", "UTC", "by", "commit", *_TITLES.values())
    rows = []
    for one in versions:
        aliases = ", ".join(one.aliases) + ("(retired)" if one.retired else "")
        told = (str(one.version), aliases, one.run, _minute(one.when), one.by, one.commit[:7])
        rows.append((*told, *(_number(key, getattr(one, key)) for key in _TITLES)))
    _print(f"{name}: registered versions; gains are over the tuned unsharp mask", headers, rows, left=6)


def print_version(found: Details) -> None:
    """Print the facts, figures, metrics, params and changes of aliases of a version."""
    one = found.version
    facts = {
        "aliases": ", ".join(one.aliases) or "-",
        **({"retired": one.retired} if one.retired else {}),
        "gate": one.gate,
        "registered": f"{one.when} by {one.by or 'unknown'}",
        "commit": one.commit,
        "run": f"{one.run} ({one.run_id}) in {one.experiment}",
        **{_TITLES[key]: _number(key, value) for key, value in one.figures().items()},
        **{f"tag {key}": value for key, value in sorted(one.tags.items()) if key not in _SHOWN},
    }
    _print(found.uri, ("", ""), facts.items(), left=2)
    if found.metrics:
        _print("Metrics of the run", ("metric", "value"), ((k, f"{v:.6g}") for k, v in sorted(found.metrics.items())))
    if found.params:
        _print("Params of the run", ("param", "value"), sorted(found.params.items()), left=2)
    _print("Aliases", ("UTC", "change", "by", "commit", "reason"), map(_told, found.history), left=5)


def print_comparison(found: Comparison) -> None:
    """Print the metrics of two versions with the difference, and the params that differ."""
    one, other = (f"version {number}" for number in found.versions)
    rows = []
    for key, (a, b) in found.metrics.items():
        difference = "-" if a is None or b is None else f"{b - a:+.6g}"
        rows.append((key, *("-" if value is None else f"{value:.6g}" for value in (a, b)), difference))
    _print("Metrics", ("metric", one, other, "difference"), rows)
    changed = [(key, "-" if a is None else a, "-" if b is None else b) for key, (a, b) in found.params.items()]
    if changed:
        _print("Params that differ", ("param", one, other), changed, left=3)
    else:
        print("The params are the same.")
    for note in found.notes:
        print(f"Note: {note}")


def as_json(found: Details | Comparison | list[Version]) -> str:
    """Return the same as a JSON document."""
    document = [asdict(one) for one in found] if isinstance(found, list) else asdict(found)
    return json.dumps(document, indent=2)


def _print(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """Print a table whose cells were written by users: nothing in them is markup."""
    print_table(escape(title), headers, ([escape(str(cell)) for cell in row] for row in rows), left)


def _told(change: Change) -> tuple[str, ...]:
    moved = f"{change.alias}: {change.before or 'none'} -> {change.after or 'none'}"
    rolled = " (rollback)" if change.action == "roll back" else ""
    return change.when[:19].replace("T", " "), f"{moved}{rolled}", change.by, change.commit[:7], change.reason


def _minute(when: str) -> str:
    return when[:16].replace("T", " ")


def _number(key: str, value: float | None) -> str:
    return "-" if value is None else format(value, _PRECISION[key])
