"""Export to ONNX, 8-bit in and out, dynamic size; compare with torch.

Two kinds of graph, told apart by the metadata entry `clearcall.kind`:

- `luma`: `luma` uint8 (1, 1, H, W) to `sub_pixels` uint8 (1, stride^2, H / stride, W / stride): what to add to luma,
  plus 128, before the pixel shuffle (channel `row * stride + column` of a block). Sides are at least 32.
  With experts it has one more input and output, see `_routed_part`; `clearcall.experts` then names the choices,
  `clearcall.coded` those that learnt from what encoders leave of a frame.
  `clearcall.coloured` names those that restore chroma too, if there are any (`itself`, of a single network). Then there
  is an input `chroma` uint8 (1, 2, H / 2, W / 2), Cb and Cr, and `sub_pixels` has two planes more at its end: what to
  add to them, plus 128.
- `rgb`: `frame` uint8 (1, H, W, 3) to `restored` uint8 (1, H, W, 3).

`clearcall.stride` says what height and width must be multiples of; the sharpener pads and crops.
"""

import json
import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path
from clearcall.imaging.frame import CHROMA_PLANES, Frame
from clearcall.imaging.sizes import SMALLEST_SIDE
from clearcall.models.inference import restore
from clearcall.models.layers import collapsed, zero_
from clearcall.models.students.luma_strided import LumaStrided
from clearcall.models.students.routed import Routed, Router
from clearcall.runtime.graph import CODED_KEY, COLOURED_KEY, EXPERTS_KEY, ITSELF, KIND_KEY, NOTHING_TO_ADD, STRIDE_KEY
from clearcall.runtime.sharpener import Sharpener

_LARGEST_SIDE = 16384
_IR_VERSION = 10  # of ONNX files: as torch writes them


class _Core(nn.Module):
    """The convolutions of a luma student: luma, maybe chroma, in [0, 1] to sub-pixels.

    With `silent` planes it returns as many zeros more, in place of what others add to chroma.
    """

    def __init__(self, student: LumaStrided, silent: int) -> None:
        super().__init__()
        self.student = student
        self.tail = nn.Conv2d(student.tail.in_channels, student.tail.out_channels + silent, 1)
        zero_(self.tail)
        with torch.no_grad():
            self.tail.weight[: student.tail.out_channels] = student.tail.weight
            if self.tail.bias is not None and student.tail.bias is not None:
                self.tail.bias[: student.tail.out_channels] = student.tail.bias

    def forward(self, luma: Tensor, chroma: Tensor | None = None) -> Tensor:
        residual: Tensor = self.tail(self.student.features(luma, chroma))
        return residual


class _Scores(nn.Module):
    """The router: luma in 8-bit levels to a score for each choice."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router

    def forward(self, luma_levels: Tensor) -> Tensor:
        scores: Tensor = self.router(self.router.spectrum(luma_levels))
        return scores


def export_onnx(model: nn.Module, path: Path, opset: int) -> None:
    """Write a network to `path` as one self-contained graph of dynamic size."""
    model = collapsed(model)
    stride = int(model.stride)  # type: ignore[arg-type]  # every network has it
    properties = {KIND_KEY: "luma", STRIDE_KEY: str(stride)}
    coloured = model.coloured if isinstance(model, Routed) else [ITSELF] * bool(getattr(model, "colour", False))
    planes = stride**2 + (CHROMA_PLANES if coloured else 0)
    inputs = [helper.make_tensor_value_info("luma", TensorProto.UINT8, (1, 1, "height", "width"))]
    if coloured:
        inputs.append(helper.make_tensor_value_info("chroma", TensorProto.UINT8, (1, CHROMA_PLANES, "rows", "columns")))
        properties[COLOURED_KEY] = json.dumps(coloured)
    outputs = [helper.make_tensor_value_info("sub_pixels", TensorProto.UINT8, (1, planes, "rows", "columns"))]
    if isinstance(model, LumaStrided):
        part = _luma_part(model, opset, "sub_pixels")
    elif isinstance(model, Routed):
        part = _routed_part(model, opset, outputs[0])
        inputs.append(helper.make_tensor_value_info("expert", TensorProto.INT64, (1,)))
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, len(model.names))))
        properties |= {EXPERTS_KEY: json.dumps(model.names), CODED_KEY: json.dumps(model.coded)}
    else:
        properties[KIND_KEY] = "rgb"
        part = _rgb_part(model, opset)
        inputs, outputs = (
            [helper.make_tensor_value_info(name, TensorProto.UINT8, (1, "height", "width", 3))]
            for name in ("frame", "restored")
        )
    graph = helper.make_graph(part.nodes, "clearcall", inputs, outputs, part.constants)
    exported = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION)
    helper.set_model_props(exported, properties)
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
    core = _frame_graph(model, {"picture": (3, int(model.stride))}, opset, "core/")  # type: ignore[arg-type]  # every network has it
    nodes = [
        helper.make_node("Transpose", ["frame"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["planes", "level"], [core.input[0].name]),
        *core.node,
        helper.make_node("QuantizeLinear", [core.output[0].name, "level", "zero"], ["restored_planes"]),
        helper.make_node("Transpose", ["restored_planes"], ["restored"], perm=[0, 2, 3, 1]),
    ]
    return _Part(nodes, [*core.initializer, *_arrays(level=np.array(1 / 255, np.float32), zero=np.array(0, np.uint8))])


def _luma_part(student: LumaStrided, opset: int, output: str, prefix: str = "", silent: int = 0) -> _Part:
    """Return a luma network from `luma`, and maybe `chroma`, to `output`; other names are prefixed.

    One pass each way: (de)quantising scales, rounds half to even, clips and casts. The shuffle is the sharpener's.
    """
    taken = {"luma": (1, student.stride)} | ({"chroma": (CHROMA_PLANES, 1)} if student.colour else {})
    core = _frame_graph(_Core(student, silent), taken, opset, f"{prefix}core/")
    level, nothing = f"{prefix}level", f"{prefix}nothing_to_add"
    nodes = [
        *(
            helper.make_node("DequantizeLinear", [name, level], [value.name])
            for name, value in zip(taken, core.input, strict=True)
        ),
        *core.node,
        helper.make_node("QuantizeLinear", [core.output[0].name, level, nothing], [output]),
    ]
    arrays: dict[str, npt.NDArray[Any]] = {level: np.array(1 / 255, np.float32)}
    arrays[nothing] = np.array(NOTHING_TO_ADD, np.uint8)
    return _Part(nodes, [*core.initializer, *_arrays(**arrays)])


def _routed_part(model: Routed, opset: int, sub_pixels: onnx.ValueInfoProto) -> _Part:
    """Return experts and router, from `luma`, `expert` and maybe `chroma` to `sub_pixels` and `scores`.

    `expert`, int64 (1,), is the number of a choice, of which 0 is the identity, or -1: then the router chooses. Where
    it is above 0, the router is not run and the scores are 0: so a caller may score a frame with 0, which costs next to
    nothing else, decide by more than one frame, and then run what it has decided on.
    """
    router = _frame_graph(_Scores(model.router), {"luma_levels": (1, int(model.stride))}, opset, "router/")
    scored = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["luma", "router/one"], [router.input[0].name]),
            *router.node,
            helper.make_node("Identity", [router.output[0].name], ["router/scores"]),
        ],
        "router",
        [],
        [helper.make_tensor_value_info("router/scores", TensorProto.FLOAT, (1, len(model.names)))],
        [*router.initializer, *_arrays(**{"router/one": np.array(1, np.float32)})],
    )
    unscored = helper.make_graph(
        [helper.make_node("Identity", ["unscored/zeros"], ["unscored/scores"])],
        "unscored",
        [],
        [helper.make_tensor_value_info("unscored/scores", TensorProto.FLOAT, (1, len(model.names)))],
        _arrays(**{"unscored/zeros": np.zeros((1, len(model.names)), np.float32)}),
    )
    nodes = [
        helper.make_node("Less", ["expert", "one_more"], ["is_scored"]),
        helper.make_node("If", ["is_scored"], ["scores"], then_branch=scored, else_branch=unscored),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Less", ["expert", "none"], ["is_open"]),
        helper.make_node("Where", ["is_open", "best", "expert"], ["choice"]),
    ]
    # A chain: is it the first? else: is it the second? ... and the identity at its end.
    silent = CHROMA_PLANES if model.coloured else 0
    last = _identity_branch(model.stride, model.stride**2 + silent, sub_pixels)
    for number in reversed(range(1, len(model.names))):
        prefix = f"expert{number}/"
        expert = cast(LumaStrided, model.experts[number - 1])
        part = _luma_part(expert, opset, f"{prefix}sub_pixels", prefix, 0 if expert.colour else silent)
        info = _renamed(sub_pixels, f"{prefix}sub_pixels")
        branch = helper.make_graph(part.nodes, model.names[number], [], [info], part.constants)
        chosen = [
            helper.make_node("Equal", ["choice", f"number{number}"], [f"is{number}"]),
            helper.make_node("If", [f"is{number}"], [f"else{number}"], then_branch=branch, else_branch=last),
        ]
        info = _renamed(sub_pixels, f"else{number}")
        constants = _arrays(**{f"number{number}": np.array([number])})
        last = helper.make_graph(chosen, f"chain{number}", [], [info], constants)
    chain = [*last.node[:-1], last.node[-1]]
    chain[-1].output[:] = [sub_pixels.name]
    bounds = _arrays(one_more=np.array([1]), none=np.array([0]))
    return _Part([*nodes, *chain], [*bounds, *last.initializer])


def _identity_branch(stride: int, planes: int, sub_pixels: onnx.ValueInfoProto) -> onnx.GraphProto:
    """Return the branch that adds nothing: `sub_pixels` of 128."""
    nodes = [
        helper.make_node("Shape", ["luma"], ["identity/shape"]),
        helper.make_node("Div", ["identity/shape", "identity/divisors"], ["identity/divided"]),
        helper.make_node("Mul", ["identity/divided", "identity/factors"], ["identity/sizes"]),
        helper.make_node("Expand", ["identity/nothing", "identity/sizes"], ["identity/sub_pixels"]),
    ]
    arrays = {
        "identity/divisors": np.array([1, 1, stride, stride]),
        "identity/factors": np.array([1, planes, 1, 1]),
        "identity/nothing": np.full((1, 1, 1, 1), NOTHING_TO_ADD, np.uint8),
    }
    return helper.make_graph(nodes, "identity", [], [_renamed(sub_pixels, "identity/sub_pixels")], _arrays(**arrays))


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    renamed = onnx.ValueInfoProto()
    renamed.CopyFrom(value)
    renamed.name = name
    return renamed


def _arrays(**arrays: npt.NDArray[Any]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def expert_weights(model: Routed, experts: Collection[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights of some experts by the names that they have in the exported graph."""
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for number, expert in enumerate(model.experts, 1):
        if model.names[number] not in experts:
            continue
        for name, tensor in expert.state_dict().items():
            inner = name if name.startswith("tail.") else f"student.{name}"
            weights[f"expert{number}/core/{inner}"] = tensor.numpy()
    return weights


def check_parity(model: nn.Module, path: Path, frames: list[Frame], max_difference: int) -> int:
    """Return the largest difference from torch in 8-bit levels; raise UserError if too large."""
    sharpener = Sharpener(path, provider="onnxruntime")
    largest = 0
    for frame in frames:
        difference = np.abs(restore(model, frame).astype(np.int16) - sharpener(frame))
        largest = max(largest, int(difference.max()))
    if largest > max_difference:
        path.unlink()
        raise UserError(
            f"the exported graph differs from torch by {largest} 8-bit levels, more than export_onnx.max_difference = "
            f"{max_difference}; it was removed"
        )
    return largest


def _frame_graph(core: nn.Module, inputs: dict[str, tuple[int, int]], opset: int, prefix: str) -> onnx.GraphProto:
    """Export a network of one frame with torch's exporter, all names prefixed.

    Each of `inputs`, (1, channels, H, W), has a name, its channels, and its resolution as a multiple of the smallest
    input's.
    """
    takes_luma = next(iter(inputs.values()))[0] == 1
    stride = max(step for _, step in inputs.values())
    least = max(2, SMALLEST_SIDE // stride) if takes_luma else 2
    rows = torch.export.Dim("rows", min=least, max=_LARGEST_SIDE // stride)
    columns = torch.export.Dim("columns", min=least, max=_LARGEST_SIDE // stride)
    examples = tuple(torch.zeros(1, channels, 32 * step, 48 * step) for channels, step in inputs.values())
    dynamic = tuple({2: step * rows, 3: step * columns} for _, step in inputs.values())
    # The exporter warns of optional packages that are missing; none of it concerns a user.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            core.eval(),
            examples,
            input_names=list(inputs),
            dynamo=True,
            dynamic_shapes=dynamic,
            opset_version=opset,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    graph: onnx.GraphProto = onnx.compose.add_prefix(program.model_proto, prefix).graph
    # torch notes source files at each node: neither a graph nor its hash may depend on the machine.
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return graph
