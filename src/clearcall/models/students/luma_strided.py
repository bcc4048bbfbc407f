"""A tiny network that predicts what is missing from the luma, at a half or a quarter of height and width.

The eye and SSIM alike see detail in luma; the chroma of a call is coarse anyway. The same luma residual is added to
R, G and B, which changes Y and leaves Cb and Cr as they are, without a round trip through 8-bit YCbCr.

Two such networks, each for one kind of frames, do more than one for both, in hardly more time, since a look at the
whole frame says which one is run (a mixture of experts: Jacobs et al. 1991, "Adaptive mixtures of local experts"): what
a call sends at a smaller size arrives blurred and gains by sharpening; what it sends whole has the faults of its codec
alone, and sharpening makes them worse.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from clearcall.models import CollapsibleConv, detail_, pad_to_multiple, zero_

# ITU-R BT.601's weights of R, G and B in the fixed point that OpenCV uses: 32768 is one.
LUMA_WEIGHTS, LUMA_ONE = (9798.0, 19235.0, 3735.0), 32768.0
# Smaller frames are continued by their last rows and columns; it is a multiple of all strides.
SMALLEST_SIDE = 8


class FrameLook(nn.Module):
    """Numbers for a whole frame: a perceptron of how much detail its luma has in each of six frequency bands.

    Seen through a few pixels, a soft edge of a sharp frame and a blurred edge look alike; but a blurred frame has
    nothing in its highest bands anywhere, however many edges it has. At each pixel the look costs next to nothing.
    """

    probes: Tensor
    norms: Tensor

    BANDS, HIDDEN = 6, 16
    # Enlarged pictures repeat themselves every 2, 3 or 17 pixels, with which these steps have no factor in common.
    # Some thousand places are enough to know a frame; a patch in training has not so many and is looked at closely.
    STEP, TRAINING_STEP = 11, 5

    def __init__(self, numbers: int) -> None:
        super().__init__()
        across = torch.stack([_band(number, self.BANDS) for number in range(1, self.BANDS + 1)])
        self.register_buffer("norms", across.square().sum(dim=1), persistent=False)
        middle = torch.zeros(self.BANDS + 1, 1)
        middle[self.BANDS // 2] = 1
        probes = across[:, None, None, :] * middle
        self.register_buffer("probes", torch.cat([probes, probes.mT]), persistent=False)
        self.first, self.last = nn.Linear(self.BANDS, self.HIDDEN), nn.Linear(self.HIDDEN, numbers)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def levels(self, grey_levels: Tensor) -> Tensor:
        """Return the logarithm of each band's mean energy, (N, 6) in squared grey levels, of luma (N, 1, H, W)."""
        step = self.TRAINING_STEP if self.training else self.STEP
        energy = nn.functional.conv2d(grey_levels, self.probes, stride=step).float().square().mean(dim=(2, 3))
        across, down = energy.chunk(2, dim=1)
        # Rounding to whole grey levels leaves 1/12 in each; what is far below that tells nothing.
        return torch.log((across + down) / self.norms + 0.05)

    def numbers(self, levels: Tensor) -> Tensor:
        """Return what the perceptron makes of levels, (N, numbers): untrained, 0."""
        numbers: Tensor = self.last(self.hidden(levels))
        return numbers

    def hidden(self, levels: Tensor) -> Tensor:
        """Return what the perceptron's hidden units make of levels, (N, HIDDEN)."""
        lowest, higher = levels[:, :1], levels[:, 1:]
        # Against the lowest band contrast does not count; the offsets bring usual values near 0.
        return torch.tanh(self.first(torch.cat([lowest - 5, higher - lowest + 3], dim=1)))


class FrameGain(FrameLook):
    """Two gains for a whole frame: what a luma network gets and what it gives are multiplied by them.

    Together they decide how much is added and, since the network's biases stay as they are, from which contrast on.

    A `dead_zone` of [low, high] leaves a frame alone whose input's gain, which a frame in need has high, is below low;
    up to high, what is added grows to its whole.
    """

    def __init__(self, dead_zone: Sequence[float] | None = None) -> None:
        super().__init__(numbers=2)
        self.dead_zone = dead_zone

    def forward(self, levels: Tensor) -> Tensor:
        """Return the gains of input and output, (N, 2), each in [0, 2), of frames of such `levels`, (N, 6)."""
        gains = 2 * torch.sigmoid(self.numbers(levels))
        if self.dead_zone is None:
            return gains
        low, high = self.dead_zone
        before, after = gains[:, :1], gains[:, 1:]
        return torch.cat([before, after * ((before - low) / (high - low)).clamp(0, 1)], dim=1)


def _band(number: int, count: int) -> Tensor:
    """Return the taps of filter `number` of `count`, from low to high frequencies: (1 - z)^number (1 + z)^(rest).

    Small whole numbers that sum to zero: on whole grey levels they are exact even in bf16, and blind to brightness.
    """
    taps = np.poly([1.0] * number + [-1.0] * (count - number)).round()
    return torch.tensor(taps, dtype=torch.float32)


class LumaStrided(nn.Module):
    """A strided stem that reaches two pixels beyond its block, 3x3 layers, a 1x1 layer to the sub-pixels, a shuffle.

    `frame_gain`, if there is one, says how much each frame needs.
    """

    luma_weights: Tensor

    def __init__(
        self, channels: int, body_layers: int, stride: int, expansion: int, frame_gain: FrameGain | None
    ) -> None:
        super().__init__()
        self.stride = stride
        self.frame_gain = frame_gain
        self.register_buffer("luma_weights", torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1), persistent=False)

        def conv(in_channels: int, size: int, step: int, padding: int) -> nn.Conv2d | CollapsibleConv:
            if expansion:
                return CollapsibleConv(in_channels, channels, size, width=expansion, stride=step, padding=padding)
            return nn.Conv2d(in_channels, channels, size, step, padding)

        stem = conv(1, stride + 4, stride, 2)
        detail_(stem.expand if isinstance(stem, CollapsibleConv) else stem)
        layers: list[nn.Module] = [stem, nn.LeakyReLU(0.1, inplace=True)]
        for _ in range(body_layers):
            layers += [conv(channels, 3, 1, 1), nn.LeakyReLU(0.1, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.tail = zero_(nn.Conv2d(channels, stride**2, 1))

    def luma(self, picture: Tensor) -> Tensor:
        """Return the luma of RGB in [0, 1] as (N, 1, H, W) in [0, 1], in whole grey levels, as 8-bit video has it.

        The same as OpenCV's conversion of an 8-bit frame, so that training sees what the runtime will feed.
        """
        grey_levels = (picture * 255).round()
        weighted = (grey_levels * self.luma_weights).sum(1, keepdim=True)
        return ((weighted + LUMA_ONE / 2) / LUMA_ONE).floor() / 255

    def sub_pixels(self, luma: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to add to luma of (N, 1, H, W) in [0, 1], before the shuffle, and the last feature maps.

        They are (N, stride^2, H / stride, W / stride) and (N, channels, H / stride, W / stride); H and W are multiples
        of the stride, at least `SMALLEST_SIDE`.
        """
        if self.frame_gain is None:
            features = self.body(luma)
            return self.tail(features), features
        before, after = self.frame_gain(self.frame_gain.levels(luma * 255)).T[..., None, None, None]
        features = self.body(luma * before)
        return self.tail(features) * after, features

    def input_gain(self, picture: Tensor) -> Tensor:
        """Return what the luma of each picture, RGB of (N, 3, H, W) in [0, 1], is multiplied by, (N,)."""
        if self.frame_gain is None:
            raise ValueError("there is no look at the frame without frame_gain")
        gains: Tensor = self.frame_gain(self.frame_gain.levels(self.padded_luma(picture) * 255))
        return gains[:, 0]

    def padded_luma(self, picture: Tensor) -> Tensor:
        """Return the luma of RGB, both in [0, 1], continued until its sides suit the network."""
        luma = pad_to_multiple(self.luma(picture), self.stride)
        below, beside = (max(0, SMALLEST_SIDE - side) for side in luma.shape[-2:])
        return nn.functional.pad(luma, (0, beside, 0, below), mode="replicate") if below or beside else luma

    def forward_features(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels, H / stride, W / stride)."""
        height, width = picture.shape[-2:]
        sub_pixels, features = self.sub_pixels(self.padded_luma(picture))
        residual = nn.functional.pixel_shuffle(sub_pixels, self.stride)
        return picture + residual[..., :height, :width], features

    def forward(self, picture: Tensor) -> Tensor:
        """Restore RGB of shape (N, 3, H, W) in [0, 1]."""
        return self.forward_features(picture)[0]


class FrameGate(FrameLook):
    """Says of a whole frame how sure it is that it is one for the first network.

    Its evidence is the mean of several perceptrons', each with hidden units of its own: one alone is sure of frames
    unlike any that it was fitted on, and of other ones with each seed.

    A `zone` of [low, high] is of that evidence: below low the frame is the second network's, and up to high what the
    first adds grows to its whole. Without one the border is 0.
    """

    MEMBERS = 8
    HIDDEN = 16 * MEMBERS

    def __init__(self, zone: Sequence[float] | None) -> None:
        super().__init__(numbers=1)
        self.zone = zone
        self.requires_grad_(requires_grad=False)  # it is fitted on whole frames, before the networks

    def forward(self, levels: Tensor) -> Tensor:
        """Return how much of what the first network adds frames of such `levels`, (N, 6), get: (N, 1) in [0, 1].

        Where it is 0, the second network's is added.
        """
        evidence = self.numbers(levels)
        if self.zone is None:
            return (evidence > 0).float()
        low, high = self.zone
        return ((evidence - low) / (high - low)).clamp(0, 1)

    def numbers(self, levels: Tensor) -> Tensor:
        """Return the evidence in levels, (N, 1): the mean of `opinions`, by one product."""
        return nn.functional.linear(self.hidden(levels), self.last.weight / self.MEMBERS, self.last.bias)

    def opinions(self, levels: Tensor) -> Tensor:
        """Return the evidence that each perceptron finds in levels, (N, MEMBERS)."""
        weighted = self.hidden(levels) * self.last.weight
        return weighted.view(-1, self.MEMBERS, self.HIDDEN // self.MEMBERS).sum(dim=2) + self.last.bias


class LumaExperts(nn.Module):
    """Two luma networks and a gate that says which one a frame is for.

    The first is for the first degradation of the mix, the second for the second and for sharp frames.
    """

    def __init__(self, first: LumaStrided, second: LumaStrided, gate: FrameGate) -> None:
        super().__init__()
        self.stride = first.stride
        self.first, self.second, self.gate = first, second, gate

    @torch.no_grad()
    def amplify(self, first: float, second: float) -> None:
        """Make what each network adds so many times what it was."""
        for expert, factor in ((self.first, first), (self.second, second)):
            for value in expert.tail.parameters():
                value.mul_(factor)

    def look(self, picture: Tensor) -> Tensor:
        """Return what the gate goes by, (N, 6), of RGB (N, 3, H, W) in [0, 1]."""
        return self.gate.levels(self.first.padded_luma(picture) * 255)

    def opinions(self, looks: Tensor) -> Tensor:
        """Return what each of the gate's perceptrons takes for `evidence`, (N, several)."""
        return self.gate.opinions(looks)

    def evidence(self, looks: Tensor) -> Tensor:
        """Return the logarithm of the odds that pictures of such looks are for the first network, (N,)."""
        return self.gate.numbers(looks)[:, 0]

    def forward_features(self, picture: Tensor, degradation: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the restored picture and the last feature maps, (N, channels, H / stride, W / stride).

        `degradation`, (N,), says by number which of the mix each picture has been through, -1 of a sharp one, where
        that is known: in training. Otherwise the gate says it.
        """
        height, width = picture.shape[-2:]
        luma = self.first.padded_luma(picture)
        share = self.gate(self.gate.levels(luma * 255))[:, 0] if degradation is None else (degradation == 0).float()
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
    *,
    frame_gain: bool = False,
    dead_zone: list[float] | None = None,
    experts: bool = False,
    gate_zone: list[float] | None = None,
) -> LumaStrided | LumaExperts:
    """Build the student from its width, the number of 3x3 layers between stem and tail, and the stem's stride.

    With an `expansion` above 0 each layer is trained as wide as that and collapsed at export; with `frame_gain` a look
    at the whole frame says how much it needs, and that it needs nothing below a `dead_zone`. With `experts` there are
    two of it, one for each of the mix's two degradations, and a gate with its `gate_zone`. Both zones are found after
    training (`distill_student.dead_zone`).
    """
    if channels < 1 or body_layers < 0 or expansion < 0:
        raise ValueError("channels must be at least 1, body_layers and expansion at least 0")
    if stride not in {2, 4}:
        raise ValueError("stride must be 2 or 4")
    if dead_zone is not None and not (frame_gain and not experts and _is_zone(dead_zone)):
        raise ValueError("dead_zone must be [low, high], 0 <= low < high, and needs frame_gain without experts")
    if gate_zone is not None and not (experts and _is_zone(gate_zone)):
        raise ValueError("gate_zone must be [low, high], 0 <= low < high, and needs experts")

    def network() -> LumaStrided:
        return LumaStrided(channels, body_layers, stride, expansion, FrameGain(dead_zone) if frame_gain else None)

    return LumaExperts(network(), network(), FrameGate(gate_zone)) if experts else network()


def _is_zone(zone: Sequence[float]) -> bool:
    return len(zone) == 2 and 0 <= zone[0] < zone[1]  # noqa: PLR2004  # low, high
