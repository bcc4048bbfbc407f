"""Write the report of the run: numbers, image comparisons, charts."""

from functools import partial
from pathlib import Path

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.evaluation.results import read_results
from clearcall.imaging.frame import Contender
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.models.inference import restore
from clearcall.models.weights import load_weights
from clearcall.params import load_params
from clearcall.reporting.report import write_report


def main() -> None:
    """Load the contenders that are shown beside the input, then write the report."""
    params = load_params()
    mask = read_results(params.paths.reports, ("evaluate",))["evaluate"]["unsharp_mask"]
    restorers: dict[str, Contender] = {
        "unsharp": lambda frame, _: unsharp_mask(frame, mask["radius"], mask["amount"]),
        "student": partial(restore, load_weights(params.paths.weights / "students/student")),
        "teacher": partial(restore, load_weights(params.paths.weights / "teacher")),
    }
    write_report(params, Path("params.yaml").read_text(encoding="utf-8"), restorers)
    figures = sorted(path.name for path in (params.paths.reports / "figures").iterdir())
    write_json(params.paths.reports / "write_report.json", {"report": "report.md", "figures": figures})


if __name__ == "__main__":
    errors.run(main)
