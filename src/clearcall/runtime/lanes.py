"""Rewrite OpenVINO graphs so that layers of few channels fill AVX-512 vectors.

With AVX-512 a convolution computes 16 output channels at once, and takes as long for 8. So a layer of up to 8 computes
two neighbouring pixels instead, as if they were twice the channels: its weights, once as they are and once moved by a
pixel, in one kernel. An input of one channel leaves vectors empty too, so a stem gets blocks of 2 x 2 pixels as four
channels. Two stems whose sum goes on, those of luma and of chroma, become one on the channels of both. Networks of 8
channels take about a quarter less time by all this, larger ones gain by their stem alone. Sums come in another order:
computed in bfloat16, a result may differ by an 8-bit level.
"""

from typing import Any

import cv2
import numpy as np

_AVX512 = 256  # CV_CPU_AVX512_SKX of OpenCV, which has no name in Python
_LANES = 16
_FEWEST_COLUMNS = 4  # OpenVINO 2026.4 computes a layer of large steps wrongly where there is but one column of them
_STEM = {"kernel": (6, 6), "strides": (2, 2), "pads_begin": (2, 2), "pads_end": (2, 2), "dilations": (1, 1)}


def has_wide_lanes() -> bool:
    """Return whether the processor has AVX-512: with AVX2's 8 lanes nothing is gained."""
    return bool(cv2.checkHardwareSupport(_AVX512))


def fill_lanes(model: Any) -> None:  # noqa: ANN401  # openvino's, which has no types
    """Rewrite an OpenVINO model of fixed shapes in place, where it pays."""
    from openvino.passes import ConstantFolding, Manager  # noqa: PLC0415  # an optional extra

    folding = Manager()
    # Or biases would be given their shape by what is computed of the layer's, and be known to nobody.
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    for kind, rewrite in (("Convolution", _with_blocks), ("Add", _as_one), ("Convolution", _with_pairs)):
        for node in model.get_ordered_ops():
            if node.get_type_name() == kind and (kind == "Add" or _is_usual(node)):
                rewrite(node)


def _is_usual(layer: Any) -> bool:  # noqa: ANN401
    """Return whether a convolution has batch size 1, constant weights and explicit padding."""
    by_constant = layer.input_value(1).get_node().get_type_name() == "Constant"
    one_image = len(layer.output(0).shape) == 4 and layer.output(0).shape[0] == 1  # noqa: PLR2004  # NCHW
    return by_constant and one_image and layer.get_attributes()["auto_pad"] == "explicit"


def _with_blocks(stem: Any) -> None:  # noqa: ANN401
    """Replace a 6x6 layer of stride 2 on one channel by a 3x3 layer on 2 x 2 blocks."""
    from openvino import opset13 as ops  # noqa: PLC0415  # an optional extra

    weights, shape = stem.input_value(1).get_node().data, stem.get_attributes()
    channels, of_input, *kernel = weights.shape
    told = {"kernel": tuple(kernel), **{name: tuple(shape[name]) for name in _STEM if name != "kernel"}}
    if of_input != 1 or told != _STEM or any(side % 2 for side in stem.input_value(0).shape[2:]):
        return
    by_block = weights.reshape(channels, 3, 2, 3, 2).transpose(0, 2, 4, 1, 3).reshape(channels, 4, 3, 3)
    blocks = ops.space_to_depth(stem.input_value(0), "blocks_first", 2)
    layer = ops.convolution(blocks, np.ascontiguousarray(by_block), [1, 1], [1, 1], [1, 1], [1, 1])
    stem.output(0).replace(layer.output(0))


def _as_one(total: Any) -> None:  # noqa: ANN401
    """Replace the sum of two alike layers, each with a bias, by one on the channels of both."""
    from openvino import opset13 as ops  # noqa: PLC0415  # an optional extra

    layers, biases = [], []
    for term in (total.input_value(0).get_node(), total.input_value(1).get_node()):
        layer = term.input_value(0).get_node() if term.get_type_name() == "Add" else None
        if layer is None or layer.get_type_name() != "Convolution" or not _is_usual(layer):
            return
        weights = layer.input_value(1).get_node().data
        with_bias = _computed_with(layer, weights.shape[0])
        if with_bias is None or len(term.output(0).get_target_inputs()) != 1:
            return
        layers.append(layer)
        biases.append(with_bias[2])
    shapes = [(layer.get_attributes(), layer.input_value(1).get_node().data) for layer in layers]
    (shape, first), (other_shape, second) = shapes
    if shape != other_shape or first.shape[2:] != second.shape[2:]:
        return
    both = ops.concat([layer.input_value(0) for layer in layers], 1)
    steps, padding, dilations = shape["strides"], shape["pads_begin"], shape["dilations"]
    weights = np.concatenate([first, second], axis=1)
    layer = ops.convolution(both, weights, steps, padding, shape["pads_end"], dilations)
    total.output(0).replace(ops.add(layer, biases[0] + biases[1]).output(0))


def _with_pairs(layer: Any) -> None:  # noqa: ANN401
    """Replace a layer, its bias and leaky ReLU by one that computes pairs of pixels."""
    from openvino import opset13 as ops  # noqa: PLC0415  # an optional extra

    weights, shape = layer.input_value(1).get_node().data, layer.get_attributes()
    channels, of_input, height, width = weights.shape
    _, _, rows, columns = layer.output(0).shape
    # A kernel of one column would be twice as wide, half of it zeros.
    pays = 2 * channels <= _LANES and width > 1
    if not pays or columns % 2 or columns < _FEWEST_COLUMNS or tuple(shape["dilations"]) != (1, 1):
        return
    down, step = shape["strides"]
    pair = np.zeros((2 * channels, of_input, height, width + step), weights.dtype)
    pair[:channels, ..., :width] = weights
    pair[channels:, ..., step:] = weights
    padding = shape["pads_begin"], shape["pads_end"]
    last, paired = layer, ops.convolution(layer.input_value(0), pair, [down, 2 * step], *padding, [1, 1])
    # What is computed with the layer, as it is written, has to stay beside it.
    while (after := _computed_with(last, channels)) is not None:
        last, kind, constant = after
        if kind == "Add":
            paired = ops.add(paired, np.concatenate([constant, constant], axis=1))
        else:
            paired = ops.prelu(paired, constant)
    # Channels lie beside each other in memory here, so that none of this moves anything.
    by_pixel = ops.transpose(paired, np.array([0, 2, 3, 1]))
    apart = ops.reshape(by_pixel, np.array([1, rows, columns, channels]), special_zero=False)
    last.output(0).replace(ops.transpose(apart, np.array([0, 3, 1, 2])).output(0))


def _computed_with(node: Any, channels: int) -> tuple[Any, str, Any] | None:  # noqa: ANN401
    """Return the bias or leaky ReLU that is a node's only user, its kind and numbers; else None."""
    users = [user.get_node() for user in node.output(0).get_target_inputs()]
    if len(users) != 1 or users[0].get_type_name() not in {"Add", "PRelu"}:
        return None
    after, kind = users[0], users[0].get_type_name()
    numbers = after.input_value(1).get_node()
    if after.input_value(0).get_node() != node or numbers.get_type_name() != "Constant":
        return None
    fits = tuple(numbers.shape) == (1, channels, 1, 1) if kind == "Add" else numbers.data.size == 1
    return (after, kind, numbers.data) if fits else None
