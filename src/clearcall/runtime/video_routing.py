"""Choose experts for a video: a change needs several frames that agree, or detail would pump."""

from collections.abc import Callable

import numpy as np

from clearcall.runtime.graph import Scores

# A new choice has to be this much more probable than the present one, on the mean of about the last five scores.
_DECAY, _LEAD = 0.8, 0.2
# While the frames agree, one in so many is scored: at 1080p that takes longer than the smallest experts.
_SCORED_EVERY = 4


class SteadyChoice:
    """Turns the router's scores of a video's frames into choices; one object a video."""

    def __init__(self) -> None:
        self._mean: Scores | None = None
        self._choice = self._unscored = 0

    def choose(self, score: Callable[[], Scores]) -> int:
        """Return the choice for the next frame; `score` is called only for frames that are scored."""
        if self._unscored:
            self._unscored -= 1
            return self._choice
        scores = score()
        odds = np.exp(scores - scores.max())
        odds /= odds.sum()
        self._mean = odds if self._mean is None else _DECAY * self._mean + (1 - _DECAY) * odds
        best = int(self._mean.argmax())
        if self._mean is odds or self._mean[best] - self._mean[self._choice] > _LEAD:
            self._choice = best
        if best == self._choice == int(odds.argmax()):
            self._unscored = _SCORED_EVERY - 1
        return self._choice
