"""Luma networks as experts for degradations, and a router that picks one for each frame.

A tiny network is a bad generalist and a good specialist; run one at a time, specialists cost what one network costs (a
mixture of experts with hard routing: Jacobs et al. 1991, "Adaptive mixtures of local experts"). The first choice is
always the identity: a frame that no expert improves is returned as it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from clearcall.imaging.sizes import SMALLEST_SIDE
from clearcall.models.build import build_model
from clearcall.models.students.luma_strided import LumaStrided

IDENTITY = "identity"


class Router(nn.Module):
    """Scores the identity and each expert for a frame, by the power spectra of its lines.

    What a frame has been through shows in how its detail falls off with frequency. Spectra are means over windows of 32
    pixels, one every 17 pixels in both directions: of all windows, of the textured and of the plain ones, since codecs
    take the detail of plain parts first. By which filter a frame was upscaled shows in how differences of neighbours
    vary from pixel to pixel with the period of the factor (Popescu and Farid 2005, "Exposing digital forgeries by
    detecting traces of resampling").
    """

    across_probes: Tensor
    down_probes: Tensor
    mean: Tensor
    deviation: Tensor

    TAPS, STEP_PX, HIDDEN = SMALLEST_SIDE, 17, 64
    BANDS = TAPS // 2
    # Power in the lowest bands at which a window counts as half textured, half plain.
    TEXTURES = (100.0, 10_000.0)
    PERIODS, ORDERS = (2, 3), (1, 2)  # in pixels; of differences
    NUMBERS = 2 * BANDS + 1 + len(TEXTURES) * (2 * BANDS + 1) + len(PERIODS) * len(ORDERS)
    # Rounding to 8-bit levels leaves a power of 1/12 in each band: what is far below that tells nothing.
    _FLOOR = 0.025
    _LOW_BANDS = 4
    _TINY = 1e-6

    def __init__(self, choices: int) -> None:
        super().__init__()
        probes = _probes(self.TAPS)
        self.register_buffer("across_probes", probes, persistent=False)
        self.register_buffer("down_probes", probes.mT.contiguous(), persistent=False)
        self.register_buffer("mean", torch.zeros(self.NUMBERS))
        self.register_buffer("deviation", torch.ones(self.NUMBERS))
        self.first, self.last = nn.Linear(self.NUMBERS, self.HIDDEN), nn.Linear(self.HIDDEN, choices)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.requires_grad_(requires_grad=False)  # it is fitted by itself, after the experts

    def spectrum(self, luma_levels: Tensor) -> Tensor:
        """Return the router's features (N, NUMBERS) of luma (N, 1, H, W) in 8-bit levels: logarithms and shares.

        In this order: how far each band is from the level, which is the mean of the lowest bands; the level; how
        unevenly the windows share each band's power; for each texture the spectrum of textured windows against that of
        all, the spectrum of plain windows against the level, and the share of textured windows; by how much the squared
        differences vary within each period, for each order.
        """
        power = torch.cat([self._power(luma_levels, probes) for probes in (self.across_probes, self.down_probes)], 2)
        energy = power[:, : self._LOW_BANDS].sum(dim=1, keepdim=True)
        weights = [torch.ones_like(energy), *(energy / (energy + texture) for texture in self.TEXTURES)]
        weight = torch.cat(weights, dim=1)
        share = weight.mean(dim=2)
        means = power @ weight.mT / power.shape[2]
        bands = self._log(means[..., 0])
        level = bands[:, : self._LOW_BANDS].mean(dim=1, keepdim=True)
        amplitude = power.sqrt().mean(dim=2)
        numbers = [bands - level, level, bands - 2 * torch.log(amplitude + math.sqrt(self._FLOOR))]
        for index in range(1, len(weights)):
            of = share[:, index : index + 1]
            textured = means[..., index] / (of + self._TINY)
            plain = (means[..., 0] - means[..., index]) / (1 - of + self._TINY)
            numbers += [self._log(textured) - bands, self._log(plain) - level, of]
        rows, columns = luma_levels[:, :, :: self.STEP_PX], luma_levels[..., :: self.STEP_PX].mT
        numbers.append((self._variations(rows) + self._variations(columns)) / 2)
        return torch.cat(numbers, dim=1)

    def _variations(self, lines: Tensor) -> Tensor:
        """Return how squared differences along lines (N, 1, count, length) vary within each period, as logarithms."""
        ranges, differences = [], lines
        for _ in self.ORDERS:
            differences = differences[..., 1:] - differences[..., :-1]
            squares = differences.square().mean(dim=(1, 2))
            for period in self.PERIODS:
                means = [squares[:, phase::period].mean(dim=1) for phase in range(period)]
                logs = self._log(torch.stack(means, dim=1))
                ranges.append(logs.amax(dim=1) - logs.amin(dim=1))
        return torch.stack(ranges, dim=1)

    def _power(self, luma_levels: Tensor, probes: Tensor) -> Tensor:
        """Return the power of each band in each window along the rows or columns, (N, BANDS, windows)."""
        waves = nn.functional.conv2d(luma_levels, probes, stride=self.STEP_PX).square()
        cosine, sine = waves.chunk(2, dim=1)
        return (cosine + sine).flatten(2)

    def _log(self, power: Tensor) -> Tensor:
        return torch.log(power.clamp(min=0) + self._FLOOR)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Return a score for each choice, (N, choices), of spectra (N, NUMBERS): the highest is the best."""
        hidden = nn.functional.gelu(self.first((spectrum - self.mean) / self.deviation), approximate="tanh")
        scores: Tensor = self.last(hidden)
        return scores


def _probes(taps: int) -> Tensor:
    """Return Hann-windowed cosines, then sines, of 1 to taps / 2 waves, (taps, 1, 1, taps), blind to brightness."""
    place = torch.arange(taps, dtype=torch.float64)
    window = torch.sin(math.pi * (place + 1) / (taps + 1)) ** 2
    turns = 2 * math.pi * place * torch.arange(1, taps // 2 + 1, dtype=torch.float64)[:, None] / taps
    waves = torch.cat([turns.cos(), turns.sin()]) * window
    waves -= window * waves.sum(dim=1, keepdim=True) / window.sum()
    return (waves / window.square().sum().sqrt()).float()[:, None, None, :]


class Routed(nn.Module):
    """Experts by name and the router that chooses between them and the identity.

    `coded` names the experts that have learnt from what encoders leave of a frame.
    """

    def __init__(self, experts: Mapping[str, LumaStrided], coded: Sequence[str] = ()) -> None:
        super().__init__()
        self.names, self.coded = (IDENTITY, *experts), tuple(coded)
        self.experts = nn.ModuleList(experts.values())
        self.router = Router(len(self.names))
        self.stride = next(iter(experts.values())).stride

    @property
    def coloured(self) -> tuple[str, ...]:
        """The names of the experts that restore chroma too."""
        return tuple(name for name, one in zip(self.names[1:], self.experts, strict=True) if one.colour)

    def luma(self, image: Tensor) -> Tensor:
        """Return the luma of RGB, both in [0, 1], in 8-bit levels, (N, 1, H, W)."""
        luma: Tensor = self.experts[0].luma(image)  # type: ignore[operator]  # a list hides methods
        return luma

    def padded_luma(self, image: Tensor) -> Tensor:
        """Return the luma of RGB, both in [0, 1], padded to the size contract of all experts and the router."""
        luma: Tensor = self.experts[0].padded_luma(image)  # type: ignore[operator]  # a list hides methods
        return luma

    def scores(self, image: Tensor) -> Tensor:
        """Return the router's scores, (N, names), of RGB (N, 3, H, W) in [0, 1]."""
        scores: Tensor = self.router(self.router.spectrum(self.padded_luma(image) * 255))
        return scores

    def forward(self, image: Tensor) -> Tensor:
        """Restore RGB of (N, 3, H, W) in [0, 1]."""
        choices = self.scores(image).argmax(dim=1).tolist()
        return torch.cat([self.restore_by(choice, one[None]) for choice, one in zip(choices, image, strict=True)])

    def restore_by(self, choice: int, image: Tensor) -> Tensor:
        """Restore RGB (N, 3, H, W) in [0, 1] by one of `names`, whatever the router says."""
        restored: Tensor = self.experts[choice - 1](image) if choice else image
        return restored


def build(experts: dict[str, dict[str, Any]], coded: Sequence[str] = ()) -> Routed:
    """Build the student from the arguments of each expert (those of `luma_strided`), by name.

    All experts have one stride, which says how frames are padded. `coded` names those that learn from encoders.
    """
    if not experts or IDENTITY in experts:
        raise ValueError(f"experts must name at least one, and none {IDENTITY!r}, which is always there")
    built = {
        name: cast(LumaStrided, build_model("students", "luma_strided", arguments))
        for name, arguments in experts.items()
    }
    if len(strides := {expert.stride for expert in built.values()}) > 1:
        raise ValueError(f"all experts must have one stride, not {sorted(strides)}")
    if unknown := set(coded) - experts.keys():
        raise ValueError(f"coded names {sorted(unknown)}, which are none of the experts")
    return Routed(built, coded)
