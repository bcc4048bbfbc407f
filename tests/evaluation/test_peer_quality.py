"""Quality in the benchmark: splits, tuning and scores by hand, FFmpeg's filters, weights by their published names."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.evaluation import peer_quality as quality
from clearcall.evaluation import peer_runtimes as ncnn_peers
from clearcall.evaluation.peer_quality import (
    DEGRADATIONS,
    Candidate,
    Tunable,
    measure_quality,
    read_pairs,
    score,
    split_images,
    tunable_filters,
)
from clearcall.evaluation.peer_runtimes import FfmpegFilter, NcnnNetwork, NcnnPeer, kernel_code, split_installed
from clearcall.evaluation.peers import PEERS, Peer, build_peer, find_weights
from clearcall.imaging.metrics import chroma_psnr_db, luma_psnr_db, psnr_db

Frame = npt.NDArray[np.uint8]
PUBLISHED = [peer for peer in PEERS if peer.layers]


def nearest(frame: Frame) -> Frame:
    """Return a frame at twice its size, each pixel four times."""
    return frame.repeat(2, 0).repeat(2, 1)


def save_images(folder: Path, photo: Frame, count: int) -> list[Path]:
    """Write small cuts of a photograph, of odd sides."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(photo[40 * index : 40 * index + 71, 180:265]).save(path)
    return paths


def test_luma_psnr_by_hand() -> None:
    """9 levels of blue are 0.114 * 9 = 1.03 of luma, rounded 1: 20 log10(255) = 48.13 dB. In RGB 27 squared levels."""
    black = np.zeros((4, 4, 3), np.uint8)
    blue = black + np.array([0, 0, 9], np.uint8)
    assert luma_psnr_db(black, blue) == pytest.approx(48.13, abs=0.005)
    assert psnr_db(black, blue) == pytest.approx(10 * np.log10(255**2 / 27))
    assert luma_psnr_db(black, black) == np.inf


def test_chroma_psnr_by_hand() -> None:
    """10 levels of blue raise luma by 1 and Cb by 0.564 * 9 = 5, and lower Cr by 0.713, rounded 1; grey has neither."""
    black = np.zeros((4, 6, 3), np.uint8)
    blue = black + np.array([0, 0, 10], np.uint8)
    assert chroma_psnr_db(black, blue) == pytest.approx(10 * np.log10(255**2 / 13))
    assert chroma_psnr_db(black, black + np.uint8(90)) == np.inf


def test_ffmpegs_unsharp_by_hand() -> None:
    """A step from 64 to 192, blurred by 1-2-1, is 96 and 160 beside it: with amount 1 that gives 32 and 224."""
    step = np.full((8, 16, 3), 64, np.uint8)
    step[:, 8:] = 192
    sharpened = FfmpegFilter("unsharp", "luma_msize_x=3:luma_msize_y=3:luma_amount=1")(step)
    expected = [64] * 7 + [32, 224] + [192] * 7
    assert np.abs(sharpened[4].astype(int) - np.array(expected)[:, None]).max() <= 2


def test_ffmpegs_filters_keep_a_flat_frame_and_take_any_size() -> None:
    cas = FfmpegFilter("cas", "strength=0.5")
    for size in ((9, 15), (16, 24), (9, 15)):
        flat = np.full((*size, 3), (10, 120, 250), np.uint8)
        assert np.abs(cas(flat).astype(int) - flat).max() <= 1
        assert np.abs(FfmpegFilter("unsharp")(flat).astype(int) - flat).max() <= 2


def test_folders_are_split(tmp_path: Path, photos: dict[str, Frame]) -> None:
    one, two, three = save_images(tmp_path / "all", photos["astronaut"], 3)
    (tmp_path / "all" / "notes.txt").touch()
    halves = split_images(tmp_path / "all")
    assert (list(halves.tuning), list(halves.reported)) == ([one, three], [two])
    for part in ("train", "validation", "test"):
        save_images(tmp_path / "split" / part, photos["astronaut"], 1)
        if part == "train":
            save_images(tmp_path / "split", photos["astronaut"], 2)
            assert len(split_images(tmp_path / "split").reported) == 1
    split = split_images(tmp_path / "split")
    assert list(split.tuning) == [tmp_path / "split" / "validation" / "0.png"]
    assert list(split.reported) == [tmp_path / "split" / "test" / "0.png"]
    assert "`validation`" in split.told
    (tmp_path / "split" / "validation").rename(tmp_path / "split" / "other")
    assert list(split_images(tmp_path / "split").tuning) == [tmp_path / "split" / "train" / "0.png"]


def test_folders_of_too_few_images_are_refused(tmp_path: Path, photos: dict[str, Frame]) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*gone: give one of images"):
        split_images(tmp_path / "gone")
    save_images(tmp_path, photos["astronaut"], 1)
    with pytest.raises(UserError, match=r"holds 1 images \(PNG.*\), at least 2 needed: put more there"):
        split_images(tmp_path)


def test_an_image_arrives_at_half_size_under_every_degradation(tmp_path: Path, photos: dict[str, Frame]) -> None:
    (path,) = save_images(tmp_path, photos["astronaut"], 1)
    pairs = read_pairs(path)
    assert list(pairs) == [degradation.name for degradation in DEGRADATIONS]
    with Image.open(path) as image:
        sharp = np.asarray(image)[:70, :84]
    small = np.asarray(Image.fromarray(sharp).resize((42, 35), Image.Resampling.BICUBIC))
    assert (pairs["bicubic x2"].small == small).all()
    for pair in pairs.values():
        assert (pair.sharp == sharp).all()
        assert pair.small.shape == (35, 42, 3)
        assert pair.degraded.shape == sharp.shape
    errors = [-psnr_db(sharp, pair.degraded) for pair in pairs.values()]
    assert errors == sorted(errors)


def test_filters_are_tuned_and_means_are_of_readable_images(
    tmp_path: Path, photos: dict[str, Frame], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = save_images(tmp_path, photos["astronaut"], 5)
    paths[3].write_bytes(b"no image")
    settings: Tunable = {"black": np.zeros_like, "as it is": np.copy, "dark": lambda one: one // 2}
    candidates = {"copy": Candidate(np.copy), "nearest": Candidate(nearest, upscales=True)}
    found = measure_quality(split_images(tmp_path), candidates, {"filter": settings})
    assert (found["images"], found["skipped"]) == (1, 1)
    assert f"warning: skipped: {paths[3]}" in capsys.readouterr().err
    pairs = read_pairs(paths[1])
    for degradation, pair in pairs.items():
        expected = {name: round(value, 4) for name, value in score(pair.sharp, pair.degraded).items()}
        assert found["scores"]["copy"][degradation] == expected
        assert found["scores"]["filter"][degradation] == {**expected, "setting": "as it is"}
        expected = {name: round(value, 4) for name, value in score(pair.sharp, nearest(pair.small)).items()}
        assert found["scores"]["nearest"][degradation] == expected


def test_a_folder_without_readable_images_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of 1 images in .* can be used: replace them"):
        measure_quality(split_images(tmp_path), {}, {"filter": {"": np.copy}})


def test_every_filter_has_settings_and_restores(monkeypatch: pytest.MonkeyPatch, photos: dict[str, Frame]) -> None:
    frame = np.ascontiguousarray(photos["astronaut"][:40, :60])
    filters = tunable_filters()
    assert list(filters) == ["unsharp", "unsharp_luma", "ffmpeg_unsharp", "ffmpeg_cas"]
    for settings in filters.values():
        assert next(iter(settings.values()))(frame).shape == frame.shape
    monkeypatch.setattr(quality, "has_filter", lambda name: name != "cas")
    assert list(tunable_filters()) == ["unsharp", "unsharp_luma", "ffmpeg_unsharp"]


@pytest.mark.parametrize("peer", PUBLISHED, ids=lambda peer: peer.name)
def test_published_weights_are_taken_by_their_names(peer: Peer, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    layers = {theirs: ours for ours, theirs in peer.layers.items()}
    assert len(layers) == len(peer.layers)
    random = build_peer(peer)
    prefix = "student." if peer.name != "imdn_rtc" else ""
    state = {name.removeprefix(prefix): 2 * value for name, value in random.state_dict().items()}
    published = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        published[f"{peer.layers[layer]}.{kind}"] = value
    save_file(published | {"not_called.weight": torch.zeros(1)}, tmp_path / f"{peer.name}_x2.safetensors")
    loaded = build_peer(peer, find_weights(tmp_path)[peer.name]).state_dict()
    assert all(torch.equal(loaded[f"{prefix}{name}"], value) for name, value in state.items())

    name = next(iter(published))
    save_file({**published, name: torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match=rf"does not hold the weights of {peer.title}: size mismatch"):
        build_peer(peer, tmp_path / "wrong.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match=r"wrong\.safetensors holds no '.*': these are not the published weights of"):
        build_peer(peer, tmp_path / "wrong.safetensors")


def test_folders_of_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*gone"):
        find_weights(tmp_path / "gone")
    with pytest.raises(UserError, match=r"holds no safetensors: put published weights there, named imdn, "):
        find_weights(tmp_path)
    (tmp_path / "other_x2.safetensors").touch()
    with pytest.raises(UserError, match=r"other_x2\.safetensors: no published network is called other: rename it to"):
        find_weights(tmp_path)


def test_what_is_not_installed_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    here, missing = split_installed()
    assert here == []
    assert missing.count("\n") == 0
    assert "waifu2x photo x2, SRMD x2; to install them, `pip install 'clearcall[peers]' && pip" in missing


def test_the_kernels_code_is_read_from_the_module(tmp_path: Path) -> None:
    values = ",\n".join(f"{index}.5e-01" for index in range(15))
    text = f"\0\0const float degradation_vector[15] = float[15](\n{values}\n);\0"
    with pytest.raises(UserError, match="holds no code of the blur kernel"):
        kernel_code(tmp_path)
    (tmp_path / "srmd_ncnn_vulkan_wrapper.so").write_bytes(text.encode())
    assert kernel_code(tmp_path).tolist() == pytest.approx([(index + 0.5) / 10 for index in range(15)])


def test_a_network_runs_on_ncnn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearest-neighbour upscaling of a frame with a border of one pixel, which the crop takes off again."""
    pytest.importorskip("ncnn")
    package = tmp_path / "package"
    package.mkdir()
    lines = ["7767517", "3 3", "Input in 0 1 x", "Interp up 1 1 x y 0=1 1=2.0 2=2.0", "Crop cut 1 1 y z 0=2 1=2 2=0"]
    lines[-1] += " 3=-234 4=-234 5=-233 -23309=2,2,2 -23310=2,-2,-2 -23311=2,1,2"
    (package / "net.param").write_text("\n".join(lines) + "\n")
    (package / "net.bin").write_bytes(b"")
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: spec)
    monkeypatch.setattr(ncnn_peers, "NCNN_PEERS", (NcnnPeer("net", "Net", "", "net", "net", "x", "z", border_px=1),))
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert (NcnnNetwork("net", 1)(frame) == nearest(frame)).all()
