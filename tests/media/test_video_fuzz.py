"""Mutated videos: each ends in "done" or in one line, soon, and in little memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.make.probe import EXAMPLES, Probe
from tests.make.videos import write_video

KINDS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"muxer": {"movflags": "faststart"}},
    "pieces.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "plain.mkv": {},
}
WORKS = """
from clearcall.media.video.run import sharpen_video
from clearcall.runtime.sharpener import Sharpener
sharpener = Sharpener("fast", "onnxruntime", 1)
works = [lambda path: sharpen_video(sharpener, path, path.with_name("out.mkv"), overwrite=True)]
"""


class Mutation(NamedTuple):
    """What is done to a file at a part, from 0 to 1, of its head or of all of it."""

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


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bases")
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    return {
        name: write_video(folder / name, noise, options={"g": "5"}, sound=16, **traits).read_bytes()
        for name, traits in KINDS.items()
    }


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, bytes]) -> Iterator[Probe]:
    one = Probe(tmp_path_factory.mktemp("mutated_videos"), WORKS)
    for name, data in bases.items():  # without mutations they are done; and the process has begun when time counts
        assert one.work(name, data).said == ["done"]
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
    probe: Probe, bases: dict[str, bytes], name: str, mutations: list[Mutation]
) -> None:
    data = bases[name]
    for mutation in mutations:
        data = mutation.of(data)
    outcome = probe.work(name, data)
    outcome.check(name)
    assert "None" not in outcome.said[0]
