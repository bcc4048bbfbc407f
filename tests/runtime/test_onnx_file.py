"""ONNX files read without ONNX: the same metadata, no data outside the file, and no way to a tensor that is missed."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED
from clearcall.runtime import graph as onnx_file
from clearcall.runtime.graph import CODED_KEY, COLOURED_KEY, EXPERTS_KEY, KIND_KEY, STRIDE_KEY, read_metadata
from clearcall.runtime.sharpener import Sharpener

NAMES = {
    "ModelProto": "model",
    "GraphProto": "graph",
    "NodeProto": "node",
    "AttributeProto": "attribute",
    "TensorProto": "tensor",
    "SparseTensorProto": "sparse",
    "FunctionProto": "function",
    "TrainingInfoProto": "training",
}


def external(name: str = "c", location: str = "secret.bin") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def in_attribute(**fields: Any) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Constant", attribute=[onnx.AttributeProto(name="value", **fields)])


def leads_outside(message: Any) -> bool:
    """Return whether any tensor of a message keeps data elsewhere, by protobuf's own description of its fields."""
    if isinstance(message, TensorProto) and (message.external_data or message.data_location):
        return True
    for field, value in message.ListFields():
        if field.message_type is not None:
            inside = value if field.is_repeated else [value]
            if any(leads_outside(one) for one in inside):
                return True
    return False


# Each puts an external tensor into a graph, or a graph into another.
TENSOR_INTO_GRAPH = {
    "initializer": lambda tensor: onnx.GraphProto(initializer=[tensor]),
    "attribute": lambda tensor: onnx.GraphProto(node=[in_attribute(t=tensor)]),
    "attributes": lambda tensor: onnx.GraphProto(node=[in_attribute(tensors=[TensorProto(), tensor])]),
    "sparse values": lambda tensor: onnx.GraphProto(sparse_initializer=[onnx.SparseTensorProto(values=tensor)]),
    "sparse indices": lambda tensor: onnx.GraphProto(sparse_initializer=[onnx.SparseTensorProto(indices=tensor)]),
    "sparse attribute": lambda tensor: onnx.GraphProto(
        node=[in_attribute(sparse_tensor=onnx.SparseTensorProto(values=tensor))]
    ),
    "sparse attributes": lambda tensor: onnx.GraphProto(
        node=[in_attribute(sparse_tensors=[onnx.SparseTensorProto(indices=tensor)])]
    ),
}
GRAPH_INTO_GRAPH = {
    "branch": lambda graph: onnx.GraphProto(node=[in_attribute(g=graph)]),
    "branches": lambda graph: onnx.GraphProto(node=[in_attribute(graphs=[onnx.GraphProto(), graph])]),
}
GRAPH_INTO_MODEL = {
    "graph": lambda graph: onnx.ModelProto(graph=graph),
    "function": lambda graph: onnx.ModelProto(functions=[onnx.FunctionProto(node=graph.node)]),
    "default of a function": lambda graph: onnx.ModelProto(
        functions=[onnx.FunctionProto(attribute_proto=[onnx.AttributeProto(g=graph)])]
    ),
    "training": lambda graph: onnx.ModelProto(training_info=[onnx.TrainingInfoProto(algorithm=graph)]),
    "initial training": lambda graph: onnx.ModelProto(training_info=[onnx.TrainingInfoProto(initialization=graph)]),
}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.onnx")), ids=lambda path: path.stem)
def test_metadata_are_those_that_onnx_reads(path: Path) -> None:
    expected = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert read_metadata(path.read_bytes()) == expected
    assert expected.keys() - {COLOURED_KEY} == {KIND_KEY, STRIDE_KEY, EXPERTS_KEY, CODED_KEY}


@given(
    st.sampled_from(sorted(TENSOR_INTO_GRAPH)),
    st.lists(st.sampled_from(sorted(GRAPH_INTO_GRAPH)), max_size=4),
    st.sampled_from(sorted(GRAPH_INTO_MODEL)),
    st.sampled_from(["in the file", "outside"]),
)
def test_data_outside_the_file_are_found_wherever_they_are(
    tensor_into: str, nested: list[str], into_model: str, place: str
) -> None:
    tensor = external() if place == "outside" else numpy_helper.from_array(np.zeros(16, np.float32), "c")
    graph = TENSOR_INTO_GRAPH[tensor_into](tensor)
    for into in nested:
        graph = GRAPH_INTO_GRAPH[into](graph)
    model = GRAPH_INTO_MODEL[into_model](graph)
    if leads_outside(model):
        assert place == "outside"
        with pytest.raises(ValueError, match="outside the file"):
            read_metadata(model.SerializeToString())
    else:  # a function has nodes alone, so that an initializer was left behind
        assert read_metadata(model.SerializeToString()) == {}


def test_no_way_to_a_tensor_is_missed() -> None:
    """By protobuf's own description of the messages, of whichever release of ONNX is installed."""
    found, waiting = {}, [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        inside = {field.number: field.message_type for field in message.fields if field.message_type is not None}
        found[message.name] = {number: kind.name for number, kind in inside.items()}
        waiting += [kind for kind in inside.values() if kind.name not in found]
    reaching = {"TensorProto"}
    while more := {name for name, inside in found.items() if reaching & {*inside.values()}} - reaching:
        reaching |= more
    ways = {
        NAMES[name]: {number: NAMES[kind] for number, kind in found[name].items() if kind in reaching}
        for name in reaching
    }
    assert ways == onnx_file._INSIDE
    fields = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert (fields["external_data"], fields["data_location"]) == (13, 14)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with suppress(ValueError):
        read_metadata(content)


@given(st.data())
def test_no_change_of_some_bytes_hides_data_outside_the_file(data: st.DataObject) -> None:
    model = GRAPH_INTO_MODEL["graph"](GRAPH_INTO_GRAPH["branch"](TENSOR_INTO_GRAPH["attribute"](external())))
    content = bytearray(model.SerializeToString())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    model = onnx.ModelProto()
    # What is read before an error counts too, though neither runtime would go on with it.
    with suppress(Exception):
        model.ParseFromString(bytes(content))
    if leads_outside(model):
        with pytest.raises(ValueError, match="it "):
            read_metadata(bytes(content))


def test_a_file_of_countless_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_MAX_FIELDS", 1000)
    content = b"\x08\x01" * 1000
    assert read_metadata(content) == {}
    with pytest.raises(ValueError, match="more than 1000 fields"):
        read_metadata(content + b"\x08\x01")


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def test_a_deep_graph_is_read_without_recursion() -> None:
    content = b""
    for _ in range(2000):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # graph of an attribute of a node of a graph
            content = tag + _varint(len(content)) + content
    assert read_metadata(b"\x3a" + _varint(len(content)) + content) == {}


def test_a_file_in_the_current_folder_reaches_no_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model adds what the file holds to the frame, which onnxruntime does if it is let."""
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["luma", "one"], ["levels"]),
            helper.make_node("Slice", ["c", "first", "second"], ["number"]),
            helper.make_node("Add", ["levels", "number"], ["sum"]),
            helper.make_node("QuantizeLinear", ["sum", "one", "zero"], ["sub_pixels"]),
        ],
        "g",
        [helper.make_tensor_value_info("luma", TensorProto.UINT8, (1, 1, "height", "width"))],
        [helper.make_tensor_value_info("sub_pixels", TensorProto.UINT8, (1, 1, "height", "width"))],
        [
            external(),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(np.array(0, np.uint8), "zero"),
            numpy_helper.from_array(np.array([0]), "first"),
            numpy_helper.from_array(np.array([1]), "second"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {KIND_KEY: "luma", STRIDE_KEY: "1"})
    path, frame = tmp_path / "leak.onnx", np.zeros((8, 8), np.uint8)
    path.write_bytes(model.SerializeToString())
    (tmp_path / "secret.bin").write_bytes(np.full(16, 42, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)

    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert (session.run(None, {"luma": frame[None, None]})[0] == 42).all()
    with pytest.raises(UserError, match=r"leak\.onnx is not .*data outside the file: save it as one file"):
        Sharpener(path, "onnxruntime", 1)
