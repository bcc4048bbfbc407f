"""Figures of the shipped networks on photographs, in calls and on this machine.

CLEARCALL_ACCEPTANCE_DATA names a folder that holds `photos/test`, the 41 photographs of CID22's validation set, and
`heads`, the clips below. Without it only the photographs that come with scikit-image are measured.
"""

import os
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearcall import Sharpener
from clearcall.core.files import SHIPPED, read_json
from clearcall.data.clips import Clip, read_clip
from clearcall.data.degrade.codecs import Transmission, send, transmit
from clearcall.data.degrade.degradations import build_degradation
from clearcall.data.ingest.sources import bundled_originals, image_names
from clearcall.evaluation.calls import Setting, receive
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import luma_psnr_db, psnr_db, ssim
from clearcall.imaging.sizes import resized
from clearcall.models.inference import restore
from clearcall.models.weights import load_shipped
from clearcall.params import CallCodec, Params
from clearcall.runtime import trial
from clearcall.runtime.engines import answers, openvino_precisions
from clearcall.runtime.graph import NOTHING_TO_ADD, load_graph
from clearcall.runtime.trial import Verdict, try_out
from clearcall.tracking.gate import judge_shipped

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

DATA = "CLEARCALL_ACCEPTANCE_DATA"
NAMES = ("fast", "quality", "best")
MIX = tuple(f"{kernel}_x{factor}" for kernel in ("bicubic", "bilinear") for factor in (1.5, 1.7, 2.0))
HEADS = ("musetalk_sun.mp4", "sadtalker_b.mp4", "echomimic_c.mp4")
HEAD_FRAMES = 20
MAX_SIDE_PX = 10_000  # higher than any clip, which is read in its own size

# By photographs and network: the least mean PSNR over all photographs and the degradations of MIX.
LEAST_PSNR_DB = {
    ("cid22", "fast"): 33.6,
    ("cid22", "quality"): 34.2,
    ("bundled", "fast"): 33.0,
    ("bundled", "quality"): 33.4,
    ("cid22", "best"): 34.5,
    ("bundled", "best"): 33.6,
}
LEAST_TEACHER_GAIN_DB = 0.6  # over `best`, routed
LEAST_RECORDED_GAIN_DB = 0.3
MOST_CLEAN_CHANGED = 1  # photographs
# By network and QP: the least mean gain in luma PSNR over HEADS.
LEAST_HEAD_GAIN_DB = {
    ("fast", 27): 1.1,
    ("fast", 32): 0.6,
    ("quality", 27): 1.3,
    ("quality", 32): 0.75,
    ("best", 27): 1.4,
    ("best", 32): 0.8,
}


def data_folder(name: str) -> Path:
    """Return a folder of the acceptance data; skip the test where it is missing."""
    root = os.environ.get(DATA)
    if not root:
        pytest.skip(f"{DATA} is not set: it names a folder that holds {name}")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"{DATA} has no {name}: there is no folder {folder}")
    return folder


@cache
def photographs(source: str) -> list[Frame]:
    if source == "bundled":
        paths = [original.path for original in bundled_originals() if original.split == "test"]
    else:
        folder = data_folder("photos/test")
        paths = [folder / name for name in image_names(folder)]
    return [np.asarray(read_rgb(path, 64)) for path in paths]


@cache
def heads() -> list[Clip]:
    """Return clips of talking heads, downscaled by 2 to remove the traces of their own compression."""
    folder, clips = data_folder("heads"), []
    for name in HEADS:
        if not (folder / name).is_file():
            pytest.skip(f"{DATA} has no heads/{name}")
        frames = read_clip(folder / name, HEAD_FRAMES, MAX_SIDE_PX).frames
        height, width = frames[0].shape[:2]
        clips.append(Clip(name, [resized(frame, (width // 2, height // 2)) for frame in frames]))
    return clips


@pytest.mark.parametrize(("source", "name"), LEAST_PSNR_DB)
def test_photographs_reach_their_mean_psnr(source: str, name: str, committed: Params) -> None:
    sharpen, psnrs_db = Sharpener(name, "onnxruntime"), []
    for sharp in photographs(source):
        for degradation in MIX:
            steps = committed.degrade_pairs.degradations[degradation]
            degraded = build_degradation(steps, sharp.shape[1], sharp.shape[0], seed=1)(sharp)
            psnrs_db.append(psnr_db(sharp, sharpen(degraded)))
    assert np.mean(psnrs_db) >= LEAST_PSNR_DB[source, name]


def test_the_teacher_is_far_ahead_where_it_is_told_the_degradation(committed: Params) -> None:
    """On every fifth photograph: it takes half a second for one."""
    teacher, best = load_shipped("teacher"), Sharpener("best", "onnxruntime")
    gains_db = {}
    for degradation in MIX:
        steps, gains = committed.degrade_pairs.degradations[degradation], []
        for sharp in photographs("cid22")[::5]:
            degraded = build_degradation(steps, sharp.shape[1], sharp.shape[0], seed=1)(sharp)
            told, by_best = restore(teacher, degraded, degradation), best(degraded)
            gains.append(psnr_db(sharp, told) - psnr_db(sharp, by_best))
        gains_db[degradation] = float(np.mean(gains))
    assert np.mean([*gains_db.values()]) > LEAST_TEACHER_GAIN_DB, gains_db


@pytest.mark.parametrize("source", ["cid22", "bundled"])
@pytest.mark.parametrize("name", NAMES)
def test_clean_photographs_are_returned_unchanged(name: str, source: str) -> None:
    sharpen = Sharpener(name, "onnxruntime")
    changed = [index for index, sharp in enumerate(photographs(source)) if (sharpen(sharp) != sharp).any()]
    assert len(changed) <= MOST_CLEAN_CHANGED, changed


@pytest.mark.parametrize(("name", "qp"), LEAST_HEAD_GAIN_DB)
def test_talking_heads_gain_in_a_call(name: str, qp: int) -> None:
    """H.264 at half the resolution."""
    gains_db = {}
    for clip in heads():
        arrived = receive(clip, Setting("h264", qp, 2))
        sharpen = Sharpener(name, "onnxruntime", video=True, coded=True)
        before, after = (
            np.mean([*map(luma_psnr_db, clip.frames, frames)]) for frames in (arrived, map(sharpen, arrived))
        )
        gains_db[clip.name] = float(after - before)
    assert np.mean([*gains_db.values()]) >= LEAST_HEAD_GAIN_DB[name, qp], gains_db


@pytest.mark.parametrize("qp", [8, 12])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_was_recorded_gains_too(name: str, qp: int) -> None:
    """Upscaled, and finely encoded once more at full size: such frames were taken for sharp."""
    for clip in heads():
        arrived = send(receive(clip, Setting("h264", 27, 2)), "h264", qp)
        sharpen = Sharpener(name, "onnxruntime", video=True, coded=True)
        before, after = (
            np.mean([*map(luma_psnr_db, clip.frames, frames)]) for frames in (arrived, map(sharpen, arrived))
        )
        assert after - before > LEAST_RECORDED_GAIN_DB, clip.name


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_photograph_gains(name: str) -> None:
    sharpen = Sharpener(name, "onnxruntime")
    for sharp in photographs("bundled"):
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
        for sharp in photographs("bundled"):
            sent = Transmission(codec, factor, qp, pan=(1.0, 0.5), zoom=1.0, loss_rate=0, seed=1)
            degraded = transmit(sharp, sent)
            gains.append(psnr_db(sharp, sharpen(degraded)) - psnr_db(sharp, degraded))
        assert np.mean(gains) > least_mean_db and min(gains) > least_db, (factor, gains)


@pytest.mark.parametrize("upscale", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_upscaled_by_opencv_loses_nothing(name: str, upscale: int) -> None:
    """OpenCV's filters are sharper or softer than those in training."""
    sharpen, gains = Sharpener(name, "onnxruntime", coded=True), []
    for sharp in photographs("bundled"):
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
    changes = [np.square(output.astype(np.float64) - NOTHING_TO_ADD) for output in outputs]
    assert max(float(np.sqrt(change.mean())) for change in changes) > 3 * trial._MAX_RMS
