"""Layers rewritten for wide vectors compute what they did before, and those for which it does not pay stay."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from clearcall.models.build import build_model
from clearcall.models.export import export_onnx
from clearcall.runtime.engines import compile_graph
from clearcall.runtime.graph import load_graph
from clearcall.runtime.lanes import fill_lanes, has_wide_lanes

ov = pytest.importorskip("openvino")
ops = ov.opset13

Numbers = npt.NDArray[np.float32]


def layer(source: Any, weights: Numbers, strides: tuple[int, int] = (1, 1), padding: tuple[int, int] = (1, 1)) -> Any:
    return ops.convolution(source, weights, [*strides], [*padding], [*padding], [1, 1])


def answer(model: Any, frame: Numbers) -> Numbers:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([frame])[0])


def kernels(model: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the weights of all layers, in their order."""
    layers = (node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    return [tuple(node.input_value(1).get_shape()) for node in layers]


def test_a_pair_of_pixels_is_computed_by_one_kernel() -> None:
    """By hand: [1, 2, 3] over 1, 10, 100, 1000 between zeros."""
    source = ops.parameter([1, 1, 1, 4], np.float32)
    model = ov.Model([layer(source, np.array([[[[1, 2, 3]]]], np.float32), padding=(0, 1))], [source])
    frame = np.array([[[[1, 10, 100, 1000]]]], np.float32)
    fill_lanes(model)
    assert kernels(model) == [(2, 1, 1, 4)]
    assert answer(model, frame).tolist() == [[[[32, 321, 3210, 2100]]]]


@examples(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 8)),
    kernel=st.tuples(st.integers(1, 4), st.integers(2, 4)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    sides=st.tuples(st.integers(5, 8), st.integers(8, 16)),  # or there might be one column, which OpenVINO gets wrong
)
def test_whatever_the_layer_it_computes_what_it_did(
    seed: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int],
    sides: tuple[int, int],
) -> None:
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=(channels[1], channels[0], *kernel)).astype(np.float32)
    bias = draw.normal(size=(1, channels[1], 1, 1)).astype(np.float32)

    def model() -> Any:
        source = ops.parameter([1, channels[0], *sides], np.float32)
        return ov.Model([ops.prelu(ops.add(layer(source, weights, strides, padding), bias), np.float32(0.1))], [source])

    frame, rewritten = draw.normal(size=(1, channels[0], *sides)).astype(np.float32), model()
    fill_lanes(rewritten)
    columns = model().output(0).shape[3]
    in_pairs = columns % 2 == 0 and columns >= 4
    assert kernels(rewritten)[0][0] == (2 if in_pairs else 1) * channels[1]
    np.testing.assert_allclose(answer(rewritten, frame), answer(model(), frame), atol=1e-4)


def test_a_stem_on_one_channel_gets_the_pixels_of_blocks() -> None:
    draw = np.random.default_rng(1)
    weights, frame = (draw.normal(size=shape).astype(np.float32) for shape in ((12, 1, 6, 6), (1, 1, 10, 8)))

    def model() -> Any:
        source = ops.parameter([1, 1, 10, 8], np.float32)
        return ov.Model([layer(source, weights, (2, 2), (2, 2))], [source])

    rewritten = model()
    fill_lanes(rewritten)
    assert kernels(rewritten) == [(12, 4, 3, 3)]
    np.testing.assert_allclose(answer(rewritten, frame), answer(model(), frame), atol=1e-4)


def two_layers_in_sum(biases: int) -> Any:
    """Return the sum of two layers of 16 channels on two inputs, the first so many of them with a bias of 1, 2."""
    sources = [ops.parameter([1, channels, 8, 8], np.float32) for channels in (4, 2)]
    terms = [layer(source, np.full((16, source.shape[1], 3, 3), 1, np.float32)) for source in sources]
    for number in range(biases):
        terms[number] = ops.add(terms[number], np.full((1, 16, 1, 1), number + 1, np.float32))
    return ov.Model([ops.add(*terms)], sources)


def test_two_layers_whose_sum_goes_on_become_one() -> None:
    """By hand: in the middle 9 pixels of 4 channels and of 2, all 1, and biases of 1 and 2, come to 57."""
    model = two_layers_in_sum(biases=2)
    fill_lanes(model)
    assert kernels(model) == [(16, 6, 3, 3)]
    ones = [np.ones((1, channels, 8, 8), np.float32) for channels in (4, 2)]
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.array(compiled(ones)[0])[0, :, 4, 4].tolist() == [57] * 16


def test_two_layers_without_a_bias_each_stay_two() -> None:
    model = two_layers_in_sum(biases=1)
    fill_lanes(model)
    assert kernels(model) == [(16, 4, 3, 3), (16, 2, 3, 3)]


def test_layers_that_fill_the_vectors_and_kernels_of_one_column_stay() -> None:
    source = ops.parameter([1, 9, 6, 6], np.float32)
    full, thin = np.ones((9, 9, 3, 3), np.float32), np.ones((4, 9, 1, 1), np.float32)
    model = ov.Model([layer(layer(source, full), thin, padding=(0, 0))], [source])
    fill_lanes(model)
    assert kernels(model) == [full.shape, thin.shape]


def test_what_is_unusual_stays() -> None:
    """A dilated stem, two images, one dimension, and an odd side that blocks would not fill."""
    stem = np.ones((12, 1, 6, 6), np.float32)
    for shape, weights, dilation in (
        ((1, 1, 16, 16), stem, [2, 2]),
        ((1, 1, 15, 16), stem, [1, 1]),
        ((2, 1, 16, 16), stem, [1, 1]),
        ((1, 2, 9), np.ones((4, 2, 3), np.float32), [1]),
    ):
        source, sides = ops.parameter([*shape], np.float32), len(dilation)
        padding = [weights.shape[-1] // 2 - 1 + sides % 2] * sides
        same = ops.convolution(source, weights, [2 if sides == 2 else 1] * sides, padding, padding, dilation)
        model = ov.Model([same], [source])
        before = model.output(0).shape
        fill_lanes(model)
        assert (kernels(model), model.output(0).shape) == ([weights.shape], before)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux tells what its processor can do")
def test_wide_lanes_are_those_of_avx512() -> None:
    """As the kernel names what OpenCV calls SKX."""
    can = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert has_wide_lanes() == ({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= set(can))


def test_what_else_uses_a_layer_gets_what_it_got() -> None:
    """A bias that only one of two users adds is not the layer's own."""
    draw = np.random.default_rng(2)
    weights, bias, frame = (
        draw.normal(size=shape).astype(np.float32) for shape in ((3, 2, 3, 3), (1, 3, 1, 1), (1, 2, 6, 6))
    )

    def model() -> Any:
        source = ops.parameter([1, 2, 6, 6], np.float32)
        shared = layer(source, weights)
        return ov.Model([ops.multiply(ops.add(shared, bias), shared)], [source])

    rewritten = model()
    fill_lanes(rewritten)
    assert kernels(rewritten) == [(6, 2, 3, 4)]
    np.testing.assert_allclose(answer(rewritten, frame), answer(model(), frame), atol=1e-4)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_student_gives_the_same_with_and_without(
    stride: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whichever processor; in bfloat16 sums in another order may differ by an 8-bit level."""
    student = build_model("students", "luma_strided", {"channels": 8, "body_layers": 2, "stride": stride}).eval()
    for value in student.parameters():
        value.data.normal_(std=0.1)
    export_onnx(student, tmp_path / "student.onnx", 20)
    graph = load_graph(tmp_path / "student.onnx")
    for size in ((48, 64), (50, 62), (8, 8)):
        height, width = (side - side % stride for side in size)
        frame = np.random.default_rng(3).integers(0, 256, (height, width), np.uint8)
        answers = []
        for wide in (True, False):
            monkeypatch.setattr("clearcall.runtime.engines.has_wide_lanes", lambda wide=wide: wide)
            engine = compile_graph(graph, "openvino", height, width, 1)
            engine.input[0, 0] = frame
            engine.run()
            answers.append(engine.output.astype(np.int16))
        assert answers[0].std() > 1
        assert np.abs(answers[0] - answers[1]).max() <= 1
