"""Mutated videos: each ends in "done" or in one line, soon, and in little memory. CLEARCALL_FUZZ=400 tries so many."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Of the processor's time: others may keep it busy. One that does nothing for so long hangs.
MOST_SECONDS, MOST_KIB, HANGS_S = 10.0, 1 << 20, 60.0
EXAMPLES = int(os.environ.get("CLEARCALL_FUZZ", "40"))
# Name, codecs of picture and sound, options of the container.
KINDS = {
    "plain.mp4": ("libx264", "aac", {"movflags": "faststart"}),
    "pieces.mp4": ("libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "vp9.webm": ("libvpx-vp9", "libopus", {}),
    "vp8.webm": ("libvpx", "libopus", {}),
    "plain.mkv": ("libx264", "aac", {}),
}
# A process of its own, which may crash or swell, does one video after another: paths in, outcomes out, a line each.
PROGRAM = """
import json, sys, time
from pathlib import Path
from clearcall.core.errors import describe
from clearcall.runtime.sharpener import Sharpener
from clearcall.media.video.run import sharpen_video
sharpener = Sharpener("fast", "onnxruntime", 1)
for line in sys.stdin:
    source, started = Path(line.strip()), time.process_time()
    target, told = source.parent / "out.mkv", "done"
    try:
        sharpen_video(sharpener, source, target)
    except BaseException as error:
        told = describe(error) or f"BUG {error!r}"
    left = [path.name for path in source.parent.iterdir() if path.name.startswith(".")]
    target.unlink(missing_ok=True)
    # Not ru_maxrss, in which Linux counts what the parent had before exec.
    status = Path("/proc/self/status")
    peak = int(status.read_text().partition("VmHWM:")[2].split()[0]) if status.exists() else 0
    print(json.dumps({"told": told, "kib": peak, "left": left, "seconds": time.process_time() - started}), flush=True)
"""


class Mutation(NamedTuple):
    """What is done to a file at a part, from 0 to 1, of its head or of the whole of it."""

    kind: str
    in_head: bool
    at: float
    length: int
    value: bytes

    def of(self, data: bytes) -> bytes:
        start = int(self.at * (min(len(data), 3000) if self.in_head else len(data)))
        end = start + self.length
        match self.kind:
            case "overwrite":
                return data[:start] + self.value + data[start + len(self.value) :]
            case "delete":
                return data[:start] + data[end:]
            case "repeat":
                return data[:end] + data[start:end] + data[end:]
            case _:
                return data[: max(1, start)]


MUTATIONS = st.builds(
    Mutation,
    st.sampled_from(["overwrite"] * 6 + ["delete", "repeat", "cut"]),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 400),
    st.one_of(
        st.binary(min_size=1, max_size=8), st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"])
    ),
)


def write_base(path: Path) -> bytes:
    picture, sound, options = KINDS[path.name]
    with av.open(str(path), "w", container_options=options) as out:
        video = out.add_stream(picture, 25, {"g": "5"}, width=96, height=64, pix_fmt="yuv420p")
        audio = out.add_stream(sound, 48000, layout="mono")
        assert isinstance(video, av.VideoStream) and isinstance(audio, av.AudioStream)
        random = np.random.default_rng(0)
        for number in range(10):
            frame = VideoFrame.from_ndarray(random.integers(0, 255, (96, 96), np.uint8), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        depth = np.int16 if audio.codec_context.format.name == "s16" else np.float32
        for number in range(16):
            heard = AudioFrame.from_ndarray(np.zeros((1, 960), depth), audio.codec_context.format.name, "mono")
            heard.sample_rate, heard.pts, heard.time_base = 48000, 960 * number, Fraction(1, 48000)
            out.mux(audio.encode(heard))
        out.mux(audio.encode(None))
    return path.read_bytes()


class Worker:
    """The process that sharpens; started anew after a crash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = self._started()

    def _started(self) -> "subprocess.Popen[str]":
        command, piped = [sys.executable, "-c", PROGRAM], subprocess.PIPE
        with (self._folder.parent / "said.txt").open("w") as said:
            return subprocess.Popen(command, stdin=piped, stdout=piped, stderr=said, text=True)

    def sharpen(self, data: bytes, name: str) -> dict[str, object]:
        """Return what is told of a video, or how the process failed."""
        (self._folder / name).write_bytes(data)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{self._folder / name}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], HANGS_S)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return dict(json.loads(line))
        code = self._process.poll() if ready else "hangs"
        self.end()
        self._process = self._started()
        return {"told": f"BUG the process ended: {code}", "kib": 0, "left": [], "seconds": 0.0}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: write_base(folder / name) for name in KINDS}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, bytes]) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("fuzz") / "files"
    folder.mkdir()
    one = Worker(folder)
    for name, data in bases.items():  # without mutations they are done; and the process has begun when time counts
        assert one.sharpen(data, name)["told"] == "done"
    yield one
    one.end()


@given(name=st.sampled_from(sorted(KINDS)), mutations=st.lists(MUTATIONS, min_size=1, max_size=6))
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_mutated_video_ends_in_done_or_one_line(
    worker: Worker, bases: dict[str, bytes], name: str, mutations: list[Mutation]
) -> None:
    data = bases[name]
    for mutation in mutations:
        data = mutation.of(data)
    outcome = worker.sharpen(data, name)
    told = str(outcome["told"])
    assert not told.startswith("BUG") and "\n" not in told and "None" not in told
    assert outcome["left"] == []
    assert int(str(outcome["kib"])) < MOST_KIB
    assert float(str(outcome["seconds"])) < MOST_SECONDS
