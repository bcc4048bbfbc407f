"""Which shipped model `auto` means: the best for single frames, the best that holds a rate for videos."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clearcall import Sharpener
from clearcall.cli import app
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.media.camera.run import Settings, run_camera
from clearcall.media.video.run import sharpen_video, time_video
from clearcall.models.build import build_model
from clearcall.models.export import export_onnx
from clearcall.models.layers import parameter_count
from clearcall.runtime import sharpener as runtime
from clearcall.runtime.family import CAMERA_HEADROOM, choose_model, sharpener_for
from clearcall.runtime.sharpener import best_first, find_model, named_model, shipped_models

AddVideo = Callable[[Path, list[Frame]], None]
MAKE = partial(Sharpener, provider="onnxruntime", threads=1)
SIZE = (320, 240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and one that takes many times as long, with the cards that order them."""
    folder = tmp_path_factory.mktemp("shipped")
    for name, channels, layers in (("a_light", 2, 0), ("b_heavy", 32, 3)):
        model = build_model("students", "luma_strided", {"channels": channels, "body_layers": layers}).eval()
        export_onnx(model, folder / f"{name}.onnx", 20)
        (folder / f"{name}.json").write_text(json.dumps({"parameters": parameter_count(model)}))
    return folder


@pytest.fixture(autouse=True)
def _shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take the place of those that come with the package."""
    monkeypatch.setattr(runtime, "SHIPPED", folder)


@pytest.fixture
def video(add_video: AddVideo, photos: dict[str, Frame], tmp_path: Path) -> Path:
    """Eight frames of 128x96, 30 a second."""
    path = tmp_path / "video.mp4"
    add_video(path, [photos["chelsea"][80:176, 100 + step : 228 + step] for step in range(8)])
    return path


def test_the_best_has_the_most_parameters_and_serves_single_frames(folder: Path) -> None:
    """By default, and by the name that reports tell."""
    assert shipped_models() == ["a_light", "b_heavy"]
    assert best_first() == ["b_heavy", "a_light"]
    assert named_model("auto") == "b_heavy" and named_model("a_light") == "a_light"
    assert find_model("auto") == folder / "b_heavy.onnx"
    assert Sharpener().graph.name == Sharpener("auto").graph.name == "b_heavy.onnx"


def test_without_a_shipped_model_auto_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "SHIPPED", tmp_path)
    with pytest.raises(UserError, match="no model comes with this package"):
        Sharpener()


def test_the_best_that_holds_the_rate_is_chosen_or_else_the_fastest() -> None:
    """Nothing is too slow for a frame in a thousand seconds, and all is for a thousand million a second."""
    best, fastest = choose_model(MAKE, SIZE, 0.001), choose_model(MAKE, SIZE, 1e9)
    assert (best.name, fastest.name) == ("b_heavy", "a_light")
    assert fastest.fps > best.fps > 0.001
    assert [found.sharpener.graph.name for found in (best, fastest)] == ["b_heavy.onnx", "a_light.onnx"]
    assert best.sharpener.choice is not None  # its runtime is chosen


def test_a_rate_between_the_two_goes_to_the_faster() -> None:
    """The headroom counts: the slow one is refused at its own rate."""
    slow_fps = MAKE("b_heavy").measure_fps(*SIZE)
    assert choose_model(MAKE, SIZE, slow_fps, headroom=3).name == "a_light"
    assert choose_model(MAKE, SIZE, slow_fps, headroom=0.1).name == "b_heavy"


def test_what_is_measured_leaves_nothing_behind(photos: dict[str, Frame]) -> None:
    """A frame gets what it got before."""
    luma, sharpen = photos["coffee"][:60, :80, 1], MAKE("a_light")
    before = sharpen(luma, "gray")
    assert sharpen.measure_fps(80, 60) > 0
    np.testing.assert_array_equal(sharpen(luma, "gray"), before)


def test_a_model_that_is_named_is_obeyed(tmp_path: Path) -> None:
    """And one that is not there is refused at once."""
    named = sharpener_for("a_light", MAKE, "video")
    assert isinstance(named, Sharpener) and named.graph.name == "a_light.onnx"
    with pytest.raises(UserError, match=r"there is no model 'c': give one of a_light, b_heavy, or an ONNX file"):
        sharpener_for("c", MAKE, "video")


def test_videos_and_cameras_choose_by_their_own_size_and_rate(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And say so in one line; a camera's rate may be another one that is asked for."""

    def told() -> list[str]:
        return re.findall(r"model \w+: \d+ frames/s at \w+, the \w+ has \S+", capsys.readouterr().err)

    assert time_video(sharpener_for("auto", MAKE, "video"), video).frames == 8
    (line,) = told()
    assert re.fullmatch(r"model (a_light|b_heavy): \d+ frames/s at 128x96, the video has 30", line)
    sharpen_video(sharpener_for("auto", MAKE, "video", headroom=1e9), video, tmp_path / "out.mp4", size=(64, 48))
    (line,) = told()
    assert re.fullmatch(r"model a_light: \d+ frames/s at 64x48, the video has 30", line)
    make = partial(MAKE, video=True)
    settings = Settings(str(video), (str(tmp_path / "camera.mp4"),), fps=10)
    assert run_camera(sharpener_for("auto", make, "camera", CAMERA_HEADROOM), settings).shown > 0
    (line,) = told()
    assert re.fullmatch(r"model (a_light|b_heavy): \d+ frames/s at 128x96, the camera has 10", line)


def test_the_commands_take_auto_unless_told_otherwise(video: Path, tmp_path: Path, photos: dict[str, Frame]) -> None:
    """An image takes the best; a video says what it takes; `crisp` is another result."""
    Image.fromarray(photos["coffee"][:60, :80]).save(tmp_path / "in.png")
    options, runner = ("--provider", "onnxruntime", "--threads", "1"), CliRunner()
    for look in ("natural", "crisp"):
        done = runner.invoke(
            app, ["sharpen", str(tmp_path / "in.png"), str(tmp_path / f"{look}.png"), *options, f"--look={look}"]
        )
        assert done.exit_code == 0, done.output
    assert (tmp_path / "natural.png").read_bytes() != (tmp_path / "crisp.png").read_bytes()
    done = runner.invoke(app, ["sharpen", str(video), "--dry-run", *options])
    assert done.exit_code == 0 and "the video has 30" in done.stderr, done.output
    done = runner.invoke(app, ["sharpen", str(video), "--dry-run", *options, "--model", "a_light", "--look", "crisp"])
    assert done.exit_code == 0 and "the video has" not in done.stderr, done.output
    assert runner.invoke(app, ["sharpen", str(video), "--dry-run", "--look", "soft"]).exit_code == 2
