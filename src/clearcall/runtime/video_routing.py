"""Choose an expert for each frame of a video."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from clearcall.runtime.graph import IDENTITY, Scores

# A new choice has to be this much more probable than the present one, on the mean of about the last five scores.
_DECAY, _LEAD = 0.8, 0.2
# While the frames agree, one in so many is scored: at 1080p that takes longer than the smallest experts.
SCORED_EVERY = 4
# Subtracted from the identity's logit of encoded frames, which are seldom sharp. Tuned on validation, docs/findings.md:
# recorded calls gain up to 0.05 dB, no degradation loses on the mean, and undegraded frames stay untouched.
_IDENTITY_PENALTY = 2.0


def scores_of_coded(scores: Scores, names: Sequence[str], coded: Collection[str]) -> Scores:
    """Return the logits of an encoded frame: minus infinity for experts that were not trained on such frames.

    `names` are the router's choices, `coded` the experts trained on encoded frames; without any, all choices remain.
    """
    if not coded:
        return scores
    allowed = [number == IDENTITY or name in coded for number, name in enumerate(names)]
    found = np.where(allowed, scores, np.float32(-np.inf))
    found[IDENTITY] -= _IDENTITY_PENALTY
    return found


class SteadyChoice:
    """Turns the router's scores of a video's frames into choices; one object a video.

    A change needs several frames that agree, or detail would pump.
    """

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
            self._unscored = SCORED_EVERY - 1
        return self._choice
