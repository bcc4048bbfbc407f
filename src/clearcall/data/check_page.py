"""The page of one data check: every expectation, its result and the files that fail, as one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearcall.files import write_text

FAILING_OPEN = 10  # of each expectation, at first sight
FAILING_LISTED = 500  # of each expectation, once unfolded


@dataclass(frozen=True)
class Finding:
    """The result of one expectation: a sentence, whether it holds, what was observed, and what breaks it."""

    words: str
    passed: bool
    observed: str
    failing: Sequence[str]


def write_page(
    path: Path, checked: Path, noun: str, counts: Mapping[str, int], findings: Sequence[Finding], advice: str, more: str
) -> None:
    """Write the page, which needs no other file and no network.

    `checked` is the file that lists what was checked, `noun` what that is, `counts` how many there are of each split,
    `more` a link to the pages of Great Expectations.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("check_page.html.j2").render(
        checked=checked.as_posix(),
        noun=noun,
        counts=counts,
        findings=findings,
        failed=[finding for finding in findings if not finding.passed],
        advice=advice,
        more=more,
        open=FAILING_OPEN,
        listed=FAILING_LISTED,
    )
    write_text(path, text)
