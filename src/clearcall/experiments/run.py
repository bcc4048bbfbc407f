"""Run a recipe as a DVC experiment of its own, which leaves the working tree alone, and gather what it reached."""

import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clearcall.core.console import warn
from clearcall.core.errors import UserError
from clearcall.core.machine import machine
from clearcall.experiments.dvc import _DVC, _fetch, _file, _revision, _run
from clearcall.experiments.recipe import Recipe, as_yaml, experiment_arguments, recipe_params
from clearcall.imaging.frame import Restore
from clearcall.params import Overrides, Params, read_yaml
from clearcall.runtime.engines import Provider

FULL_HD = (1920, 1080)
# Of those who run it, and of no concern to those who read of it.
_PERSONAL = {"download_data.folder", "download_data.licence"}
# Slower than this, one frame is all that is timed; a contender that takes longer than the other is given up.
_SINGLE_MS, _GIVE_UP_SECONDS = 1500.0, 240
_TIMING = """
from clearcall.experiments.run import time_full_hd
print(json.dumps(time_full_hd(*arguments)))
"""


@dataclass(frozen=True)
class Outcome:
    """What an experiment reached, as JSON has it, and its picture of a bundled photograph."""

    document: dict[str, Any]
    picture: Image.Image


def run_recipe(name: str, recipe: Recipe, overrides: Overrides, *, small: bool, command: str) -> Outcome:
    """Run one recipe's pipeline as the experiment `recipe-<name>`, and return what it reached.

    What DVC has done before with the same values is not done again, and a training that was killed goes on from its
    checkpoint. Raises UserError if a stage fails.
    """
    document = read_yaml(Path("params.yaml"))
    params = recipe_params(overrides)
    # The experiment has a folder of its own, which neither has what git ignores nor stays.
    overrides = {
        **overrides,
        "download_data.folder": str(params.download_data.folder.resolve()),
        "paths.checkpoints": str(params.paths.checkpoints.resolve()),
        "publish.model_name": f"{params.publish.model_name}-{name}",
    }
    experiment = f"recipe-{name}"
    if _revision(experiment):
        subprocess.run([*_DVC, "exp", "remove", "--quiet", experiment], check=True)
    started = time.monotonic()
    if _run([*_DVC, "exp", "run", "--temp", "--name", experiment, *experiment_arguments(overrides, document)]):
        minutes = None  # a part of it was done before
    else:
        minutes = round((time.monotonic() - started) / 60, 1)
    changed = {key: value for key, value in overrides.items() if recipe.values.get(key) != value}
    for key in [key for key in changed if key.split(".")[0] in {"paths", "publish"} or key in _PERSONAL]:
        del changed[key]
    return _gather(name, recipe, changed, params, minutes, small=small, command=command)


def _gather(
    name: str, recipe: Recipe, changed: Overrides, params: Params, minutes: float | None, *, small: bool, command: str
) -> Outcome:
    revision = _revision(f"recipe-{name}")
    if revision is None:
        raise UserError(f"DVC left no experiment recipe-{name}: see `dvc exp show`")
    reports = {
        stage: json.loads(_file(revision, f"{params.paths.reports}/{stage}.json"))
        for stage in ("download_data", "train_teacher", "distill_student", "evaluate", "export_onnx", "benchmark_fps")
    }
    with tempfile.TemporaryDirectory() as temporary:
        for folder in (params.paths.models, params.paths.weights):
            _fetch(revision, folder, Path(temporary) / folder.name)
        costs = _costs(Path(temporary) / params.paths.models.name, reports["benchmark_fps"])
        picture = _picture(Path(temporary) / params.paths.weights.name, params, reports["evaluate"]["unsharp_mask"])
    return Outcome(
        {
            "name": name,
            "about": recipe.about,
            "published": None if recipe.published is None else recipe.published.model_dump(mode="json"),
            "small": small,
            "small_notes": list(recipe.small_notes) if small else [],
            "changed": as_yaml(changed),
            "command": command,
            "minutes": minutes,
            "machine": machine(),
            "curves": {
                stage: list(csv.DictReader(io.StringIO(_file(revision, f"{params.paths.reports}/{stage}_curve.csv"))))
                for stage in ("train_teacher", "distill_student")
            },
            "costs": costs,
            "budget": params.budget,
            "mix": list(params.degrade_pairs.mix),
            "reports": reports,
        },
        picture,
    )


def _costs(models: Path, benchmark: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for student and teacher what a 1080p frame costs: operations, ms and fps, or why it is unknown."""
    from clearcall.evaluation.cost import count_macs  # noqa: PLC0415  # onnx takes a moment to import

    width, height = FULL_HD
    costs = {}
    for name in ("student", "teacher"):
        path = models / f"{name}.onnx"
        arguments = [str(path), benchmark["provider"], benchmark["threads"]]
        program = f"import json, sys\narguments = json.loads(sys.argv[1])\n{_TIMING}"
        try:
            # A process of its own: what fills the memory ends there and not here.
            done = subprocess.run(
                [sys.executable, "-c", program, json.dumps(arguments)],
                capture_output=True,
                text=True,
                check=False,
                timeout=_GIVE_UP_SECONDS,
            )
            timed = (
                json.loads(done.stdout.splitlines()[-1])
                if done.returncode == 0
                else {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
            )
        except subprocess.TimeoutExpired:
            timed = {"failed": f"over {_GIVE_UP_SECONDS} s"}
        if "failed" in timed:
            warn(f"{name} was not timed at 1080p: {timed['failed']}")
        costs[name] = {"macs": count_macs(path, height + -height % 16, width), **timed}
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


def _picture(weights: Path, params: Params, mask: dict[str, float]) -> Image.Image:
    """Draw what every contender makes of a bundled test photograph: those may be shown anywhere."""
    from functools import partial  # noqa: PLC0415

    from clearcall.data.degrade.degradations import build_degradation  # noqa: PLC0415
    from clearcall.data.ingest.sources import bundled_originals  # noqa: PLC0415
    from clearcall.evaluation.results import CONTENDERS  # noqa: PLC0415
    from clearcall.imaging.decode import read_rgb  # noqa: PLC0415
    from clearcall.imaging.grid import draw_comparison  # noqa: PLC0415
    from clearcall.imaging.unsharp import unsharp_mask  # noqa: PLC0415
    from clearcall.models.inference import restore  # noqa: PLC0415
    from clearcall.models.weights import load_weights  # noqa: PLC0415

    shown = next(one for one in bundled_originals() if one.split == "test")
    sharp = np.asarray(read_rgb(shown.path, 1), np.uint8)
    # A source of pairs has no steps for a photograph of ours; motion blur is what such sources are about.
    named = params.degrade_pairs.mix[-1]
    degradation = "motion_blur" if params.degrade_pairs.takes_given(named) else named
    steps = params.degrade_pairs.degradations[degradation]
    degraded = build_degradation(steps, sharp.shape[1], sharp.shape[0], seed=1)(sharp)
    restorers: dict[str, Restore] = {"unsharp": partial(unsharp_mask, radius=mask["radius"], amount=mask["amount"])}
    for folder in ("students/twin", "students/student", "teacher"):
        if (weights / folder).is_dir():
            restorers[Path(folder).name] = partial(restore, load_weights(weights / folder))
    pictures = {"sharp": sharp, "degraded": degraded}
    pictures |= {name: restorer(degraded) for name, restorer in restorers.items()}
    return draw_comparison(sharp, pictures, degradation, params.write_report.crop_side, columns=4, titles=CONTENDERS)
