"""Check the list of pairs with Great Expectations."""

import shutil

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.data.checks import check_pairs
from clearcall.params import load_params


def main() -> None:
    """Check, then write the summary; where a check fails there is none, but a page that names what fails."""
    params = load_params()
    paths = params.paths
    report, docs = paths.reports / "check_pairs.json", paths.data_docs / "check_pairs"
    # An earlier run's summary and page would look as if this one had passed.
    report.unlink(missing_ok=True)
    shutil.rmtree(docs, ignore_errors=True)
    write_json(report, check_pairs(paths.pairs, params.check_pairs, params.degrade_pairs, docs))


if __name__ == "__main__":
    errors.run(main)
