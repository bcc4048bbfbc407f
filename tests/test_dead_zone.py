"""Frames that are left alone: how the threshold is found, and what the network and its graph make of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from clearcall import Sharpener
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.deploy.export import export_onnx
from clearcall.errors import UserError
from clearcall.files import read_json
from clearcall.metrics import Frame
from clearcall.models import build_model
from clearcall.models.inference import restore, to_tensor
from clearcall.models.students.luma_strided import LumaStrided
from clearcall.models.weights import load_weights
from clearcall.params import Params, parse_params
from clearcall.training.dead_zone import best_factor, best_zone, find_dead_zone, find_factor
from clearcall.training.train import Trained
from clearcall.training.validation import Validator

ARGUMENTS: dict[str, object] = {"channels": 4, "body_layers": 1, "frame_gain": True}
# Of a frame with an error of 1: residuals that leave 1 - 0.32 + 0.02 = 0.7, 1.55 dB less, or 1.05, 0.21 dB more.
HELPED, HARMED = (1.0, 0.16, 0.02), (1.0, -0.02, 0.01)


def zone(*frames: tuple[float, tuple[float, float, float]]) -> list[float] | None:
    """Return the best zone for frames of (input's gain, (error, agreement, energy))."""
    rows = np.array([[gain, *means] for gain, means in frames]).reshape(-1, 4)
    return best_zone(*rows.T)


def student(zone: list[float] | None = None, seed: int = 3) -> LumaStrided:
    """Return a network that does something, whose gains differ from frame to frame."""
    torch.manual_seed(seed)
    network = build_model("students", "luma_strided", {**ARGUMENTS, "dead_zone": zone})
    assert isinstance(network, LumaStrided) and network.frame_gain is not None
    with torch.no_grad():
        torch.nn.init.normal_(network.tail.weight, std=0.1)
        torch.nn.init.normal_(network.frame_gain.last.weight, std=0.5)
    return network.eval()


@pytest.fixture(scope="module")
def face(photos: dict[str, Frame]) -> Frame:
    return photos["astronaut"][60:157, 180:291]


def test_the_zone_parts_those_it_helps_from_those_it_harms() -> None:
    """Nothing is lost from 0.1 on, and nothing gained up to 0.2: the widest that does so."""
    assert zone(*[(0.2, HELPED)] * 3, (0.1, HARMED)) == [0.1, 0.2]


def test_without_harm_there_is_no_zone() -> None:
    assert zone((0.2, HELPED), (0.1, HELPED)) is None
    assert zone() is None


@pytest.mark.parametrize(("helped", "best"), [(2, [0.1, 0.2]), (3, None)])
def test_a_decibel_lost_counts_as_twenty(helped: int, best: list[float] | None) -> None:
    """Of frames that look alike, 20 times 0.21 dB lost is more than twice 1.55 dB gained, and less than three times."""
    assert zone(*[(0.1, HELPED)] * helped, (0.1, HARMED), (0.2, HELPED)) == best


def test_what_is_missing_is_added_and_of_its_opposite_nothing() -> None:
    """Of nothing known, the network's own; and never more than three times that."""
    error = np.array([4.0])
    assert best_factor(error, error / 2, error / 4) == 2  # half of what is missing
    assert best_factor(error, error / 10, error / 100) == 3
    assert best_factor(error, -error, error) == 0
    assert best_factor(np.empty(0), np.empty(0), np.empty(0)) == 1


def test_a_residual_twice_too_large_is_halved() -> None:
    """It adds 2 m for m: 1 - 4 s + 4 s^2 of the error is left, next to nothing at half of it."""
    error = np.array([3.0, 5.0])
    assert best_factor(error, 2 * error, 4.001 * error) == 0.5


def test_one_frame_that_loses_costs_those_that_gain() -> None:
    """One of ten loses, which counts twenty times: all get less than is best for nine, but some.

    A factor s leaves 1 - s + s^2 of nine's error (best at 0.5, 1.25 dB), and 1 - 0.01 s + s^2 of the tenth's. In
    natural logarithms that is about s - s^2 / 2 gained and s^2 - 0.01 s lost: 9 and 20 times that are best at
    s = 9.2 / 49.
    """
    error = np.ones(10)
    agreement = np.where(np.arange(10) < 9, 0.5, 0.005)
    assert best_factor(error, agreement, error) == pytest.approx(9.2 / 49, abs=1 / 40)


def test_how_much_is_added_is_found_on_whole_pictures(tiny_pairs: Path) -> None:
    """Twice half of what is missing, 0.525 of 1.9 times as much, nothing of its opposite."""
    pairs, reader = [pair for pair in read_pairs(tiny_pairs) if pair.scale == 1], PairReader(tiny_pairs)
    truth = {reader.degraded(pair).tobytes(): to_tensor(reader.sharp(pair))[None] for pair in pairs}

    def restore(picture: Tensor, factor: float) -> Tensor:
        frame = picture[0].mul(255).round().byte().movedim(0, -1).contiguous().numpy()
        return picture + factor * (truth[frame.tobytes()] - picture)

    for factor, best in ((0.5, 2), (1.9, 0.525), (-1.0, 0)):
        assert find_factor(partial(restore, factor=factor), tiny_pairs, pairs) == best


def test_what_is_measured_is_what_a_zone_leaves(tiny_pairs: Path) -> None:
    """Half of the residual, by the formula and by the network itself."""
    from clearcall.training.dead_zone import _measure

    pair, reader = read_pairs(tiny_pairs, "test")[0], PairReader(tiny_pairs)
    sharp, degraded = reader.sharp(pair), reader.degraded(pair)
    gain, error, agreement, energy = _measure(student(), sharp, degraded)
    halved = student([0.0, 2 * gain])
    with torch.no_grad():
        left = (halved(to_tensor(degraded)[None]) - to_tensor(sharp)).square().mean()
    assert error - agreement + energy / 4 == pytest.approx(float(left), rel=1e-5)
    assert error == pytest.approx(10 ** (-pair.psnr_db / 10), rel=1e-5)


def test_a_network_that_harms_is_made_to_leave_frames_alone(tiny_pairs: Path) -> None:
    """Untrained, it knows nothing: the best is to do nothing, nowhere."""
    pairs = read_pairs(tiny_pairs)
    found = find_dead_zone(student(), tiny_pairs, pairs)
    assert found is not None
    mended, reader = student(found), PairReader(tiny_pairs)
    changed = [(restore(mended, reader.degraded(pair)) != reader.degraded(pair)).any() for pair in pairs]
    assert sum(changed) <= 1  # the one of the highest gain is where the last step ends


def test_below_the_zone_a_frame_comes_back_as_it_was_and_above_it_as_without(face: Frame) -> None:
    plain = student()
    gain = plain.input_gain(to_tensor(face)[None]).item()
    whole, none = (student([gain * low, gain * high]) for low, high in ((0.1, 0.9), (1.1, 1.2)))
    with torch.no_grad():
        assert torch.equal(none(to_tensor(face)[None]), to_tensor(face)[None])
        assert torch.equal(whole(to_tensor(face)[None]), plain(to_tensor(face)[None]))


@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.5, 1.5), (1.1, 1.2)])
def test_the_graph_knows_the_zone(provider: str, low: float, high: float, face: Frame, tmp_path: Path) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    gain = student().input_gain(to_tensor(face)[None]).item()
    network = student([gain * low, gain * high])
    export_onnx(network, tmp_path / "student.onnx", 20)
    sharpened = Sharpener(tmp_path / "student.onnx", provider, threads=1)(face)  # type: ignore[arg-type]  # one of them
    assert np.abs(sharpened.astype(np.int16) - restore(network, face)).max() <= 1
    assert (sharpened == face).all() == (low > 1)


@pytest.mark.parametrize(
    "arguments",
    [{"dead_zone": [0.2, 0.1]}, {"dead_zone": [0.1]}, {"dead_zone": [-0.1, 0.1]}, {"frame_gain": False}],
)
def test_a_zone_that_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"dead_zone must be \[low, high\], 0 <= low < high, and needs frame_gain"):
        build_model("students", "luma_strided", {**ARGUMENTS, "dead_zone": [0.1, 0.2], **arguments})


@pytest.mark.parametrize(
    "model", [{"name": "plain_cnn", "arguments": {}}, {"name": "luma_strided", "arguments": {"channels": 4}}]
)
def test_params_refuse_a_zone_without_a_look_at_the_frame(project: Path, model: dict[str, object]) -> None:
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["distill_student"] |= {"dead_zone": True, "model": model}
    with pytest.raises(UserError, match="dead_zone needs the look at the frame of luma_strided with frame_gain"):
        parse_params(document)


def test_a_trained_student_is_kept_with_its_zone(
    train_with_zones: Callable[[dict[str, object], int], Trained], tiny_pairs: Path, tmp_path: Path
) -> None:
    """Trained at a rate that harms, so that there is something to be left alone."""
    trained = train_with_zones(ARGUMENTS, 2)
    kept = read_json(tmp_path / "student" / "model.json")["arguments"]["dead_zone"]
    assert kept is not None
    assert trained.summary["model"]["arguments"]["dead_zone"] == kept
    network = load_weights(tmp_path / "student")
    quality = Validator(tiny_pairs, read_pairs(tiny_pairs, "validation")).quality(network)
    assert trained.summary["validation"]["restored"] == vars(quality)
    # By the same training without one it is what is found on all that was trained and validated on.
    known = [pair for pair in read_pairs(tiny_pairs) if pair.split != "test"]
    plain = build_model("students", "luma_strided", ARGUMENTS)
    plain.load_state_dict(network.state_dict())
    assert isinstance(plain, LumaStrided)
    assert find_dead_zone(plain.eval(), tiny_pairs, known) == kept


def test_rows_of_older_studies_stay_valid_without_one(committed: Params) -> None:
    """They are kept by a hash of the student's params without defaults."""
    assert "dead_zone" not in committed.distill_student.model_dump(exclude_defaults=True)
    with_one = committed.distill_student.model_copy(update={"dead_zone": True})
    assert "dead_zone" in with_one.model_dump(exclude_defaults=True)
