"""The benchmark of all systems: the published networks as published, costs by hand, and a real run in miniature."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.core.machine import available_cores
from clearcall.evaluation import comparison as run
from clearcall.evaluation.comparison import Settings, check, compare
from clearcall.evaluation.peers import PEERS, Peer, build_peer, export_peer, open_peer
from clearcall.imaging.unsharp import unsharp_luma, unsharp_mask
from clearcall.models.build import known_models
from clearcall.reporting.benchmark import FIGURE, write_comparison
from clearcall.reporting.terminal import print_comparison
from clearcall.runtime.engines import installed_providers

if TYPE_CHECKING:
    from torch import nn

Frame = npt.NDArray[np.uint8]
# Two that are exported in a moment: one at full size, one for x2.
FEW = tuple(peer for peer in PEERS if peer.name in {"plain_cnn", "imdn_rtc"})
CLASSICAL = {"unsharp", "unsharp_luma", "ffmpeg_unsharp", "ffmpeg_cas", "identity"}
SMALL = Settings(sizes=((48, 32), (64, 48)), threads=(1, 2), providers=("onnxruntime",), frames=4)
QUICK = replace(SMALL, sizes=((32, 16),), threads=(1,), quick=True)


def frame(height: int, width: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def built(name: str) -> "nn.Module":
    (peer,) = (peer for peer in PEERS if peer.name == name)
    return build_peer(peer)


@pytest.fixture(scope="module")
def peer_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("peers")
    for peer in FEW:
        export_peer(peer, folder / f"{peer.name}.onnx")
    return {peer.name: folder / f"{peer.name}.onnx" for peer in FEW}


@pytest.fixture(scope="module", autouse=True)
def _quickly_exported(peer_files: dict[str, Path]) -> Iterator[None]:
    """Let runs compare with two published networks, exported once."""
    from clearcall.models.layers import parameter_count

    def copy(peer: Peer, path: Path, weights: Path | None) -> int:
        if weights:
            return export_peer(peer, path, weights)
        path.write_bytes(peer_files[peer.name].read_bytes())
        return parameter_count(built(peer.name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "PEERS", FEW)
        patch.setattr(run, "export_peer", copy)
        patch.setattr(run, "shipped_models", list)
        yield


@pytest.fixture(scope="module")
def document(student_onnx: "tuple[nn.Module, Path]") -> dict[str, Any]:
    """A whole run in miniature."""
    return compare(replace(SMALL, models=(str(student_onnx[1]),)))


@pytest.mark.parametrize(
    ("name", "parameters", "published"),
    [
        ("imdn", 694_404, "694 K"),
        # Theirs has a 3x3 layer 64 -> 3 beside it, which is never called.
        ("clearsight_imdn", 466_319 - (9 * 64 * 3 + 3), "466 K"),
        ("imdn_rtc", 20_190, "20 K"),
        # 3x3 layers 3 -> 32, six 32 -> 32, 32 -> 3; a bias or, after the third and the sixth, two values each.
        ("dncnn_student", 9 * (3 * 32 + 6 * 32 * 32 + 32 * 3) + 5 * 32 + 2 * 2 * 32 + 3, "57 K"),
        ("luminous_student", 13_571, "13,571"),
        ("plain_cnn", 11_011, "11 K"),
        # Ours alone: 3x3 layers 3 -> 32 -> 32 -> 32 -> 3 with their biases.
        ("compact_resnet", 9 * (3 * 32 + 2 * 32 * 32 + 32 * 3) + 3 * 32 + 3, "not published"),
    ],
)
def test_a_published_network_has_as_many_parameters_as_published(name: str, parameters: int, published: str) -> None:
    from clearcall.models.layers import parameter_count

    (peer,) = (peer for peer in PEERS if peer.name == name)
    assert parameter_count(built(name)) == parameters
    assert peer.published_parameters == published
    if published.endswith(" K"):
        unused = 9 * 64 * 3 + 3 if name == "clearsight_imdn" else 0
        assert round((parameters + unused) / 1000) == int(published.removesuffix(" K"))


def test_every_file_of_a_published_network_is_a_contender() -> None:
    folder = Path(run.__file__).parents[1] / "models" / "published"
    names = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert names | (set(known_models("students")) - {"luma_strided", "routed"}) == {peer.name for peer in PEERS}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_published_network_upscales_by_its_scale_and_is_deterministic(peer: Peer) -> None:
    import torch

    image = torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, second = built(peer.name)(image), built(peer.name)(image)
    assert first.shape == (1, 3, 10 * peer.scale, 14 * peer.scale)
    assert torch.equal(first, second)
    assert first.std() > 0


def test_the_attention_of_imdn_by_hand() -> None:
    """A channel of 0 and 2 has mean 1 and deviation 1; with a gate of sigmoid(sum of both) it is scaled by 0.88."""
    import torch

    attention = importlib.import_module("clearcall.models.students.imdn")._Attention(16)
    attention.gate = torch.nn.Sigmoid()
    features = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2).expand(1, 16, 1, 2)
    scaled: torch.Tensor = attention(features)
    assert scaled[0, 3].flatten().tolist() == pytest.approx([0, 2 / (1 + np.exp(-2))])


@pytest.mark.parametrize("provider", installed_providers())
@pytest.mark.parametrize("peer", FEW, ids=lambda peer: peer.name)
def test_a_published_network_runs_as_in_torch(peer: Peer, provider: Any, peer_files: dict[str, Path]) -> None:
    from clearcall.models.inference import restore

    frames = [frame(32, 48, seed) for seed in range(3)]
    network = open_peer(peer_files[peer.name], peer.scale, provider, 1, frames)
    for one in frames:
        expected = restore(built(peer.name), np.ascontiguousarray(one[:: peer.scale, :: peer.scale]))
        restored = network(one)
        assert restored.shape == one.shape
        assert restored.dtype == np.uint8
        # In bfloat16, where there is hardware for it, two levels.
        assert np.abs(restored.astype(np.int16) - expected).max() <= (1 if provider == "onnxruntime" else 2)


def test_costs_by_hand(student_onnx: "tuple[nn.Module, Path]", peer_files: dict[str, Path]) -> None:
    """The student's stem is 6x6 at stride 2 from one channel to four, then 3x3 four to four, 1x1 four to four.

    At 8 x 12 each has 4 x 6 positions. The plain CNN: three 3x3 layers at every pixel.
    """
    from clearcall.evaluation.cost import count_macs, count_parameters

    student = student_onnx[1]
    assert count_macs(student, 8, 12) == 4 * 6 * (36 * 4 + 9 * 4 * 4 + 4 * 4)
    assert count_parameters(student) == (36 * 4 + 4) + (9 * 4 * 4 + 4) + (4 * 4 + 4)
    plain = 9 * (3 * 32 + 32 * 32 + 32 * 3)
    assert count_macs(peer_files["plain_cnn"], 10, 14) == 10 * 14 * plain
    assert count_parameters(peer_files["plain_cnn"]) == plain + 32 + 32 + 3
    # Every weight of IMDN-RTC is used once at each position of its small input.
    weights = sum(weight.numel() for weight in built("imdn_rtc").parameters() if weight.dim() > 1)
    assert count_macs(peer_files["imdn_rtc"], 16, 24) == 16 * 24 * weights


def test_a_transposed_convolution_counts_the_positions_of_its_input(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from clearcall.evaluation.cost import count_macs

    kernel = numpy_helper.from_array(np.zeros((3, 5, 2, 2), np.float32), "kernel")
    node = helper.make_node("ConvTranspose", ["x", "kernel"], ["y"], strides=[2, 2])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "height", "width"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, None, None])
    onnx.save(helper.make_model(helper.make_graph([node], "graph", [x], [y], [kernel])), tmp_path / "up.onnx")
    assert count_macs(tmp_path / "up.onnx", 4, 7) == 4 * 7 * 3 * 5 * 2 * 2


def test_the_luma_mask_of_a_grey_image_is_the_mask() -> None:
    grey = np.repeat(frame(20, 30)[..., :1] // 2 + 64, 3, axis=2)
    assert np.abs(unsharp_luma(grey, 1, 0.8).astype(int) - unsharp_mask(grey, 1, 0.8)).max() <= 2


def test_the_luma_mask_leaves_colour_alone() -> None:
    image = frame(20, 30) // 4 + 96  # far from black and white, where clipping would change colour
    changed = unsharp_luma(image, 1, 0.8).astype(int) - image
    assert (changed == changed[..., :1]).all()
    assert np.abs(changed).max() > 5


def test_settings_are_filled_in_and_sorted() -> None:
    full = check(Settings())
    assert full.sizes == ((1280, 720), (1920, 1080), (3840, 2160))
    assert full.threads == tuple(sorted({1, available_cores()}))
    assert full.providers == tuple(installed_providers())
    assert full.frames == 200
    assert full.reference_size == (1920, 1080)
    quick = check(Settings(quick=True))
    assert (quick.sizes, quick.threads, quick.frames) == (((640, 360),), (available_cores(),), 20)
    given = check(Settings(sizes=((64, 48), (32, 32), (64, 48)), threads=(2, 1), frames=7, quick=True))
    assert (given.sizes, given.threads, given.frames) == (((32, 32), (64, 48)), (1, 2), 7)
    assert given.reference_size == (64, 48)


def test_the_command_line_tells_no_path() -> None:
    settings = check(Settings(("/home/me/a.onnx", "models:/x@champion"), ((32, 16),), (1,), ("onnxruntime",), 5))
    assert settings.command == (
        "clearcall bench speed --model a.onnx --model models:/x@champion --size 32x16 --threads 1 "
        "--provider onnxruntime --frames 5"
    )


def test_a_runtime_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"provider tensorrt is not installed here; installed: onnxruntime"):
        check(Settings(providers=("tensorrt",)))


def test_two_models_of_one_name_are_refused(student_onnx: "tuple[nn.Module, Path]", tmp_path: Path) -> None:
    other = tmp_path / "student.onnx"
    other.write_bytes(student_onnx[1].read_bytes())
    with pytest.raises(UserError, match="two contenders are called 'student'"):
        compare(Settings(models=(str(student_onnx[1]), str(other))))


def test_what_is_no_model_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.onnx"):
        compare(Settings(models=(str(tmp_path / "gone.onnx"),)))


def test_a_run_measures_every_system_at_every_size_on_every_number_of_threads(document: dict[str, Any]) -> None:
    names = ["student", "imdn_rtc", "plain_cnn", "unsharp", "unsharp_luma", "ffmpeg_unsharp", "ffmpeg_cas", "identity"]
    assert list(document["contenders"]) == names
    lines = {(one["contender"], one["width"], one["height"], one["threads"]) for one in document["measurements"]}
    assert lines == {(name, *size, threads) for name in names for size in SMALL.sizes for threads in SMALL.threads}
    assert len(document["measurements"]) == len(lines)
    for one in document["measurements"]:
        assert one["frames"] in {1, 4, 5}
        assert one["note"] == ""
        assert (one["macs"] is None) == (one["contender"] in CLASSICAL)
        assert one["median_ms"] > 0
    assert document["reference_size"] == [64, 48]
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_costs_are_those_of_a_frame_of_the_size_that_comes_out(document: dict[str, Any]) -> None:
    by_name = {one["contender"]: one for one in document["measurements"] if one["width"] == 48}
    assert by_name["plain_cnn"]["macs"] == 48 * 32 * 9 * (3 * 32 + 32 * 32 + 32 * 3)
    assert by_name["imdn_rtc"]["macs"] == 24 * 16 * 19_899
    assert document["contenders"]["student"]["parameters"] == 36 * 4 + 4 + 9 * 16 + 4 + 16 + 4


def test_the_run_names_no_folder(document: dict[str, Any], student_onnx: "tuple[nn.Module, Path]") -> None:
    assert str(student_onnx[1].parent) not in json.dumps(document)


def cells(markdown: str, heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading, without headers."""
    part = markdown.partition(f"## {heading}")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_what_is_written_can_be_read_again(document: dict[str, Any], tmp_path: Path) -> None:
    path = write_comparison(document, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == document
    assert sorted(file.name for file in tmp_path.iterdir()) == ["benchmark.json", "benchmark.md"]
    text = path.read_text()
    assert document["machine"]["cpu"] in text
    assert document["date"] in text
    assert document["command"] in text
    assert FIGURE not in text  # there is no quality to draw
    rows = cells(text, "64x48, 2 threads")
    assert [row[0] for row in rows] == [one["title"] for one in document["contenders"].values()]
    for row, one in zip(
        rows, [one for one in document["measurements"] if (one["width"], one["threads"]) == (64, 2)], strict=True
    ):
        assert row[2] == f"{one['median_ms']:.1f}"
        assert float(row[4]) == pytest.approx(one["fps"], rel=0.01)
        assert row[5] == str(one["frames"])
    assert {row[-1] for row in cells(text, "The systems")} == {""}


def test_what_failed_is_said_in_its_row(document: dict[str, Any], tmp_path: Path) -> None:
    changed = json.loads(json.dumps(document))
    for one in changed["measurements"]:
        if one["contender"] == "imdn_rtc":
            one |= {"median_ms": None, "p95_ms": None, "fps": None, "frames": 0, "note": "failed: no memory"}
    text = write_comparison(changed, tmp_path).read_text()
    assert cells(text, "64x48, 2 threads")[1][:6] == ["IMDN-RTC x2", "onnxruntime", "failed: no memory", "", "", ""]


def test_without_a_model_and_after_one_that_fails_the_others_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise UserError("no memory")

    monkeypatch.setattr(run, "open_peer", fail)
    done = compare(QUICK)
    assert "clearcall" not in {one["kind"] for one in done["contenders"].values()}
    found = done["measurements"]
    assert len(found) == 7
    assert {one["note"] for one in found} == {"", "failed: no memory"}
    assert all((one["median_ms"] is None) == bool(one["note"]) for one in found)


def test_the_table_is_printed(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(document)
    printed = capsys.readouterr().out
    assert "64x48, 2 threads" in printed
    for one in document["contenders"].values():
        assert one["title"] in printed


def test_quality_and_time_stand_side_by_side(
    student_onnx: "tuple[nn.Module, Path]",
    tmp_path: Path,
    photos: dict[str, Frame],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import save_file

    images, weights = tmp_path / "photos", tmp_path / "weights"
    images.mkdir()
    weights.mkdir()
    for index in range(4):
        Image.fromarray(photos["astronaut"][40 * index : 40 * index + 72, 180:260]).save(images / f"{index}.png")
    (images / "3.png").write_bytes(b"no image")
    (imdn_rtc,) = (peer for peer in FEW if peer.name == "imdn_rtc")
    published = {}
    for name, tensor in built("imdn_rtc").state_dict().items():
        layer, _, kind = name.rpartition(".")
        published[f"{imdn_rtc.layers[layer]}.{kind}"] = tensor
    save_file(published, weights / "imdn_rtc_x2.safetensors")
    monkeypatch.setattr(run, "split_installed", lambda: ([], "SRMD x2; to install it, `pip install it`"))

    done = compare(replace(QUICK, models=(str(student_onnx[1]),), images=images, peers=weights))
    assert f"warning: skipped: {images / '3.png'}" in capsys.readouterr().err
    assert done["command"].endswith("--frames 4")
    assert "--images photos --peers weights" in done["command"]
    assert json.loads(json.dumps(done, allow_nan=False)) == done
    quality = done["quality"]
    assert (quality["images"], quality["skipped"]) == (1, 1)
    assert set(quality["scores"]) == {"student", "imdn_rtc", *CLASSICAL}
    bicubic = quality["scores"]["student"]["bicubic x2"]
    assert (done["contenders"]["student"]["psnr_db"], done["contenders"]["student"]["ssim"]) == (
        bicubic["psnr_db"],
        bicubic["ssim"],
    )
    assert done["contenders"]["plain_cnn"]["psnr_db"] is None

    text = write_comparison(done, tmp_path / "out").read_text()
    assert f"]({FIGURE})" in text
    with Image.open(tmp_path / "out" / FIGURE) as chart:
        assert chart.width > 500
    assert f"`{sha256_of(weights / 'imdn_rtc_x2.safetensors')}`" in text
    assert "Not compared: SRMD x2; to install it, `pip install it`." in text
    rows = {row[0]: row[1:] for row in cells(text, "Quality and time")}
    assert list(rows) == [one["title"] for name, one in done["contenders"].items() if name in quality["scores"]]
    (timed,) = (one for one in done["measurements"] if one["contender"] == "imdn_rtc")
    assert rows["IMDN-RTC x2"][:2] == ["half size", f"{timed['median_ms']:.1f} (onnxruntime)"]
    expected: list[str] = []
    for one in quality["scores"]["imdn_rtc"].values():
        expected += [f"{one['ssim']:.4f}", f"{one['psnr_db']:.2f}", f"{one['luma_psnr_db']:.2f}"]
    assert rows["IMDN-RTC x2"][2:] == expected
    assert "- FFmpeg cas: bicubic x2: strength=" in text


def test_weights_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"published weights in .* serve to measure quality: name --images too"):
        check(Settings(peers=tmp_path))


def test_the_slow_get_a_single_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SINGLE_MS", 0.0)
    assert {one["frames"] for one in compare(QUICK)["measurements"]} == {1}
