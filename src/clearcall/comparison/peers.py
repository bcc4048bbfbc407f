"""The published networks that ours are timed beside, and how they run: 8-bit RGB in, 8-bit RGB out, as ours do.

Their weights are random, so that their speed is theirs and their pictures are not. Networks for x2 take a frame of half
height and width, which is what a call would send them.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearcall.architectures import known_models
from clearcall.deploy.engines import Graph, Provider, compile_graph, load_graph
from clearcall.metrics import Frame, Restore

if TYPE_CHECKING:
    from torch import nn

_OPSET = 20


@dataclass(frozen=True)
class Peer:
    """A published network: its file among the students or in `clearcall.models.peers`, and what is known of it.

    `psnr_db` and `ssim` were measured once, with the published weights, on 41 test photographs under bicubic x2, and
    are quoted here; None: not known.
    """

    name: str
    title: str
    source: str
    published_parameters: str
    scale: int = 1
    psnr_db: float | None = None
    ssim: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


_IMDN = {"channels": 64, "blocks": 6}
_NARROW = {"channels": 32}
PEERS = (
    Peer("imdn", "IMDN x2", "Hui et al. 2019, arXiv 1909.11856", "694 K", 2, 35.58, 0.9676, _IMDN),
    Peer(
        "clearsight_imdn", "clearsight student x2", "report of Team ClearSight, 2025", "466 K", 2, 33.03, 0.9527, _IMDN
    ),
    Peer("imdn_rtc", "IMDN-RTC x2", "authors of IMDN, challenge AI in RTC", "20 K", 2, 34.23, 0.9605),
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
class _Enlarging(Graph):
    """A graph whose output is larger than its input."""

    scale: int = 1

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of input and output for an input picture of (height, width)."""
        return (1, height, width, 3), (1, self.scale * height, self.scale * width, 3)


def build_peer(peer: Peer) -> "nn.Module":
    """Build a peer with random weights in every layer, the same each time; one for x2 returns the enlarged picture."""
    import torch  # noqa: PLC0415  # not needed to run one, when memory is measured

    from clearcall.models.peers import Enlarging  # noqa: PLC0415

    kind = "students" if peer.name in known_models("students") else "peers"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = importlib.import_module(f"clearcall.models.{kind}.{peer.name}").build(**peer.arguments)
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.reset_parameters()  # those to be trained have a last layer of zeros
    return (Enlarging(model) if kind == "students" and peer.scale > 1 else model).eval()


def export_peer(peer: Peer, path: Path) -> int:
    """Write a peer with random weights as ONNX and return its number of parameters."""
    import onnx  # noqa: PLC0415  # not needed to run one, when memory is measured

    from clearcall.deploy.export import export_onnx  # noqa: PLC0415
    from clearcall.models import parameter_count  # noqa: PLC0415

    model = build_peer(peer)
    export_onnx(model, path, _OPSET)
    if peer.scale > 1:
        exported = onnx.load(path)
        _, *sizes, _ = exported.graph.output[0].type.tensor_type.shape.dim
        for size, name in zip(sizes, ("enlarged_height", "enlarged_width"), strict=True):
            size.dim_param = name  # it was declared as large as the input
        onnx.save(exported, path)
    return parameter_count(model)


def open_peer(path: Path, scale: int, provider: Provider, threads: int, frames: Sequence[Frame]) -> Restore:
    """Return what makes an 8-bit RGB frame of (height, width, 3), as large as the `frames`, on one runtime.

    A network that enlarges takes frames of its own, made here: every `scale`-th pixel of `frames`, in turns.
    """
    height, width = (side // scale for side in frames[0].shape[:2])
    graph = load_graph(path)
    engine = compile_graph(_Enlarging(**vars(graph), scale=scale), provider, height, width, threads)
    inputs = cycle([np.ascontiguousarray(frame[::scale, ::scale]) for frame in frames])

    def restore(frame: Frame) -> Frame:
        np.copyto(engine.input[0], next(inputs) if scale > 1 else frame)
        engine.run()
        restored: Frame = engine.output[0].copy()
        return restored

    return restore
