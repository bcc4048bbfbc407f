"""Attach everything to the MLflow runs, register the ONNX model, and make it the candidate."""

from dataclasses import asdict

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.params import load_params
from clearcall.tracking.registry import publish


def main() -> None:
    """Publish and note which version this run became."""
    params = load_params()
    published = publish(params)
    write_json(params.paths.reports / "publish.json", asdict(published))


if __name__ == "__main__":
    errors.run(main)
