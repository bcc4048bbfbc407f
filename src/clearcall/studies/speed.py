"""How fast the shapes of a study are at 1080p: all of them in one interleaved run on this machine."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from clearcall.cores import machine
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.deploy.benchmark import make_frames, measure_latency
from clearcall.deploy.engines import installed_providers
from clearcall.deploy.export import export_onnx
from clearcall.files import read_json, write_json
from clearcall.metrics import Restore
from clearcall.models import build_model
from clearcall.params import with_overrides
from clearcall.sharpener import Sharpener
from clearcall.studies.run import Study

FRAMES = 100  # of each shape on each runtime


def time_study(name: str, study: Study, reports: Path) -> None:
    """Write reports/<name>_speed.json: latency of each point's network by runtime; its weights do not matter for it."""
    document = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    points = {point: with_overrides(document, {**study.common, **values}) for point, values in study.points.items()}
    first = next(iter(points.values()))
    (pair, *_) = read_pairs(first.paths.pairs, "test")
    setting = first.benchmark_fps.model_copy(update={"frames": FRAMES})
    frames = make_frames(PairReader(first.paths.pairs).degraded(pair), setting.width, setting.height)
    contenders: dict[str, Restore] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for index, (point, params) in enumerate(points.items()):
            model, path = params.distill_student.model, Path(temporary) / f"{index}.onnx"
            export_onnx(build_model("students", model.name, model.arguments), path, params.export_onnx.opset)
            for provider in installed_providers():
                contenders[f"{point} / {provider}"] = Sharpener(path, provider, setting.threads)
        latency = measure_latency(contenders, frames, setting)
    write_json(
        reports / f"{name}_speed.json",
        {"width": setting.width, "height": setting.height, "machine": machine(), "latency": latency},
    )


def read_speed(name: str, points: Iterable[str], reports: Path) -> dict[str, dict[str, Any]]:
    """Return for each point its latency by runtime; {} if the study was not timed."""
    path = reports / f"{name}_speed.json"
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = {point: {} for point in points}
    for contender, timed in read_json(path)["latency"].items():
        point, _, provider = contender.rpartition(" / ")
        if point in found:
            found[point][provider] = timed
    return found
