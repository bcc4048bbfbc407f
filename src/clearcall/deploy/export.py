"""Export to ONNX, 8-bit in and out, any even size, always followed by a comparison with torch.

Two kinds of graph, told apart by the metadata entry `clearcall.kind`:

- `luma`: `luma` uint8 (1, 1, H, W) to `sub_pixels` uint8 (1, stride^2, H / stride, W / stride): what to add to luma,
  plus 128, before the pixel shuffle (channel `row * stride + column` of a block). Sides are at least 8.
- `rgb`: `frame` uint8 (1, H, W, 3) to `restored` uint8 (1, H, W, 3).

`clearcall.stride` says what height and width must be multiples of; the sharpener pads and crops.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from clearcall.deploy.engines import KIND_KEY, SMALLEST_SIDE, STRIDE_KEY, Kind
from clearcall.errors import UserError
from clearcall.files import atomic_path
from clearcall.metrics import Frame
from clearcall.models import collapsed
from clearcall.models.inference import restore
from clearcall.models.students.luma_strided import FrameLook, LumaExperts, LumaStrided
from clearcall.sharpener import Sharpener

_LARGEST_SIDE = 16384
_IR_VERSION = 10  # of ONNX files: as torch writes them


class _LumaCore(nn.Module):
    """What a luma student does at each pixel: luma in [0, 1] to residual sub-pixels, without gains for the frame."""

    def __init__(self, student: LumaStrided) -> None:
        super().__init__()
        self.body, self.tail = student.body, student.tail

    def forward(self, luma: Tensor) -> Tensor:
        residual: Tensor = self.tail(self.body(luma))
        return residual


class _Levels(nn.Module):
    """What a look at the whole frame sees: luma in [0, 255] to levels."""

    def __init__(self, look: FrameLook) -> None:
        super().__init__()
        self.look = look

    def forward(self, grey_levels: Tensor) -> Tensor:
        return self.look.levels(grey_levels)


def export_onnx(model: nn.Module, path: Path, opset: int) -> None:
    """Write a network in evaluation mode to `path` as one self-contained graph of dynamic height and width."""
    model = collapsed(model)
    shapes: tuple[tuple[int | str, ...], tuple[int | str, ...]]
    stride = int(model.stride)  # type: ignore[arg-type]  # every network has it
    kind: Kind = "luma" if isinstance(model, LumaStrided | LumaExperts) else "rgb"
    if kind == "luma":
        names = ("luma", "sub_pixels")
        shapes = (1, 1, "height", "width"), (1, stride**2, "rows", "columns")
    else:
        names = ("frame", "restored")
        shapes = (1, "height", "width", 3), (1, "height", "width", 3)
    scale = numpy_helper.from_array(np.array(1 / 255, np.float32), "grey_level")
    zero = numpy_helper.from_array(np.array(128 if kind == "luma" else 0, np.uint8), "zero")
    if isinstance(model, LumaStrided):
        part = _luma_part(model, opset)
    elif isinstance(model, LumaExperts):
        part = _experts_part(model, opset, names[1], shapes[1])
    else:
        part = _rgb_part(model, opset)
    graph = helper.make_graph(
        part.nodes,
        "clearcall",
        [helper.make_tensor_value_info(names[0], TensorProto.UINT8, shapes[0])],
        [helper.make_tensor_value_info(names[1], TensorProto.UINT8, shapes[1])],
        [*part.constants, scale, zero],
    )
    exported = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION)
    helper.set_model_props(exported, {KIND_KEY: kind, STRIDE_KEY: str(stride)})
    onnx.checker.check_model(exported, full_check=True)
    with atomic_path(path) as temporary:
        onnx.save(exported, temporary)


@dataclass(frozen=True)
class _Part:
    """Nodes of a graph and the constants that they need."""

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]


def _rgb_part(model: nn.Module, opset: int) -> _Part:
    """Return an RGB network from `frame` to `restored`."""
    core = _frame_graph(model, 3, int(model.stride), opset, "core/")  # type: ignore[arg-type]  # every network has it
    nodes = [
        helper.make_node("Transpose", ["frame"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["planes", "grey_level"], [core.input[0].name]),
        *core.node,
        helper.make_node("QuantizeLinear", [core.output[0].name, "grey_level", "zero"], ["restored_planes"]),
        helper.make_node("Transpose", ["restored_planes"], ["restored"], perm=[0, 2, 3, 1]),
    ]
    return _Part(nodes, [*core.initializer])


def _luma_part(student: LumaStrided, opset: int) -> _Part:
    """Return a luma network from `luma` to `sub_pixels`."""
    network = _network_part(student, opset, "sub_pixels")
    if student.frame_gain is None:
        return network
    look = _look_part(student.frame_gain, opset)
    return _Part([*look.nodes, *network.nodes], [*look.constants, *network.constants])


def _experts_part(model: LumaExperts, opset: int, output: str, shape: tuple[int | str, ...]) -> _Part:
    """Return two luma networks of which the gate lets one be run; all three go by one look."""
    look, gate = _look_part(model.gate, opset), _levels_graph(model.gate, opset, "gate/")
    branches = {}
    for name, expert, share in (("first", model.first, "share"), ("second", model.second, None)):
        part = _network_part(expert, opset, f"{name}/sub_pixels", f"{name}/", share)
        info = helper.make_tensor_value_info(f"{name}/sub_pixels", TensorProto.UINT8, shape)
        branches[name] = helper.make_graph(part.nodes, name, [], [info], part.constants)
    nodes = [
        *look.nodes,
        *gate.node,
        helper.make_node("Reshape", [gate.output[0].name, "gate/single"], ["share"]),
        helper.make_node("Greater", ["share", "gate/nothing"], ["for_first"]),
        helper.make_node("If", ["for_first"], [output], then_branch=branches["first"], else_branch=branches["second"]),
    ]
    constants = _arrays({"single": np.array([1], np.int64), "nothing": np.zeros(1, np.float32)}, "gate/")
    return _Part(nodes, [*look.constants, *gate.initializer, *constants])


def _look_part(look: FrameLook, opset: int) -> _Part:
    """Return a look at the whole frame from `luma` to `levels`."""
    graph = _frame_graph(_Levels(look), 1, SMALLEST_SIDE, opset, "look/")
    nodes = [
        helper.make_node("DequantizeLinear", ["luma", "look/one"], [graph.input[0].name]),
        *graph.node,
        helper.make_node("Identity", [graph.output[0].name], ["levels"]),
    ]
    return _Part(nodes, [*graph.initializer, *_arrays({"one": np.array(1, np.float32)}, "look/")])


def _network_part(student: LumaStrided, opset: int, output: str, prefix: str = "", share: str | None = None) -> _Part:
    """Return a luma network from `luma`, and `levels` if it goes by them, to `output`, all names between with a prefix.

    `share` is the name of a number that what it gives is multiplied by. One pass each way: (de)quantising scales,
    rounds half to even, clips and casts. The shuffle is the sharpener's.

    The input's gain for the whole frame is part of the scale from 8 bits, which costs nothing. The output's has a pass
    of its own: as part of the scale to 8 bits, which is free in onnxruntime, it made OpenVINO a third slower.
    """
    core = _frame_graph(_LumaCore(student), 1, student.stride, opset, f"{prefix}core/")
    core_input, core_output = core.input[0].name, core.output[0].name
    constants: dict[str, npt.NDArray[Any]] = {}
    factors = [share] if share else []

    def node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output])

    def own(name: str) -> str:
        return prefix + name

    if student.frame_gain is None:
        nodes = [node("DequantizeLinear", ["luma", "grey_level"], core_input), *core.node]
        initializers = [*core.initializer]
    else:
        gain = _levels_graph(student.frame_gain, opset, own("gain/"))
        lengths = np.array([1, 1], np.int64)
        constants = {"one_each": lengths, "single": lengths[:1]}
        nodes = [
            *gain.node,
            helper.make_node(
                "Split", [gain.output[0].name, own("one_each")], [own("input_gain"), own("output_gain")], axis=1
            ),
            node("Reshape", [own("input_gain"), own("single")], own("input_factor")),
            node("Reshape", [own("output_gain"), own("single")], own("output_factor")),
            node("Mul", ["grey_level", own("input_factor")], own("input_scale")),
            node("DequantizeLinear", ["luma", own("input_scale")], core_input),
            *core.node,
        ]
        initializers = [*core.initializer, *gain.initializer]
        factors = [own("output_factor"), *factors]
    if len(factors) == 2:  # noqa: PLR2004  # a number times a number, before the picture
        nodes.append(node("Mul", factors, own("factor")))
        factors = [own("factor")]
    residual = core_output
    if factors:
        residual = own("residual")
        nodes.append(node("Mul", [core_output, *factors], residual))
    nodes.append(node("QuantizeLinear", [residual, "grey_level", "zero"], output))
    return _Part(nodes, [*initializers, *_arrays(constants, prefix)])


def _arrays(arrays: dict[str, npt.NDArray[Any]], prefix: str) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, prefix + name) for name, array in arrays.items()]


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


def _frame_graph(core: nn.Module, channels: int, stride: int, opset: int, prefix: str) -> onnx.GraphProto:
    """Export what is done to (1, channels, H, W), H and W multiples of the stride, with torch's exporter."""
    rows = torch.export.Dim("rows", min=2, max=_LARGEST_SIDE // stride)
    columns = torch.export.Dim("columns", min=2, max=_LARGEST_SIDE // stride)
    example = torch.zeros(1, channels, 8 * stride, 12 * stride)
    return _torch_graph(core, example, {2: stride * rows, 3: stride * columns}, opset, prefix)


def _levels_graph(core: FrameLook, opset: int, prefix: str) -> onnx.GraphProto:
    """Export what a network makes of a look at the frame, whose one input is named `levels`."""
    graph = _torch_graph(core, torch.zeros(1, FrameLook.BANDS), {}, opset, prefix)
    for node in graph.node:
        node.input[:] = ["levels" if name == graph.input[0].name else name for name in node.input]
    return graph


def _torch_graph(core: nn.Module, example: Tensor, dynamic: dict[int, Any], opset: int, prefix: str) -> onnx.GraphProto:
    """Export a network of one input with torch's exporter, all names with a prefix."""
    # The exporter tells of optional packages that it does without; none of it concerns a user.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            core.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            opset_version=opset,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    # Names of its own: torch calls an input by the argument's name.
    graph: onnx.GraphProto = onnx.compose.add_prefix(program.model_proto, prefix).graph
    # torch notes at each node where in which file it came from: a graph must not tell of the machine, nor its hash.
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return graph
