"""The benchmark of videos and a camera runs real ones, and its report says what came of them."""

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

from clearcall.core.errors import UserError
from clearcall.evaluation import media_speed
from clearcall.evaluation.media_speed import write_scene
from clearcall.imaging.frame import Frame
from clearcall.media.video.run import VideoSummary, time_video
from clearcall.reporting.media_speed import benchmark_videos
from clearcall.temporal.filter import TemporalFilter, halved
from clearcall.temporal.motion import find_motion

TINY = """
import sys
from pathlib import Path
from clearcall.reporting.media_speed import benchmark_videos
sizes = {"video_size": (192, 128), "camera_size": (160, 96), "loop_s": 1}
benchmark_videos(["quality", "fast"], "this command", Path(sys.argv[1]), seconds=2.5, rounds=2, frames=20, **sizes)
"""


def lumas(video: Path) -> list[Frame]:
    with av.open(str(video)) as opened:
        return [np.asarray(frame.to_ndarray(format="gray"), np.uint8) for frame in opened.decode(video=0)]


def test_all_of_the_video_moves_all_the_time_and_its_end_meets_its_beginning(tmp_path: Path) -> None:
    write_scene(tmp_path / "video.mp4", "pan", (320, 192), 60)
    frames = lumas(tmp_path / "video.mp4")
    assert len(frames) == 60 and frames[0].shape == (192, 320)
    temporal = TemporalFilter()
    filtered = [(temporal(frame) != frame).any() for frame in frames]
    assert sum(filtered) > 0.9 * len(frames)
    small = [*map(halved, [*frames, frames[0]])]
    middle = np.array([80, 48, 1])
    steps = [np.hypot(*(find_motion(after, before).camera @ middle - middle[:2])) for before, after in pairwise(small)]
    np.testing.assert_allclose(steps, 1.15, atol=0.4)  # pixels of the half frame


def test_before_a_camera_that_stands_still_a_head_sways_and_a_room_does_not(tmp_path: Path) -> None:
    for scene, moves in (("head", True), ("room", False)):
        write_scene(tmp_path / "video.mp4", scene, (320, 192), 30)  # type: ignore[arg-type]  # both are scenes
        frames = np.array(lumas(tmp_path / "video.mp4"), np.float32)
        change = np.abs(frames[1] - frames[0])
        assert change[:20].mean() < 2  # noise
        assert (change[60:110, 120:200].mean() > 4) == moves
        temporal = TemporalFilter()
        for frame in frames.astype(np.uint8):
            np.testing.assert_array_equal(temporal(frame), frame)


def test_videos_and_a_camera_are_measured(tmp_path: Path) -> None:
    path = benchmark_videos(
        ["quality", "fast"],
        "this command",
        tmp_path / "reports",
        seconds=2.5,
        loop_s=1,  # so that it is played again
        rounds=2,
        frames=20,
        video_size=(192, 128),
        camera_size=(160, 96),
    )
    text = path.read_text()
    lines = [line for line in text.splitlines() if "openvino |" in line or "onnxruntime |" in line]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cases = [["pan", "yes"], ["pan", "no"], ["head", "yes"], ["room", "yes"], ["head, enlarged x3", "yes"]]
    assert [[row[0], *row[2:4]] for row in table] == [[model, *case] for model in ("quality", "fast") for case in cases]
    for row in table:
        median, least, most, cpu_ms, encode = map(float, row[5:])
        assert 0 < least <= median <= most and encode > 0 and cpu_ms > 0
    assert "`this command`" in text and "192x128" in text and "160x96 at 30 fps" in text
    assert "`fast` with past frames" in text and "20 frames" in text and "2 times in" in text
    shown, sharpened, late, repeated = map(
        int, re.findall(r"(\d+): (\d+) sharpened, (\d+) passed through late, (\d+) repeated", text)[0]
    )
    assert shown == sharpened + late + repeated and sharpened > 0
    memory = re.findall(r"(\d+) MiB", text)
    assert len(memory) == 3 and all(50 < int(mib) < 10_000 for mib in memory)
    steps = dict(re.findall(r"^\| (decode|network|sum) +\| +([\d.]+) \|", text, re.MULTILINE))
    assert 0 < float(steps["decode"]) < float(steps["sum"]) and 0 < float(steps["network"]) < float(steps["sum"])
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


def test_a_video_that_is_cut_short_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(*arguments: object, **options: object) -> VideoSummary:
        return replace(time_video(*arguments, **options), interrupted=True)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(media_speed, "time_video", cut_short)
    sizes = {"video_size": (96, 64), "camera_size": (96, 64)}
    with pytest.raises(KeyboardInterrupt):
        benchmark_videos(["fast"], "", tmp_path, seconds=1, loop_s=1, frames=4, **sizes)  # type: ignore[arg-type]  # sizes
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing"):
        benchmark_videos(["nothing"], "", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", [".", "reports"])
def test_a_file_in_the_place_of_the_folder_is_told_at_once(inside: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    with pytest.raises(UserError, match="name a folder"):
        benchmark_videos(["fast"], "", there / inside)
