"""The looks: natural is the network alone, crisp an unsharp mask of the luma behind it."""

from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch

from clearcall import Sharpener
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.imaging.looks import CRISP_AMOUNT, CRISP_RADIUS_PX
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.models.build import build_model
from clearcall.models.export import export_onnx
from clearcall.models.students.routed import IDENTITY, Routed
from clearcall.runtime.sharpener import PixelFormat

# A step from 100 to 140. A Gaussian of sigma 1 has the weights 0.399, 0.242, 0.054 and 0.004 at distances 0 to 3: right
# of the step it leaves 0.6995 * 140 + 0.3005 * 100 = 128, then 138 and 140. 1.3 * 140 - 0.3 * 128 = 143.6, and
# 1.3 * 140 - 0.3 * 138 = 140.6; on the left 1.3 * 100 - 0.3 * 112 = 96.4 and 1.3 * 100 - 0.3 * 102 = 99.4.
STEP = np.array([100] * 6 + [140] * 6, np.uint8)
CRISP = np.array([100] * 4 + [99, 96, 144, 141] + [140] * 4, np.uint8)
HEIGHT = 8
PLANES: tuple[PixelFormat, ...] = ("i420", "nv12", "gray")


@pytest.fixture(scope="module")
def luma_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A luma network that adds nothing."""
    path = tmp_path_factory.mktemp("looks") / "luma.onnx"
    export_onnx(build_model("students", "luma_strided", {"channels": 2, "body_layers": 0}).eval(), path, 20)
    return path


@pytest.fixture(scope="module")
def rgb_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that returns RGB as it is."""
    path = tmp_path_factory.mktemp("looks") / "rgb.onnx"
    arguments = {"channels": 2, "blocks": 1, "unshuffle": 2}
    export_onnx(build_model("teachers", "unshuffle_resnet", arguments).eval(), path, 20)
    return path


@pytest.fixture(scope="module")
def clean_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experts and a router that finds every frame clean."""
    experts = {name: {"channels": 2, "body_layers": 0} for name in ("a", "b")}
    network = build_model("students", "routed", {"experts": experts}).eval()
    assert isinstance(network, Routed)
    with torch.no_grad():
        network.router.last.bias[0] = 5  # of the identity
        for parameter in network.experts.parameters():
            parameter.add_(0.1)
    path = tmp_path_factory.mktemp("looks") / "clean.onnx"
    export_onnx(network, path, 20)
    return path


def step_frame(pixel_format: PixelFormat, luma: Frame) -> Frame:
    """Return a frame of rows of this luma; colours are grey, chroma is noise."""
    rows = np.tile(luma, (HEIGHT, 1))
    if pixel_format in {"rgb", "bgr"}:
        return np.repeat(rows[..., None], 3, axis=2)
    chroma = np.random.default_rng(1).integers(0, 256, (0 if pixel_format == "gray" else HEIGHT // 2, 12), np.uint8)
    return np.vstack([rows, chroma])


@pytest.mark.parametrize("pixel_format", get_args(PixelFormat))
def test_crisp_by_hand_in_every_format_and_in_place(luma_network: Path, pixel_format: PixelFormat) -> None:
    """Chroma and the frame itself stay as they are."""
    sharpen = Sharpener(luma_network, "onnxruntime", 1, look="crisp")
    frame, expected = step_frame(pixel_format, STEP), step_frame(pixel_format, CRISP)
    before = frame.copy()
    np.testing.assert_array_equal(sharpen(frame, pixel_format), expected)
    np.testing.assert_array_equal(frame, before)
    for one in sharpen.map([frame] * 3, pixel_format, in_flight=2):
        np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(sharpen(frame, pixel_format, out=frame), expected)


@pytest.mark.parametrize("pixel_format", ["rgb", "bgr"])
@pytest.mark.parametrize("network", ["luma_network", "rgb_network"])
def test_crisp_changes_all_colours_by_what_luma_gains(
    network: str, pixel_format: PixelFormat, request: pytest.FixtureRequest
) -> None:
    """Of luma 99 and 139, or in BGR 103 and 143, as of 100 and 140: one or four levels beside the step."""
    frame = (np.array([90, 100, 120]) + step_frame("rgb", STEP) - 100).astype(np.uint8)
    gained = step_frame("rgb", CRISP).astype(int) - step_frame("rgb", STEP)
    path: Path = request.getfixturevalue(network)
    sharpen = Sharpener(path, "onnxruntime", 1, look="crisp")
    np.testing.assert_array_equal(sharpen(frame, pixel_format), frame + gained)
    np.testing.assert_array_equal(sharpen(frame, pixel_format, out=frame) - gained, frame - gained)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [(64, 96), (17, 31)])
def test_crisp_is_the_mask_of_the_natural_look(
    student_onnx: tuple[object, Path], photos: dict[str, Frame], strength: float, size: tuple[int, int]
) -> None:
    """The strength is that of the network; at 0 the mask alone is left."""
    luma = np.ascontiguousarray(photos["astronaut"][60 : 60 + size[0], 180 : 180 + size[1], 1])
    sharpen = Sharpener(student_onnx[1], "onnxruntime", 1, strength)
    natural = sharpen(luma, "gray")
    assert sharpen.look == "natural"
    sharpen.look = "crisp"
    np.testing.assert_array_equal(sharpen(luma, "gray"), unsharp_mask(natural, CRISP_RADIUS_PX, CRISP_AMOUNT))
    sharpen.look = "natural"
    np.testing.assert_array_equal(sharpen(luma, "gray"), natural)


@pytest.mark.parametrize("pixel_format", get_args(PixelFormat))
def test_a_clean_frame_stays_as_it_is_but_for_the_mask(
    clean_network: Path, photos: dict[str, Frame], pixel_format: PixelFormat
) -> None:
    """The router chooses the identity: natural changes nothing, crisp is the mask alone."""
    frame = np.ascontiguousarray(photos["chelsea"][:96, :120])
    if pixel_format in PLANES:
        frame = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8)
    natural, crisp = (Sharpener(clean_network, "onnxruntime", 1, look=look) for look in ("natural", "crisp"))
    np.testing.assert_array_equal(natural(frame, pixel_format), frame)
    assert natural.expert == IDENTITY
    assert (Sharpener(clean_network, "onnxruntime", 1, expert="b")(frame, pixel_format) != frame).any()
    masked = crisp(frame, pixel_format)
    assert (masked != frame).any()
    if pixel_format in PLANES:
        height = frame.shape[0] if pixel_format == "gray" else 96
        mask = unsharp_mask(frame[:height], CRISP_RADIUS_PX, CRISP_AMOUNT)
        np.testing.assert_array_equal(masked, np.vstack([mask, frame[height:]]))


def test_an_unknown_look_is_refused_and_the_old_one_kept(luma_network: Path) -> None:
    """Naming the known ones."""
    sharpen = Sharpener(luma_network, "onnxruntime", 1, look="crisp")
    with pytest.raises(UserError, match="look must be one of natural, crisp, not 'soft'"):
        sharpen.look = "soft"  # type: ignore[assignment]  # that is the point
    assert sharpen.look == "crisp"
