"""Check the photographs and their manifest with Great Expectations."""

from clearcall import errors
from clearcall.data.checks import check_images
from clearcall.files import write_json
from clearcall.params import load_params


def main() -> None:
    """Check, then write the summary; where a check fails there is none."""
    params = load_params()
    report = params.paths.reports / "check_data.json"
    # An earlier run's summary would look as if this one had passed.
    report.unlink(missing_ok=True)
    write_json(report, check_images(params.paths.raw, params.check_data, params.paths.data_docs / "check_data"))


if __name__ == "__main__":
    errors.run(main)
