"""Figures of the shipped networks on photographs, in calls and on this machine."""

import cv2
import numpy as np
import pytest

from clearcall import Sharpener
from clearcall.data.codecs import Transmission, resized, send, transmit
from clearcall.data.single import read_rgb
from clearcall.data.sources import bundled_originals
from clearcall.deploy import trial
from clearcall.deploy.engines import answers, load_graph, openvino_precisions
from clearcall.deploy.trial import Verdict, try_out
from clearcall.files import read_json
from clearcall.gate import judge_shipped
from clearcall.metrics import Frame, psnr_db, ssim
from clearcall.params import CallCodec, Params
from clearcall.sharpener import SHIPPED

pytestmark = pytest.mark.acceptance

NAMES = ("fast", "quality")


def photographs() -> list[Frame]:
    paths = [original.path for original in bundled_originals() if original.split == "test"]
    return [np.asarray(read_rgb(path, 64)) for path in paths]


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_photograph_gains(name: str) -> None:
    sharpen = Sharpener(name, "onnxruntime")
    for sharp in photographs():
        height, width = sharp.shape[:2]
        small = resized(sharp, (width // 2, height // 2), "bilinear")
        degraded = resized(small, (width, height), "bilinear")
        restored = sharpen(degraded)
        assert psnr_db(sharp, restored) > psnr_db(sharp, degraded) + 1
        assert ssim(sharp, restored) > ssim(sharp, degraded) + 0.02


@pytest.mark.parametrize("codec", ["h264", "vp8"])
@pytest.mark.parametrize("qp", [27, 37])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_gains_if_upscaled_and_loses_nothing_at_full_resolution(name: str, codec: CallCodec, qp: int) -> None:
    sharpen = Sharpener(name, "onnxruntime", coded=True)
    for factor, least_mean_db, least_db in ((2.0, 0.05, -0.15), (1.0, -0.03, -0.1)):
        gains = []
        for sharp in photographs():
            sent = Transmission(codec, factor, qp, pan=(1.0, 0.5), zoom=1.0, loss_rate=0, seed=1)
            degraded = transmit(sharp, sent)
            gains.append(psnr_db(sharp, sharpen(degraded)) - psnr_db(sharp, degraded))
        assert np.mean(gains) > least_mean_db and min(gains) > least_db, (factor, gains)


@pytest.mark.parametrize("upscale", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_upscaled_by_opencv_loses_nothing(name: str, upscale: int) -> None:
    """OpenCV's filters are sharper or softer than those in training."""
    sharpen, gains = Sharpener(name, "onnxruntime", coded=True), []
    for sharp in photographs():
        height, width = sharp.shape[:2]
        small = cv2.resize(sharp, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        (arrived,) = send([np.asarray(small, np.uint8)], "h264", 27)
        degraded = np.asarray(cv2.resize(arrived, (width, height), interpolation=upscale), np.uint8)
        gains.append(psnr_db(sharp, sharpen(degraded)) - psnr_db(sharp, degraded))
    assert min(gains) > -0.15, gains


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_above_the_limits_for_shipping(name: str, committed: Params) -> None:
    facts = read_json(SHIPPED / f"{name}.json")
    checks = judge_shipped(facts["mean"], facts["clean_psnr_db"], committed.gate.shipped[name])
    assert all(check.passed for check in checks), checks


@pytest.mark.parametrize("name", NAMES)
def test_openvino_runs_in_the_fastest_precision_of_this_machine(name: str) -> None:
    pytest.importorskip("openvino")
    assert try_out(load_graph(SHIPPED / f"{name}.onnx")) == Verdict("", openvino_precisions()[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_changes_its_frames_by_more_than_runtimes_may_differ(name: str) -> None:
    """Otherwise a runtime that returns its input unchanged would pass the trial."""
    graph = load_graph(SHIPPED / f"{name}.onnx")
    outputs = answers(graph, "onnxruntime", *trial._size(graph), trial._frames(graph))
    assert max(int(np.abs(output.astype(np.int16) - 128).max()) for output in outputs) > 3 * trial._MAX_DIFFERENCE
