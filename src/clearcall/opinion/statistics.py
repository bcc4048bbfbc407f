"""Statistics of votes: mean opinion scores, screening of raters, paired tests, preferences."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
Scores = npt.NDArray[np.float64]
_NORMAL_KURTOSIS = (2.0, 4.0)
_MAX_OUTLIERS, _MAX_ONE_SIDED = 0.05, 0.3


class Mean(NamedTuple):
    """A mean with half the width of its 95 % interval, None for a single value."""

    value: float
    half_width: float | None


class Screened(NamedTuple):
    """How often a rater's scores lie above and below the limits, of how many, and whether the rater is left out."""

    above: int
    below: int
    scores: int
    rejected: bool


class PairedTest(NamedTuple):
    """A paired comparison: mean difference, pairs, p and p after Holm's correction."""

    first: str
    second: str
    difference: float
    pairs: int
    p: float
    p_holm: float


class Preference(NamedTuple):
    """How often the first, none and the second were preferred, and the first's share without ties.

    `low` and `high` bound the share (Wilson, 95 %). `p` is of the sign test over raters, `p_holm` after correction.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    share: float | None
    low: float
    high: float
    raters: int
    p: float
    p_holm: float


def mean_interval(values: Sequence[float] | Scores) -> Mean:
    """Return a mean with its 95 % interval, t(n - 1) * s / sqrt(n), of one value a rater."""
    from scipy.stats import t  # noqa: PLC0415  # takes a second to import

    scores = np.asarray(values, np.float64)
    if len(scores) < 2:  # noqa: PLR2004  # no deviation of one
        return Mean(float(scores.mean()), None)
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(scores) - 1))
    return Mean(float(scores.mean()), quantile * float(scores.std(ddof=1)) / math.sqrt(len(scores)))


def screen(scores: Scores) -> list[Screened]:
    """Screen raters by ITU-R BT.500 (kurtosis, beta2); `scores` is (raters, presentations).

    A score is outlying if it is at least 2 standard deviations (n - 1) from its presentation's mean, or sqrt(20) of
    them if the kurtosis m4 / m2^2 is not within 2 to 4. A rater is left out if more than 5 % of the scores are
    outlying, and they lie on both sides: |above - below| / (above + below) < 0.3. A presentation that all score alike
    has no outliers.
    """
    count = scores.shape[1]
    centred = scores - scores.mean(axis=0)
    variance = np.square(centred).mean(axis=0)
    deviation = scores.std(axis=0, ddof=1) if len(scores) > 1 else np.zeros(count)
    differs = variance > 0
    kurtosis = (centred**4).mean(axis=0) / np.where(differs, np.square(variance), 1)
    is_normal = (kurtosis >= _NORMAL_KURTOSIS[0]) & (kurtosis <= _NORMAL_KURTOSIS[1])
    limit = np.where(is_normal, 2.0, math.sqrt(20)) * deviation
    found = []
    for row in centred:
        above, below = int(((row >= limit) & differs).sum()), int(((row <= -limit) & differs).sum())
        outlying = above + below
        rejected = outlying > _MAX_OUTLIERS * count and abs(above - below) < _MAX_ONE_SIDED * outlying
        found.append(Screened(above, below, count, rejected))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values after Holm's step-down correction (1979), in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson, 1927); 0 to 1 without trials."""
    if not trials:
        return 0.0, 1.0
    z = 1.959964
    share, square = successes / trials, z * z / trials
    centre = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p of the sign test: the binomial test of a half, ties left out; 1 without any."""
    trials = wins + losses
    tail: float = sum(math.comb(trials, k) for k in range(min(wins, losses) + 1)) / 2**trials
    return min(1.0, 2 * tail)


def paired_tests(means: dict[str, Scores]) -> list[PairedTest]:
    """Compare systems by Wilcoxon's signed-rank test on their means, which belong to the same stimuli in one order.

    Zero differences are left out; Holm's correction is over all pairs.
    """
    from scipy.stats import wilcoxon  # noqa: PLC0415

    found = []
    for first, second in combinations(means, 2):
        # Means of the same votes may differ by rounding alone.
        differences = np.round(means[first] - means[second], 9)
        p = float(wilcoxon(differences, zero_method="wilcox").pvalue) if differences.any() else 1.0
        found.append((first, second, float(differences.mean()), len(differences), p))
    return [PairedTest(*one, corrected) for one, corrected in zip(found, holm([one[-1] for one in found]), strict=True)]


def preferences(votes: dict[tuple[str, str], dict[str, list[int]]]) -> list[Preference]:
    """Summarise votes of pairs of systems: by rater, -1 for the first, 0 for none, 1 for the second.

    The sign test is over raters, of whom each counts once, by the sign of the sum: one rater's votes are not
    independent.
    """
    found = []
    for (first, second), by_rater in votes.items():
        scores = [score for given in by_rater.values() for score in given]
        wins, losses = scores.count(-1), scores.count(1)
        sums = [sum(given) for given in by_rater.values()]
        for_first, for_second = sum(one < 0 for one in sums), sum(one > 0 for one in sums)
        share = wins / (wins + losses) if wins + losses else None
        low, high = wilson(wins, wins + losses)
        p = sign_test(for_first, for_second)
        found.append((first, second, wins, scores.count(0), losses, share, low, high, for_first + for_second, p))
    return [Preference(*one, corrected) for one, corrected in zip(found, holm([one[-1] for one in found]), strict=True)]
