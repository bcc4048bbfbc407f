"""The published networks beside ours, and how they run: 8-bit RGB in, 8-bit RGB out, as ours do.

Without published weights they get random ones: then their speed is theirs and their output is not. Networks for x2 take
a frame of half height and width, which is what a call would send them.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.imaging.frame import Frame, Restore
from clearcall.models.build import known_models
from clearcall.runtime.engines import RUNTIME_ERRORS, Engine, Provider, compile_graph
from clearcall.runtime.graph import Graph, load_graph, shorten

if TYPE_CHECKING:
    from torch import nn

_OPSET = 20


@dataclass(frozen=True)
class Peer:
    """A published network: its file among the students or in `clearcall.models.published`, and what is known of it.

    `layers` maps our names of its layers to those in the published weights.
    """

    name: str
    title: str
    source: str
    published_parameters: str
    scale: int = 1
    arguments: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict, repr=False)


def _distillation(ours: str, theirs: str) -> dict[str, str]:
    """Return the names of the 3x3 layers of a multi-distillation block."""
    return {f"{ours}.layers.{index}": f"{theirs}.c{index + 1}" for index in range(3)} | {f"{ours}.last": f"{theirs}.c4"}


_IMDN_LAYERS = {"stem": "fea_conv", "fuse.0": "c.0", "fuse.2": "LR_conv", "tail.0": "upsampler.0"}
_RTC_LAYERS = {"stem": "model.0", "body.5": "model.1.sub.5", "tail.0": "model.2"}
for _block in range(6):
    _IMDN_LAYERS |= _distillation(f"blocks.{_block}.layers.0", f"IMDB{_block + 1}")
    _IMDN_LAYERS |= {f"blocks.{_block}.layers.1.gate.{i}": f"IMDB{_block + 1}.cca.conv_du.{i}" for i in (0, 2)}
    _IMDN_LAYERS |= {f"blocks.{_block}.layers.2": f"IMDB{_block + 1}.c5"}
for _block in range(5):
    _RTC_LAYERS |= _distillation(f"body.{_block}.layers.0", f"model.1.sub.{_block}")
    _RTC_LAYERS |= {f"body.{_block}.layers.1": f"model.1.sub.{_block}.c5"}
_CLEARSIGHT_LAYERS = {"stem": "fea_conv", "body.6": "lr_conv", "tail.0": "upsampler.0"} | {
    f"body.{block}.{ours}": f"blocks.{block}.{theirs}"
    for block, (ours, theirs) in product(range(6), {"first": "c1", "second": "c2", "fuse": "fuse"}.items())
}
_IMDN = {"channels": 64, "blocks": 6}
_NARROW = {"channels": 32}
PEERS = (
    Peer("imdn", "IMDN x2", "Hui et al. 2019, arXiv 1909.11856", "694 K", 2, _IMDN, _IMDN_LAYERS),
    Peer(
        "clearsight_imdn",
        "clearsight student x2",
        "report of Team ClearSight, 2025",
        "466 K",
        2,
        _IMDN,
        _CLEARSIGHT_LAYERS,
    ),
    Peer("imdn_rtc", "IMDN-RTC x2", "authors of IMDN, challenge AI in RTC", "20 K", 2, layers=_RTC_LAYERS),
    Peer("dncnn_student", "dncnn student", "report of Team Power Rangers, 2025", "57 K", arguments=_NARROW),
    Peer("compact_resnet", "resblocks_x4 student", "report; width assumed by us", "not published", arguments=_NARROW),
    Peer(
        "luminous_student", "luminous student", "notebook of Team Luminous, 2025", "13,571", arguments={"channels": 128}
    ),
    Peer(
        "plain_cnn",
        "gopro_unet / dncnn-code student",
        "report; width of Team Power Rangers' code",
        "11 K",
        arguments=_NARROW,
    ),
)


@dataclass(frozen=True)
class _Upscaling(Graph):
    """A graph whose output is larger than its input."""

    scale: int = 1

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of input and output for an input image of (height, width)."""
        return (1, height, width, 3), (1, self.scale * height, self.scale * width, 3)


def find_weights(folder: Path) -> dict[str, Path]:
    """Return the published weights in a folder by the peer's name: NAME.safetensors or NAME_x2.safetensors.

    Raises UserError if there are none, or one of an unknown name.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give one of published weights as safetensors")
    names = [peer.name for peer in PEERS if peer.layers]
    known = ", ".join(names)
    weights = {path.stem.removesuffix("_x2"): path for path in sorted(folder.glob("*.safetensors"))}
    if not weights:
        raise UserError(f"{folder} holds no safetensors: put published weights there, named {known}")
    for name, path in weights.items():
        if name not in names:
            raise UserError(f"{path}: no published network is called {name}: rename it to one of {known}, or remove it")
    return weights


def build_peer(peer: Peer, weights: Path | None = None) -> "nn.Module":
    """Build a peer with published weights, or random ones, the same each time; one for x2 returns the upscaled image.

    Raises UserError if the weights are not those of its layers.
    """
    import torch  # noqa: PLC0415  # not needed to run one, when memory is measured

    from clearcall.models.published import Enlarging  # noqa: PLC0415

    kind = "students" if peer.name in known_models("students") else "published"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = importlib.import_module(f"clearcall.models.{kind}.{peer.name}").build(**peer.arguments)
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.reset_parameters()  # those to be trained have a last layer of zeros
    if weights:
        _load(model, peer, weights)
    return (Enlarging(model) if kind == "students" and peer.scale > 1 else model).eval()


def _load(model: "nn.Module", peer: Peer, weights: Path) -> None:
    from clearcall.models.weights import load_published  # noqa: PLC0415

    published = load_published(str(weights), sha256_of(weights))
    names = {
        name: f"{peer.layers[layer]}.{kind}" for name in model.state_dict() for layer, _, kind in [name.rpartition(".")]
    }
    try:
        model.load_state_dict({name: published[theirs] for name, theirs in names.items()})
    except KeyError as error:
        raise UserError(f"{weights} holds no {error}: these are not the published weights of {peer.title}") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{weights} does not hold the weights of {peer.title}: {reason}") from None


def export_peer(peer: Peer, path: Path, weights: Path | None = None) -> int:
    """Write a peer as ONNX, with random weights if none are given, and return its number of parameters."""
    import onnx  # noqa: PLC0415  # not needed to run one, when memory is measured

    from clearcall.models.export import export_onnx  # noqa: PLC0415
    from clearcall.models.layers import parameter_count  # noqa: PLC0415

    model = build_peer(peer, weights)
    export_onnx(model, path, _OPSET)
    if peer.scale > 1:
        exported = onnx.load(path)
        _, *sizes, _ = exported.graph.output[0].type.tensor_type.shape.dim
        for size, name in zip(sizes, ("enlarged_height", "enlarged_width"), strict=True):
            size.dim_param = name  # it was declared as large as the input
        onnx.save(exported, path)
    return parameter_count(model)


class PeerNetwork:
    """An exported peer on one runtime: 8-bit RGB of (height, width, 3) in, `scale` times as large out."""

    def __init__(self, path: Path, scale: int, provider: Provider, threads: int) -> None:
        self._graph = _Upscaling(**vars(load_graph(path)), scale=scale)
        self._provider, self._threads = provider, threads
        self._engines: dict[tuple[int, int], Engine] = {}

    def compile(self, height: int, width: int) -> Engine:
        """Return the graph compiled for one frame size; that of another size is dropped."""
        if (height, width) not in self._engines:
            self._engines = {(height, width): compile_graph(self._graph, self._provider, height, width, self._threads)}
        return self._engines[height, width]

    def __call__(self, frame: Frame) -> Frame:
        """Restore one frame."""
        engine = self.compile(*frame.shape[:2])
        np.copyto(engine.input[0], frame)
        try:
            engine.run()
        except RUNTIME_ERRORS as error:  # above all too little memory
            raise UserError(f"{self._provider} cannot run {self._graph.name}: {shorten(error)}") from None
        restored: Frame = engine.output[0].copy()
        return restored


def open_peer(path: Path, scale: int, provider: Provider, threads: int, frames: Sequence[Frame]) -> Restore:
    """Return what makes an 8-bit RGB frame of (height, width, 3), as large as the `frames`, on one runtime."""
    network = PeerNetwork(path, scale, provider, threads)
    network.compile(*(side // scale for side in frames[0].shape[:2]))
    return fed_small(network, scale, frames)


def fed_small(network: Restore, scale: int, frames: Sequence[Frame]) -> Restore:
    """Return a network for timing: one that upscales gets every `scale`-th pixel of `frames`, in turns."""
    if scale == 1:
        return network
    inputs = cycle([np.ascontiguousarray(frame[::scale, ::scale]) for frame in frames])
    return lambda _frame: network(next(inputs))
