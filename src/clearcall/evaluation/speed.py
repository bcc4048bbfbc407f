"""Speed of a restorer: 8-bit RGB frame in, 8-bit RGB frame out, one at a time."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clearcall.core.console import ProgressBar
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame, Restore
from clearcall.params import BenchmarkFps
from clearcall.runtime.sharpener import Choice, Sharpener
from clearcall.runtime.timing import in_turns, time_ms

DISTINCT_FRAMES = 4
# Linux counts what the parent had before exec as the child's ru_maxrss; VmHWM is of this program alone.
_PEAK_MEMORY = """
import json, sys
import numpy as np
from pathlib import Path
from clearcall import Sharpener
model, width, height, provider, threads = json.loads(sys.argv[1])
sharpener = Sharpener(model, provider, threads)
frame = np.zeros((height, width, 3), np.uint8)
for _ in range(10): sharpener(frame)
if (status := Path("/proc/self/status")).exists():
    print(int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


def make_frames(image: Frame, width: int, height: int) -> list[Frame]:
    """Return a few different frames of one size, cropped from one upscaled image, so that no call repeats the last."""
    scale = max((width + 64) / image.shape[1], (height + 64) / image.shape[0])
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    offsets = np.linspace(0, 63, DISTINCT_FRAMES).astype(int)
    return [np.ascontiguousarray(large[shift : shift + height, shift : shift + width], np.uint8) for shift in offsets]


class LatencyTimer:
    """Times contenders: the fast in turns, block by block, after a warm-up; the slow alone, on few frames.

    A contender is slow if no call takes less than `plan.slow_ms`. It is timed when it is added, on `plan.slow_frames`
    frames after one to warm up, and not kept: some hold gigabytes. One whose first call takes longer than `single_ms`
    is not called again; the figure is then an upper bound, since that call prepares much.
    """

    def __init__(self, frames: Sequence[Frame], plan: BenchmarkFps, single_ms: float = math.inf) -> None:
        self._frames, self._plan, self._single_ms = frames, plan, single_ms
        self._blocks: dict[str, list[list[float]]] = {}
        self._fast: dict[str, Restore] = {}

    def add(self, name: str, restore: Restore) -> None:
        """Time a contender if it is slow, else warm it up and keep it for `finish`."""
        first = self._time_ms(restore, 0)
        if first > self._single_ms:
            self._blocks[name] = [[first]]
            return
        alone = list[list[float]]()
        for index in range(1, self._plan.slow_frames + 1):
            ms = self._time_ms(restore, index)
            if min(first, ms) <= self._plan.slow_ms:
                break
            alone.append([ms])
        else:
            self._blocks[name] = alone
            return
        for index in range(self._plan.warmup_frames):
            self._time_ms(restore, index)
        self._blocks[name], self._fast[name] = [], restore

    def finish(self, *, shown: bool = True) -> dict[str, dict[str, Any]]:
        """Time the fast contenders and return, for all: median, p95 and range of block medians in ms, and fps.

        The median is that of the block medians; fps is 1000 / median. `shown`: with a progress bar.
        """
        per_block = range(max(1, self._plan.frames // self._plan.blocks))

        def block(restore: Restore) -> list[float]:
            times = [self._time_ms(restore, index) for index in per_block]
            bar.advance()
            return times

        with ProgressBar("timing", len(self._fast) * self._plan.blocks, shown=shown) as bar:
            calls = {name: partial(block, restore) for name, restore in self._fast.items()}
            self._blocks |= in_turns(calls, self._plan.blocks)
        return {name: _summary(blocks) for name, blocks in self._blocks.items()}

    def _time_ms(self, restore: Restore, index: int) -> float:
        return time_ms(partial(restore, self._frames[index % len(self._frames)]))


def measure_latency(
    contenders: Mapping[str, Restore],
    frames: Sequence[Frame],
    plan: BenchmarkFps,
    *,
    single_ms: float = math.inf,
    shown: bool = True,
) -> dict[str, dict[str, Any]]:
    """Return what a `LatencyTimer` finds for each contender."""
    timer = LatencyTimer(frames, plan, single_ms)
    for name, restore in contenders.items():
        timer.add(name, restore)
    return timer.finish(shown=shown)


def measure_throughput(sharpener: Sharpener, frames: Sequence[Frame], in_flight: int, count: int) -> float:
    """Return frames a second with several frames in flight, each on one thread."""

    def video(length: int) -> Iterator[Frame]:
        return (frames[index % len(frames)] for index in range(length))

    started = time.perf_counter()
    # The first frames compile; the clock starts when as many as are in flight have come out.
    for done, _ in enumerate(sharpener.map(video(count + in_flight), in_flight=in_flight), 1):
        if done == in_flight:
            started = time.perf_counter()
    return count / (time.perf_counter() - started)


def measure_peak_memory_mib(model: Path, width: int, height: int, choice: Choice) -> float:
    """Return the peak resident memory in MiB of a process of its own that does nothing but sharpen ten frames."""
    arguments = json.dumps([str(model), width, height, choice.provider, choice.threads])
    done = subprocess.run([sys.executable, "-c", _PEAK_MEMORY, arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip()[-500:] or f"exit code {done.returncode}"
        raise UserError(f"measuring the memory of {model} failed: {reason}")
    return float(done.stdout.split()[-1])


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
