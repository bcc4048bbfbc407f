"""Train the points of a study that its table lacks, side by side."""

import csv
import hashlib
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearcall.core.console import ProgressBar
from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, read_json, sha256_of, write_json
from clearcall.core.machine import machine
from clearcall.core.processes import worker_pool
from clearcall.data.pairs import INDEX, PairReader, PairRecord, read_pairs, spread
from clearcall.evaluation.quality import clean_psnr_db, mean_scores, score_contenders
from clearcall.evaluation.speed import make_frames, measure_latency
from clearcall.experiments.recipe import as_arguments
from clearcall.imaging.frame import Restore
from clearcall.models.build import build_model
from clearcall.models.export import export_onnx
from clearcall.models.inference import restore
from clearcall.models.layers import collapsed, parameter_count
from clearcall.models.weights import WEIGHTS
from clearcall.params import Overrides, Params, with_overrides
from clearcall.runtime.engines import installed_providers
from clearcall.runtime.sharpener import Sharpener
from clearcall.training.loop import make_fabric
from clearcall.training.task import needs_teacher
from clearcall.training.train import load_teacher, scheduled, train_student

FRAMES = 100  # of each shape on each runtime


class Study(BaseModel):
    """A question, what all points have in common, and the points: values of params.yaml by dotted name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    finding: str = ""  # what its author makes of the table
    seeds: tuple[int, ...] = Field(min_length=1)
    train_photographs: int | None = Field(default=None, ge=1)  # the first ones only; None: all
    train_scale: float | None = None  # of the training pairs; None: all scales
    test_pairs: int | None = Field(default=None, ge=1)  # as many of each degradation; None: all
    common: Overrides
    points: dict[str, Overrides] = Field(min_length=1)


@dataclass(frozen=True)
class Row:
    """One training: what was measured, and all that is needed to run it again."""

    point: str
    seed: int
    architecture: str
    parameters: int
    steps: int
    validation_ssim: float
    validation_psnr_db: float
    test_ssim: float
    test_psnr_db: float
    input_ssim: float
    input_psnr_db: float
    clean_psnr_db: float
    seconds: float
    overrides: str
    key: str


def load_study(path: Path) -> Study:
    """Read a study; raise UserError saying what is wrong with it."""
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(str(found) for found in sorted(Path("studies").glob("*.yaml")))
        raise UserError(f"there is no study {path}; known here: {known or 'none'}") from None
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a study: {error}") from None


def run_study(path: Path, reports: Path, jobs: int) -> list[Row]:
    """Train every point that the CSV lacks, `jobs` at a time on one thread each, and return all of the study's rows.

    A row is written as soon as its training is over: a study that was stopped goes on where it was. A point counts as
    done if its params, the pairs and the teacher are the same.
    """
    study = load_study(path)
    document = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    table = reports / f"{path.stem}.csv"
    done = _read(table)
    plan, wanted = [], []
    for seed in study.seeds:
        for point, overrides in study.points.items():
            merged: Overrides = {**study.common, **overrides, "distill_student.training.seed": seed}
            params = with_overrides(document, merged)
            key = _key(study, params)
            wanted.append((point, seed, key))
            if (point, seed, key) not in done:
                plan.append((point, seed, merged, params, key))
    if plan:
        taught = [params for *_, params, _ in plan if needs_teacher(params.distill_student.losses.weights())]
        for params in taught[:1]:  # once, before two trainings would do it at the same time
            stage, fabric = params.distill_student, make_fabric(params.distill_student.training)
            records = _records(study, params)
            training = scheduled(stage.training, len(records), 1)
            load_teacher(stage.losses.weights(), training, params.paths, records, fabric)
        with (
            ProgressBar(path.stem, len(wanted), len(wanted) - len(plan)) as bar,
            worker_pool(jobs) as pool,
        ):
            waiting = [pool.submit(_train, study, *entry) for entry in plan]
            for future in as_completed(waiting):
                row = future.result()
                done[row.point, row.seed, row.key] = row
                _write(table, list(done.values()))
                bar.note(f"{row.point}: {row.test_ssim:.4f} / {row.test_psnr_db:.2f} dB")
                bar.advance()
    order = {point: index for index, point in enumerate(study.points)}
    return sorted((done[key] for key in wanted), key=lambda row: (order[row.point], row.seed))


def _key(study: Study, params: Params) -> str:
    """Return a short hash over what decides a point's result: its params, the pairs, and the teacher if it has one."""
    stage = params.distill_student
    # Without defaults, so that a new param with one leaves old rows valid.
    values = stage.model_dump_json(exclude_defaults=True)
    digest = hashlib.sha256(f"{values} {study.train_photographs} {study.train_scale} {study.test_pairs}".encode())
    files = [params.paths.pairs / INDEX]
    if needs_teacher(stage.losses.weights()):
        files.append(params.paths.weights / "teacher" / WEIGHTS)
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is missing: run `dvc repro train_teacher` first")
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()[:12]


def _records(study: Study, params: Params) -> list[PairRecord]:
    """Return the training pairs that the study uses; raise UserError if they are not those of its params."""
    train = read_pairs(params.paths.pairs, "train")
    if (there := {pair.degradation for pair in train}) != set(params.degrade_pairs.mix):
        values = {name: value for name, value in study.common.items() if name.startswith("degrade_pairs.")}
        command = " ".join(filter(None, ["dvc exp run", as_arguments(values, {}), "check_pairs"]))
        raise UserError(
            f"{params.paths.pairs} holds {', '.join(sorted(there))}, and the study asks for "
            f"{', '.join(params.degrade_pairs.mix)}: run this first: {command}"
        )
    photographs = set(list(dict.fromkeys(pair.image for pair in train))[: study.train_photographs])
    return [pair for pair in train if pair.image in photographs and study.train_scale in {None, pair.scale}]


def _train(study: Study, point: str, seed: int, overrides: Overrides, params: Params, key: str) -> Row:
    started, stage, pairs = time.monotonic(), params.distill_student, params.paths.pairs
    model, validation = train_student(stage, params.paths, _records(study, params), f"study-{key}")
    seconds = time.monotonic() - started
    test, restorer = spread(read_pairs(pairs, "test"), study.test_pairs), partial(restore, model)
    scores = score_contenders(pairs, test, {"degraded": lambda frame: frame, "point": restorer}, shown=False)
    mean = mean_scores(scores)
    arguments = ", ".join(f"{name} {value}" for name, value in stage.model.arguments.items())
    return Row(
        point=point,
        seed=seed,
        architecture=f"{stage.model.name}: {arguments}",
        parameters=parameter_count(collapsed(model)),
        steps=stage.training.steps,
        validation_ssim=round(validation.ssim, 5),
        validation_psnr_db=round(validation.psnr_db, 4),
        test_ssim=round(mean["point"]["ssim"], 5),
        test_psnr_db=round(mean["point"]["psnr_db"], 4),
        input_ssim=round(mean["degraded"]["ssim"], 5),
        input_psnr_db=round(mean["degraded"]["psnr_db"], 4),
        clean_psnr_db=round(clean_psnr_db(pairs, test, restorer), 2),
        seconds=round(seconds, 1),
        overrides=as_arguments(overrides, {}),
        key=key,
    )


def _read(table: Path) -> dict[tuple[str, int, str], Row]:
    names, rows = [field.name for field in fields(Row)], {}
    with suppress(FileNotFoundError), table.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if lines.fieldnames != names:
            raise UserError(
                f"{table} is not the table of a study, and would be overwritten: give the study another name"
            )
        for line in lines:
            row = Row(**{field.name: field.type(line[field.name]) for field in fields(Row)})  # type: ignore[operator]  # str, int or float
            rows[row.point, row.seed, row.key] = row
    return rows


def _write(table: Path, rows: Sequence[Row]) -> None:
    with atomic_path(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


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
