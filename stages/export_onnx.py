"""Export student and teacher to ONNX and compare each with torch."""

from clearcall import errors
from clearcall.data.pairs import PairReader, middle, read_pairs
from clearcall.deploy.export import check_parity, export_onnx
from clearcall.files import sha256_of, write_json
from clearcall.models import parameter_count
from clearcall.models.weights import load_weights
from clearcall.params import load_params


def main() -> None:
    """Write the graphs, check them on real pictures and at odd sizes, write the summary."""
    params = load_params()
    paths, stage = params.paths, params.export_onnx
    reader, (first, *_) = PairReader(paths.pairs), read_pairs(paths.pairs, "validation")
    frames = [middle(reader.degraded(first), max(size))[: size[0], : size[1]] for size in stage.parity_sizes]
    summary = {}
    for name, folder in {"student": "students/student", "teacher": "teacher"}.items():
        model, path = load_weights(paths.weights / folder), paths.models / f"{name}.onnx"
        export_onnx(model, path, stage.opset)
        summary[name] = {
            "max_difference": check_parity(model, path, frames, stage.max_difference),
            "sizes": [list(frame.shape[:2]) for frame in frames],
            "parameters": parameter_count(model),
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
    write_json(paths.reports / "export_onnx.json", summary)


if __name__ == "__main__":
    errors.run(main)
