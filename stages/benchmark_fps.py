"""Time the exported student beside the unsharp mask and the teacher on this machine."""

from functools import partial

import onnxruntime

from clearcall import errors
from clearcall.classical import unsharp_mask
from clearcall.cores import machine
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.deploy.benchmark import make_frames, measure_latency, measure_peak_memory_mib, measure_throughput
from clearcall.deploy.session import PROVIDER, Session
from clearcall.files import read_json, sha256_of, write_json
from clearcall.metrics import Restore
from clearcall.params import load_params


def main() -> None:
    """Measure latency, throughput and memory; write them with the machine's name."""
    params = load_params()
    paths, stage = params.paths, params.benchmark_fps
    student, teacher = (paths.models / f"{name}.onnx" for name in ("student", "teacher"))
    (first, *_) = read_pairs(paths.pairs, "test")
    frames = make_frames(PairReader(paths.pairs).degraded(first), stage.width, stage.height)
    mask = read_json(paths.reports / "evaluate.json")["unsharp_mask"]
    contenders: dict[str, Restore] = {
        "student": Session(student, stage.threads),
        "unsharp": partial(unsharp_mask, radius=mask["radius"], amount=mask["amount"]),
        "teacher": Session(teacher, stage.threads),
    }
    latency = measure_latency(contenders, frames, stage)
    this_machine = machine()
    write_json(
        paths.reports / "benchmark_fps.json",
        {
            "width": stage.width,
            "height": stage.height,
            "latency": latency,
            "throughput_fps": round(measure_throughput(student, frames, stage.frames_in_flight, stage.frames), 2),
            "frames_in_flight": stage.frames_in_flight,
            "peak_memory_mib": round(measure_peak_memory_mib(student, stage.width, stage.height, stage.threads), 1),
            "provider": PROVIDER,
            "threads": stage.threads or this_machine["cores"],
            "onnxruntime": onnxruntime.__version__,
            "student_sha256": sha256_of(student),
            "machine": this_machine,
        },
    )


if __name__ == "__main__":
    errors.run(main)
