"""How fast a restorer is: 8-bit RGB frame in, 8-bit RGB frame out, one at a time, contenders in alternating blocks."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from clearcall.core.console import ProgressBar
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame, Restore
from clearcall.params import BenchmarkFps
from clearcall.runtime.engines import Provider
from clearcall.runtime.sharpener import Choice, Sharpener

DISTINCT_FRAMES = 4
_READ_ARGUMENTS = "import json, sys\narguments = json.loads(sys.argv[1])\n"
# Linux counts what the parent had before exec as the child's ru_maxrss; VmHWM is of this program alone.
_PRINT_PEAK = """
from pathlib import Path
if (status := Path("/proc/self/status")).exists():
    print(int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


def make_frames(picture: Frame, width: int, height: int) -> list[Frame]:
    """Return a few different frames of one size, cut from one enlarged photograph, so that no call repeats the last."""
    scale = max((width + 64) / picture.shape[1], (height + 64) / picture.shape[0])
    large = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    offsets = np.linspace(0, 63, DISTINCT_FRAMES).astype(int)
    return [np.ascontiguousarray(large[shift : shift + height, shift : shift + width], np.uint8) for shift in offsets]


def at_most(model: str | Path, provider: Provider | Literal["auto"], threads: int | None) -> tuple[Sharpener, Restore]:
    """Return a sharpener, and what restores a frame at the highest cost that it can have.

    Of a student of experts that is the router and an expert, whatever the router says: left alone, a frame that is not
    like those of training would cost next to nothing, and its fps would say nothing.
    """
    sharpener = Sharpener(model, provider, threads)
    if not sharpener.experts:
        return sharpener, sharpener
    fixed = Sharpener(model, provider, threads, expert=sharpener.experts[-1])

    def restore(frame: Frame) -> Frame:
        fixed.scores(frame)
        return fixed(frame)

    return fixed, restore


def measure_latency(
    contenders: Mapping[str, Restore], frames: Sequence[Frame], params: BenchmarkFps, *, shown: bool = True
) -> dict[str, Any]:
    """Return for each contender median, p95 and the spread of its block medians in ms, and fps.

    Warm-up frames do not count. Contenders take turns, block by block, so that a machine that slows down slows all. The
    median is that of the block medians; fps is 1000 / median latency in ms, one frame at a time. Progress is `shown`.
    """
    slow = {}
    for name, restore in contenders.items():
        # The least of three: the first call prepares much, and any one may be disturbed.
        slow[name] = min(_time_ms(restore, frames[0]) for _ in range(3)) > params.slow_ms
        for index in range(0 if slow[name] else params.warmup_frames):
            restore(frames[index % len(frames)])
    blocks: dict[str, list[list[float]]] = {name: [] for name in contenders}
    per_block = max(1, params.frames // params.blocks)
    with ProgressBar("timing", params.blocks, shown=shown) as bar:
        for block in range(params.blocks):
            for name, restore in contenders.items():
                # A slow contender's few frames are spread over as many blocks, one each.
                if slow[name] and block >= params.slow_frames:
                    continue
                count = 1 if slow[name] else per_block
                blocks[name].append([_time_ms(restore, frames[index % len(frames)]) for index in range(count)])
            bar.advance()
    return {name: _summary(timed) for name, timed in blocks.items()}


def measure_if_slow(
    restore: Restore, frames: Sequence[Frame], params: BenchmarkFps, single_ms: float, expected_ms: float
) -> dict[str, Any] | None:
    """Return the same for a contender that is slower than `params.slow_ms`, or None if it is not.

    It runs on `params.slow_frames` frames in a row after one to warm up. If that first one takes longer than
    `single_ms`, or is expected to, it is all there is: with memory still being claimed, an upper bound.
    """
    first = _time_ms(restore, frames[0])
    if max(first, expected_ms) > single_ms:
        return _summary([[first]])
    times = [_time_ms(restore, frames[-1])]
    if min(first, *times) <= params.slow_ms:
        return None
    times += [_time_ms(restore, frames[index % len(frames)]) for index in range(1, params.slow_frames)]
    return _summary([[ms] for ms in times])


def measure_throughput(sharpener: Sharpener, frames: Sequence[Frame], in_flight: int, count: int) -> float:
    """Return frames a second with several frames in flight, each on one thread."""

    def film(length: int) -> Iterator[Frame]:
        return (frames[index % len(frames)] for index in range(length))

    started = time.perf_counter()
    # The first frames compile; what is timed begins when as many as are in flight have come out.
    for done, _ in enumerate(sharpener.map(film(count + in_flight), in_flight=in_flight), 1):
        if done == in_flight:
            started = time.perf_counter()
    return count / (time.perf_counter() - started)


def measure_peak_memory_mib(model: Path, width: int, height: int, choice: Choice) -> float:
    """Return the peak resident memory in MiB of a process of its own that does nothing but sharpen ten frames."""
    program = (
        "import numpy as np\n"
        "from clearcall import Sharpener\n"
        "model, width, height, provider, threads = arguments\n"
        "sharpener = Sharpener(model, provider, threads)\n"
        "frame = np.zeros((height, width, 3), np.uint8)\n"
        "for _ in range(10): sharpener(frame)\n"
    )
    return peak_memory_mib(program, [str(model), width, height, choice.provider, choice.threads], str(model))


def peak_memory_mib(program: str, arguments: Sequence[str | int], name: str) -> float:
    """Return the peak resident memory in MiB of a Python program that finds `arguments` in a variable of that name.

    Raises UserError, with the `name` of what was measured, if the program fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", f"{_READ_ARGUMENTS}{program}{_PRINT_PEAK}", json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip()[-500:] or f"exit code {done.returncode}"
        raise UserError(f"measuring the memory of {name} failed: {reason}")
    return float(done.stdout.split()[-1])


def _time_ms(restore: Restore, frame: Frame) -> float:
    started = time.perf_counter()
    restore(frame)
    return (time.perf_counter() - started) * 1000


def _summary(blocks: Sequence[Sequence[float]]) -> dict[str, Any]:
    medians = [float(np.median(block)) for block in blocks]
    everything = np.concatenate([np.asarray(block) for block in blocks])
    median_ms = float(np.median(medians))
    return {
        "median_ms": round(median_ms, 3),
        "p95_ms": round(float(np.percentile(everything, 95)), 3),
        "fps": round(1000 / median_ms, 2),
        "block_median_ms_range": [round(min(medians), 3), round(max(medians), 3)],
        "frames": len(everything),
        "blocks": len(blocks),
    }
