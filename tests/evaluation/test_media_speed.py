"""The benchmark of films and a camera runs real ones, and its report says what came of them."""

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from clearcall.cli import app
from clearcall.core.errors import UserError
from clearcall.evaluation import media_speed as film_benchmark
from clearcall.evaluation.media_speed import write_panning_film
from clearcall.imaging.frame import Frame
from clearcall.media.video.run import VideoSummary, time_video
from clearcall.reporting.media_speed import benchmark_films
from clearcall.temporal.filter import TemporalFilter, halved
from clearcall.temporal.motion import find_motion

TINY = """
import sys
from pathlib import Path
from clearcall.evaluation import media_speed as b
b._CAMERA_FILM_S = 1
sizes = {"film_size": (192, 128), "camera_size": (160, 96)}
b.benchmark_films(["quality", "fast"], "this command", Path(sys.argv[1]), seconds=2.5, rounds=2, frames=20, **sizes)
"""


def lumas(film: Path) -> list[Frame]:
    with av.open(str(film)) as opened:
        return [np.asarray(frame.to_ndarray(format="gray"), np.uint8) for frame in opened.decode(video=0)]


def test_all_of_the_film_moves_all_the_time_and_its_end_meets_its_beginning(tmp_path: Path) -> None:
    write_panning_film(tmp_path / "film.mp4", (320, 192), 60)
    frames = lumas(tmp_path / "film.mp4")
    assert len(frames) == 60 and frames[0].shape == (192, 320)
    temporal = TemporalFilter()
    filtered = [(temporal(frame) != frame).any() for frame in frames]
    assert sum(filtered) > 0.9 * len(frames)
    small = [*map(halved, [*frames, frames[0]])]
    middle = np.array([80, 48, 1])
    steps = [np.hypot(*(find_motion(after, before).camera @ middle - middle[:2])) for before, after in pairwise(small)]
    np.testing.assert_allclose(steps, 1.15, atol=0.4)  # pixels of the half frame


def test_films_and_a_camera_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_benchmark, "_CAMERA_FILM_S", 1)  # so that it is played again
    path = benchmark_films(
        ["quality", "fast"],
        "this command",
        tmp_path / "reports",
        seconds=2.5,
        rounds=2,
        frames=20,
        film_size=(192, 128),
        camera_size=(160, 96),
    )
    text = path.read_text()
    lines = [line for line in text.splitlines() if "openvino |" in line or "onnxruntime |" in line]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [[row[0], row[2]] for row in table] == [
        ["quality", "yes"],
        ["quality", "no"],
        ["fast", "yes"],
        ["fast", "no"],
    ]
    for row in table:
        median, least, most, encode = map(float, row[3:])
        assert 0 < least <= median <= most and encode > 0
    assert "`this command`" in text and "192x128" in text and "160x96 at 30 fps" in text
    assert "`fast` with past frames" in text and "20 frames" in text and "2 times in" in text
    shown, sharpened, late, repeated = map(
        int, re.findall(r"(\d+): (\d+) sharpened, (\d+) passed through late, (\d+) repeated", text)[0]
    )
    assert shown == sharpened + late + repeated and sharpened > 0
    memory = re.findall(r"(\d+) MiB", text)
    assert len(memory) == 3 and all(50 < int(mib) < 10_000 for mib in memory)
    assert [entry.name for entry in path.parent.iterdir()] == ["video.md"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_cut_short_is_not_reported(
    number: int, interrupted: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    of_camera = "\nimport clearcall.media.camera.run as r\nshow = r._Told.show\n"
    of_camera += "def told(*given):\n    print('shown', flush=True)\n    return show(*given)\nr._Told.show = told\n"
    done = interrupted(of_camera + TINY, str(tmp_path), send=number)
    assert done.returncode != 0 and "KeyboardInterrupt" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_film_that_is_cut_short_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(*arguments: object, **options: object) -> VideoSummary:
        return replace(time_video(*arguments, **options), interrupted=True)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(film_benchmark, "time_video", cut_short)
    monkeypatch.setattr(film_benchmark, "_CAMERA_FILM_S", 1)
    with pytest.raises(KeyboardInterrupt):
        benchmark_films(["fast"], "", tmp_path, seconds=1, frames=4, film_size=(96, 64), camera_size=(96, 64))
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "video", "--output", str(tmp_path), "--model", "nothing"])
    assert isinstance(result.exception, UserError) and "nothing" in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", [".", "reports"])
def test_a_file_in_the_place_of_the_folder_is_told_at_once(inside: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    result = CliRunner().invoke(app, ["bench", "video", "--output", str(there / inside)])
    assert isinstance(result.exception, UserError) and "name a folder" in str(result.exception)
