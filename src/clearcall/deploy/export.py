"""Export to ONNX, 8-bit in and out, any even size, always followed by a comparison with torch.

Two kinds of graph, told apart by the metadata entry `clearcall.kind`:

- `luma`: `luma` uint8 (1, 1, H, W) to `sub_pixels` uint8 (1, stride^2, H / stride, W / stride): what to add to luma,
  plus 128, before the pixel shuffle (channel `row * stride + column` of a block). Sides are at least 8.
- `rgb`: `frame` uint8 (1, H, W, 3) to `restored` uint8 (1, H, W, 3).

`clearcall.stride` says what height and width must be multiples of; the sharpener pads and crops.
"""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from clearcall.deploy.engines import KIND_KEY, SMALLEST_SIDE, STRIDE_KEY
from clearcall.errors import UserError
from clearcall.files import atomic_path
from clearcall.metrics import Frame
from clearcall.models import collapsed
from clearcall.models.inference import restore
from clearcall.models.students.luma_strided import FrameGain, LumaStrided
from clearcall.sharpener import Sharpener

_LARGEST_SIDE = 16384


class _LumaCore(nn.Module):
    """What a luma student does at each pixel: luma in [0, 1] to residual sub-pixels, without gains for the frame."""

    def __init__(self, student: LumaStrided) -> None:
        super().__init__()
        self.body, self.tail = student.body, student.tail

    def forward(self, luma: Tensor) -> Tensor:
        residual: Tensor = self.tail(self.body(luma))
        return residual


def export_onnx(model: nn.Module, path: Path, opset: int) -> None:
    """Write a network in evaluation mode to `path` as one self-contained graph of dynamic height and width."""
    shapes: tuple[tuple[int | str, ...], tuple[int | str, ...]]
    model = collapsed(model)
    luma = model if isinstance(model, LumaStrided) else None
    stride = int(model.stride)  # type: ignore[arg-type]  # every network has it
    core = _torch_graph(_LumaCore(luma) if luma else model, 1 if luma else 3, stride, opset, "core/")
    graph = core.graph
    core_input, core_output = graph.input[0].name, graph.output[0].name
    scale = numpy_helper.from_array(np.array(1 / 255, np.float32), "grey_level")
    zero = numpy_helper.from_array(np.array(128 if luma else 0, np.uint8), "zero")
    graph.initializer.extend([scale, zero])
    # One pass each way: (de)quantising scales, rounds half to even, clips and casts. The shuffle is the sharpener's.
    if luma:
        if luma.frame_gain is None:
            before = [helper.make_node("DequantizeLinear", ["luma", "grey_level"], [core_input])]
            after = [helper.make_node("QuantizeLinear", [core_output, "grey_level", "zero"], ["sub_pixels"])]
        else:
            before, after = _with_gain(luma.frame_gain, graph, opset)
        names = ("luma", "sub_pixels")
        shapes = (1, 1, "height", "width"), (1, stride**2, "rows", "columns")
    else:
        before = [
            helper.make_node("Transpose", ["frame"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("DequantizeLinear", ["planes", "grey_level"], [core_input]),
        ]
        after = [
            helper.make_node("QuantizeLinear", [core_output, "grey_level", "zero"], ["restored_planes"]),
            helper.make_node("Transpose", ["restored_planes"], ["restored"], perm=[0, 2, 3, 1]),
        ]
        names = ("frame", "restored")
        shapes = (1, "height", "width", 3), (1, "height", "width", 3)
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(names[0], TensorProto.UINT8, shapes[0]))
    graph.output.append(helper.make_tensor_value_info(names[1], TensorProto.UINT8, shapes[1]))
    # torch notes at each node where in which file it came from: a graph must not tell of the machine, nor its hash.
    del core.metadata_props[:], graph.metadata_props[:]
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    helper.set_model_props(core, {KIND_KEY: "luma" if luma else "rgb", STRIDE_KEY: str(stride)})
    onnx.checker.check_model(core, full_check=True)
    with atomic_path(path) as temporary:
        onnx.save(core, temporary)


def _with_gain(
    frame_gain: FrameGain, core: onnx.GraphProto, opset: int
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Return what comes before and after a luma core with gains for the whole frame; their constants join the core's.

    The input's gain is part of the scale from 8 bits, which costs nothing. The output's has a pass of its own: as part
    of the scale to 8 bits, which is free in onnxruntime, it made OpenVINO a third slower.
    """
    gain = _torch_graph(frame_gain, 1, SMALLEST_SIDE, opset, "gain/").graph
    one, lengths = np.array(1, np.float32), np.array([1, 1], np.int64)
    core.initializer.extend(gain.initializer)
    core.initializer.append(numpy_helper.from_array(one, "one"))
    core.initializer.append(numpy_helper.from_array(lengths, "one_each"))
    core.initializer.append(numpy_helper.from_array(lengths[:1], "single"))
    before = [
        helper.make_node("DequantizeLinear", ["luma", "one"], [gain.input[0].name]),
        *gain.node,
        helper.make_node("Split", [gain.output[0].name, "one_each"], ["input_gain", "output_gain"], axis=1),
        helper.make_node("Reshape", ["input_gain", "single"], ["input_factor"]),
        helper.make_node("Reshape", ["output_gain", "single"], ["output_factor"]),
        helper.make_node("Mul", ["grey_level", "input_factor"], ["input_scale"]),
        helper.make_node("DequantizeLinear", ["luma", "input_scale"], [core.input[0].name]),
    ]
    after = [
        helper.make_node("Mul", [core.output[0].name, "output_factor"], ["residual"]),
        helper.make_node("QuantizeLinear", ["residual", "grey_level", "zero"], ["sub_pixels"]),
    ]
    return before, after


def check_parity(model: nn.Module, path: Path, frames: list[Frame], max_difference: int) -> int:
    """Return the largest difference in grey levels between torch and the graph; raise UserError if it is too large."""
    sharpener = Sharpener(path, provider="onnxruntime")
    largest = 0
    for frame in frames:
        difference = np.abs(restore(model, frame).astype(np.int16) - sharpener(frame))
        largest = max(largest, int(difference.max()))
    if largest > max_difference:
        path.unlink()
        raise UserError(
            f"the exported graph differs from torch by {largest} grey levels, more than export_onnx.max_difference = "
            f"{max_difference}; it was removed"
        )
    return largest


def _torch_graph(core: nn.Module, channels: int, stride: int, opset: int, prefix: str) -> onnx.ModelProto:
    """Export a network from (1, channels, H, W) in [0, 1], H and W multiples of the stride, with torch's exporter."""
    example = torch.zeros(1, channels, 8 * stride, 12 * stride)
    rows = torch.export.Dim("rows", min=2, max=_LARGEST_SIDE // stride)
    columns = torch.export.Dim("columns", min=2, max=_LARGEST_SIDE // stride)
    # The exporter tells of optional packages that it does without; none of it concerns a user.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            core.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({2: stride * rows, 3: stride * columns},),
            opset_version=opset,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    # Names of its own: torch calls an input by the argument's name.
    graph: onnx.ModelProto = onnx.compose.add_prefix(program.model_proto, prefix)
    return graph
