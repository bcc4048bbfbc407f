"""Export student and teacher to ONNX and compare each with torch."""

import numpy as np

from clearcall.core import errors
from clearcall.core.files import sha256_of, write_json
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.models.export import check_parity, export_onnx
from clearcall.models.layers import collapsed, parameter_count
from clearcall.models.weights import WEIGHTS, load_weights
from clearcall.params import load_params


def main() -> None:
    """Write the graphs, check them on a photograph at odd sizes, write the summary."""
    params = load_params()
    paths, stage = params.paths, params.export_onnx
    largest = max(read_pairs(paths.pairs, "validation"), key=lambda pair: pair.height * pair.width)
    image = PairReader(paths.pairs).degraded(largest)
    # Mirrored where the photograph is smaller than the size to compare at.
    frames = [
        np.pad(
            image,
            [(0, max(0, size - side)) for size, side in zip((*wanted, 3), image.shape, strict=True)],
            "symmetric",
        )[: wanted[0], : wanted[1]]
        for wanted in stage.parity_sizes
    ]
    summary = {}
    for name, folder in {"student": "students/student", "teacher": "teacher"}.items():
        model, path = load_weights(paths.weights / folder), paths.models / f"{name}.onnx"
        export_onnx(model, path, stage.opset)
        summary[name] = {
            "max_difference": check_parity(model, path, frames, stage.max_difference),
            "sizes": [list(frame.shape[:2]) for frame in frames],
            "parameters": parameter_count(collapsed(model)),
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "weights_sha256": sha256_of(paths.weights / folder / WEIGHTS),
        }
    write_json(paths.reports / "export_onnx.json", summary)


if __name__ == "__main__":
    errors.run(main)
