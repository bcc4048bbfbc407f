"""Measure how the pipeline grows with cores and photographs, and write reports/growth.md.

    python docs/growth.py         # half an hour on a quiet machine with two cores; 15 GB of disk
    python docs/growth.py --try   # two minutes, with a tenth of the work; prints the table alone

Each figure is of a process of its own that may use one core or two. The photographs are the bundled ones and copies of
them. The lists of photographs and pairs are read with a million lines, which stand for photographs that are not there.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

from clearcall.core.files import write_csv, write_text
from clearcall.core.machine import processor
from clearcall.data.degrade.write import degrade_pairs
from clearcall.data.ingest.download import download
from clearcall.data.manifest import MANIFEST, ImageRecord, read_manifest, write_manifest
from clearcall.data.pairs import INDEX, PairRecord, read_pairs
from clearcall.params import load_params

CORES = 1, 2
TIMES = 1, 10, 100  # the bundled photographs
LINES = 1_000_000
EVALUATED = 180  # pairs at most: those of ten times the bundled photographs
PROJECT = Path(__file__).parents[1]
UNITS = {"degradation": "photographs", "training": "patches", "evaluation": "pairs"}
_KIB = 1024

Record = TypeVar("Record", ImageRecord, PairRecord)


def copies(raw: Path, times: int, folder: Path) -> None:
    """Write a raw folder with so many copies of each photograph of another."""
    records: list[ImageRecord] = []
    for record in read_manifest(raw):
        for number in range(times):
            path = Path(record.path)
            name = str(path.with_name(f"{number}-{path.name}"))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(raw / record.path, folder / name)
            records.append(replace(record, path=name, group=f"{number}-{record.group}"))
    write_manifest(folder, records)


def many(records: Sequence[Record], count: int, names: Sequence[str], same: int = 1) -> Iterator[Record]:
    """Yield so many records; of the fields named, numbers differ in each and texts in each `same` of them."""
    for number, record in zip(range(count), cycle(records), strict=False):
        changed: dict[str, Any] = {}
        for name in names:
            value = getattr(record, name)
            changed[name] = f"{number // same}-{value}" if isinstance(value, str) else value + number
        yield replace(record, **changed)


def manifest(folder: Path, _cores: int, _share: float) -> int:
    """Read the manifest and return the number of its lines."""
    return len(read_manifest(folder))


def index(folder: Path, _cores: int, _share: float) -> int:
    """Read the index of pairs and return the number of its lines."""
    return len(read_pairs(folder))


def degradation(folder: Path, cores: int, _share: float) -> int:
    """Degrade all photographs and return their number."""
    params, records = load_params(PROJECT / "params.yaml"), read_manifest(folder / "raw")
    stage = params.degrade_pairs.model_copy(update={"workers": cores})
    degrade_pairs(folder / "raw", folder / "pairs", records, stage)
    return len(records)


def training(folder: Path, cores: int, share: float) -> int:
    """Train the committed student on as many devices as cores, and return the number of patches."""
    import torch  # noqa: PLC0415  # what degrades does without

    from clearcall.training.loop import make_fabric  # noqa: PLC0415
    from clearcall.training.train import Job, train_network  # noqa: PLC0415

    torch.set_num_threads(1)
    params = load_params(PROJECT / "params.yaml")
    paths = params.paths.model_copy(update={"pairs": folder / "pairs", "checkpoints": folder / "checkpoints"})
    steps, stage = int(1000 * share), params.distill_student
    # One validation, of a few pairs: it takes the same time on any number of devices.
    update = {"steps": steps, "validate_every": steps, "devices": cores, "validation_pairs": 6}
    job = Job(f"growth-{cores}", "students", stage.model, {"mse": 1.0}, stage.training.model_copy(update=update))
    train_network(job, paths, make_fabric(job.training)).remove_leftovers()
    return steps * stage.training.batch_size * cores


def evaluation(folder: Path, cores: int, share: float) -> int:
    """Score the shipped teacher on test pairs and return the number of pairs."""
    from clearcall.core.files import TEACHER  # noqa: PLC0415
    from clearcall.core.processes import worker_pool  # noqa: PLC0415
    from clearcall.evaluation.quality import score_contenders  # noqa: PLC0415
    from clearcall.models.inference import restore  # noqa: PLC0415
    from clearcall.models.weights import load_shipped  # noqa: PLC0415

    pairs = read_pairs(folder / "pairs", "test")
    pairs = pairs[: max(1, int(min(len(pairs), EVALUATED) * share))]
    with worker_pool(cores, threads=True) as pool:
        score_contenders(folder / "pairs", pairs, {"teacher": partial(restore, load_shipped(TEACHER))}, pool)
    return len(pairs)


def measure(kind: str, folder: Path, cores: int, share: float) -> None:
    """Measure one figure in this process and write it to `folder`."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    started = time.monotonic()
    work = {each.__name__: each for each in (degradation, training, evaluation, manifest, index)}[kind]
    count = work(folder, cores, share)
    seconds = time.monotonic() - started
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    figure = {"rate": count / seconds, "peak_mib": max(peaks) / _KIB}
    if os.environ.get("LOCAL_RANK", "0") == "0":
        (folder / "figure.json").write_text(json.dumps(figure), encoding="utf-8")


def measured(kind: str, folder: Path, cores: int, share: float) -> dict[str, float]:
    """Measure one figure in a process of its own."""
    subprocess.run([sys.executable, __file__, kind, str(folder), str(cores), str(share)], check=True)
    figure: dict[str, float] = json.loads((folder / "figure.json").read_text(encoding="utf-8"))
    print(kind, folder.name, cores, figure, file=sys.stderr, flush=True)
    return figure


def main(share: float, many_times: Sequence[int]) -> None:
    """Measure everything and write the table."""
    lines = [
        "| work | photographs | cores | a second | against 1 core | against 1x | MiB, largest process | against 1x |",
        "|---|---|---|---|---|---|---|---|",
    ]
    figures: dict[tuple[str, int, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        bundled, lists = Path(temporary, "bundled"), Path(temporary, "lists")
        download(load_params(PROJECT / "params.yaml").download_data.model_copy(update={"source": "bundled"}), bundled)
        for times in many_times:
            folder = Path(temporary, str(times))
            copies(bundled, times, folder / "raw")
            for kind, unit in UNITS.items():
                for cores in CORES:
                    figure = figures[kind, times, cores] = measured(kind, folder, cores, share)
                    one_core, once = figures[kind, times, CORES[0]], figures[kind, many_times[0], cores]
                    lines.append(
                        f"| {kind}, {unit} | {times}x | {cores} | {figure['rate']:.1f} | "
                        f"{figure['rate'] / one_core['rate']:.2f} | {figure['rate'] / once['rate']:.2f} | "
                        f"{figure['peak_mib']:.0f} | {figure['peak_mib'] / once['peak_mib']:.2f} |"
                    )
            if times == many_times[0]:
                pairs, count = read_pairs(folder / "pairs"), int(LINES * share)
                unlike = ("image", "image_sha256", "group", "sharp_offset", "degraded_offset", "psnr_db", "ssim")
                write_csv(lists / MANIFEST, many(read_manifest(bundled), count, ("path", "sha256", "source", "group")))
                write_csv(lists / INDEX, many(pairs, count, unlike, len(load_params().degrade_pairs.mix)))
            shutil.rmtree(folder)
        for kind in ("manifest", "index"):
            figure = measured(kind, lists, 1, share)
            lines.append(
                f"| {kind}, lines | {count:,} lines | 1 | {figure['rate']:.0f} | | | {figure['peak_mib']:.0f} | |"
            )
    told = f"On {processor()[0]}. Made by `python docs/growth.py`. Evaluation is of {EVALUATED} pairs at most."
    text = "\n".join(["# How the work grows", "", told, "", *lines])
    print(text)
    if share == 1:
        write_text(PROJECT / "reports" / "growth.md", text + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [kind, folder, cores, share]:
            measure(kind, Path(folder), int(cores), float(share))
        case ["--try"]:
            main(0.1, (1, 2))
        case _:
            main(1, TIMES)
