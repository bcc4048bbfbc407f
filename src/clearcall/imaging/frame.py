"""8-bit frames, and their BT.601 luma and chroma in OpenCV's fixed point."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
# Whatever turns one frame into a better one of the same form.
Restore = Callable[[Frame], Frame]
# The same, given the name of the degradation; an empty name stands for none.
Contender = Callable[[Frame, str], Frame]

# Weights of R, G and B in luma; 32768 is one.
LUMA_WEIGHTS, LUMA_ONE = (9798.0, 19235.0, 3735.0), 32768.0
# Weights of B - Y in Cb and of R - Y in Cr, with the luma that they are taken from; 16384 is one.
CHROMA_WEIGHTS, CHROMA_LUMA_WEIGHTS, CHROMA_ONE = (9241.0, 11682.0), (4899.0, 9617.0, 1868.0), 16384.0
NEUTRAL = 128  # chroma of grey
CHROMA_PLANES, CHROMA_STRIDE = 2, 2  # Cb and Cr, of half height and width
_BLUE, _RED = (CHROMA_ONE / weight for weight in CHROMA_WEIGHTS)
# What Cb and Cr add to R, to G and to B; to green so that luma stays as it is.
CHROMA_TO_RGB = (
    (0.0, _RED),
    (-_BLUE * LUMA_WEIGHTS[2] / LUMA_WEIGHTS[1], -_RED * LUMA_WEIGHTS[0] / LUMA_WEIGHTS[1]),
    (_BLUE, 0.0),
)
