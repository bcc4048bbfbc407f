"""Fill the raw folder with photographs from the chosen source and write down what they are."""

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.data.ingest.download import download, summary
from clearcall.params import load_params


def main() -> None:
    """Download, convert and split the photographs, and write a summary."""
    params = load_params()
    downloaded = download(params.download_data, params.paths.raw)
    write_json(params.paths.reports / "download_data.json", summary(downloaded, params.download_data.source))


if __name__ == "__main__":
    errors.run(main)
