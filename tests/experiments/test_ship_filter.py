"""The blending weights of the temporal filter: the perceptron, its training clips, and how it is shipped."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.data.clips import Clip
from clearcall.data.synthetic import pan_and_zoom
from clearcall.evaluation.calls import Setting, receive
from clearcall.experiments import fit_filter as fitting
from clearcall.experiments.fit_filter import Lesson, _watched, fit, ship_filter
from clearcall.imaging.frame import Frame
from clearcall.temporal.filter import MOST_WEIGHT, Perceptron, TemporalFilter, shipped_weigher

OF_BLOCK, OF_FRAME = 11, 15  # features
FEATURES = OF_BLOCK + OF_FRAME


def constant(weight: float) -> Perceptron:
    """Return a perceptron that gives every block the same blending weight."""
    bias = np.log(weight / (1 - weight))
    return Perceptron([(np.zeros((FEATURES, 1), np.float32), np.full(1, bias, np.float32))])


def test_a_perceptron_by_hand() -> None:
    """Of 1 and the frame's 2: a hidden layer of 1 - 2 + 3 = 2 and -1 + 0 = -1, clipped to 0; then 2 / 2 - 1 = 0.

    Of 5 and 2, hidden are 6 and 0, and 6 / 2 - 1 = 2. So in every row.
    """
    hidden = np.array([[1, -1], [-1, 0]], np.float32), np.array([3, 0], np.float32)
    last = np.array([[0.5], [7]], np.float32), np.array([-1], np.float32)
    shares = Perceptron([hidden, last])(np.array([[[1], [5]]] * 40, np.float32), np.array([2], np.float32))
    np.testing.assert_allclose(shares, [[0.5, 1 / (1 + np.exp(-2))]] * 40)


@pytest.mark.filterwarnings("error")
def test_a_perceptrons_output_lies_between_0_and_1() -> None:
    identity = Perceptron([(np.array([[1], [0]], np.float32), np.zeros(1, np.float32))])
    shares = identity(np.array([[[-1e6], [-100], [0], [1e6]]], np.float32), np.zeros(1, np.float32))
    np.testing.assert_allclose(shares, [[0, 0, 0.5, 1]], atol=1e-6)


def test_the_shipped_one_takes_all_features() -> None:
    features = np.random.default_rng(1).normal(0, 1, 30 * 40 * OF_BLOCK + OF_FRAME).astype(np.float32)
    shares = shipped_weigher()(features[:-OF_FRAME].reshape(30, 40, -1), features[-OF_FRAME:])
    assert shares.shape == (30, 40) and shares.min() >= 0 and shares.max() <= 1


def test_a_larger_blending_weight_changes_more(photos: dict[str, Frame]) -> None:
    sharp = pan_and_zoom(np.ascontiguousarray(photos["astronaut"][:256, 80:400]), 6, (1.7, -1.2), 1.0)
    arrived = [*map(grey, receive(Clip("face", sharp), Setting("h264", 37, 2)))]
    changes = []
    for weight in (0.001, 0.2, 0.6):
        temporal = TemporalFilter(constant(weight))
        changes.append(np.mean([np.abs(temporal(luma).astype(int) - luma).mean() for luma in arrived]))
    assert changes[0] < 0.1 < changes[1] < changes[2]


def grey(frame: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def lesson(best: float, energy: float, features: float) -> Lesson:
    """Return a frame of four blocks that gains most by a weight of `best`, and says so in its first feature."""
    blocks = np.zeros((4, OF_BLOCK), np.float32)
    blocks[:, 0] = features
    of_frame = np.full(OF_FRAME, -features, np.float32)
    return Lesson(blocks, of_frame, np.full(4, energy / 4, np.float32), np.full(4, best * energy / 4, np.float32))


def test_fitting_finds_the_best_weight_of_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """By weights of 0.6 and 0.1, of energy 1, errors of 1 - 0.36 and 1 - 0.01 are left: 1.94 and 0.04 dB."""
    monkeypatch.setattr(fitting, "_STEPS", 500)
    much, little = lesson(0.6, 1.0, 2.0), lesson(0.1, 1.0, -1.0)
    weigh, gain_db = fit([much, little] * 4, seed=1)
    shares = [float(weigh(one.features, one.of_frame).mean()) for one in (much, little)]
    np.testing.assert_allclose(MOST_WEIGHT * np.array(shares), [0.6, 0.1], atol=0.06)
    assert gain_db == pytest.approx((1.938 + 0.044) / 2, abs=0.02)


def test_fitting_uses_the_features_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_STEPS", 500)
    much, little = lesson(0.6, 1.0, 2.0), lesson(0.1, 1.0, -1.0)
    weigh, _ = fit([much, replace(little, features=much.features)] * 4, seed=1)
    of_much, of_little = (float(weigh(much.features, one.of_frame).mean()) for one in (much, little))
    assert MOST_WEIGHT * of_much > 0.5 and MOST_WEIGHT * of_little < 0.25


@pytest.mark.parametrize("still", [0.0, 1.0])
def test_clips_stand_still_or_move(
    still: float, photos: dict[str, Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(photos["astronaut"][:400, :400]).save(tmp_path / "face.png")
    as_they_are = dict.fromkeys(("_BENT", "_BENT_IF_STILL", "_NOISY", "_LIT", "_ENCODED"), 0.0)
    heads = {"_WITH_HEAD": 0.0, "_WITH_HEAD_IF_STILL": 0.0}
    for name, value in {"_STILL": still, "_LONG": 0.5, **heads, **as_they_are}.items():
        monkeypatch.setattr(fitting, name, value)
    monkeypatch.setattr(fitting, "CallCodec", Literal["h264"])
    clips = [*fitting._sent(tmp_path / "face.png", 6, 1)]
    assert {len(clip) for clip, _ in clips} == {fitting.FRAMES, fitting.LONG_FRAMES} and len(clips) == 6
    for clip, arrived in clips:
        assert len(clip) == len(arrived)
        assert (np.ptp(np.stack(clip), axis=0) == 0).all() == bool(still)


@pytest.mark.parametrize("how", ["_BENT_IF_STILL", "_LIT", "_NOISY", "_ENCODED"])
def test_the_defects_of_a_recording_count_as_the_original(
    how: str, photos: dict[str, Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames differ from the photograph before they are sent, and what arrives is nearer to them."""
    image = photos["astronaut"][: fitting.SIDE, : fitting.SIDE]
    Image.fromarray(image).save(tmp_path / "face.png")
    shares = dict.fromkeys(
        ("_PAGES", "_SOFT", "_WITH_HEAD_IF_STILL", "_BENT_IF_STILL", "_LIT", "_NOISY", "_ENCODED"), 0.0
    )
    sent: dict[str, Any] = {
        "_STILL": 1.0,
        "_QP": (22, 22),
        "_FACTORS": (1.0,),
        "_NOISE_LEVELS": (4.0, 4.0),
        "_GRAIN": (0.6, 0.6),
        "_LIGHT_LEVELS": (12.0, 12.0),
    }
    for name, value in {**sent, **shares, how: 1.0, "CallCodec": Literal["h264"]}.items():
        monkeypatch.setattr(fitting, name, value)
    ((clip, arrived),) = fitting._sent(tmp_path / "face.png", 1, 1)
    assert all((frame != image).any() for frame in clip)
    for original, frame in zip(clip, arrived, strict=True):
        error = np.square(original.astype(float) - frame).mean()
        assert error < 0.9 * np.square(image.astype(float) - frame).mean()


def test_a_lesson_gives_the_error_of_a_weight(photos: dict[str, Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of that weight leaves this error, but for rounding and the edges of blocks."""
    sharp = pan_and_zoom(np.ascontiguousarray(photos["astronaut"][:256, 80:400]), 6, (1.7, -1.2), 1.0)
    arrived = receive(Clip("face", sharp), Setting("h264", 32, 2))
    monkeypatch.setattr(fitting, "LEARNT_FROM", (5,))
    (taught,) = _watched(sharp, arrived, constant(0.4))
    weight = 0.4 * MOST_WEIGHT
    expected = 1 + float((taught.energy * weight**2 - 2 * taught.agreement * weight).sum())
    temporal, lumas = TemporalFilter(constant(0.4)), [*map(grey, arrived)]
    *_, given = map(temporal, lumas)
    original = grey(sharp[-1]).astype(float)
    left = np.square(given - original).mean() / np.square(lumas[-1] - original).mean()
    assert expected < 0.98 and left == pytest.approx(expected, abs=0.01)


def test_weights_and_card_are_written_from_photographs(
    photos: dict[str, Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for name, photo in photos.items():
        files.append(tmp_path / f"{name}.png")
        Image.fromarray(photo).resize((400, 360)).save(files[-1])
    small = tmp_path / "small.png"
    Image.fromarray(photos["coffee"][:300]).save(small)
    few: dict[str, object] = {"_STEPS": 30, "_FRAMES_A_STEP": 8, "_CLIPS": (2,)}
    # Threads instead of processes, each of which imports torch for seconds.
    for name, value in (few | {"worker_pool": ThreadPoolExecutor}).items():
        monkeypatch.setattr(fitting, name, value)
    monkeypatch.setattr(cv2, "setNumThreads", lambda _: None)
    target = tmp_path / "temporal.npz"
    gain_db = ship_filter([*files, small], "CC0-1.0", target)
    assert -1 < gain_db < 3
    with np.load(target) as arrays:
        assert sorted(arrays) == [f"{kind}_{index}" for kind in ("biases", "weights") for index in range(3)]
        assert arrays["weights_0"].shape == (FEATURES, 48) and arrays["weights_2"].shape == (16, 1)
    card = target.with_suffix(".md").read_text(encoding="utf-8")
    assert f"{len(files)} photographs" in card and "CC0-1.0" in card and f"{gain_db:+.3f} dB" in card
    with pytest.raises(UserError, match="there are too few photographs with sides of 352 pixels"):
        ship_filter([small], "CC0-1.0", target)
