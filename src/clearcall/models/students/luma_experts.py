"""Two networks of `luma_strided`, each for one kind of frames, and a look at the whole frame that says which it is.

What a call sends at a smaller size arrives blurred and gains by sharpening; what it sends whole has the faults of its
codec alone, and sharpening makes them worse. One network for both has to do half of each, though a frame is always
one or the other: two of the same size do more, in the same time, since only one of them is run
(a mixture of experts: Jacobs et al. 1991, "Adaptive mixtures of local experts").
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearcall.models.students import luma_strided
from clearcall.models.students.luma_strided import FrameLook, LumaStrided, is_zone

FIRST = 0  # degradation of the mix


class Gate(FrameLook):
    """Says of a whole frame how sure it is that it is one for the first network.

    A `zone` of [low, high] is of that evidence: below low the frame is the second network's, and up to high what the
    first adds grows to its whole. Without one the border is 0.
    """

    def __init__(self, zone: Sequence[float] | None) -> None:
        super().__init__(numbers=1)
        self.zone = zone
        self.requires_grad_(requires_grad=False)  # it is fitted on whole frames, before the networks

    def evidence(self, grey_levels: Tensor) -> Tensor:
        """Return the logarithm of the odds that luma (N, 1, H, W) in [0, 255] is for the first network, (N, 1)."""
        return self.numbers(self.levels(grey_levels))

    def forward(self, grey_levels: Tensor) -> Tensor:
        """Return how much of what the first network adds each such luma gets, (N, 1) in [0, 1]; 0: the second's."""
        evidence = self.evidence(grey_levels)
        if self.zone is None:
            return (evidence > 0).float()
        low, high = self.zone
        return ((evidence - low) / (high - low)).clamp(0, 1)


class LumaExperts(nn.Module):
    """Two luma networks with a gain for the whole frame each, and a gate that says which one a frame is for.

    The first is for the first degradation of the mix, the second for the second and for sharp frames.
    """

    def __init__(self, first: LumaStrided, second: LumaStrided, gate: Gate) -> None:
        super().__init__()
        self.stride = first.stride
        self.first, self.second, self.gate = first, second, gate

    def evidence(self, picture: Tensor) -> Tensor:
        """Return how sure the gate is that RGB of (N, 3, H, W) in [0, 1] is for the first network, (N,)."""
        return self.gate.evidence(self.first.padded_luma(picture) * 255)[:, 0]

    def forward_features(self, picture: Tensor, degradation: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels, H / stride, W / stride).

        `degradation`, (N,), says by number which of the mix each picture has been through, -1 of a sharp one, where
        that is known: in training. Otherwise the gate says it.
        """
        height, width = picture.shape[-2:]
        luma = self.first.padded_luma(picture)
        share = self.gate(luma * 255)[:, 0] if degradation is None else (degradation == FIRST).float()
        answers = [
            expert.sub_pixels(luma[chosen]) for expert, chosen in ((self.first, share > 0), (self.second, share == 0))
        ]
        # Back into the order in which they came.
        order = torch.cat([(share > 0).nonzero()[:, 0], (share == 0).nonzero()[:, 0]]).argsort()
        sub_pixels, features = (torch.cat(parts)[order] for parts in zip(*answers, strict=True))
        sub_pixels = sub_pixels * torch.where(share == 0, 1.0, share)[:, None, None, None]
        residual = nn.functional.pixel_shuffle(sub_pixels, self.stride)
        return picture + residual[..., :height, :width], features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of shape (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


def build(
    channels: int,
    body_layers: int,
    stride: int = 2,
    expansion: int = 0,
    gate_zone: list[float] | None = None,
    dead_zone: list[float] | None = None,
) -> LumaExperts:
    """Build two networks of `luma_strided` from the width, layers and stride of each, and their gate.

    `gate_zone` and `dead_zone`, that of the second network, are found after training (`distill_student.dead_zone`).
    """
    if gate_zone is not None and not is_zone(gate_zone):
        raise ValueError("gate_zone must be [low, high], 0 <= low < high")
    first, second = (
        luma_strided.build(channels, body_layers, stride, expansion, frame_gain=True, dead_zone=zone)
        for zone in (None, dead_zone)
    )
    return LumaExperts(first, second, Gate(gate_zone))
