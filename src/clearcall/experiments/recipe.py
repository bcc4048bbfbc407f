"""Run recipes as DVC experiments, which leave the working tree alone, and collect their results."""

import csv
import io
import json
import math
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.core.machine import machine
from clearcall.evaluation.results import CONTENDERS, FULL_HD
from clearcall.experiments.definition import PARAMS, Experiment, load_experiment, params_with, published_recipes
from clearcall.experiments.dvc import as_arguments, fetch_output, read_committed, run_experiment
from clearcall.experiments.results import Row, describe_model, run_all
from clearcall.imaging.frame import Contender
from clearcall.imaging.sizes import SizeContract
from clearcall.params import PAIRED, Overrides, Params, read_yaml
from clearcall.runtime.engines import Provider

# Values of the user's machine, which a report leaves out.
_PERSONAL = {"download_data.folder", "download_data.licence"}
_STAGES = ("download_data", "train_teacher", "distill_student", "evaluate", "export_onnx", "benchmark_fps")
# A network slower than this is timed on one frame; one that takes longer than the timeout is not timed.
_SINGLE_MS, _TIMEOUT_SECONDS = 1500.0, 240
_TIMING = """
from clearcall.experiments.recipe import time_full_hd
print(json.dumps(time_full_hd(*arguments)))
"""


@dataclass(frozen=True)
class Outcome:
    """What a recipe reached, as JSON has it, and its comparison of a bundled photograph."""

    document: dict[str, Any]
    comparison: Image.Image


@dataclass(frozen=True)
class RecipeRun:
    """A recipe with the values to run it with, and the command that does so."""

    recipe: Experiment
    overrides: Overrides
    small: bool
    command: str

    @property
    def arguments(self) -> str:
        """Return the values as arguments of `dvc exp run`, for a shell."""
        return as_arguments(self.overrides, read_yaml(PARAMS))


def plan_recipes(
    names: Sequence[str],
    *,
    full: bool = False,
    budget: float | None = None,
    photos: Path | None = None,
    licence: str = "unknown",
) -> list[RecipeRun]:
    """Return what to run for recipes, all published ones if none is named.

    They get their small values unless `full`; `budget` is the fraction of each training's steps; `photos`, a folder of
    photographs under a licence, replaces a recipe's source.
    """
    chosen = [load_experiment(name) for name in names] or published_recipes()
    if studies := [found.name for found in chosen if found.study]:
        raise UserError(f"{studies[0]} is a study: run it by `clearcall experiment study {studies[0]}`")
    if not full and (long := [recipe.name for recipe in chosen if not recipe.small]):
        raise UserError(f"{', '.join(long)}: no values that make it small; add `small` to its file, or say --full")
    if photos is not None and not photos.is_dir():
        raise UserError(f"there is no folder {photos}")
    runs = []
    for recipe in chosen:
        overrides, options = recipe.overrides(small=not full), ["--full"] if full else []
        if budget is not None:
            overrides["budget"] = budget
            options += ["--budget", f"{budget:g}"]
        if photos is not None:
            overrides |= {"download_data.folder": str(photos.resolve()), "download_data.licence": licence}
            if overrides.get("download_data.source") not in PAIRED:
                overrides["download_data.source"] = "folder"
            options += ["--photos", photos.resolve().name]
        command = shlex.join(["clearcall", "experiment", "recipe", recipe.name, *options])
        runs.append(RecipeRun(recipe, overrides, not full, command))
    return runs


def run_recipes(runs: Sequence[RecipeRun], report: Callable[[Outcome], object]) -> None:
    """Run recipes one after the other and call `report` after each; raise UserError at the end if some failed."""
    for outcome in run_all((run.recipe.name, partial(_run, run)) for run in runs):
        report(outcome)


def _run(run: RecipeRun) -> Outcome:
    """Run one recipe's pipeline as the experiment `recipe-<name>`, and return what it reached.

    DVC skips what it has run before with the same values, and a killed training resumes from its checkpoint.
    """
    recipe, overrides = run.recipe, run.overrides
    params, document = params_with(overrides), read_yaml(PARAMS)
    # The experiment's temporary folder has nothing that git ignores.
    anchored = {
        "download_data.folder": params.download_data.anchored_folder(),
        "paths.checkpoints": str(params.paths.checkpoints.resolve()),
        "publish.model_name": f"{params.publish.model_name}-{recipe.name}",
    }
    started = time.monotonic()
    revision, cached = run_experiment(f"recipe-{recipe.name}", {**overrides, **anchored}, document)
    minutes = None if cached else round((time.monotonic() - started) / 60, 1)
    reported = {name: value for name, value in overrides.items() if name not in _PERSONAL}
    reports = {stage: json.loads(read_committed(revision, f"{params.paths.reports}/{stage}.json")) for stage in _STAGES}
    curves = {
        stage: list(csv.DictReader(io.StringIO(read_committed(revision, f"{params.paths.reports}/{stage}_curve.csv"))))
        for stage in ("train_teacher", "distill_student")
    }
    with tempfile.TemporaryDirectory() as temporary:
        for folder in (params.paths.models, params.paths.weights):
            fetch_output(revision, folder, Path(temporary) / folder.name)
        costs = _costs(Path(temporary) / params.paths.models.name, reports["benchmark_fps"])
        comparison = _comparison(
            Path(temporary) / params.paths.weights.name, params, reports["evaluate"]["unsharp_mask"]
        )
    return Outcome(
        {
            "name": recipe.name,
            "about": recipe.about,
            "published": None if recipe.published is None else recipe.published.model_dump(mode="json"),
            "small": run.small,
            "small_notes": list(recipe.small_notes) if run.small else [],
            "changed": as_yaml({name: value for name, value in reported.items() if recipe.values.get(name) != value}),
            "overrides": as_arguments(reported, document),
            "revision": revision,
            "seed": params.distill_student.training.seed,
            "command": run.command,
            "minutes": minutes,
            "machine": machine(),
            "curves": curves,
            "costs": costs,
            "budget": params.budget,
            "mix": list(params.degrade_pairs.mix),
            "reports": reports,
        },
        comparison,
    )


def row_of(document: dict[str, Any]) -> Row:
    """Return a recipe's row of the results table: figures of its student."""
    student, evaluated = document["reports"]["distill_student"]["student"], document["reports"]["evaluate"]
    restored, mean, minutes = student["validation"]["restored"], evaluated["mean"], document["minutes"]
    return Row(
        point=document["name"],
        seed=document.get("seed", 1),  # older documents have neither this nor overrides and revision
        architecture=describe_model(student["model"]["name"], student["model"]["arguments"]),
        parameters=student["parameters"],
        steps=student["steps"],
        validation_ssim=round(restored["ssim"], 5),
        validation_psnr_db=round(restored["psnr_db"], 4),
        test_ssim=round(mean["student"]["ssim"], 5),
        test_psnr_db=round(mean["student"]["psnr_db"], 4),
        input_ssim=round(mean["degraded"]["ssim"], 5),
        input_psnr_db=round(mean["degraded"]["psnr_db"], 4),
        clean_psnr_db=round(evaluated["clean_psnr_db"]["student"], 2),
        seconds=math.nan if minutes is None else round(minutes * 60, 1),
        overrides=document.get("overrides", ""),
        key=document.get("revision", "")[:12],
    )


def as_yaml(overrides: Overrides) -> str:
    """Return overrides as an experiment's file has them, a value a line."""
    return "\n".join(
        f"{name}: {yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).split(chr(10))[0]}"
        for name, value in overrides.items()
    )


def _costs(models: Path, benchmark: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for student and teacher the cost of a 1080p frame: operations, ms and fps, or why it was not timed."""
    from clearcall.evaluation.cost import count_macs  # noqa: PLC0415  # onnx takes a moment to import

    width, height = FULL_HD
    costs = {}
    for name in ("student", "teacher"):
        path = models / f"{name}.onnx"
        arguments = [str(path), benchmark["provider"], benchmark["threads"]]
        program = f"import json, sys\narguments = json.loads(sys.argv[1])\n{_TIMING}"
        try:
            # In a process of its own: running out of memory ends that one.
            done = subprocess.run(
                [sys.executable, "-c", program, json.dumps(arguments)],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_SECONDS,
            )
            timed = (
                json.loads(done.stdout.splitlines()[-1])
                if done.returncode == 0
                else {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
            )
        except subprocess.TimeoutExpired:
            timed = {"failed": f"over {_TIMEOUT_SECONDS} s"}
        if "failed" in timed:
            warn(f"{name} was not timed at 1080p: {timed['failed']}")
        costs[name] = {"macs": count_macs(path, SizeContract(16).padded(height), width), **timed}
    return costs


def time_full_hd(model: str, provider: Provider, threads: int) -> dict[str, Any]:
    """Return median and p95 in ms, fps and the number of frames of an ONNX model at 1080p."""
    from clearcall.evaluation.speed import make_frames, measure_latency  # noqa: PLC0415
    from clearcall.params import load_params  # noqa: PLC0415
    from clearcall.runtime.sharpener import Sharpener  # noqa: PLC0415

    noise = np.random.default_rng(0).integers(0, 256, (135, 240, 3), np.uint8)
    frames = make_frames(noise, *FULL_HD)
    setting = load_params().benchmark_fps.model_copy(update={"frames": 40})
    contenders = {"model": Sharpener(model, provider, threads)}
    return measure_latency(contenders, frames, setting, single_ms=_SINGLE_MS, shown=False)["model"]


def _comparison(weights: Path, params: Params, mask: dict[str, float]) -> Image.Image:
    """Draw every contender's output for a bundled test photograph, whose licence allows publication."""
    from clearcall.data.degrade.degradations import build_degradation  # noqa: PLC0415
    from clearcall.data.ingest.sources import bundled_originals  # noqa: PLC0415
    from clearcall.imaging.decode import read_rgb  # noqa: PLC0415
    from clearcall.imaging.grid import draw_comparison  # noqa: PLC0415
    from clearcall.imaging.unsharp import unsharp_mask  # noqa: PLC0415
    from clearcall.models.inference import restore  # noqa: PLC0415
    from clearcall.models.weights import load_weights  # noqa: PLC0415

    shown = next(one for one in bundled_originals() if one.split == "test")
    sharp = np.asarray(read_rgb(shown.path, 1), np.uint8)
    # A source of pairs has no degradation to apply; such sources are of motion blur.
    named = params.degrade_pairs.mix[-1]
    degradation = "motion_blur" if params.degrade_pairs.takes_given(named) else named
    steps = params.degrade_pairs.degradations[degradation]
    degraded = build_degradation(steps, sharp.shape[1], sharp.shape[0], seed=1)(sharp)
    restorers: dict[str, Contender] = {"unsharp": lambda frame, _: unsharp_mask(frame, mask["radius"], mask["amount"])}
    for folder in ("students/baseline", "students/student", "teacher"):
        if (weights / folder).is_dir():
            restorers[Path(folder).name] = partial(restore, load_weights(weights / folder))
    images = {"sharp": sharp, "degraded": degraded}
    images |= {name: restorer(degraded, degradation) for name, restorer in restorers.items()}
    return draw_comparison(sharp, images, degradation, params.write_report.crop_side, columns=4, titles=CONTENDERS)
