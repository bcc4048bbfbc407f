"""Choose experts for a video: by what is known of it, and a change needs frames that agree, or detail would pump."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from clearcall.runtime.graph import IDENTITY, Scores

# A new choice has to be this much more probable than the present one, on the mean of about the last five scores.
_DECAY, _LEAD = 0.8, 0.2
# While the frames agree, one in so many is scored: at 1080p that takes longer than the smallest experts.
_SCORED_EVERY = 4
# By so much a frame that an encoder has had must score higher to be taken for sharp. By the router alone, calls that
# were recorded mostly are; by this, tuned on validation images, some gain and none loses (docs/findings.md).
_IDENTITY_PENALTY = 2.0


def scores_of_coded(scores: Scores, names: Sequence[str], coded: Collection[str]) -> Scores:
    """Return the scores of a frame that an encoder has had: minus infinity of experts that have not learnt from such.

    `names` are those of the choices, `coded` those of the experts that have; without any, all remain.
    """
    if not coded:
        return scores
    allowed = [number == IDENTITY or name in coded for number, name in enumerate(names)]
    found = np.where(allowed, scores, np.float32(-np.inf))
    found[IDENTITY] -= _IDENTITY_PENALTY
    return found


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
