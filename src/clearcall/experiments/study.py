"""Run studies: short trainings of the student, side by side, skipping those that the table has."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clearcall.core.console import ProgressBar
from clearcall.core.errors import UserError
from clearcall.core.files import read_json, sha256_of, write_csv, write_json
from clearcall.core.machine import machine
from clearcall.core.processes import worker_pool
from clearcall.data.pairs import INDEX, PairReader, PairRecord, read_pairs, spread
from clearcall.evaluation.quality import clean_psnr_db, mean_scores, score_contenders
from clearcall.evaluation.speed import make_frames, measure_latency
from clearcall.experiments.definition import Experiment, PointInSetting, Study, params_with
from clearcall.experiments.dvc import as_arguments
from clearcall.experiments.results import Row, describe_model, read_rows, run_all
from clearcall.imaging.frame import Restore
from clearcall.models.build import build_model
from clearcall.models.export import export_onnx
from clearcall.models.inference import restore
from clearcall.models.layers import collapsed, parameter_count
from clearcall.models.weights import WEIGHTS
from clearcall.params import Overrides, Params
from clearcall.runtime.engines import installed_providers
from clearcall.runtime.sharpener import Sharpener
from clearcall.training.loop import make_fabric
from clearcall.training.task import needs_teacher
from clearcall.training.train import load_teacher, scheduled, train_student

FRAMES = 100  # of each network on each runtime


@dataclass(frozen=True)
class _Run:
    """One training of a study: a point with a seed; `key` is a hash of all that decides its result."""

    study: Study
    point: PointInSetting
    seed: int
    overrides: Overrides
    params: Params
    key: str


def run_study(experiment: Experiment, reports: Path, jobs: int, report: Callable[[list[Row]], object]) -> list[Row]:
    """Train what reports/<name>.csv lacks, `jobs` at a time on one thread each, and return the study's rows.

    The CSV is written and `report` called with the rows so far after each training, so that a killed study resumes. A
    training is skipped if its params, the pairs and the teacher are those of a row. Raises UserError, after the last
    training, if some failed.
    """
    study, table = experiment.require_study(), reports / f"{experiment.name}.csv"
    points = [point.name for point in study.trainings()]
    done = {(row.point, row.seed, row.key): row for row in read_rows(table)}
    runs = _runs(experiment, study)
    missing = [run for run in runs if (run.point.name, run.seed, run.key) not in done]

    def found() -> list[Row]:
        rows = [done[key] for run in runs if (key := (run.point.name, run.seed, run.key)) in done]
        return sorted(rows, key=lambda row: (points.index(row.point), row.seed))

    if not missing:
        report(found())
        return found()
    _prepare(missing)
    with ProgressBar(experiment.name, len(runs), len(runs) - len(missing)) as bar, worker_pool(jobs) as pool:
        waiting = {pool.submit(_train, run): f"{run.point.name}, seed {run.seed}" for run in missing}
        for row in run_all((waiting[future], future.result) for future in as_completed(waiting)):
            done[row.point, row.seed, row.key] = row
            write_csv(table, list(done.values()))
            report(found())
            bar.note(f"{row.point}: {row.test_ssim:.4f} / {row.test_psnr_db:.2f} dB")
            bar.advance()
    return found()


def _runs(experiment: Experiment, study: Study) -> list[_Run]:
    """Return all trainings, one seed after the other: a first table is there early."""
    runs = []
    trainings = study.trainings()
    for seed in dict.fromkeys(seed for point in trainings for seed in point.seeds):
        for point in trainings:
            if seed not in point.seeds:
                continue
            merged = {**experiment.values, **point.overrides, "distill_student.training.seed": seed}
            params = params_with(merged)
            runs.append(_Run(study, point, seed, merged, params, _key(study, point, params)))
    return runs


def _prepare(runs: Sequence[_Run]) -> None:
    """Check the pairs, and compute the teacher's outputs once, before two trainings would at the same time."""
    records = [_records(run) for run in runs]
    # The longest first: whether stored outputs pay depends on the steps, and the shorter ones use them as well.
    longest = sorted(zip(runs, records, strict=True), key=lambda one: -one[0].params.distill_student.training.steps)
    prepared = set[int]()
    for run, own in longest:
        stage = run.params.distill_student
        if needs_teacher(stage.losses.weights()) and len(own) not in prepared:
            training = scheduled(stage.training, len(own), 1)
            load_teacher(stage.losses.weights(), training, run.params.paths, own, make_fabric(stage.training))
            prepared.add(len(own))


def _key(study: Study, point: PointInSetting, params: Params) -> str:
    """Return a short hash over what decides a point's result: its params, the pairs, and the teacher if it has one."""
    stage = params.distill_student
    # Without defaults: a new param that has one leaves old rows valid.
    values = stage.model_dump_json(exclude_defaults=True)
    digest = hashlib.sha256(f"{values} {point.train_photographs} {study.train_scale} {study.test_pairs}".encode())
    files = [params.paths.pairs / INDEX]
    if needs_teacher(stage.losses.weights()):
        files.append(params.paths.weights / "teacher" / WEIGHTS)
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is missing: run `dvc repro train_teacher` first")
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()[:12]


def _records(run: _Run) -> list[PairRecord]:
    """Return the training pairs that a study uses; raise UserError if they are not of the mix in its params."""
    study, params = run.study, run.params
    train = read_pairs(params.paths.pairs, "train")
    if (there := {pair.degradation for pair in train}) != set(params.degrade_pairs.mix):
        values = {name: value for name, value in run.overrides.items() if name.startswith("degrade_pairs.")}
        command = " ".join(filter(None, ["dvc exp run", as_arguments(values, {}), "check_pairs"]))
        raise UserError(
            f"{params.paths.pairs} holds {', '.join(sorted(there))}, and the study asks for "
            f"{', '.join(params.degrade_pairs.mix)}: run this first: {command}"
        )
    photographs = set(list(dict.fromkeys(pair.image for pair in train))[: run.point.train_photographs])
    return [pair for pair in train if pair.image in photographs and study.train_scale in {None, pair.scale}]


def _train(run: _Run) -> Row:
    started, stage, pairs = time.monotonic(), run.params.distill_student, run.params.paths.pairs
    model, validation = train_student(stage, run.params.paths, _records(run), f"study-{run.key}")
    seconds = time.monotonic() - started
    test, restorer = spread(read_pairs(pairs, "test"), run.study.test_pairs), partial(restore, model)
    scores = score_contenders(pairs, test, {"degraded": lambda frame, _: frame, "point": restorer})
    mean = mean_scores(scores)
    return Row(
        point=run.point.name,
        seed=run.seed,
        architecture=describe_model(stage.model.name, stage.model.arguments),
        parameters=parameter_count(collapsed(model)),
        steps=stage.training.steps,
        validation_ssim=round(validation.ssim, 5),
        validation_psnr_db=round(validation.psnr_db, 4),
        test_ssim=round(mean["point"]["ssim"], 5),
        test_psnr_db=round(mean["point"]["psnr_db"], 4),
        input_ssim=round(mean["degraded"]["ssim"], 5),
        input_psnr_db=round(mean["degraded"]["psnr_db"], 4),
        clean_psnr_db=round(clean_psnr_db(pairs, test, {"point": restorer})["point"], 2),
        seconds=round(seconds, 1),
        overrides=as_arguments(run.overrides, {}),
        key=run.key,
    )


def time_study(experiment: Experiment, reports: Path) -> None:
    """Write reports/<name>_speed.json: latency of each point's untrained network on each runtime."""
    study = experiment.require_study()
    points = {one.name: params_with({**experiment.values, **one.overrides}) for one in study.trainings()}
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
        reports / f"{experiment.name}_speed.json",
        {"width": setting.width, "height": setting.height, "machine": machine(), "latency": latency},
    )


def read_speed(experiment: Experiment, reports: Path) -> dict[str, dict[str, Any]]:
    """Return for each point its latency by runtime; {} if the study was not timed."""
    path = reports / f"{experiment.name}_speed.json"
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = {point.name: {} for point in experiment.require_study().trainings()}
    for contender, timed in read_json(path)["latency"].items():
        point, _, provider = contender.rpartition(" / ")
        if point in found:
            found[point][provider] = timed
    return found
