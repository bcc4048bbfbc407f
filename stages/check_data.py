"""Check the photographs and their manifest with Great Expectations."""

import shutil

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.data.checks import check_images
from clearcall.params import load_params


def main() -> None:
    """Check, then write the summary; where a check fails there is none, but a page that names what fails."""
    params = load_params()
    report, docs = params.paths.reports / "check_data.json", params.paths.data_docs / "check_data"
    # An earlier run's summary and page would look as if this one had passed.
    report.unlink(missing_ok=True)
    shutil.rmtree(docs, ignore_errors=True)
    write_json(report, check_images(params.paths.raw, params.check_data, docs))


if __name__ == "__main__":
    errors.run(main)
