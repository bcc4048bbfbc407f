"""Which expert the frames of one video get: it changes only when several agree, or brightness of detail would pump."""

import numpy as np

from clearcall.deploy.engines import Scores

# A new choice has to be this much more probable than the present one, on the mean of about the last five frames.
_DECAY, _LEAD = 0.8, 0.2


class SteadyChoice:
    """Turns the router's scores of one frame after another into choices; one object for one video."""

    def __init__(self) -> None:
        self._mean: Scores | None = None
        self._choice = 0

    def choose(self, scores: Scores) -> int:
        """Return the number of the choice for the next frame, by its scores, (choices,), and those before it."""
        odds = np.exp(scores - scores.max())
        odds /= odds.sum()
        if self._mean is None:
            self._mean, self._choice = odds, int(odds.argmax())
            return self._choice
        self._mean = _DECAY * self._mean + (1 - _DECAY) * odds
        best = int(self._mean.argmax())
        if self._mean[best] - self._mean[self._choice] > _LEAD:
            self._choice = best
        return self._choice
