"""Experts and the router between them: what it sees of a frame, how it is fitted, and what the graph makes of it."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import yaml
from tests.make.networks import with_router_bias
from torch import Tensor

from clearcall import Sharpener
from clearcall.core.errors import UserError
from clearcall.core.files import read_csv, read_json
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.evaluation.cost import count_macs, count_parameters
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db
from clearcall.models.build import build_model
from clearcall.models.export import check_parity, export_onnx
from clearcall.models.inference import restore, to_tensor
from clearcall.models.layers import parameter_count
from clearcall.models.students.routed import IDENTITY, Routed, Router
from clearcall.models.weights import load_weights, save_weights
from clearcall.params import Expert, Model, Params, parse_params
from clearcall.runtime.engines import Provider
from clearcall.runtime.video_routing import SteadyChoice, scores_of_coded
from clearcall.tracking.runs import TrainingRun, client
from clearcall.training.batches import PatchSampler
from clearcall.training.experts import train_experts
from clearcall.training.router import CLEAN, CostTable, cost_table, fit_router, routing_summary

EXPERT: dict[str, object] = {"channels": 4, "body_layers": 1}


def student(favourite: int | None = None, **arguments: object) -> Routed:
    """Return two experts that do something, each its own, and a router that scores `favourite` highest, if given."""
    torch.manual_seed(3)
    network = build_model("students", "routed", {"experts": {name: {**EXPERT, **arguments} for name in ("a", "b")}})
    assert isinstance(network, Routed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
        for expert in network.experts:
            torch.nn.init.normal_(expert.tail.weight, std=0.05)  # type: ignore[union-attr, arg-type]  # LumaStrided's
        if favourite is None:  # one hidden unit, by the seventh band against the level: about -3 if sharp, -7 if not
            network.router.first.weight.zero_()[0, 6] = 1
            network.router.first.bias[0] = 5.5
            network.router.last.weight.zero_()[1, 0] = 4
            network.router.last.bias[2] = 1
        else:
            network.router.last.bias[favourite] = 5
    return network.eval()


@pytest.fixture(scope="module")
def faces(photos: dict[str, Frame]) -> Tensor:
    """Three images, (3, 3, 48, 64)."""
    face = to_tensor(photos["astronaut"])
    return torch.stack([face[:, top : top + 48, 180:244] for top in (60, 100, 140)])


@pytest.fixture(scope="module")
def wide_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of two experts that were trained wide, whose router prefers the identity."""
    path = tmp_path_factory.mktemp("wide") / "student.onnx"
    export_onnx(student(0, expansion=6), path, 20)
    return path


@pytest.fixture(scope="module")
def routed_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experts and a router that leaves flat frames alone and has a choice for each kind of detail."""
    path = tmp_path_factory.mktemp("routed") / "routed.onnx"
    export_onnx(student(), path, 20)
    return path


def test_the_spectrum_is_that_of_windows_by_another_library(photos: dict[str, Frame]) -> None:
    """NumPy's FFT of each Hann window, blind to brightness, gives the same figures, of rows and columns together."""
    router, luma = student().router, photos["chelsea"][:120, :200, 1].astype(np.float64)
    window = np.sin(np.pi * np.arange(1, 33) / 33) ** 2
    both = []
    for plane in (luma, luma.T):
        rows = np.lib.stride_tricks.sliding_window_view(plane, 32, axis=1)[::17, ::17].reshape(-1, 32)
        # What the brightness of a window alone gives is left out.
        brightness = (rows * window).sum(axis=1, keepdims=True) / window.sum()
        waves = np.fft.rfft((rows - brightness) * window, axis=1)
        both.append(np.abs(waves)[:, 1:] ** 2 / (window**2).sum())
    powers = np.concatenate(both)
    bands = np.log(powers.mean(axis=0) + 0.025)
    level = bands[:4].mean()
    expected = [*(bands - level), level, *(bands - 2 * np.log(np.sqrt(powers).mean(axis=0) + np.sqrt(0.025)))]
    for texture in (100, 10_000):
        energy = powers[:, :4].sum(axis=1)
        weight = energy / (energy + texture)
        expected += [*(np.log(np.average(powers, axis=0, weights=weight) + 0.025) - bands)]
        expected += [*(np.log(np.average(powers, axis=0, weights=1 - weight) + 0.025) - level), weight.mean()]
    for order, period in product((1, 2), (2, 3)):
        ranges = []
        for plane in (luma, luma.T):
            squares = np.diff(plane[::17], order) ** 2
            logs = np.log([squares[:, phase::period].mean() + 0.025 for phase in range(period)])
            ranges.append(logs.max() - logs.min())
        expected.append(np.mean(ranges))
    found = router.spectrum(torch.tensor(luma, dtype=torch.float32)[None, None])[0].numpy()
    assert found == pytest.approx(expected, abs=2e-3)


def test_the_filter_of_an_upscaled_frame_shows_in_the_spectrum(photos: dict[str, Frame]) -> None:
    """Differences of OpenCV's upscaling vary with the period of the factor, by the bilinear filter much more."""
    router, small = student().router, photos["coffee"][:96, :128, 1]
    found = {}
    for factor, filter_name in product((2, 3), (cv2.INTER_LINEAR, cv2.INTER_CUBIC)):
        large = cv2.resize(small, None, fx=factor, fy=factor, interpolation=filter_name)
        found[factor, filter_name] = router.spectrum(torch.from_numpy(large).float()[None, None])[0, -4:].tolist()
    for filter_name in (cv2.INTER_LINEAR, cv2.INTER_CUBIC):
        by_two, by_three = found[2, filter_name], found[3, filter_name]
        assert by_two[0] > 3 * by_three[0]  # first differences, period 2
        assert by_three[3] > 3 * by_two[3]  # second differences, period 3
    assert found[2, cv2.INTER_LINEAR][0] > 2 * found[2, cv2.INTER_CUBIC][0]


def test_brightness_is_not_in_the_spectrum(faces: Tensor) -> None:
    """The same detail on a darker ground looks the same; another detail does not."""
    router = student().router
    luma = faces[:1, :1] * 100
    assert torch.allclose(router.spectrum(luma), router.spectrum(luma + 50), atol=1e-3)
    assert not torch.allclose(router.spectrum(luma), router.spectrum(faces[2:, :1] * 100), atol=0.1)


@pytest.mark.parametrize("choice", [0, 1, 2])
def test_a_frame_is_restored_by_what_scores_highest(choice: int, faces: Tensor) -> None:
    """0 is the identity, which returns the frame itself."""
    network = student(choice)
    alone = [lambda image: image, *network.experts][choice]
    assert torch.allclose(network(faces), alone(faces), atol=1e-6)
    assert (choice == 0) == torch.equal(network(faces), faces)


def test_frames_of_one_batch_go_each_their_own_way(faces: Tensor) -> None:
    """Their scores are their own."""
    network = student()
    faces = torch.cat([faces, torch.nn.functional.avg_pool2d(faces, 5, 1, 2)])
    assert set(network.scores(faces).argmax(dim=1).tolist()) == {1, 2}
    together = network(faces)
    for index in range(6):
        assert torch.allclose(together[index : index + 1], network(faces[index : index + 1]), atol=1e-6)
    assert network.scores(faces).shape == (6, 3)


@pytest.mark.parametrize(
    "experts", [{}, {IDENTITY: EXPERT}, {"a": {**EXPERT, "stride": 2}, "b": {**EXPERT, "stride": 4}}, {"a": {"x": 1}}]
)
def test_experts_that_make_no_sense_are_refused(experts: dict[str, object]) -> None:
    """None at all, one of the identity's name, different strides, unknown arguments."""
    with pytest.raises(UserError, match=r"student (routed|luma_strided)"):
        build_model("students", "routed", {"experts": experts})


@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("choice", [0, 1, 2])
def test_the_graph_restores_by_the_same_choice(
    choice: int, provider: Provider, photos: dict[str, Frame], wide_onnx: Path, tmp_path: Path
) -> None:
    """Each expert, collapsed and exported, does what it does in torch, and the graph's scores are torch's."""
    pytest.importorskip(provider)
    network = student(choice, expansion=6)
    path = with_router_bias(wide_onnx, network.router.last.bias.tolist(), tmp_path / "student.onnx")
    face = photos["astronaut"][60:160, 180:301]
    sharpener = Sharpener(path, provider, 1)
    tolerance = 1 if provider == "onnxruntime" else 3
    assert np.abs(sharpener(face).astype(int) - restore(network, face)).max() <= tolerance
    assert sharpener.expert == network.names[choice]
    assert check_parity(network, path, [face], 1) <= 1
    scores = network.scores(to_tensor(face)[None])[0]
    assert sharpener.scores(face) == pytest.approx(scores.numpy(), abs=1e-2)


def test_the_graph_is_the_same_each_time_and_costs_what_one_network_does(routed_onnx: Path, tmp_path: Path) -> None:
    """One expert of several is run; parameters are those of all, and the router's."""
    again, network = tmp_path / "again.onnx", student()
    export_onnx(network, again, 20)
    assert routed_onnx.read_bytes() == again.read_bytes()
    export_onnx(network.experts[0], again, 20)
    router = 32 * 32 * (4 * 4 + 2 * 6)  # taps, filters, places of rows and columns of 32 pixels in a frame of 64 x 96
    assert count_macs(routed_onnx, 64, 96) == count_macs(again, 64, 96) + router
    assert count_parameters(routed_onnx) == parameter_count(network)


def table(costs: dict[str, list[float]], frames: int = 40) -> CostTable:
    """Return a table of frames whose spectra are alike within a label, and what each choice leaves of them in dB."""
    draw = np.random.default_rng(1)
    centres = {label: draw.normal(0, 1, Router.NUMBERS) for label in costs}
    labels = [label for label in costs for _ in range(frames)]
    spectra = np.array([centres[label] + draw.normal(0, 0.1, (1, Router.NUMBERS)) for label in labels])
    return CostTable(
        torch.tensor(spectra, dtype=torch.float32), torch.tensor([costs[label] for label in labels]), labels
    )


def test_the_router_learns_what_serves_each_frame_best() -> None:
    """Those that an expert mends go to it, and those that each would harm are left alone."""
    network = student()
    known = table({"blurred": [30.0, 33.0, 31.0], "blocky": [30.0, 28.0, 31.0], CLEAN: [58.0, 40.0, 45.0]})
    fit_router(network, known, known, seed=1)
    with torch.inference_mode():
        chosen = network.router(known.spectra[:, 0]).argmax(dim=1).view(3, -1)
    assert [set(row.tolist()) for row in chosen] == [{1}, {2}, {0}]


def test_a_choice_that_may_lose_much_gives_way_to_one_that_never_does() -> None:
    """Of frames that cannot be told apart, the mean gain alone does not decide: a loss counts three times."""
    network, same = student(), torch.zeros(100, 1, Router.NUMBERS)
    # Choice 1 gains 1 dB on nine of ten frames and loses 3 on the tenth, 0.6 on the mean; choice 2 always gains 0.4.
    psnr_db = torch.tensor([[30.0, 31.0 if index % 10 else 27.0, 30.4] for index in range(100)])
    known = CostTable(same, psnr_db, ["a"] * 100)
    fit_router(network, known, known, seed=1)
    with torch.inference_mode():
        assert set(network.router(same[:, 0]).argmax(dim=1).tolist()) == {2}


def test_the_router_is_the_same_each_time_it_is_fitted() -> None:
    """By its seed, whatever was drawn before."""
    known, fitted = table({"a": [30.0, 33.0, 31.0], "b": [30.0, 28.0, 31.0]}), []
    for _ in range(2):
        network = student()
        torch.rand(7)
        fit_router(network, known, known, seed=5)
        fitted.append(network.router.state_dict())
    assert all(torch.equal(fitted[0][name], fitted[1][name]) for name in fitted[0])


def luma_of(image: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def test_the_table_has_every_pair_and_every_sharp_image_once(tiny_pairs: Path) -> None:
    """Its figures are those of whole small images, computed another way."""
    network, records = student(), read_pairs(tiny_pairs, "train")
    found, reader = cost_table(network, tiny_pairs, records), PairReader(tiny_pairs)
    sharp = {(record.sharp_shard, record.sharp_offset) for record in records}
    assert found.labels.count(CLEAN) == len(sharp)
    assert len(found.labels) == len(records) + len(sharp)
    first = records[0]
    row = found.psnr_db[found.labels.index(first.degradation)]
    sharp_luma, degraded = luma_of(reader.sharp(first)), reader.degraded(first)
    assert float(row[0]) == pytest.approx(psnr_db(sharp_luma, luma_of(degraded)), abs=1e-3)
    restored = luma_of(restore(network.experts[1], degraded))
    assert float(row[2]) == pytest.approx(psnr_db(sharp_luma, restored), abs=0.05)  # which is rounded
    whole, part = (
        network.router.spectrum(torch.tensor(luma_of(degraded)[:side, :side], dtype=torch.float32)[None, None])
        for side in (99, 32)
    )
    spectra = found.spectra[found.labels.index(first.degradation)]
    assert spectra.shape == (5, Router.NUMBERS)
    assert torch.allclose(spectra[:2], torch.cat([whole, part]), atol=1e-3)
    clean = found.psnr_db[found.labels.index(CLEAN)]
    assert float(clean[0]) == pytest.approx(10 * np.log10(12 * 255**2), abs=1e-3)
    assert (clean[1:] < clean[0]).all()


def test_the_summary_by_hand() -> None:
    """Two frames, of which one is routed to the second best choice."""
    network = student(1)
    psnr_db = torch.tensor([[30.0, 32.0, 31.0], [30.0, 29.5, 31.0]])
    summary = routing_summary(network, CostTable(torch.zeros(2, 1, Router.NUMBERS), psnr_db, ["x", "x"]))
    assert summary["x"] == pytest.approx(
        {
            "frames": 2,
            "best_share": 0.5,
            "mean_loss_db": 0.75,
            "largest_loss_db": 1.5,
            "gain_db": 0.75,
            "least_gain_db": -0.5,
        }
    )


def test_an_expert_sees_its_own_pairs_and_a_share_of_the_others(tiny_pairs: Path) -> None:
    """Weights of 0 are never drawn; a pair of three times the weight is drawn three times as often."""
    records = read_pairs(tiny_pairs, "train")
    weights = [0.0] * len(records)
    weights[1], weights[3] = 3.0, 1.0
    sampler = PatchSampler(
        tiny_pairs, records, batch_size=400, patch_size=16, clean_fraction=0, recolour=False, seed=1, weights=weights
    )
    drawn = sampler.batch(0, 0).input_mse.tolist()
    of = [10 ** (-records[index].psnr_db / 10) for index in (1, 3)]
    counts = [sum(value == pytest.approx(one) for value in drawn) for one in of]
    assert sum(counts) == len(drawn)
    assert 2.2 < counts[0] / counts[1] < 4.2


@pytest.fixture
def tiny_params(committed: Params, tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Two experts of the tiny pairs, some steps each, all that is written in the test's folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    document = committed.model_dump(mode="json")
    document["paths"] = {name: str(tmp_path / name) for name in document["paths"]} | {"pairs": str(tiny_pairs)}
    document["degrade_pairs"]["mix"] = ["bicubic_x2.0", "webcam"]
    document["distill_student"] |= {"model": {"name": "luma_strided", "arguments": EXPERT}, "experts": "each"}
    document["distill_student"]["training"] |= {
        "steps": 6,
        "validate_every": 3,
        "batch_size": 2,
        "patch_size": 16,
        "warmup_steps": 0,
        "precision": "fp32",
    }
    return parse_params(document)


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train experts one after another here: processes of their own take seconds to import torch."""
    monkeypatch.setattr("clearcall.training.experts.worker_pool", lambda _count: ThreadPoolExecutor(1))


def test_experts_are_trained_side_by_side_and_kept_as_one_student(tiny_params: Params, tmp_path: Path) -> None:
    """The student is the trained experts and a fitted router; trained again from what is left, it is the same."""
    track = partial(TrainingRun, tiny_params.publish.experiment)
    curve = tmp_path / "curve.csv"
    trained = train_experts(tiny_params, {"relative_mse": 0.01}, "student", tmp_path / "kept", track, curve)
    rows = [row for row in read_csv(curve) if row["validation_ssim"]]
    mean, *single = (
        [float(row["validation_ssim"]) for row in rows if row["network"] == name]
        for name in ("student", "student/bicubic_x2.0", "student/webcam")
    )
    assert mean == pytest.approx(np.mean(single, axis=0).tolist(), abs=1e-6)
    assert mean == pytest.approx([row["validation_ssim"] for row in trained.rows if "validation_ssim" in row])
    assert len(mean) == 2
    assert set(trained.summary["routing"]) == {"bicubic_x2.0", "webcam", CLEAN}
    assert trained.summary["steps"] == 6
    assert trained.run_id is not None
    assert client().list_artifacts(trained.run_id, "images")
    again = train_experts(tiny_params, {"relative_mse": 0.01}, "student", tmp_path / "kept")
    assert all(torch.equal(trained.state[name], again.state[name]) for name in trained.state)
    kept = load_weights(tmp_path / "kept")
    assert isinstance(kept, Routed)
    assert kept.names == (IDENTITY, "bicubic_x2.0", "webcam")
    assert kept.router.deviation.std() > 0
    trained.remove_leftovers()
    assert not [path for path in tiny_params.paths.checkpoints.iterdir() if path.suffix in {".pt", ".json"}]


@pytest.mark.usefixtures("_in_this_process")
def test_an_expert_may_learn_from_some_images_and_have_its_own_shape(tiny_params: Params, tmp_path: Path) -> None:
    """By a pattern of their names, and by arguments of its own."""
    document = tiny_params.model_dump(mode="json")
    document["distill_student"]["experts"] = {
        "wide": {"degradations": ["webcam"], "images": "[bc]*", "arguments": {"channels": 6}},
        "plain": {"degradations": ["bicubic_x2.0"]},
    }
    trained = train_experts(parse_params(document), {"relative_mse": 0.01}, "student", tmp_path / "kept")
    experts = trained.model.arguments["experts"]
    assert [experts[name]["channels"] for name in ("wide", "plain")] == [6, 4]
    assert trained.state["experts.0.tail.weight"].shape == (4, 6, 1, 1)


@pytest.mark.usefixtures("_in_this_process")
def test_an_expert_without_pairs_is_named(tiny_params: Params, tmp_path: Path) -> None:
    """Before anything is trained for long."""
    document = tiny_params.model_dump(mode="json")
    document["distill_student"]["experts"] = {"heads": {"degradations": ["webcam"], "images": "*head*"}}
    with pytest.raises(UserError, match=r"student/heads.*no training or no validation pair"):
        train_experts(parse_params(document), {"relative_mse": 0.01}, "student", tmp_path / "kept")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experts": {"a": {"degradations": ["fog"]}}}, "which degrade_pairs.mix lacks"),
        ({"experts": {}}, "experts is empty"),
        ({"model": {"name": "imdn", "arguments": {"channels": 8, "blocks": 1}}}, "experts must be of luma_strided"),
        ({"experts": {"a": {"degradations": []}}}, "at least 1 item"),
    ],
)
def test_experts_that_cannot_be_trained_are_refused_by_name(
    changes: dict[str, object], said: str, project: Path
) -> None:
    """When the params are read."""
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["distill_student"] |= changes
    with pytest.raises(UserError, match=said):
        parse_params(document)


def test_each_degradation_of_the_mix_has_an_expert_by_default(committed: Params) -> None:
    """Named as it is."""
    experts = committed.distill_student.named_experts(committed.degrade_pairs.mix)
    assert experts == {name: Expert(degradations=(name,)) for name in committed.degrade_pairs.mix}


def test_weights_of_a_routed_student_say_what_builds_it(tmp_path: Path) -> None:
    """Names and shapes of the experts stand beside the weights."""
    network = student()
    model = Model(name="routed", arguments={"experts": {"a": EXPERT, "b": EXPERT}})
    save_weights(tmp_path / "kept", "students", model, network.state_dict())
    assert read_json(tmp_path / "kept/model.json") == {"kind": "students", **model.model_dump()}


def test_a_video_changes_its_expert_only_when_several_frames_agree() -> None:
    """One frame that scores otherwise changes nothing, wherever it comes; ten in a row do."""
    first, second = np.array([0.0, 4.0, 0.0], np.float32), np.array([0.0, 0.0, 4.0], np.float32)
    for other in range(1, 9):
        steady = SteadyChoice()
        frames = [first] * other + [second] + [first] * 8
        assert [steady.choose(partial(np.copy, scores)) for scores in frames] == [1] * len(frames)
        chosen = [steady.choose(lambda: second) for _ in range(12)]
        assert chosen == sorted(chosen)
        assert 2 <= chosen.count(1) <= 9


def test_while_the_frames_of_a_video_agree_one_in_four_is_scored() -> None:
    """And each, from the first that does not until the choice is settled."""
    first, second = np.array([0.0, 4.0, 0.0], np.float32), np.array([0.0, 0.0, 4.0], np.float32)
    asked, steady = list[int](), SteadyChoice()

    def score(index: int) -> npt.NDArray[np.float32]:
        asked.append(index)
        return first if index < 6 else second

    for index in range(20):
        steady.choose(partial(score, index))
    assert asked[:3] == [0, 4, 8]
    settled = asked.index(next(one for one in asked if one + 4 in asked and one > 8))
    assert asked[2 : settled + 1] == [*range(8, asked[settled] + 1)]


def test_at_the_border_of_two_experts_a_video_does_not_pump() -> None:
    """Scores that waver about equality never change the choice."""
    draw, steady = np.random.default_rng(1), SteadyChoice()
    chosen = {steady.choose(lambda: np.array([-5.0, *draw.normal(0, 0.5, 2)], np.float32)) for _ in range(300)}
    assert len(chosen) == 1


@pytest.mark.parametrize("provider", ["onnxruntime", "openvino"])
def test_an_expert_may_be_named_where_it_is_known(
    provider: Provider, routed_onnx: Path, photos: dict[str, Frame]
) -> None:
    """It takes the router's place for every frame."""
    pytest.importorskip(provider)
    face = photos["astronaut"][60:160, 180:300]
    results = {}
    for name in (IDENTITY, "a", "b"):
        sharpener = Sharpener(routed_onnx, provider, 1, expert=name)
        results[name] = sharpener(face)
        assert sharpener.expert == name
        assert np.array_equal(results[name], next(iter(sharpener.map([face]))))
    assert np.array_equal(results[IDENTITY], face)
    assert not np.array_equal(results["a"], results["b"])


def test_an_unknown_expert_is_refused_with_the_known(routed_onnx: Path, student_onnx: tuple[object, Path]) -> None:
    """A single network has none."""
    with pytest.raises(UserError, match="no expert 'fog'; it has identity, a, b"):
        Sharpener(routed_onnx, "onnxruntime", 1, expert="fog")
    with pytest.raises(UserError, match="it has none: it is a single network"):
        Sharpener(student_onnx[1], "onnxruntime", 1, expert="a")
    with pytest.raises(UserError, match="single network: it has no router"):
        Sharpener(student_onnx[1], "onnxruntime", 1).scores(np.zeros((64, 64, 3), np.uint8))


def test_frames_of_a_video_share_a_choice_and_images_have_their_own(
    routed_onnx: Path, photos: dict[str, Frame]
) -> None:
    """In a video the second frame, of which the router alone would say otherwise, gets the first one's expert."""
    images = [photos[name][:120, :160] for name in photos]
    images += [np.asarray(cv2.GaussianBlur(image, (0, 0), 2), np.uint8) for image in images]
    alone = Sharpener(routed_onnx, "onnxruntime", 1)
    choices = []
    for image in images:
        alone(image)
        choices.append(alone.expert)
    assert len(set(choices)) > 1, "the images of this test are to differ"
    first = next(index for index, choice in enumerate(choices) if choice != choices[0])
    video = Sharpener(routed_onnx, "onnxruntime", 1, video=True)
    for image in (images[0], images[first]):
        video(image)
        assert video.expert == choices[0]
    together = [*Sharpener(routed_onnx, "onnxruntime", 1).map([images[0], images[first]])]
    assert np.array_equal(together[1], Sharpener(routed_onnx, "onnxruntime", 1, expert=choices[0])(images[first]))


def test_a_benchmark_runs_an_expert_whatever_the_router_says(wide_onnx: Path, photos: dict[str, Frame]) -> None:
    """Or frames that are left alone would be timed at nearly nothing."""
    face = photos["astronaut"][60:160, 180:300]
    sharpener = Sharpener(wide_onnx, "onnxruntime", 1)
    assert np.array_equal(sharpener(face), face)
    assert not np.array_equal(sharpener.sharpen_worst_case(face), face)
    assert sharpener.expert == "b"


@pytest.mark.parametrize("text", ["[1]", "{}", "nonsense", json.dumps(["x"] * 300)])
def test_choices_that_are_no_list_of_names_are_refused(text: str, routed_onnx: Path, tmp_path: Path) -> None:
    """In one line that quotes what the file says."""
    model = onnx.load(routed_onnx)
    for entry in model.metadata_props:
        if entry.key == "clearcall.experts":
            entry.value = text
    onnx.save(model, tmp_path / "crafted.onnx")
    with pytest.raises(UserError, match=r"clearcall\.experts = "):
        Sharpener(tmp_path / "crafted.onnx", "onnxruntime", 1)


def test_a_frame_that_an_encoder_has_had_is_seldom_taken_for_sharp() -> None:
    scores = np.array([1.5, 3.0, 0.0, -1.0], np.float32)
    found = scores_of_coded(scores, ("identity", "scaled", "call", "head"), ("call", "head"))
    assert found.tolist() == [-0.5, -np.inf, 0.0, -1.0]
    assert scores_of_coded(scores, ("identity", "scaled", "call", "head"), ()) is scores
