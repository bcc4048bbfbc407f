"""Mutated files, and a process of its own that works on them: it may crash, hang or swell."""

import json
import os
import select
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

# Of each kind of file; CLEARCALL_FUZZ=400 tries so many.
EXAMPLES = int(os.environ.get("CLEARCALL_FUZZ", "20"))
MOST_MIB, MOST_SECONDS = 1024, 10.0  # of the processor's time: others may keep it busy
_HANGS_S = 60.0  # without an answer
# Paths in, outcomes out, a line each. A program before it lists the `works`, functions of a path.
_LOOP = """
import json, sys, time
from pathlib import Path
from clearcall.core.errors import describe
for line in sys.stdin:
    path, said, started = Path(line.strip()), [], time.process_time()
    for work in works:
        try:
            work(path)
            said.append("done")
        except BaseException as error:
            said.append(describe(error) or f"BUG {error!r}")
    left = [one.name for one in path.parent.iterdir() if one.name.startswith(".")]
    # Not ru_maxrss, in which Linux counts what the parent had before exec.
    status = Path("/proc/self/status")
    mib = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024 if status.exists() else 0
    outcome = {"said": said, "seconds": time.process_time() - started, "mib": mib, "left": left}
    print(json.dumps(outcome), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What each work said of a file, how long it all took, the most memory ever used, and half-written files."""

    said: list[str]
    seconds: float = 0.0
    mib: float = 0.0
    left: list[str] | None = None

    def check(self, name: str) -> None:
        """Assert that each work was done or refused the file in one line, soon, and in little memory."""
        for said in self.said:
            assert said == "done" or (name in said and not said.startswith("BUG") and "\n" not in said), said
        assert self.seconds < MOST_SECONDS
        assert self.mib < MOST_MIB
        assert not self.left


class Probe:
    """The process; it is started anew after a crash."""

    def __init__(self, folder: Path, works: str) -> None:
        self._folder, self._program = folder, works + _LOOP
        self.stderr = folder.parent / f"{folder.name}.stderr"
        self._process = self._started()

    def _started(self) -> "subprocess.Popen[str]":
        piped = subprocess.PIPE
        with self.stderr.open("a") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", self._program], stdin=piped, stdout=piped, stderr=errors, text=True
            )

    def work(self, name: str, data: bytes) -> Outcome:
        """Return what came of a file of this name and content."""
        (self._folder / name).write_bytes(data)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{self._folder / name}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], _HANGS_S)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return Outcome(**json.loads(line))
        code = self._process.wait() if ready else "hangs"
        self.end()
        self._process = self._started()
        return Outcome([f"BUG the process ended: {code}"])

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Mutation(NamedTuple):
    """What is done to a file at a part, from 0 to 1, of its first `head` bytes."""

    kind: str
    head: int
    at: float
    length: int
    value: bytes

    def of(self, data: bytes) -> bytes:
        """Return a file's content mutated."""
        start = int(self.at * min(len(data), self.head))
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


def mutated(data: bytes, mutations: list[Mutation]) -> bytes:
    """Return a file's content after several mutations."""
    for mutation in mutations:
        data = mutation.of(data)
    return data


_NUMBERS = [0, 1, 0x7F, 0xFF, 0x4000, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**32 - 1]
_EXTREMES = [struct.pack(form, number) for form in ("<I", ">I") for number in _NUMBERS]
_EXTREMES += [struct.pack(form, number & 0xFFFF) for form in ("<H", ">H") for number in _NUMBERS]
MUTATIONS = st.lists(
    st.builds(
        Mutation,
        st.sampled_from(["overwrite"] * 6 + ["delete", "repeat", "cut"]),
        st.sampled_from([64, 3000, 2**31]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 400),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(_EXTREMES)),
    ),
    min_size=1,
    max_size=6,
)
