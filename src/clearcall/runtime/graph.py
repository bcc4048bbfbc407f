"""Read an ONNX file's metadata, or replace its weights; refuse data outside the file.

The numbers are those of the fields in ONNX's onnx.proto, in protobuf's wire format.

A personal model is an .npz file of the weights by which a shipped network was adapted, and of nothing else: `model` is
the network's name, `sha256` that of its ONNX file, the other arrays are float32 and named like the graph's constants.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED
from clearcall.imaging.frame import CHROMA_PLANES
from clearcall.imaging.sizes import SMALLEST_SIDE, SizeContract

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
_NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 8, 9, 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups, which ONNX has not, are refused
_MAX_VARINT_BYTES = 10
_MAX_FIELD = 2**29 - 1
_MAX_FIELDS = 2_000_000  # a second or two in Python; the largest networks here have some ten thousand


Kind = Literal["luma", "rgb"]
Scores = npt.NDArray[np.float32]
IDENTITY = 0  # in place of an expert's number
KIND_KEY, STRIDE_KEY = "clearcall.kind", "clearcall.stride"
EXPERTS_KEY, CODED_KEY, COLOURED_KEY = "clearcall.experts", "clearcall.coded", "clearcall.coloured"
ITSELF = "itself"  # names a single network under COLOURED_KEY
NOTHING_TO_ADD = 128  # in `sub_pixels`
_MAX_STRIDE = 64  # of an RGB network; a luma network's divides SMALLEST_SIDE
_MAX_EXPERTS = 256
_MAX_MODEL_BYTES, _MAX_PERSONAL_BYTES = 2**30, 2**24
PERSONAL = ".npz"
Weights = Mapping[str, npt.NDArray[np.float32]]
_SHORT = 300  # characters of a runtime's message or of a value


def read_metadata(onnx: bytes) -> dict[str, str]:
    """Return a model's metadata; raise ValueError if malformed or with external data."""
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


def with_weights(onnx: bytes, weights: Weights) -> bytes:
    """Return a model with other weights, by the names of its constants; raise ValueError if they do not fit.

    Fewer values than a constant has replace the first ones: chroma's planes come last, and are zero where an expert
    restores luma alone.
    """
    changed, left = bytearray(onnx), dict(weights)
    waiting: list[tuple[_Message, memoryview]] = [("model", memoryview(changed))]
    while waiting:
        kind, message = waiting.pop()
        if kind != "tensor":
            inside = ((_INSIDE[kind].get(number), value) for number, value in _fields(message))
            waiting += [(inner, value) for inner, value in inside if inner and isinstance(value, memoryview)]
            continue
        tensor = dict(_fields(message))
        name, raw = tensor.get(_NAME, b""), tensor.get(_RAW_DATA)
        if isinstance(name, int) or (values := left.pop(str(name, "utf-8"), None)) is None:
            continue
        data = values.astype("<f4").tobytes()
        if not isinstance(raw, memoryview) or len(data) > len(raw):
            raise ValueError(f"{str(name, 'utf-8')} has another size")
        raw[: len(data)] = data
    if left:
        raise ValueError(f"it has no constants {', '.join(sorted(left))}")
    return bytes(changed)


def write_personal(path: Path, model: str, weights: Weights) -> None:
    """Write a personal model: weights that replace those of the shipped network `model`."""
    told = {"model": np.array(model), "sha256": np.array(_sha256_of_shipped(model))}
    np.savez(path, allow_pickle=False, **told, **weights)


def _personal(npz: bytes) -> bytes:
    """Return the network that a personal model makes of a shipped one, as ONNX; raise ValueError if it makes none."""
    with zipfile.ZipFile(io.BytesIO(npz)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MAX_PERSONAL_BYTES:
            raise ValueError("its arrays have more than 16 MiB")
    with np.load(io.BytesIO(npz), allow_pickle=False) as arrays:
        model, sha256 = (str(arrays[name]) for name in ("model", "sha256"))
        weights = {name: arrays[name] for name in arrays.files if name not in {"model", "sha256"}}
    if model not in {one.stem for one in SHIPPED.glob("*.onnx")} or sha256 != _sha256_of_shipped(model):
        raise ValueError(f"it was adapted from another {shorten(model)} than this version of clearcall has")
    if any(one.dtype != np.float32 for one in weights.values()):
        raise ValueError("its weights are not float32")
    return with_weights((SHIPPED / f"{model}.onnx").read_bytes(), weights)


def _sha256_of_shipped(model: str) -> str:
    return hashlib.sha256((SHIPPED / f"{model}.onnx").read_bytes()).hexdigest()


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


@dataclass(frozen=True)
class Graph:
    """An exported network: its bytes as ONNX, and what its metadata says of it."""

    name: str
    onnx: bytes
    kind: Kind
    stride: int
    choices: tuple[str, ...] = ()  # of the router: the identity and each expert; none for a single network
    coded: tuple[str, ...] = ()  # of these, the experts that have learnt from what encoders leave of a frame
    coloured: tuple[str, ...] = ()  # of these, the experts that restore chroma too; ITSELF, if a single network does

    @property
    def contract(self) -> SizeContract:
        """The frame sizes that the graph takes."""
        return SizeContract(self.stride, SMALLEST_SIDE if self.kind == "luma" else 1)

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of input and output for a frame of an allowed size."""
        if self.kind == "rgb":
            return (1, height, width, 3), (1, height, width, 3)
        planes = self.stride**2 + (CHROMA_PLANES if self.coloured else 0)
        return (1, 1, height, width), (1, planes, height // self.stride, width // self.stride)

    def restores_chroma(self, choice: int) -> bool:
        """Return whether a choice by its number, or a single network, restores chroma too."""
        return (self.choices[choice] if self.choices else ITSELF) in self.coloured


def load_graph(path: Path) -> Graph:
    """Read an exported network or a personal model; raise UserError if the file is neither."""
    try:
        if path.stat().st_size > _MAX_MODEL_BYTES:
            raise UserError(f"{path} is larger than 1 GiB: that is no network of clearcall's")
        onnx = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"there is no model file {path}") from None
    try:
        onnx = _personal(onnx) if path.suffix == PERSONAL else onnx
    except Exception as error:  # noqa: BLE001  # zipfile and NumPy raise ten kinds for a corrupt file
        raise UserError(f"{path} is no personal model: {shorten(error)}") from None
    try:
        metadata = read_metadata(onnx)
    except ValueError as error:
        raise UserError(f"{path} is not a network that clearcall exported: {error}") from None
    kind, stride = metadata.get(KIND_KEY, ""), metadata.get(STRIDE_KEY, "")
    if kind not in get_args(Kind) or not _is_stride(stride, kind):
        raise UserError(
            f"{path} is not a network that clearcall exported: its metadata says {KIND_KEY} = {shorten(kind)!r}, "
            f"{STRIDE_KEY} = {shorten(stride)!r}"
        )
    choices, coded, coloured = (
        _names(path, key, metadata.get(key, "")) for key in (EXPERTS_KEY, CODED_KEY, COLOURED_KEY)
    )
    return Graph(path.name, onnx, cast(Kind, kind), int(stride), choices, coded, coloured)


def _names(path: Path, key: str, text: str) -> tuple[str, ...]:
    """Return the names that an entry of a graph's metadata lists."""
    try:
        names = json.loads(text) if text else []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > _MAX_EXPERTS:
            raise ValueError("no list of at most 256 names")  # noqa: TRY301  # the same message as for other damage
    except ValueError as error:
        raise UserError(
            f"{path} is not a network that clearcall exported: its metadata says {key} = {shorten(text)!r} ({error})"
        ) from None
    return tuple(names)


def _is_stride(text: str, kind: str) -> bool:
    known = [stride for stride in range(1, _MAX_STRIDE + 1) if kind == "rgb" or SMALLEST_SIDE % stride == 0]
    return text in map(str, known)


def shorten(said: object) -> str:
    """Return a runtime's message as one short line."""
    line = " ".join(str(said).split())
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}..."
