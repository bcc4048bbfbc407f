"""The networks that come with the package: whole, small, described, and better than what they are given."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from clearcall import Sharpener
from clearcall.data.codecs import Transmission, send, transmit
from clearcall.files import read_json, sha256_of
from clearcall.gate import judge_shipped
from clearcall.metrics import psnr_db, ssim
from clearcall.params import CallCodec, load_params
from clearcall.sharpener import SHIPPED, shipped_models

Frame = npt.NDArray[np.uint8]


def test_there_are_two_and_both_are_for_everything() -> None:
    assert shipped_models() == ["fast", "quality"]


@pytest.mark.parametrize("name", ["fast", "quality"])
class TestEveryShippedNetwork:
    def test_is_the_file_that_its_card_tells_of(self, name: str) -> None:
        facts = read_json(SHIPPED / f"{name}.json")
        for kind in ("onnx", "safetensors"):
            path = SHIPPED / f"{name}.{kind}"
            assert sha256_of(path) == facts[f"{kind}_sha256"]
            assert path.stat().st_size <= 1_000_000
        card = (SHIPPED / f"{name}.md").read_text()
        assert f"{facts['clean_psnr_db']:.1f} dB" in card
        assert f"{facts['parameters']:,} parameters" in card
        assert "CC BY-SA 4.0" in card

    def test_reaches_the_limits_that_it_was_taken_by(self, name: str, project: Path) -> None:
        facts, limits = read_json(SHIPPED / f"{name}.json"), load_params(project / "params.yaml").gate.shipped[name]
        assert all(check.passed for check in judge_shipped(facts["mean"], facts["clean_psnr_db"], limits))

    def test_weights_and_graph_are_one_network(self, name: str, photos: dict[str, Frame]) -> None:
        from safetensors.torch import load_file

        from clearcall.models import build_model
        from clearcall.models.inference import restore

        model = build_model("students", **read_json(SHIPPED / f"{name}.json")["model"])
        model.load_state_dict(load_file(SHIPPED / f"{name}.safetensors"))
        picture = photos["coffee"][:201, :303]
        difference = Sharpener(name, "onnxruntime")(picture).astype(np.int16) - restore(model.eval(), picture)
        assert np.abs(difference).max() <= 1

    def test_returns_a_sharp_photograph_nearly_as_it_was(self, name: str, photos: dict[str, Frame]) -> None:
        restored = {photo: psnr_db(sharp, Sharpener(name, "onnxruntime")(sharp)) for photo, sharp in photos.items()}
        assert min(restored.values()) > 40, restored  # dB


@pytest.mark.parametrize("name", ["fast", "quality"])
def test_sharpens_a_photograph_that_it_never_saw(name: str, photos: dict[str, Frame]) -> None:
    for sharp in photos.values():
        height, width = sharp.shape[:2]
        small = Image.fromarray(sharp).resize((width // 2, height // 2), Image.Resampling.BILINEAR)
        degraded = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
        restored = Sharpener(name, "onnxruntime")(degraded)
        assert psnr_db(sharp, restored) > psnr_db(sharp, degraded) + 1
        assert ssim(sharp, restored) > ssim(sharp, degraded) + 0.02


@pytest.mark.parametrize("codec", ["h264", "vp8"])
@pytest.mark.parametrize("qp", [27, 37])
@pytest.mark.parametrize("name", ["fast", "quality"])
def test_a_call_gains_where_it_was_upscaled_and_loses_nothing_where_it_was_not(
    name: str, codec: CallCodec, qp: int, photos: dict[str, Frame]
) -> None:
    """What sharpens the first would take whole decibels from the second, which is to be left nearly as it is."""
    sharpen = Sharpener(name, "onnxruntime", coded=True)
    for factor, least_mean, least in ((2.0, 0.05, -0.15), (1.0, -0.03, -0.1)):
        gains = []
        for sharp in photos.values():
            sent = Transmission(codec, factor, qp, pan=(1.0, 0.5), zoom=1.0, loss_rate=0, seed=1)
            degraded = transmit(sharp, sent)
            gains.append(psnr_db(sharp, sharpen(degraded)) - psnr_db(sharp, degraded))
        assert np.mean(gains) > least_mean and min(gains) > least, (factor, gains)


@pytest.mark.parametrize("upscale", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
@pytest.mark.parametrize("name", ["fast", "quality"])
def test_a_call_that_another_program_has_upscaled_does_not_lose(
    name: str, upscale: int, photos: dict[str, Frame]
) -> None:
    """OpenCV's filters are sharper or softer than those in training."""
    sharpen, gains = Sharpener(name, "onnxruntime", coded=True), []
    for sharp in photos.values():
        height, width = sharp.shape[:2]
        small = cv2.resize(sharp, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        (arrived,) = send([np.asarray(small, np.uint8)], "h264", 27)
        degraded = np.asarray(cv2.resize(arrived, (width, height), interpolation=upscale), np.uint8)
        gains.append(psnr_db(sharp, sharpen(degraded)) - psnr_db(sharp, degraded))
    assert min(gains) > -0.15, gains


def test_the_package_takes_them_along(project: Path) -> None:
    import tomllib

    data = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["clearcall"]
    assert "shipped/*" in data
