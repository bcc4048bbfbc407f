"""Cost of a graph: multiply-accumulates of its convolutions, and trained parameters."""

import math
from pathlib import Path

import onnx

from clearcall.core.errors import UserError
from clearcall.imaging.frame import CHROMA_STRIDE


def count_macs(path: Path, height: int, width: int) -> int:
    """Return the multiply-accumulates of a graph's convolutions for one input of (height, width).

    A convolution has as many as its output has positions times its kernel has values; a transposed one counts the
    positions of its input. All else in these networks is small beside that. Of an If the more expensive branch counts.
    """
    model = onnx.load(path)
    graph = model.graph
    # `rows` and `columns` of an input are those of chroma.
    sides = {"height": height, "width": width, "rows": height // CHROMA_STRIDE, "columns": width // CHROMA_STRIDE}
    for value in graph.input:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in sides:
                size.dim_value = sides[size.dim_param]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")  # its names of sizes would get in the way of numbers
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return _macs(graph, path.name)


def _macs(graph: onnx.GraphProto, name: str) -> int:
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    kernels = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    macs = 0
    for node in graph.node:
        if node.op_type in {"Conv", "ConvTranspose"}:
            positions = shapes.get(node.output[0] if node.op_type == "Conv" else node.input[0], [0])[2:]
            if not positions or not all(positions):
                raise UserError(f"{name}: the size of {node.name} cannot be worked out, nor its cost")
            macs += math.prod(kernels[node.input[1]]) * math.prod(positions)
        macs += max((_macs(branch, name) for branch in _branches(node)), default=0)
    return macs


def _branches(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def count_parameters(path: Path) -> int:
    """Return the number of trained values in a graph: kernels, matrices and biases."""
    return _parameters(onnx.load(path).graph)


def _parameters(graph: onnx.GraphProto) -> int:
    layers = (node for node in graph.node if node.op_type in {"Conv", "ConvTranspose", "Gemm"})
    # The probes that compute global frame statistics are given, not trained.
    names = {name for node in layers for name in node.input[1:] if not name.endswith("probes")}
    own: int = sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.name in names)
    return own + sum(_parameters(branch) for node in graph.node for branch in _branches(node))
