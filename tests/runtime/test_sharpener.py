"""The sharpener against plain NumPy and torch, in every pixel format, and what it promises of memory and threads."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import clearcall
from clearcall.core.errors import UserError
from clearcall.imaging.looks import Look
from clearcall.imaging.sizes import SMALLEST_SIDE
from clearcall.runtime import engines
from clearcall.runtime import sharpener as runtime
from clearcall.runtime.engines import Engine, Provider, compile_graph, installed_providers
from clearcall.runtime.graph import Graph
from clearcall.runtime.sharpener import Choice, PixelFormat, Sharpener, find_model, shipped_models
from clearcall.tracking import runs as tracking
from clearcall.tracking.runs import download_model

if TYPE_CHECKING:
    from torch import nn

    from clearcall.models.build import Kind

Frame = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.int16]
COLOURS: tuple[PixelFormat, ...] = ("rgb", "bgr")
PLANES: tuple[PixelFormat, ...] = ("i420", "nv12")
# Height and width of colour frames: any will do.
ANY_SIZES = [(1, 1), (1, 2), (2, 1), (17, 31), (3, 250), (64, 48)]
# Those of planes are even, but need not be multiples of the stride.
EVEN_SIZES = [(2, 2), (2, 6), (6, 10), (18, 34), (64, 48), (130, 202)]


@dataclass(frozen=True)
class Network:
    """A network in torch and as an exported graph."""

    model: "nn.Module"
    path: Path


def noise_rgb(height: int, width: int, seed: int = 0, low: int = 0, high: int = 256) -> Frame:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), np.uint8)


def planes(height: int, width: int, seed: int = 0, low: int = 0, high: int = 256) -> Frame:
    return np.random.default_rng(seed).integers(low, high, (height * 3 // 2, width), np.uint8)


def frame_of(pixel_format: PixelFormat, height: int, width: int, seed: int = 0) -> Frame:
    return (noise_rgb if pixel_format in COLOURS else planes)(height, width, seed)


def exported(folder: Path, kind: "Kind", name: str, arguments: dict[str, int], disturbance: float) -> Network:
    import torch
    from tests.make.networks import disturb

    from clearcall.models.build import build_model
    from clearcall.models.export import export_onnx

    torch.manual_seed(0)
    model = disturb(build_model(kind, name, arguments), disturbance)
    export_onnx(model, folder / f"{name}.onnx", 20)
    return Network(model, folder / f"{name}.onnx")


@pytest.fixture(scope="session")
def halved(student_onnx: "tuple[nn.Module, Path]") -> Network:
    """A luma network of stride 2."""
    return Network(*student_onnx)


@pytest.fixture(scope="session")
def quartered(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A luma network of stride 4, trained wide."""
    arguments = {"channels": 4, "body_layers": 1, "stride": 4, "expansion": 8}
    return exported(tmp_path_factory.mktemp("quartered"), "students", "luma_strided", arguments, 0.02)


@pytest.fixture(scope="session")
def whole(teacher_onnx: "tuple[nn.Module, Path]") -> Network:
    """A network that restores RGB."""
    return Network(*teacher_onnx)


@pytest.fixture(params=["halved", "quartered"])
def luma(request: pytest.FixtureRequest) -> Network:
    """Each of the luma networks."""
    network: Network = request.getfixturevalue(request.param)
    return network


@pytest.fixture(params=["halved", "quartered", "whole"])
def network(request: pytest.FixtureRequest) -> Network:
    """Each of the networks."""
    one: Network = request.getfixturevalue(request.param)
    return one


@pytest.fixture(params=get_args(Provider))
def provider(request: pytest.FixtureRequest) -> Provider:
    """Each of the runtimes that are installed."""
    name: Provider = request.param
    pytest.importorskip(name)
    return name


def tolerance(provider: Provider) -> int:
    """Return how many 8-bit levels a runtime may be off: where the processor multiplies bf16, openvino uses it."""
    if provider == "openvino":
        import openvino

        return 2 if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else 1
    return 1


def distance(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> int:
    return int(np.abs(one.astype(np.int16) - other).max())


# The reference: torch's float answer, and the rest in plain NumPy.


def residual(network: Network, luma: Frame) -> Levels:
    """Return what a luma network adds to a plane, in whole 8-bit levels."""
    import torch

    stride = int(cast(Any, network.model).stride)
    height, width = luma.shape
    missing = [max(SMALLEST_SIDE - side, -side % stride) for side in (height, width)]
    padded = np.pad(luma, [(0, count) for count in missing], mode="edge")
    with torch.inference_mode():
        model = cast(Any, network.model)
        added = model.tail(model.features(torch.from_numpy(padded)[None, None].float() / 255))
    blocks = (added * 255)[0].numpy().reshape(stride, stride, padded.shape[0] // stride, padded.shape[1] // stride)
    shuffled = blocks.transpose(2, 0, 3, 1).reshape(padded.shape)[:height, :width]
    rounded: Levels = np.clip(np.rint(shuffled), -128, 127).astype(np.int16)
    return rounded


def grey(rgb: Frame) -> Frame:
    """Return luma as 8-bit video has it: BT.601's weights in fixed point, rounded."""
    weighted = (rgb.astype(np.int64) * (9798, 19235, 3735)).sum(axis=2)
    luma: Frame = ((weighted + 2**14) >> 15).astype(np.uint8)
    return luma


def clipped(levels: npt.NDArray[Any]) -> Frame:
    frame: Frame = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return frame


def sharpened_rgb(network: Network, rgb: Frame, strength: float = 1) -> Frame:
    if hasattr(network.model, "features"):
        return clipped(rgb + strength * residual(network, grey(rgb))[..., None])
    import torch

    with torch.inference_mode():
        levels = network.model(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255)[0] * 255
    restored = clipped(levels.permute(1, 2, 0).numpy())
    return clipped((1 - strength) * rgb + strength * restored)


def sharpened(network: Network, frame: Frame, pixel_format: PixelFormat, strength: float = 1) -> Frame:
    if pixel_format in COLOURS:
        turn = slice(None, None, 1 if pixel_format == "rgb" else -1)
        return sharpened_rgb(network, frame[..., turn], strength)[..., turn]
    height = frame.shape[0] if pixel_format == "gray" else frame.shape[0] // 3 * 2
    expected = frame.copy()
    expected[:height] = clipped(frame[:height] + strength * residual(network, frame[:height]))
    return expected


# Pixel formats, sizes and runtimes.


@pytest.mark.parametrize("pixel_format", COLOURS)
def test_colour_frames_of_any_size_equal_the_reference(
    network: Network, provider: Provider, pixel_format: PixelFormat
) -> None:
    sharpen = Sharpener(network.path, provider, threads=1)
    for height, width in ANY_SIZES:
        frame = noise_rgb(height, width)
        done, expected = sharpen(frame, pixel_format), sharpened(network, frame, pixel_format)
        assert done.shape == frame.shape
        assert done.dtype == np.uint8
        assert distance(done, expected) <= tolerance(provider), (height, width)
    assert (expected != frame).mean() > 0.5  # the network does something
    if tolerance(provider) == 1:
        assert (done != expected).mean() < 0.01  # only where float sums in another order


def test_a_large_odd_frame_equals_the_reference(network: Network) -> None:
    frame = noise_rgb(269, 479)
    expected = sharpened_rgb(network, frame)
    for provider in installed_providers():
        sharpen = Sharpener(network.path, provider, threads=1)
        assert distance(sharpen(frame), expected) <= tolerance(provider)
        assert distance(sharpen(frame[..., ::-1], "bgr")[..., ::-1], expected) <= tolerance(provider)


@pytest.mark.parametrize("pixel_format", [*PLANES, "gray"])
def test_planes_equal_the_reference_and_keep_their_chroma(
    luma: Network, provider: Provider, pixel_format: PixelFormat
) -> None:
    sharpen = Sharpener(luma.path, provider, threads=1)
    for height, width in ANY_SIZES if pixel_format == "gray" else EVEN_SIZES:
        frame = noise_rgb(height, width)[..., 0] if pixel_format == "gray" else planes(height, width)
        done, expected = sharpen(frame, pixel_format), sharpened(luma, frame, pixel_format)
        assert done.shape == frame.shape
        assert done.dtype == np.uint8
        assert distance(done, expected) <= tolerance(provider), (height, width)
        assert (done[height:] == frame[height:]).all()
    assert (expected[:height] != frame[:height]).mean() > 0.5


def test_bgr_is_rgb_turned_round(network: Network, provider: Provider) -> None:
    sharpen = Sharpener(network.path, provider, threads=1)
    for frame in (noise_rgb(1, 1), noise_rgb(17, 31), noise_rgb(64, 48)):
        turned = np.ascontiguousarray(frame[..., ::-1])
        assert (sharpen(turned, "bgr")[..., ::-1] == sharpen(frame, "rgb")).all()


def test_a_grey_frame_has_the_same_luma_in_every_format(luma: Network) -> None:
    """Of grey, R, G, B and Y are one; the two layouts of planes differ in chroma alone."""
    sharpen = Sharpener(luma.path, "onnxruntime", threads=1)
    frame = planes(18, 30)
    colour = np.repeat(frame[:18, :, None], 3, axis=2)
    done = sharpen(colour)
    assert (done == done[..., :1]).all()
    assert (sharpen(colour, "bgr") == done).all()
    assert (sharpen(frame, "i420")[:18] == done[..., 0]).all()
    assert (sharpen(frame, "nv12") == sharpen(frame, "i420")).all()
    assert (sharpen(frame[:18], "gray") == done[..., 0]).all()


def test_the_runtimes_agree(network: Network) -> None:
    pytest.importorskip("openvino")
    frame = noise_rgb(127, 241)
    ours = {name: Sharpener(network.path, name, threads=1)(frame) for name in installed_providers()}
    assert distance(ours["openvino"], ours["onnxruntime"]) <= tolerance("openvino")


@pytest.mark.parametrize("model", ["fast", "quality"])
def test_a_processor_without_wide_vectors_gives_the_same(model: str, tmp_path: Path, photos: dict[str, Frame]) -> None:
    """AVX2 alone: OpenVINO computes in float32 and on layers as they were trained, see lanes.py."""
    pytest.importorskip("openvino")
    frame = np.ascontiguousarray(photos["astronaut"][:256, :256])
    np.save(tmp_path / "frame.npy", frame)
    program = (
        "import sys, numpy\nfrom clearcall.runtime.lanes import has_wide_lanes\n"
        "from clearcall.runtime.sharpener import Sharpener\n"
        "folder, model = sys.argv[1:]\nassert not has_wide_lanes()\n"
        "sharpen = Sharpener(model, 'openvino', 1, expert='bicubic_x2.0')\n"
        "numpy.save(f'{folder}/sharper.npy', sharpen(numpy.load(f'{folder}/frame.npy')))\n"
    )
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OPENCV_CPU_DISABLE": "AVX512-SKX", "CLEARCALL_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path), model], env=os.environ | limits, check=True)
    expected = Sharpener(model, "onnxruntime", 1, expert="bicubic_x2.0")(frame)
    assert distance(np.load(tmp_path / "sharper.npy"), expected) <= 1
    assert distance(expected, frame) > 10


def test_two_threads_give_what_one_gives(network: Network, provider: Provider) -> None:
    frame = noise_rgb(127, 241)
    one, two = (Sharpener(network.path, provider, threads)(frame) for threads in (1, 2))
    assert distance(one, two) <= tolerance(provider)


def test_a_live_video_goes_on_while_an_expert_is_compiled(
    monkeypatch: pytest.MonkeyPatch, photos: dict[str, Frame]
) -> None:
    pytest.importorskip("openvino")
    frame, may_compile = np.ascontiguousarray(photos["astronaut"][:128, :128]), threading.Event()
    expected = Sharpener("fast", "openvino", 1, expert="bicubic_x2.0")(frame)
    assert (expected != frame).any()
    sharpen = Sharpener("fast", "openvino", 1, video=True)
    assert (sharpen(frame, expert="identity") == frame).all()  # the router is compiled
    sharpen.begin_video(coded=False, live=True)
    compile_expert = engines._Openvino._compile_expert

    def held_back(engine: engines._Openvino, number: int) -> Any:
        may_compile.wait(30)
        return compile_expert(engine, number)

    monkeypatch.setattr(engines._Openvino, "_compile_expert", held_back)
    try:
        for _ in range(3):
            assert (sharpen(frame, expert="bicubic_x2.0") == frame).all()
            assert sharpen.expert == "identity"
    finally:
        may_compile.set()
    engines.compile_pool().submit(int).result()  # which waits until what came before is done
    assert (sharpen(frame, expert="bicubic_x2.0") == expected).all()
    assert sharpen.expert == "bicubic_x2.0"
    sharpen.begin_video(coded=False, live=True)
    sharpen(frame, expert="bicubic_x1.5")
    assert sharpen.expert == "identity"  # not that of another video
    sharpen.begin_video(coded=False)
    assert (sharpen(frame, expert="bilinear_x2.0") != frame).any()
    assert sharpen.expert == "bilinear_x2.0"  # of a file each frame gets the expert that was chosen


def test_an_expert_that_cannot_be_compiled_in_the_background_ends_in_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino")

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(engines._Openvino, "_compile_expert", fail)
    sharpen, frame = Sharpener("fast", "openvino", 1, video=True), noise_rgb(64, 48)
    sharpen.begin_video(coded=False, live=True)
    sharpen(frame, expert="bicubic_x2.0")
    engines.compile_pool().submit(int).result()
    with pytest.raises(UserError, match=r"openvino cannot run fast\.onnx on 48x64 frames: no memory"):
        sharpen(frame, expert="bicubic_x2.0")


def test_ctrl_c_is_no_crash_after_another_thread_has_let_go_of_a_network() -> None:
    """OpenVINO unmapped a stack for signals that the thread which had compiled the network still had."""
    pytest.importorskip("openvino")
    program = (
        "import gc, signal, threading, numpy as np\n"
        "from clearcall.runtime.sharpener import Sharpener\n"
        "held = [Sharpener('fast', 'openvino', 2)]\n"
        "held[0](np.zeros((360, 640, 3), np.uint8))\n"
        "thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))\n"
        "thread.start()\n"
        "thread.join()\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted\n"


@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [
        ("students", "luma_strided", {"channels": 2, "body_layers": 0, "stride": 4}),
        ("teachers", "unshuffle_resnet", {"channels": 2, "blocks": 1, "unshuffle": 2}),
    ],
    ids=["student", "teacher"],
)
def test_an_untrained_network_returns_a_frame_of_any_size_unchanged(
    kind: "Kind", name: str, arguments: dict[str, int], tmp_path: Path
) -> None:
    sharpen = Sharpener(exported(tmp_path, kind, name, arguments, 0).path, "onnxruntime", threads=1)
    formats = [*COLOURS, *(PLANES if kind == "students" else ())]

    @examples(max_examples=15)
    @given(
        height=st.integers(1, 70),
        width=st.integers(1, 70),
        seed=st.integers(0, 1000),
        strength=st.floats(0, 1),
        pixel_format=st.sampled_from(formats),
    )
    def check(height: int, width: int, seed: int, strength: float, pixel_format: PixelFormat) -> None:
        if pixel_format in PLANES:
            height, width = height + height % 2, width + width % 2
        frame = frame_of(pixel_format, height, width, seed)
        sharpen.strength = strength
        done = sharpen(frame, pixel_format)
        assert done.shape == frame.shape
        assert done.dtype == np.uint8
        assert (done == frame).all()

    check()
    sharpen.strength = 1
    every_level = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert (sharpen(every_level) == every_level).all()


# Strength


def test_strength_0_returns_the_frame_and_1_all_that_the_network_adds(network: Network, provider: Provider) -> None:
    usual, none, full = (Sharpener(network.path, provider, 1, *strength) for strength in ((), (0,), (1,)))
    for pixel_format in formats_of(network):
        frame = frame_of(pixel_format, 18, 30)
        assert (none(frame, pixel_format) == frame).all()
        assert (full(frame, pixel_format) == usual(frame, pixel_format)).all()
        assert distance(usual(frame, pixel_format), sharpened(network, frame, pixel_format)) <= tolerance(provider)


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_strength_in_between_adds_a_rounded_part(network: Network, strength: float) -> None:
    """Far from black and white nothing is clipped: the whole tells what a part is; ties may go either way."""
    sharpen = Sharpener(network.path, "onnxruntime", threads=1)
    frame = noise_rgb(61, 43, low=112, high=144)
    added = sharpen(frame).astype(np.int16) - frame
    assert 4 < np.abs(added).max() < 112
    sharpen.strength = strength
    done = sharpen(frame)
    assert np.abs(done - (frame + strength * added)).max() <= 0.5 + 1e-4
    assert distance(done, sharpened_rgb(network, frame, strength)) <= 1


@pytest.mark.parametrize("pixel_format", get_args(PixelFormat))
def test_half_the_strength_equals_the_reference_near_black_and_white_too(
    halved: Network, pixel_format: PixelFormat
) -> None:
    """What is added is halved before it is clipped."""
    frame = frame_of(pixel_format, 64, 48)
    done = Sharpener(halved.path, "onnxruntime", 1, strength=0.5)(frame, pixel_format)
    assert distance(done, sharpened(halved, frame, pixel_format, 0.5)) <= 1


def test_strength_may_change_between_frames(halved: Network) -> None:
    sharpen, frame = Sharpener(halved.path, "onnxruntime", threads=1), noise_rgb(20, 30)
    full = sharpen(frame)
    for strength in (0.0, 0.5, 1.0, 0.25, 0):
        sharpen.strength = strength
        assert sharpen.strength == strength
        fresh = Sharpener(halved.path, "onnxruntime", 1, strength)
        assert (sharpen(frame) == fresh(frame)).all()
    sharpen.strength = 1
    assert (sharpen(frame) == full).all()


@pytest.mark.parametrize("strength", [-0.01, 2.01, 100, float("nan"), float("inf")])
def test_a_strength_out_of_range_is_refused_and_the_old_one_kept(halved: Network, strength: float) -> None:
    with pytest.raises(UserError, match="strength must be from 0 to 2, not"):
        Sharpener(halved.path, "onnxruntime", strength=strength)
    sharpen = Sharpener(halved.path, "onnxruntime", strength=0.25)
    with pytest.raises(UserError, match="strength must be from 0 to 2, not"):
        sharpen.strength = strength
    assert sharpen.strength == 0.25


# Where the result goes.


def formats_of(network: Network) -> tuple[PixelFormat, ...]:
    return (*COLOURS, *PLANES) if hasattr(network.model, "features") else COLOURS


def test_out_receives_the_result_and_is_returned(network: Network) -> None:
    sharpen = Sharpener(network.path, "onnxruntime", threads=1)
    for pixel_format in formats_of(network):
        frame = frame_of(pixel_format, 18, 30)
        before, out = frame.copy(), np.full_like(frame, 77)
        expected = sharpen(frame, pixel_format)
        assert sharpen(frame, pixel_format, out=out) is out
        assert (out == expected).all()
        assert (frame == before).all()


def test_out_may_be_the_frame_itself(network: Network) -> None:
    sharpen = Sharpener(network.path, "onnxruntime", threads=1)
    for pixel_format in formats_of(network):
        frame = frame_of(pixel_format, 18, 30)
        for strength in (1, 0.5, 0):
            sharpen.strength = strength
            expected, place = sharpen(frame, pixel_format), frame.copy()
            assert sharpen(place, pixel_format, out=place) is place
            assert (place == expected).all()


def test_out_may_be_a_part_of_a_larger_array(halved: Network) -> None:
    """As a slot of a ring buffer is."""
    sharpen, frame, ring = (
        Sharpener(halved.path, "onnxruntime", threads=1),
        noise_rgb(18, 30),
        noise_rgb(54, 30, seed=1),
    )
    before = ring.copy()
    sharpen(frame, out=ring[18:36])
    assert (ring[18:36] == sharpen(frame)).all()
    assert (np.delete(ring, np.s_[18:36], axis=0) == np.delete(before, np.s_[18:36], axis=0)).all()


def test_an_out_that_overlaps_the_frame_in_part_is_refused(halved: Network) -> None:
    """What is read after it was written over would be wrong without a word."""
    sharpen, ring = Sharpener(halved.path, "onnxruntime", threads=1), noise_rgb(36, 30)
    before = ring.copy()
    for frame, out in ((ring[:18], ring[1:19]), (ring[:18][..., ::-1], ring[:18])):
        with pytest.raises(UserError, match="out overlaps the frame in part"):
            sharpen(frame, out=out)
    assert (ring == before).all()
    sharpen(ring[:18], out=ring[18:])
    assert (ring[18:] == sharpen(before[:18])).all()


def read_only(array: Frame) -> Frame:
    array.flags.writeable = False
    return array


def test_an_out_that_cannot_take_the_result_is_refused_and_left_alone(network: Network) -> None:
    sharpen = Sharpener(network.path, "onnxruntime", threads=1)
    outs: list[Any] = [
        np.zeros((18, 31, 3), np.uint8),
        np.zeros((30, 18, 3), np.uint8),
        np.zeros((18, 30), np.uint8),
        np.zeros((1, 18, 30, 3), np.uint8),
        np.zeros((18, 30, 3), np.int8),
        np.zeros((18, 30, 3), np.float32),
        np.zeros((18, 60, 3), np.uint8)[:, ::2],
        np.zeros((18, 30, 3), np.uint8)[::-1],
        np.zeros((18, 30, 3), np.uint8, order="F"),
        read_only(np.zeros((18, 30, 3), np.uint8)),
    ]
    for out in outs:
        message = text_of(partial(sharpen, noise_rgb(18, 30), out=out))
        assert message == "out must be a writeable, contiguous uint8 array of shape (18, 30, 3)"
        assert not out.any()


def test_without_out_every_result_is_ones_own(network: Network) -> None:
    sharpen = Sharpener(network.path, "onnxruntime", threads=1)
    first = sharpen(noise_rgb(21, 31))
    kept = first.copy()
    sharpen(noise_rgb(21, 31, seed=9))
    assert (first == kept).all()
    first[:] = 0  # writable
    assert first.flags.c_contiguous
    assert not np.shares_memory(first, sharpen(noise_rgb(21, 31)))


# What a frame may be.


VIEWS: dict[str, Callable[[Frame], Frame]] = {
    "channels turned": lambda frame: frame[..., ::-1],
    "upside down": lambda frame: frame[::-1],
    "mirrored": lambda frame: frame[:, ::-1],
    "every second": lambda frame: frame[::2, ::2],
    "a window": lambda frame: frame[3:-6, 4:-4],
    "columns first": np.asfortranarray,
    "turned": lambda frame: frame.transpose(1, 0, 2) if frame.ndim == 3 else frame[:36, :36].T,
    "one row for all": lambda frame: np.broadcast_to(frame[:1], frame.shape),
    "read-only": lambda frame: read_only(frame.copy()),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_frame_may_be_any_view_and_is_not_changed(network: Network, view: str) -> None:
    """Frames from OpenCV are often BGR views turned round."""
    sharpen = Sharpener(network.path, "onnxruntime", threads=1)
    for pixel_format in formats_of(network):
        frame = VIEWS[view](frame_of(pixel_format, 48, 40))
        before = frame.copy(order="C")
        done, out = sharpen(frame, pixel_format), np.empty(frame.shape, np.uint8)
        assert (done == sharpen(before, pixel_format)).all()
        assert done.flags.c_contiguous
        assert (sharpen(frame, pixel_format, out=out) == done).all()
        assert (frame == before).all()


def text_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("pixel_format", get_args(PixelFormat))
def test_a_frame_of_another_type_is_refused(halved: Network, pixel_format: PixelFormat) -> None:
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    arrays = [np.zeros((16, 16, 3), kind) for kind in (np.float32, np.uint16, np.int8, bool)]
    wrong: list[Any] = [*arrays, [[[0, 0, 0]]], b"\0" * 768, None]
    for one in wrong:
        text = text_of(partial(sharpen, one, pixel_format))
        kind = str(getattr(one, "dtype", type(one).__name__))
        assert text == f"a frame must be a numpy array of uint8, not {kind}"
        assert text_of(partial(list, sharpen.map([one], pixel_format))) == text


COLOUR_SHAPES = [(16, 16), (16, 16, 4), (16, 16, 1), (3, 16, 16), (1, 16, 16, 3), (0, 16, 3), (16, 0, 3)]
GRAY_SHAPES = [(16, 16, 1), (16, 16, 3), (384,), (0, 16), (24, 0)]
ODD_SHAPES = [(24, 15), (25, 16), (26, 16), (22, 16), (26, 31), (24, 16, 1), (16, 16, 3), (384,), (0, 16), (24, 0)]


@pytest.mark.parametrize(
    ("pixel_format", "shapes", "wanted", "advice"),
    [
        ("rgb", COLOUR_SHAPES, "an rgb frame must have the shape (height, width, 3)", ""),
        ("bgr", COLOUR_SHAPES, "an bgr frame must have the shape (height, width, 3)", ""),
        ("gray", GRAY_SHAPES, "a gray frame must have the shape (height, width)", ""),
        *(
            (
                name,
                ODD_SHAPES,
                f"an {name} frame must have the shape (height * 3 / 2, width) of a picture with even sides",
                ": crop or pad an odd-sized picture first",
            )
            for name in PLANES
        ),
    ],
    ids=["rgb", "bgr", "gray", *PLANES],
)
def test_a_frame_of_another_shape_is_refused(
    luma: Network, pixel_format: PixelFormat, shapes: list[tuple[int, ...]], wanted: str, advice: str
) -> None:
    sharpen = Sharpener(luma.path, "onnxruntime", threads=1)
    for shape in shapes:
        text = text_of(partial(sharpen, np.zeros(shape, np.uint8), pixel_format))
        assert text == f"{wanted}, not {shape}{advice}"


@pytest.mark.parametrize("pixel_format", [*PLANES, "gray"])
def test_an_rgb_network_refuses_planes(whole: Network, pixel_format: PixelFormat) -> None:
    text = text_of(lambda: Sharpener(whole.path, "onnxruntime", threads=1)(planes(16, 16), pixel_format))
    assert text == f"teacher.onnx works on RGB: give it rgb or bgr frames, not {pixel_format}"


@pytest.mark.parametrize("pixel_format", ["RGB", "yuv420p", "", "rgba"])
def test_an_unknown_pixel_format_is_refused_and_the_known_ones_named(halved: Network, pixel_format: Any) -> None:
    text = text_of(lambda: Sharpener(halved.path, "onnxruntime", threads=1)(noise_rgb(16, 16), pixel_format))
    assert text == f"pixel_format must be one of rgb, bgr, i420, nv12, gray, not {pixel_format!r}"


def test_a_refused_frame_does_no_harm(halved: Network) -> None:
    sharpen, frame = Sharpener(halved.path, "onnxruntime", threads=1), noise_rgb(18, 30)
    expected = sharpen(frame)
    text_of(lambda: sharpen(frame[..., 0]))
    text_of(lambda: sharpen(frame, out=frame[::-1]))
    assert (sharpen(frame) == expected).all()


# Runtime and threads.


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(halved: Network, threads: int) -> None:
    text = text_of(lambda: Sharpener(halved.path, threads=threads))
    assert text == f"threads must be at least 1 or None, not {threads}"


def test_an_unknown_provider_is_refused_and_the_known_ones_named(halved: Network) -> None:
    unknown: Any = "abacus"
    text = text_of(lambda: Sharpener(halved.path, provider=unknown))
    assert text.startswith("provider 'abacus' is not installed; known: auto, onnxruntime, openvino; pip install ")


def test_without_openvino_auto_takes_onnxruntime(halved: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert installed_providers() == ["onnxruntime"]
    text = text_of(lambda: Sharpener(halved.path, provider="openvino"))
    assert "openvino" in text and "pip install openvino" in text
    sharpen = Sharpener(halved.path, threads=1)
    sharpen(noise_rgb(18, 30))
    assert sharpen.choice == Choice("onnxruntime", 1, {})


def test_the_choice_is_told_once_a_frame_was_sharpened(halved: Network, provider: Provider) -> None:
    sharpen = Sharpener(halved.path, provider, threads=2)
    told = [sharpen.choice]
    text_of(lambda: sharpen(np.zeros((4, 4), np.uint8)))
    told.append(sharpen.choice)
    sharpen(noise_rgb(18, 30))
    told.append(sharpen.choice)
    assert told == [None, None, Choice(provider, 2, {})]  # there was nothing to choose
    assert str(sharpen.choice) == f"{provider}, 2 threads"
    assert str(Choice(provider, 1, {})) == f"{provider}, 1 thread"


def test_auto_tells_what_it_tried_and_keeps_the_fastest(halved: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores: all of them and half of them, on each runtime."""
    monkeypatch.setattr(runtime, "available_cores", lambda: 4)
    sharpen, frame = Sharpener(halved.path), noise_rgb(18, 30)
    assert distance(sharpen(frame), sharpened_rgb(halved, frame)) <= max(map(tolerance, installed_providers()))
    assert sharpen.choice is not None
    tried = sharpen.choice.tried_ms
    assert tried.keys() == {f"{name}, {count} threads" for name in installed_providers() for count in (2, 4)}
    assert all(ms > 0 for ms in tried.values())
    assert str(sharpen.choice) == min(tried, key=lambda name: tried[name])


def test_auto_keeps_to_a_given_number_of_threads(halved: Network) -> None:
    sharpen = Sharpener(halved.path, threads=1)
    sharpen(noise_rgb(18, 30))
    assert sharpen.choice is not None
    assert sharpen.choice.threads == 1
    names = {f"{name}, 1 thread" for name in installed_providers()}
    assert sharpen.choice.tried_ms.keys() == (names if len(names) > 1 else set())


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The height and width of each graph that is compiled from now on."""
    sizes = []

    def noted(graph: Graph, provider: Provider, height: int, width: int, threads: int) -> Engine:
        sizes.append((height, width))
        return compile_graph(graph, provider, height, width, threads)

    monkeypatch.setattr(runtime, "compile_graph", noted)
    return sizes


def test_frame_sizes_may_alternate_and_four_stay_compiled(halved: Network, compiled: list[tuple[int, int]]) -> None:
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    sizes = [(34, 46), (46, 34), (32, 32), (64, 48), (36, 38)]

    def check(size: tuple[int, int], seed: int) -> None:
        frame = noise_rgb(*size, seed)
        assert distance(sharpen(frame), sharpened_rgb(halved, frame)) <= 1

    for seed in range(3):
        for size in sizes[:4]:
            check(size, seed)
    assert compiled == sizes[:4]
    check(sizes[0], 3)  # now the second was not used for longest
    check(sizes[4], 3)  # so the fifth takes its place
    for size in (sizes[0], *sizes[2:]):
        check(size, 4)
    assert compiled == sizes
    check(sizes[1], 5)
    assert compiled == [*sizes, sizes[1]]
    for seed, size in enumerate(sizes * 2):  # more than are kept, round and round
        check(size, seed)


def test_formats_and_sizes_of_one_compiled_size_do_not_mix(quartered: Network, compiled: list[tuple[int, int]]) -> None:
    """17x31 and 20x32 are padded alike; what one leaves in the padding must not reach the other."""
    sharpen = Sharpener(quartered.path, "onnxruntime", threads=1)
    for seed, (height, width) in enumerate([(20, 32), (17, 31), (20, 32), (18, 30), (17, 31)]):
        for pixel_format in (*COLOURS, *(PLANES if height % 2 == 0 else ())):
            frame = frame_of(pixel_format, height, width, seed)
            assert distance(sharpen(frame, pixel_format), sharpened(quartered, frame, pixel_format)) <= 1
    assert set(compiled) == {(32, 32)}


def test_calls_from_several_threads_take_turns(halved: Network) -> None:
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    frames = [noise_rgb(height, width, seed) for seed in range(20) for height, width in ((64, 48), (17, 31), (30, 18))]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(sharpen, frames))
    alone = Sharpener(halved.path, "onnxruntime", threads=1)
    for one, frame in zip(done, frames, strict=True):
        assert (one == alone(frame)).all()


# Memory


@pytest.mark.parametrize("pixel_format", ["rgb", "nv12"])
def test_a_long_call_does_not_grow(halved: Network, provider: Provider, pixel_format: PixelFormat) -> None:
    sharpen = Sharpener(halved.path, provider, threads=1)
    frame = frame_of(pixel_format, 48, 64)
    out = np.empty_like(frame)
    process = psutil.Process()
    for _ in range(100):
        sharpen(frame, pixel_format, out=out)
    before = process.memory_info().rss
    for _ in range(500):
        sharpen(frame, pixel_format, out=out)
    assert process.memory_info().rss - before < 2 * 2**20


def traced(call: Callable[[], object], count: int) -> tuple[int, int]:
    """Return by how much Python's and NumPy's memory grew over so many calls, and its peak above the start."""
    for _ in range(5):
        call()
    tracemalloc.start()
    try:
        call()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(count):
            call()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


def test_with_out_no_frame_is_allocated(network: Network, provider: Provider) -> None:
    sharpen, plane = Sharpener(network.path, provider, threads=1), 130 * 202
    for pixel_format in formats_of(network):
        frame = frame_of(pixel_format, 130, 202)
        out = np.empty_like(frame)
        for target in (out, frame):
            grown, peak = traced(partial(sharpen, frame, pixel_format, target), 10)
            assert grown < plane // 4, pixel_format
            assert peak < plane // 2, pixel_format


def test_alternating_sizes_do_not_grow(network: Network, provider: Provider) -> None:
    """What was compiled for a size that is no longer kept is freed, without waiting for the garbage collector."""
    sharpen = Sharpener(network.path, provider, threads=1)
    frames = [noise_rgb(64, 48 + 2 * index) for index in range(8)]

    def compiled() -> int:
        return sum(isinstance(one, engines._Onnxruntime | engines._Openvino) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = compiled()
        for frame in frames:
            sharpen(frame)
        assert compiled() - before == 4
    finally:
        gc.enable()


# Several frames in flight.


def mapped(sharpen: Sharpener, frames: Iterable[Frame], in_flight: int) -> Generator[Frame]:
    """Return what `map` returns as the generator that it is, which can be closed."""
    return cast("Generator[Frame]", sharpen.map(frames, in_flight=in_flight))


def hanging() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sharpen")]


@pytest.mark.parametrize("in_flight", [1, 2, 3, None])
def test_map_yields_what_one_by_one_gives_in_order(network: Network, provider: Provider, in_flight: int | None) -> None:
    frames = [noise_rgb(33, 47, seed) for seed in range(12)]
    sharpen = Sharpener(network.path, provider, threads=1)
    done = list(sharpen.map(frames, in_flight=in_flight))
    assert len(done) == len(frames)
    for one, frame in zip(done, frames, strict=True):
        assert (one == sharpen(frame)).all()
        assert not np.shares_memory(one, frame)
    assert len({one.tobytes() for one in done}) == len(frames)
    assert sharpen.choice == Choice(provider, 1, {})
    assert hanging() == []


@pytest.mark.parametrize("pixel_format", get_args(PixelFormat))
def test_map_takes_every_pixel_format_and_mixed_sizes(quartered: Network, pixel_format: PixelFormat) -> None:
    sizes = [(18, 30), (64, 48), (2, 2), (18, 30), (30, 18), (6, 10), (20, 32), (64, 48)] * 2
    frames = [frame_of(pixel_format, height, width, seed) for seed, (height, width) in enumerate(sizes)]
    sharpen = Sharpener(quartered.path, "onnxruntime", threads=1)
    for one, frame in zip(sharpen.map(iter(frames), pixel_format, in_flight=2), frames, strict=True):
        assert (one == sharpen(frame, pixel_format)).all()


@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_map_answers_a_repeated_frame_by_the_last_result(halved: Network, in_flight: int) -> None:
    """The caller may use up a result before it asks for the next."""
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    seeds = [1, 1, 1, 2, 1, 1, 3, 3]
    for seed, one in zip(
        seeds, sharpen.map([noise_rgb(18, 30, seed) for seed in seeds], in_flight=in_flight), strict=True
    ):
        assert (one == sharpen(noise_rgb(18, 30, seed))).all()
        one[:] = 0
    assert sharpen.repeated == 4


def test_map_does_not_take_a_frame_that_differs_in_one_pixel_for_the_last(halved: Network) -> None:
    sharpen, frame = Sharpener(halved.path, "onnxruntime", threads=1), noise_rgb(18, 30)
    other = frame.copy()
    other[7, 11, 1] ^= 128
    one, two = sharpen.map([frame, other], in_flight=2)
    assert (two == sharpen(other)).all() and (one != two).any()
    assert sharpen.repeated == 0


def test_map_uses_the_strength(halved: Network) -> None:
    sharpen = Sharpener(halved.path, "onnxruntime", 1, strength=0)
    frames = [noise_rgb(18, 30, seed) for seed in range(4)]
    assert all((one == frame).all() for one, frame in zip(sharpen.map(frames), frames, strict=True))


def test_map_of_fewer_frames_than_are_in_flight(halved: Network) -> None:
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    assert list(sharpen.map([], in_flight=3)) == []
    (one,) = sharpen.map([noise_rgb(18, 30)], in_flight=3)
    assert (one == sharpen(noise_rgb(18, 30))).all()


@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_map_takes_little_ahead_of_an_endless_video(halved: Network, in_flight: int) -> None:
    taken = yielded = most_ahead = 0

    def endless() -> Iterator[Frame]:
        nonlocal taken, most_ahead
        for seed in itertools.count():
            taken += 1
            most_ahead = max(most_ahead, taken - yielded)
            yield noise_rgb(18, 30, seed)

    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    with closing(mapped(sharpen, endless(), in_flight)) as video:
        assert taken == 0  # nothing before the first is asked for
        for seed, one in enumerate(itertools.islice(video, 20)):
            yielded += 1
            assert (one == sharpen(noise_rgb(18, 30, seed))).all()
    assert most_ahead == in_flight + 3
    assert hanging() == []


@pytest.mark.parametrize("good", [0, 1, 5])
def test_an_error_in_the_video_reaches_the_caller(halved: Network, good: int) -> None:
    def video() -> Iterator[Frame]:
        yield from (noise_rgb(18, 30, seed) for seed in range(good))
        raise ZeroDivisionError("a broken file")

    sharpen, done = Sharpener(halved.path, "onnxruntime", threads=1), []
    with pytest.raises(ZeroDivisionError, match="a broken file"):  # noqa: PT012  # what came before it counts too
        for one in sharpen.map(video(), in_flight=2):
            done.append(one)  # noqa: PERF402  # a list would be lost with the error
    assert hanging() == []
    assert good - 4 <= len(done) <= good
    for seed, one in enumerate(done):
        assert (one == sharpen(noise_rgb(18, 30, seed))).all()


@pytest.mark.parametrize("good", [0, 1, 5])
def test_a_bad_frame_in_the_video_reaches_the_caller(halved: Network, good: int) -> None:
    bad = np.zeros((18, 30), np.uint8)
    video: list[Frame] = [*(noise_rgb(18, 30, seed) for seed in range(good)), bad, noise_rgb(18, 30)]
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    assert "(18, 30)" in text_of(lambda: list(sharpen.map(video, in_flight=2)))
    assert hanging() == []


def test_an_error_while_sharpening_reaches_the_caller_in_its_turn(
    halved: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runtime._Variant.sharpen

    def sometimes(
        variant: runtime._Variant,
        frame: Frame,
        pixel_format: PixelFormat,
        strength: float,
        look: Look,
        out: Frame,
        choice: int,
    ) -> None:
        if frame[0, 0, 0] == 255:
            raise MemoryError("no room")
        real(variant, frame, pixel_format, strength, look, out, choice)

    monkeypatch.setattr(runtime._Variant, "sharpen", sometimes)
    video = [noise_rgb(18, 30, seed, high=200) for seed in range(8)]
    video[3][0, 0] = 255
    done = mapped(Sharpener(halved.path, "onnxruntime", 1), video, 2)
    for frame in video[:3]:
        assert distance(next(done), sharpened_rgb(halved, frame)) <= 1
    with pytest.raises(MemoryError, match="no room"):
        next(done)
    assert hanging() == []


@pytest.mark.parametrize("seen", [0, 1, 5])
def test_stopping_early_leaves_no_threads(halved: Network, seen: int) -> None:
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    video = mapped(sharpen, (noise_rgb(18, 30, seed) for seed in itertools.count()), 3)
    for _ in range(seen):
        next(video)
    video.close()
    assert hanging() == []
    sharpen(noise_rgb(18, 30))  # and is none the worse


@pytest.mark.parametrize("in_flight", [0, -1])
def test_map_needs_at_least_one_frame_in_flight(halved: Network, in_flight: int) -> None:
    sharpen = Sharpener(halved.path, "onnxruntime", threads=1)
    text = text_of(lambda: list(sharpen.map([noise_rgb(18, 30)], in_flight=in_flight)))
    assert text == f"in_flight must be at least 1, not {in_flight}"


# Which network.


def test_the_package_itself_offers_the_sharpener() -> None:
    assert clearcall.Sharpener is Sharpener
    with pytest.raises(AttributeError, match="no attribute 'Softener'"):
        clearcall.Softener  # noqa: B018  # that is the point


def test_a_path_may_be_text(halved: Network) -> None:
    assert find_model(str(halved.path)) == find_model(halved.path) == halved.path


@pytest.mark.parametrize("name", ["gone.onnx", "folder/gone.onnx", "slowest"])
def test_a_model_that_is_not_there_is_named_and_what_could_be_given(
    tmp_path: Path, halved: Network, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "SHIPPED", halved.path.parent)
    text = text_of(lambda: Sharpener(name))
    assert text == (
        f"there is no model {name!r}: give one of student, or an ONNX file that clearcall exported; commands also take "
        "an MLflow URI such as models:/clearcall@champion"
    )


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    assert text_of(lambda: Sharpener(tmp_path)) == f"the model {tmp_path} is a folder: name the ONNX file in it"


def test_a_shipped_network_goes_by_its_name(halved: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "SHIPPED", halved.path.parent)
    assert shipped_models() == ["student"]
    assert find_model("student") == halved.path
    frame = noise_rgb(18, 30)
    named, by_path = (Sharpener(model, "onnxruntime", threads=1)(frame) for model in ("student", halved.path))
    assert (named == by_path).all()


def test_an_mlflow_uri_without_mlflow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    tracking.client.cache_clear()
    try:
        text = text_of(lambda: download_model("models:/clearcall@champion"))
    finally:
        tracking.client.cache_clear()
    assert text == ("models:/clearcall@champion is in MLflow, which is not installed: pip install mlflow onnx")
