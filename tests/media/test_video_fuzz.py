"""Mutated videos: each ends in "done" or in one line, soon, and in little memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.make.probe import EXAMPLES, MUTATIONS, Mutation, Probe, mutated
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


@given(name=st.sampled_from(sorted(KINDS)), mutations=MUTATIONS)
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_mutated_video_ends_in_done_or_one_line(
    probe: Probe, bases: dict[str, bytes], name: str, mutations: list[Mutation]
) -> None:
    outcome = probe.work(name, mutated(bases[name], mutations))
    outcome.check(name)
    assert "None" not in outcome.said[0]
