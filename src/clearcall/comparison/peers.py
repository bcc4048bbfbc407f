"""The published networks that ours are timed beside, and how they run: 8-bit RGB in, 8-bit RGB out, as ours do.

Networks for x2 take a frame of half height and width, which is what a call would send them.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from clearcall.deploy.engines import Graph, Provider, compile_graph, load_graph
from clearcall.metrics import Frame, Restore

_OPSET = 20


@dataclass(frozen=True)
class Peer:
    """A published network: its file in `clearcall.models.peers`, and what is known of it.

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


PEERS = (
    Peer("imdn", "IMDN x2", "Hui et al. 2019, arXiv 1909.11856", "694 K", 2, 35.58, 0.9676),
    Peer("clearsight_imdn", "clearsight student x2", "report of Team ClearSight, 2025", "466 K", 2, 33.03, 0.9527),
    Peer("imdn_rtc", "IMDN-RTC x2", "authors of IMDN, challenge AI in RTC", "20 K", 2, 34.23, 0.9605),
    Peer("dncnn_student", "dncnn student", "report of Team Power Rangers, 2025", "57 K"),
    Peer("compact_resnet", "resblocks_x4 student", "report; width assumed by us", "not published"),
    Peer("luminous_student", "luminous student", "notebook of Team Luminous, 2025", "13,571"),
    Peer("plain_cnn", "gopro_unet / dncnn-code student", "report; width of Team Power Rangers' code", "11 K"),
)


@dataclass(frozen=True)
class _Enlarging(Graph):
    """A graph whose output is larger than its input."""

    scale: int = 1

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of input and output for an input picture of (height, width)."""
        return (1, height, width, 3), (1, self.scale * height, self.scale * width, 3)


def export_peer(peer: Peer, path: Path) -> int:
    """Write a peer with random weights as ONNX and return its number of parameters."""
    import onnx  # noqa: PLC0415  # not needed to run one, when memory is measured
    import torch  # noqa: PLC0415

    from clearcall.deploy.export import export_onnx  # noqa: PLC0415
    from clearcall.models import parameter_count  # noqa: PLC0415

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: torch.nn.Module = importlib.import_module(f"clearcall.models.peers.{peer.name}").build()
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
