"""A student adapts while a call plays: in a process of its own, which gives networks and takes them back."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED
from clearcall.data.recordings import LiveFrames
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import resized
from clearcall.runtime.graph import load_graph
from clearcall.training import live
from clearcall.training.live import LiveAdaptation

SIZE = 192, 128  # width, height
PATIENCE_S = 120.0
FAST = load_graph(SHIPPED / "fast.onnx")


def received(face: Frame, count: int) -> list[Frame]:
    """A face that a camera pans over, downscaled by 2 and upscaled again, as I420."""
    frames = [np.ascontiguousarray(face[n : n + SIZE[1], 120 + 5 * n : 120 + 5 * n + SIZE[0]]) for n in range(count)]
    blurred = [resized(resized(frame, (SIZE[0] // 2, SIZE[1] // 2)), SIZE) for frame in frames]
    return [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8) for frame in blurred]


def news_of(adaptation: LiveAdaptation, frames: list[Frame]) -> Path | str:
    """Play frames until something has been learnt, or unlearnt."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        for frame in frames:
            adaptation.offer(frame, coded=False)
            if (news := adaptation.poll()) is not None:
                return news
            time.sleep(0.02)
    pytest.fail("nothing was learnt")


def test_it_learns_from_a_call_and_unlearns_in_another(
    photos: dict[str, Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_OFFER_EVERY_S", 0.0)
    with LiveAdaptation(FAST, "quality", steps=120) as adaptation:
        adapted = news_of(adaptation, received(photos["astronaut"], 30))
        assert isinstance(adapted, Path)
        assert load_graph(adapted).choices == FAST.choices
        wall = np.repeat(data.brick()[..., np.newaxis], 3, axis=2)  # type: ignore[no-untyped-call]  # it has no types
        assert news_of(adaptation, received(wall, 30)) == "fast"  # what was learnt from a face does not help
        folder, process = adapted.parent, adaptation._process
    assert not folder.exists()
    assert not process.is_alive()


def test_frames_that_play_are_kept_if_they_differ() -> None:
    frames, grey = LiveFrames(), [np.full((64, 96, 3), 10 * n, np.uint8) for n in range(24)]
    for frame in grey[:1] * 5 + grey:
        assert not frames.enough or len(frames.frames()["train"]) == 8
        frames.offer(frame, coded=True)
    found = frames.frames()
    assert frames.enough
    assert {split: len(group) for split, group in found.items()} == {"train": 8, "validation": 4}
    levels = [one.frame[0, 0, 0] for group in found.values() for one in group]
    assert len({*levels}) >= 11  # at most the first is in both
    assert all(one.coded for group in found.values() for one in group)


def test_only_a_shipped_network_can_be_adapted_whatever_a_file_is_called(
    colour_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fast.onnx"
    file.write_bytes(colour_onnx.read_bytes())
    with pytest.raises(UserError, match=r"fast.onnx cannot be adapted: leave out --adapt, or give --model one of best"):
        LiveAdaptation(load_graph(file))
    monkeypatch.setattr(live, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="needs torch"):
        LiveAdaptation(FAST)


def test_a_process_that_fails_is_told_once_and_the_call_goes_on(
    photos: dict[str, Frame], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "_OFFER_EVERY_S", 0.0)
    with LiveAdaptation(FAST, "quality", steps=20) as adaptation:
        folder = Path(adaptation._folder.name)
        folder.rmdir()
        folder.touch()  # a file, in which nothing can be written
        told, until_s = "", time.monotonic() + PATIENCE_S
        while not told and time.monotonic() < until_s:
            for frame in received(photos["astronaut"], 30):
                adaptation.offer(frame, coded=False)
                assert adaptation.poll() is None
                time.sleep(0.02)
            told = capsys.readouterr().err
        assert "the network is no longer adapted: " in told
        folder.unlink()
