"""Check the list of pairs with Great Expectations."""

from clearcall import errors
from clearcall.data.checks import check_pairs
from clearcall.files import write_json
from clearcall.params import load_params


def main() -> None:
    """Check, then write the summary; where a check fails there is none."""
    params = load_params()
    paths = params.paths
    report = paths.reports / "check_pairs.json"
    # An earlier run's summary would look as if this one had passed.
    report.unlink(missing_ok=True)
    docs = paths.data_docs / "check_pairs"
    write_json(report, check_pairs(paths.pairs, params.check_pairs, params.degrade_pairs, docs))


if __name__ == "__main__":
    errors.run(main)
