"""Networks whose layers all do something, and exported graphs with other weights: an export takes seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from clearcall.models.build import Kind, build_model
from clearcall.models.inference import StoredNetwork
from clearcall.models.weights import save_weights
from clearcall.params import Model


@torch.no_grad()
def disturb(model: nn.Module, scale: float, seed: int = 1) -> nn.Module:
    """Add noise to weights and batch statistics, in place; return the network for evaluation, without gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand(buffer.shape, generator=generator))
    return model.eval().requires_grad_(requires_grad=False)


def stored_networks(folder: Path, seed: int = 1) -> dict[str, StoredNetwork]:
    """Write a tiny student and a tiny teacher to a folder."""
    shapes: dict[str, tuple[Kind, Model]] = {
        "student": ("students", Model(name="luma_strided", arguments={"channels": 4, "body_layers": 1})),
        "teacher": ("teachers", Model(name="unshuffle_resnet", arguments={"channels": 4, "blocks": 1, "unshuffle": 2})),
    }
    for name, (kind, model) in shapes.items():
        network = disturb(build_model(kind, model.name, model.arguments), 0.1, seed)
        save_weights(folder / name, kind, model, network.state_dict())
    return {name: StoredNetwork.find(folder / name) for name in shapes}


def with_router_bias(source: Path, bias: Sequence[float], target: Path) -> Path:
    """Copy an exported student of experts, with another bias of its router's scores."""
    model = onnx.load(source)
    (scored,) = (node for node in model.graph.node if list(node.output) == ["scores"])
    (branch,) = (attribute.g for attribute in scored.attribute if attribute.name == "then_branch")
    (tensor,) = (tensor for tensor in branch.initializer if tensor.name == "router/router.last.bias")
    tensor.CopyFrom(numpy_helper.from_array(np.array(bias, np.float32), tensor.name))
    onnx.save(model, target)
    return target
