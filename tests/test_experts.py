"""Two networks for two kinds of frames: who learns from what, what the gate decides, and what the graph makes of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from clearcall import Sharpener
from clearcall.comparison.cost import count_macs, count_parameters
from clearcall.data.pairs import PairReader, degradations_of, read_pairs
from clearcall.deploy.export import export_onnx
from clearcall.errors import UserError
from clearcall.files import read_json
from clearcall.metrics import Frame
from clearcall.models import build_model, parameter_count
from clearcall.models.inference import restore, to_tensor
from clearcall.models.students.luma_strided import LumaExperts
from clearcall.models.weights import load_weights
from clearcall.params import Params, parse_params
from clearcall.training.frame_gate import find_gate_zone, fit_gate, has_gate
from clearcall.training.train import Trained

ARGUMENTS: dict[str, object] = {"channels": 4, "body_layers": 1, "frame_gain": True, "experts": True}


def experts(evidence: float | None = None, gate_zone: list[float] | None = None, **arguments: object) -> LumaExperts:
    """Return networks that do something, each its own, and a gate of the same evidence for every frame, if given."""
    torch.manual_seed(3)
    network = build_model("students", "luma_strided", {**ARGUMENTS, "gate_zone": gate_zone, **arguments})
    assert isinstance(network, LumaExperts)
    with torch.no_grad():
        for expert in (network.first, network.second):
            torch.nn.init.normal_(expert.tail.weight, std=0.05)
        if evidence is None:
            torch.nn.init.normal_(network.gate.last.weight)
        else:
            network.gate.last.bias.fill_(evidence)
    return network.eval()


@pytest.fixture(scope="module")
def faces(photos: dict[str, Frame]) -> Tensor:
    """Three pictures, (3, 3, 48, 64)."""
    face = to_tensor(photos["astronaut"])
    return torch.stack([face[:, top : top + 48, 180:244] for top in (60, 100, 140)])


def test_in_training_each_picture_is_for_the_network_of_its_degradation(faces: Tensor) -> None:
    """The first of the mix for the first; the second, and what is sharp, for the second; whatever the gate says."""
    network = experts(evidence=5)
    restored, features = network.forward_features(faces, torch.tensor([1, 0, -1]))
    for index, expert in enumerate((network.second, network.first, network.second)):
        alone, alone_features = expert.forward_features(faces[index : index + 1])
        assert torch.allclose(restored[index], alone[0], atol=1e-6)
        assert torch.allclose(features[index], alone_features[0], atol=1e-5)
    assert not torch.allclose(network.first(faces), network.second(faces), atol=1e-3)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("number", [0, 1])
def test_a_network_learns_from_its_own_degradation_alone(number: int, precision: torch.dtype, faces: Tensor) -> None:
    """The other one has gradients of zero, not none: training on several devices waits for each."""
    network = experts(expansion=6).train()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = network.forward_features(faces, torch.full((3,), number))[0].float().square().mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    told = [
        any(value.grad is not None and bool(value.grad.any()) for value in part.parameters())
        for part in (network.first, network.second, network.gate)
    ]
    assert told == [number == 0, number == 1, False]
    experts_ = (*network.first.parameters(), *network.second.parameters())
    assert all(value.grad is not None for value in experts_)


@pytest.mark.parametrize(
    ("evidence", "zone", "share"),
    [(-1.0, None, 0), (1.0, None, 1), (1.0, [2.0, 4.0], 0), (3.0, [2.0, 4.0], 0.5), (4.5, [2.0, 4.0], 1)],
)
def test_in_use_the_gate_says_whose_a_frame_is(
    evidence: float, zone: list[float] | None, share: float, faces: Tensor
) -> None:
    network = experts(evidence, zone)
    assert network.evidence(network.look(faces)).tolist() == [evidence] * 3
    expert = network.first if share else network.second
    expected = faces + (share or 1) * (expert(faces) - faces)
    assert torch.allclose(network(faces), expected, atol=1e-6)


def test_amplified_each_network_adds_so_many_times_as_much(faces: Tensor) -> None:
    for evidence, factor in ((-5.0, 0.25), (5.0, 1.5)):
        network = experts(evidence)
        added = network(faces) - faces
        network.amplify(1.5, 0.25)
        assert torch.allclose(network(faces) - faces, factor * added, atol=1e-6)


def test_pictures_of_one_batch_go_each_its_own_way(faces: Tensor) -> None:
    network = experts()
    with torch.no_grad():
        network.gate.last.bias.fill_(float(-network.evidence(network.look(faces)).median()) - 1e-4)
    assert set((network.evidence(network.look(faces)) > 0).tolist()) == {True, False}
    one_by_one = torch.cat([network(face[None]) for face in faces])
    assert torch.allclose(network(faces), one_by_one, atol=1e-6)


@pytest.mark.parametrize("frame_gain", [True, False])
@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("evidence", "gate_zone"), [(5.0, None), (-5.0, None), (3.0, [2.0, 4.0]), (1.0, [2.0, 4.0])])
def test_the_graph_runs_the_network_that_the_gate_names(
    provider: str,
    evidence: float,
    gate_zone: list[float] | None,
    frame_gain: bool,  # noqa: FBT001  # by pytest's parametrize
    faces: Tensor,
    tmp_path: Path,
) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    network = experts(evidence, gate_zone, frame_gain=frame_gain)
    face = faces[0].mul(255).byte().movedim(0, -1).numpy()[:45, :61].copy()
    export_onnx(network, tmp_path / "student.onnx", 20)
    sharpened = Sharpener(tmp_path / "student.onnx", provider, threads=1)(face)  # type: ignore[arg-type]  # one of them
    assert np.abs(sharpened.astype(np.int16) - restore(network, face)).max() <= 1
    assert (sharpened != face).any()


@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
def test_from_frame_to_frame_the_graph_changes_the_network(provider: str, faces: Tensor, tmp_path: Path) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    network = experts()
    with torch.no_grad():
        low, high, _ = network.evidence(network.look(faces)).sort().values
        network.gate.last.bias.sub_((low + high) / 2)
    export_onnx(network, tmp_path / "student.onnx", 20)
    sharpener = Sharpener(tmp_path / "student.onnx", provider, threads=1)  # type: ignore[arg-type]  # one of them
    frames = [face.mul(255).byte().movedim(0, -1).numpy().copy() for face in faces]
    apart = network.first(faces) - network.second(faces)
    assert apart.abs().amax(dim=(1, 2, 3)).min() > 4 / 255  # so that the wrong one would be seen
    for frame in (*frames, *frames[::-1]):
        assert np.abs(sharpener(frame).astype(np.int16) - restore(network, frame)).max() <= 2


def test_the_graph_is_the_same_each_time_and_costs_what_one_network_does(tmp_path: Path) -> None:
    """At 8 x 12: a 6x6 stem, a 3x3 and a 1x1 layer at 4 x 6 positions; a look at one place, for gate and gain alike."""
    network = experts(1.0)
    for value in network.parameters():
        torch.nn.init.uniform_(value)  # biases of 0 would be left out
    for name in ("one", "other"):
        export_onnx(network, tmp_path / f"{name}.onnx", 20)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()
    assert count_macs(tmp_path / "one.onnx", 8, 12) == 4 * 6 * (36 * 4 + 9 * 4 * 4 + 4 * 4) + 12 * 7 * 7
    assert count_parameters(tmp_path / "one.onnx") == parameter_count(network)


def test_layers_of_two_networks_are_no_single_ones_to_compare(project: Path) -> None:
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    student = document["distill_student"]
    student["losses"]["feature_projection"] = 1.0
    student["feature_layers"] = [{"student": "first.body.3", "teacher": "body.3"}]
    student["model"]["arguments"]["experts"] = True
    with pytest.raises(UserError, match="feature_projection needs the layers of one network"):
        parse_params(document)


def test_only_a_student_of_two_networks_has_a_gate() -> None:
    assert has_gate(experts())
    assert not has_gate(experts().first)


@pytest.mark.parametrize(
    "zones",
    [
        {"gate_zone": [0.2, 0.1]},
        {"gate_zone": [-0.1, 1.0]},
        {"gate_zone": [0.1]},
        {"gate_zone": [0.1, 0.2], "experts": False},
        {"dead_zone": [0.1, 0.2]},
    ],
)
def test_zones_that_make_no_sense_are_refused(zones: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"_zone must be \[low, high\]"):
        build_model("students", "luma_strided", {**ARGUMENTS, **zones})


def test_next_to_none_of_the_second_kind_reaches_the_gates_zone(tiny_pairs: Path) -> None:
    """Of so few none but the one of most evidence, which it begins just below; 1.25 wide, and never below 2.

    Pictures that were enlarged before do not count.
    """
    pairs, reader, network = read_pairs(tiny_pairs), PairReader(tiny_pairs), experts()
    enlarged = [replace(pair, degradation="webcam", enlarged=2.0) for pair in pairs if pair.degradation != "webcam"]
    second = [to_tensor(reader.degraded(pair))[None] for pair in pairs if pair.degradation == "webcam"]
    for offset in (20.0, -20.0):
        with torch.no_grad():
            network.gate.last.bias.fill_(offset)
            most = sorted(float(network.evidence(network.look(picture))) for picture in second)
        low, high = find_gate_zone(network, tiny_pairs, [*pairs, *enlarged])
        assert high - low == pytest.approx(1.25, abs=0.02)
        assert (most[-2] < low < most[-1]) if offset > 0 else (low == 2)


def test_the_gate_learns_to_tell_two_degradations_apart(tiny_pairs: Path) -> None:
    """A picture enlarged from half its size from one with a camera's noise, and both from a sharp one.

    From pictures that were enlarged before it learns nothing, or it would learn the contrary of these.
    """
    pairs, reader, network = read_pairs(tiny_pairs), PairReader(tiny_pairs), experts()
    other = {"bicubic_x2.0": "webcam", "webcam": "bicubic_x2.0"}
    enlarged = [replace(pair, degradation=other[pair.degradation], enlarged=2.0) for pair in pairs]
    fit_gate(network, tiny_pairs, [*pairs, *enlarged])
    assert degradations_of(pairs) == ["bicubic_x2.0", "webcam"]
    with torch.no_grad():
        for pair in pairs:
            evidence = float(network.evidence(network.look(to_tensor(reader.degraded(pair))[None])))
            assert (evidence > 0) == (pair.degradation == "bicubic_x2.0")
            assert float(network.evidence(network.look(to_tensor(reader.sharp(pair))[None]))) < 0
    assert not any(value.requires_grad for value in network.gate.parameters())


def test_the_evidence_is_the_mean_of_opinions_that_each_have_learnt(tiny_pairs: Path, faces: Tensor) -> None:
    """Each perceptron alone tells the degradations apart; begun otherwise, they are not of one mind on other frames."""
    pairs, reader, network = read_pairs(tiny_pairs), PairReader(tiny_pairs), experts()
    fit_gate(network, tiny_pairs, pairs)
    with torch.no_grad():
        for pair in pairs:
            opinions = network.opinions(network.look(to_tensor(reader.degraded(pair))[None]))
            assert ((opinions > 0) == (pair.degradation == "bicubic_x2.0")).all()
        looks = network.look(faces)
        assert network.opinions(looks).shape == (3, 8)
        assert network.opinions(looks).std(dim=1).min() > 0.01
        assert torch.allclose(network.evidence(looks), network.opinions(looks).mean(dim=1))


def test_the_gate_is_the_same_each_time_it_is_fitted(tiny_pairs: Path) -> None:
    pairs, networks = read_pairs(tiny_pairs), [experts(), experts()]
    for network in networks:
        fit_gate(network, tiny_pairs, pairs)
    for one, other in zip(networks[0].gate.parameters(), networks[1].gate.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("names", [["blur"], ["blur", "noise", "webcam"]])
def test_a_mix_of_other_than_two_degradations_is_refused(names: list[str], tiny_pairs: Path) -> None:
    pair = read_pairs(tiny_pairs)[0]
    with pytest.raises(UserError, match=rf"two degradations, and the mix has {len(names)} \({', '.join(names)}\)"):
        fit_gate(experts(), tiny_pairs, [replace(pair, degradation=name) for name in names])


def test_trained_they_are_kept_with_gate_and_zones(
    train_with_zones: Callable[[dict[str, object], int], Trained], committed: Params, tiny_pairs: Path, tmp_path: Path
) -> None:
    trained = train_with_zones(ARGUMENTS, 4)
    arguments = read_json(tmp_path / "student" / "model.json")["arguments"]
    network, known = load_weights(tmp_path / "student"), [p for p in read_pairs(tiny_pairs) if p.split != "test"]
    assert isinstance(network, LumaExperts)
    assert network.gate.zone == arguments["gate_zone"] == find_gate_zone(network, tiny_pairs, known)
    assert not any(value.any() for value in network.second.tail.parameters())  # of what harms, nothing is added
    assert any(value.any() for value in network.first.tail.parameters())
    assert trained.summary["parameters"] == parameter_count(network)
    torch.manual_seed(committed.distill_student.training.seed)
    fitted = build_model("students", "luma_strided", ARGUMENTS)
    assert isinstance(fitted, LumaExperts)
    fit_gate(fitted, tiny_pairs, read_pairs(tiny_pairs, "train"))
    kept, again = (list(one.gate.state_dict().values()) for one in (network, fitted))
    assert all(map(torch.equal, kept, again))  # the networks' training leaves it as it was
