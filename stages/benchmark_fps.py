"""Time the exported student beside the unsharp mask and the teacher on this machine."""

from functools import partial
from importlib.metadata import version
from pathlib import Path

from clearcall.core import errors
from clearcall.core.console import warn
from clearcall.core.files import read_json, sha256_of, write_json
from clearcall.core.machine import machine
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.evaluation.cost import count_macs
from clearcall.evaluation.speed import (
    make_frames,
    measure_latency,
    measure_peak_memory_mib,
    measure_throughput,
)
from clearcall.imaging.frame import Restore
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.params import load_params
from clearcall.runtime.graph import load_graph
from clearcall.runtime.sharpener import Sharpener


def main() -> None:
    """Measure latency, throughput and memory; write them with the machine's name."""
    params = load_params()
    paths, stage = params.paths, params.benchmark_fps
    student, teacher = (paths.models / f"{name}.onnx" for name in ("student", "teacher"))
    (first, *_) = read_pairs(paths.pairs, "test")
    frames = make_frames(PairReader(paths.pairs).degraded(first), stage.width, stage.height)
    mask = read_json(paths.reports / "evaluate.json")["unsharp_mask"]
    sharpener = Sharpener(student, stage.provider, stage.threads)
    sharpener.sharpen_worst_case(frames[0])  # chooses the runtime
    if (choice := sharpener.choice) is None:
        raise RuntimeError("no runtime was chosen")
    contenders: dict[str, Restore] = {
        "student": sharpener.sharpen_worst_case,
        "unsharp": partial(unsharp_mask, radius=mask["radius"], amount=mask["amount"]),
        "teacher": Sharpener(teacher, choice.provider, choice.threads),
    }
    latency = measure_latency(contenders, frames, stage)
    expert = sharpener.experts[-1] if sharpener.experts else None
    fixed = Sharpener(student, choice.provider, choice.threads, expert=expert)
    write_json(
        paths.reports / "benchmark_fps.json",
        {
            "width": stage.width,
            "height": stage.height,
            "latency": latency,
            "student_macs": _macs(student, stage.width, stage.height),
            "throughput_fps": round(measure_throughput(fixed, frames, stage.frames_in_flight, stage.frames), 2),
            "frames_in_flight": stage.frames_in_flight,
            "peak_memory_mib": round(measure_peak_memory_mib(student, stage.width, stage.height, choice), 1),
            "provider": choice.provider,
            "provider_version": version(choice.provider),
            "providers_tried_ms": {name: round(ms, 2) for name, ms in choice.tried_ms.items()},
            "threads": choice.threads,
            "student_sha256": sha256_of(student),
            "machine": machine(),
        },
    )


def _macs(student: Path, width: int, height: int) -> int | None:
    """Return the multiply-accumulates of a frame; None for a graph whose shapes cannot be inferred."""
    contract = load_graph(student).contract
    try:
        return count_macs(student, contract.padded(height), contract.padded(width))
    except errors.UserError as error:
        warn(str(error))
        return None


if __name__ == "__main__":
    errors.run(main)
