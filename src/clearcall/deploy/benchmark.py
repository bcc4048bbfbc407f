"""How fast a restorer is: 8-bit RGB frame in, 8-bit RGB frame out, one at a time, contenders in alternating blocks."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clearcall.console import ProgressBar
from clearcall.deploy.session import Session
from clearcall.errors import UserError
from clearcall.metrics import Frame, Restore
from clearcall.params import BenchmarkFps

DISTINCT_FRAMES = 4


def make_frames(picture: Frame, width: int, height: int) -> list[Frame]:
    """Return a few different frames of one size, cut from one enlarged photograph, so that no call repeats the last."""
    scale = max((width + 64) / picture.shape[1], (height + 64) / picture.shape[0])
    large = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    offsets = np.linspace(0, 63, DISTINCT_FRAMES).astype(int)
    return [np.ascontiguousarray(large[shift : shift + height, shift : shift + width], np.uint8) for shift in offsets]


def measure_latency(contenders: Mapping[str, Restore], frames: Sequence[Frame], params: BenchmarkFps) -> dict[str, Any]:
    """Return for each contender median, p95 and the spread of its block medians in ms, and fps.

    Warm-up frames do not count. Contenders take turns, block by block, so that a machine that slows down slows all. The
    median is that of the block medians; fps is 1000 / median latency in ms, one frame at a time.
    """
    slow = {}
    for name, restore in contenders.items():
        # The least of three: the first call prepares much, and any one may be disturbed.
        slow[name] = min(_time_ms(restore, frames[0]) for _ in range(3)) > params.slow_ms
        for index in range(0 if slow[name] else params.warmup_frames):
            restore(frames[index % len(frames)])
    blocks: dict[str, list[list[float]]] = {name: [] for name in contenders}
    per_block = max(1, params.frames // params.blocks)
    with ProgressBar("timing", params.blocks) as bar:
        for block in range(params.blocks):
            for name, restore in contenders.items():
                # A slow contender's few frames are spread over as many blocks, one each.
                if slow[name] and block >= params.slow_frames:
                    continue
                count = 1 if slow[name] else per_block
                blocks[name].append([_time_ms(restore, frames[index % len(frames)]) for index in range(count)])
            bar.advance()
    return {name: _summary(timed) for name, timed in blocks.items()}


def measure_throughput(model: Path, frames: Sequence[Frame], in_flight: int, count: int) -> float:
    """Return frames a second with several frames in flight, one single-threaded session for each."""
    sessions = [Session(model, threads=1) for _ in range(in_flight)]

    def work(session: Session) -> int:
        for index in range(count // in_flight):
            session(frames[index % len(frames)])
        return count // in_flight

    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(lambda session: session(frames[0]), sessions))
        started = time.perf_counter()
        done = sum(pool.map(work, sessions))
        return done / (time.perf_counter() - started)


def measure_peak_memory_mib(model: Path, width: int, height: int, threads: int | None) -> float:
    """Return the peak resident memory in MiB of a process of its own that does nothing but sharpen ten frames."""
    program = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from clearcall.deploy.session import Session\n"
        "model, width, height, threads = json.loads(sys.argv[1])\n"
        "session = Session(Path(model), threads)\n"
        "frame = np.zeros((height, width, 3), np.uint8)\n"
        "for _ in range(10): session(frame)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    arguments = json.dumps([str(model), width, height, threads])
    try:
        done = subprocess.run([sys.executable, "-c", program, arguments], capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(f"measuring the memory of {model} failed: {error.stderr.strip()[-500:]}") from None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, KiB on Linux
    return int(done.stdout) / unit


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
