"""The light unsharp mask that may follow the network."""

import numpy as np

from clearcall.classical import unsharp_mask
from clearcall.errors import UserError
from clearcall.metrics import Frame

_RADIUS = 1.0  # pixels: finer than what the network restores, so that the two do not add up to halos


def check_amount(amount: float) -> float:
    """Return the amount of an unsharp mask; raise UserError unless it is from 0, which is off, to 2."""
    if not 0 <= amount <= 2:  # noqa: PLR2004  # more is no light mask
        raise UserError(f"the amount of the unsharp mask must be from 0 to 2, not {amount}")
    return amount


def unsharp_in_place(luma: Frame, amount: float) -> None:
    """Replace 8-bit luma of (height, width) by itself + amount * (itself - blurred); 0 leaves it as it is."""
    if amount:
        np.copyto(luma, unsharp_mask(luma, _RADIUS, amount))
