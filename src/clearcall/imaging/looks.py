"""Looks: natural, or crisp by a mild unsharp mask after the network."""

from typing import Literal

Look = Literal["natural", "crisp"]
DEFAULT_LOOK: Look = "natural"
# Behind a network, an amount of 0.3 gains as much VMAF NEG as training on sharpened targets; above 0.5 it only costs.
CRISP_AMOUNT = 0.3
CRISP_RADIUS_PX = 1.0  # sigma: finer than what the network restores, so that the two do not add up to halos
