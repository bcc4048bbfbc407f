"""An ONNX file's metadata, read from its bytes: nothing is run, and data outside the file is refused.

The numbers are those of the fields in ONNX's onnx.proto, in protobuf's wire format.
"""

from collections.abc import Iterator
from typing import Literal

_Message = Literal["model", "graph", "node", "attribute", "tensor", "sparse", "function", "training"]
# The fields through which a model reaches its tensors.
_INSIDE: dict[_Message, dict[int, _Message]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "tensor": {},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
_METADATA, _KEY, _VALUE = 14, 1, 2  # of a model, and of each entry
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups, which ONNX has not, are refused
_MAX_VARINT_BYTES = 10
_MAX_FIELD = 2**29 - 1
_MAX_FIELDS = 2_000_000  # a second or two in Python; the largest networks here have some ten thousand


def read_metadata(onnx: bytes) -> dict[str, str]:
    """Return the metadata of a model; raise ValueError if it is malformed or keeps data outside the file."""
    metadata: dict[str, str] = {}
    waiting: list[tuple[_Message, memoryview]] = [("model", memoryview(onnx))]
    count = 0
    while waiting:
        kind, message = waiting.pop()
        for number, value in _fields(message):
            count += 1
            if count > _MAX_FIELDS:
                raise ValueError(f"it has more than {_MAX_FIELDS} fields")
            if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
                raise ValueError("it keeps data outside the file: save it as one file, without external data")
            if not isinstance(value, memoryview):
                continue
            if number in _INSIDE[kind]:
                waiting.append((_INSIDE[kind][number], value))
            elif kind == "model" and number == _METADATA:
                entry = dict(_fields(value))
                key, text = (entry.get(field, b"") for field in (_KEY, _VALUE))
                if isinstance(key, int) or isinstance(text, int):
                    raise ValueError("its metadata is not text")
                metadata[str(key, "utf-8")] = str(text, "utf-8")
    return metadata


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD:
            raise ValueError(f"it has a field of number {number}")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in {_FIXED64, _FIXED32}:
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"it has a field of wire type {wire}")
        if length > len(message) - at:
            raise ValueError("it is truncated")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the integer at a position, and the position after it."""
    value = 0
    for index, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 127) << 7 * index
        if byte < 128:  # noqa: PLR2004  # the top bit says that more follow
            return value, at + index + 1
    raise ValueError("it is truncated")
