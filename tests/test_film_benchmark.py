"""The benchmark of films and a camera runs real ones, and its report says what came of them."""

import re
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from clearcall.cli import app
from clearcall.errors import UserError
from clearcall.film_benchmark import RATE, benchmark_films, write_panning_film
from clearcall.metrics import Frame
from clearcall.motion import find_motion
from clearcall.temporal import TemporalFilter, halved


def lumas(film: Path) -> list[Frame]:
    with av.open(str(film)) as opened:
        return [np.asarray(frame.to_ndarray(format="gray"), np.uint8) for frame in opened.decode(video=0)]


def test_all_of_the_film_moves_all_the_time_and_its_end_meets_its_beginning(tmp_path: Path) -> None:
    write_panning_film(tmp_path / "film.mp4", (320, 192), 40)
    frames = lumas(tmp_path / "film.mp4")
    assert len(frames) == 40 and frames[0].shape == (192, 320)
    temporal = TemporalFilter()
    given = [temporal(frame) for frame in frames]
    assert all((after != before).any() for before, after in zip(frames[1:], given[1:], strict=True))
    small = [*map(halved, [*frames, frames[0]])]
    steps = [np.hypot(*find_motion(after, before).camera[:, 2]) for before, after in pairwise(small)]
    assert max(steps) < 3 * np.median(steps)


def test_films_and_a_camera_are_measured(tmp_path: Path) -> None:
    path = benchmark_films(
        ["call", "fast"],
        "this command",
        tmp_path / "reports",
        seconds=1.5,
        rounds=2,
        frames=20,
        film_size=(192, 128),
        camera_size=(160, 96),
    )
    text = path.read_text()
    rows = re.findall(
        r"^\| *(call|fast) *\| *(yes|no) *\| *([\d.]+) *\| *([\d.]+) *\| *([\d.]+) *\| *([\d.]+) *\|",
        text,
        re.MULTILINE,
    )
    assert [row[:2] for row in rows] == [("call", "yes"), ("call", "no"), ("fast", "yes"), ("fast", "no")]
    for _, _, median, least, most, encode in rows:
        assert 0 < float(least) <= float(median) <= float(most) and float(encode) > 0
    assert "`this command`" in text and "192x128" in text and "160x96" in text and "`fast` with past frames" in text
    found = re.search(r"(\d+) of (\d+) frames", text)
    assert found and 0 < int(found[1]) <= int(found[2]) and abs(int(found[2]) - 1.5 * RATE) <= 2
    memory = re.findall(r"(\d+) MiB", text)
    assert len(memory) == 3 and all(50 < int(mib) < 10_000 for mib in memory)


def test_a_model_that_is_not_there_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["benchmark-films", "--model", "nothing", "--output", str(tmp_path)])
    assert isinstance(result.exception, UserError) and "nothing" in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["call", "--seconds"])
def test_help_shows_an_example(part: str) -> None:
    assert part in CliRunner().invoke(app, ["benchmark-films", "--help"]).output
