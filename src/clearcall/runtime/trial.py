"""Try a network once in a process of its own, bounded in memory and time.

A runtime can end its process, and its results can be wrong, on some processors. So each network is tried once on each
machine: onnxruntime must run it, and OpenVINO must give what onnxruntime gives. Verdicts are kept in the cache folder.
"""

import hashlib
import importlib.metadata
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

from clearcall import __version__
from clearcall.core.errors import UserError
from clearcall.core.files import cache_folder, read_json, write_json
from clearcall.core.machine import machine_id, processor
from clearcall.core.processes import end_with_parent
from clearcall.imaging.frame import Frame

if TYPE_CHECKING:
    from clearcall.runtime.graph import Graph

Precision = Literal["bf16", "f32"]
# Of OpenVINO from onnxruntime, in 8-bit levels. In bfloat16 an expert that adds much comes to an RMS of 0.93 and to at
# most 6 levels on the frames of a trial; on 20 photographs that costs it 0.00 dB, on the worst of them 0.04.
_MAX_RMS, _MAX_DIFFERENCE = 1.5, 16
_HEIGHT_PX, _WIDTH_PX = 72, 104  # padded to the size contract; no multiples of 16, so that vectors are filled in part
_SEED = 0
_TIMEOUT_S = 300.0  # the largest networks take some seconds
# What a network may claim: constants and buffers, copies of its file, and the stacks of the runtimes' threads.
_CONSTANTS_BYTES, _COPIES_OF_FILE, _BYTES_A_CORE = 2**30, 8, 2**25
_PROGRAM = ("-c", "from clearcall.runtime.trial import main; main()")
# Of the processor's making: they would come again. SIGABRT may be want of memory.
_CRASHES = {-signal.SIGFPE, -signal.SIGILL, -signal.SIGSEGV}
_FAILED = "it failed: "  # what may be different the next time
_STARTED, _RAN = "started", "ran on onnxruntime"


@dataclass(frozen=True)
class Verdict:
    """What a trial found.

    `problem`: why onnxruntime cannot run the network, "" if it can. `precision`: what OpenVINO is to compute in, None
    if it must not be used, for which `reason` says why.
    """

    problem: str
    precision: Precision | None
    reason: str = ""


_known: dict[str, Verdict] = {}  # to this process, by the name of its file in the cache folder


@cache
def _machine() -> str:
    """Return what a verdict depends on besides the network: machine and versions."""
    versions = [__version__]
    for name in ("onnxruntime", "openvino"):
        try:
            versions.append(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            versions.append("")
    # A virtual machine that moved may have other instructions under the same name.
    return "/".join([machine_id(), processor()[1], *versions])


def try_out(graph: "Graph") -> Verdict:
    """Return the verdict on a network: known, cached, or of a new trial."""
    shapes = graph.shapes(*_size(graph))
    identity = f"{_machine()}/{shapes}/{hashlib.sha256(graph.onnx).hexdigest()}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    if key not in _known:
        path = cache_folder() / "trials" / f"{key}.json"
        verdict = _read(path)
        if verdict is None:
            verdict, lasting = _run_trial(graph)
            if lasting:
                _write(path, verdict)
        _known[key] = verdict
    return _known[key]


def _read(path: Path) -> Verdict | None:
    """Return a verdict of the cache, None if there is none or it cannot be used."""
    try:
        verdict = Verdict(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None
    texts = isinstance(verdict.problem, str) and isinstance(verdict.reason, str)
    return verdict if texts and verdict.precision in (*get_args(Precision), None) else None


def _write(path: Path, verdict: Verdict) -> None:
    """Keep a verdict; where it cannot be kept, the next process tries again."""
    with suppress(OSError, UserError):
        write_json(path, asdict(verdict))


def _run_trial(graph: "Graph") -> tuple[Verdict, bool]:
    """Run `main` in a process of its own; return its verdict, and whether to keep it."""
    paths = [path for path in sys.path if path]  # "" is the current folder, where anything may lie
    try:
        done = subprocess.run(
            [sys.executable, "-P", *_PROGRAM],
            input=pickle.dumps(graph),
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        output, code = done.stdout, done.returncode
        end = _end(code, done.stderr)
    except subprocess.TimeoutExpired as error:
        output, code, end = error.stdout or b"", 1, f"took more than {_TIMEOUT_S:.0f} s"
    except OSError as error:
        output, code, end = b"", 1, f"could not be started: {error}"
    lines = output.decode(errors="replace").splitlines()
    if code == 0 and lines:
        verdict = Verdict(**json.loads(lines[-1]))
        return verdict, not verdict.problem and not verdict.reason.startswith(_FAILED)
    # Ended by something else than its own crash, such as want of time, it may do better the next time.
    lasting = code in _CRASHES
    if _RAN in lines or _STARTED not in lines:
        return Verdict("", None, f"its trial {end}"), lasting
    return Verdict(f"its trial {end}", None), lasting


def _end(code: int, stderr: bytes) -> str:
    """Say how a process ended."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    said = stderr.decode(errors="replace").strip().splitlines()
    return f"ended with exit code {code}" + (f": {said[-1]}" if said else "")


def main() -> None:
    """Try the network on standard input; print progress marks, and last the verdict as JSON."""
    # Loaded before memory is bounded, and here, since engines need the verdicts of this module.
    from clearcall.runtime.engines import RUNTIME_ERRORS, answers, openvino_precisions  # noqa: PLC0415
    from clearcall.runtime.graph import shorten  # noqa: PLC0415

    end_with_parent()
    graph: Graph = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  # from the process that started this one
    precisions: tuple[Precision, ...] = ()
    reason = ""
    try:
        precisions = openvino_precisions()
    except ImportError as error:
        reason = f"{error}: pip install openvino"
    except RUNTIME_ERRORS as error:
        reason = f"{_FAILED}{shorten(error)}"
    _bound_memory(_CONSTANTS_BYTES + _COPIES_OF_FILE * len(graph.onnx) + _BYTES_A_CORE * (os.cpu_count() or 1))
    print(_STARTED, flush=True)
    size, frames = _size(graph), _frames(graph)
    try:
        expected = answers(graph, "onnxruntime", *size, frames)
    except RUNTIME_ERRORS as error:
        verdict = Verdict(f"onnxruntime cannot run it: {shorten(error)}", None)
    else:
        print(_RAN, flush=True)
        while precisions:
            try:
                verdict = settle(
                    expected, lambda precision: answers(graph, "openvino", *size, frames, precision), precisions
                )
                reason = ""
                break
            except RUNTIME_ERRORS as error:
                reason = f"{_FAILED}{shorten(error)}"
                precisions = precisions[1:]
        if reason:
            verdict = Verdict("", None, reason)
    print(json.dumps(asdict(verdict)), flush=True)


def settle(
    expected: list[Frame], answer: Callable[[Precision], list[Frame]], precisions: Iterable[Precision]
) -> Verdict:
    """Return the first precision whose answer is close to what is expected, or None."""
    found = []
    for precision in precisions:
        pairs = zip(expected, answer(precision), strict=True)
        differences = [np.abs(one.astype(np.int16) - other) for one, other in pairs]
        rms = max(float(np.sqrt(np.square(difference, dtype=np.float64).mean())) for difference in differences)
        difference = max(int(difference.max()) for difference in differences)
        if rms <= _MAX_RMS and difference <= _MAX_DIFFERENCE:
            return Verdict("", precision)
        found.append(f"{difference} in {precision}")
    return Verdict("", None, f"its results differ from onnxruntime's by {' and '.join(found)} 8-bit levels")


def _size(graph: "Graph") -> tuple[int, int]:
    """Return height and width of a trial's frames."""
    return graph.contract.padded(_HEIGHT_PX), graph.contract.padded(_WIDTH_PX)


def _frames(graph: "Graph") -> list[Frame]:
    """Return two inputs: noise, and upscaled noise of half the contrast."""
    (height, width), (shape, _) = _size(graph), graph.shapes(*_size(graph))
    noise = np.random.default_rng(_SEED).integers(0, 256, (height, width, 3 if graph.kind == "rgb" else 1), np.uint8)
    coarse = cv2.resize(noise[: height // 2, : width // 2], (width, height))
    return [noise.reshape(shape), (coarse // 2 + 64).reshape(shape)]


def _bound_memory(extra: int) -> None:
    """Limit this process's further memory in bytes, without core dumps; on Linux alone."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    import resource  # noqa: PLC0415  # Unix has it

    claimed = int(status.read_text(encoding="utf-8").partition("VmData:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (claimed + extra, claimed + extra))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
