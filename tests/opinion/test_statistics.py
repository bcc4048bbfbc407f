"""Formulas against values worked out by hand or by their own definition."""

import numpy as np
import pytest

from clearcall.opinion.statistics import holm, mean_interval, paired_tests, preferences, screen, sign_test, wilson

# Mean 3.6, m2 1.24, m4 5.3872: kurtosis 3.50, within 2 to 4. S = sqrt(12.4 / 9) = 1.17, so that 1 lies below 3.6 - 2 S.
NORMAL = [1, 3, 3, 3, 4, 4, 4, 4, 5, 5]
# Mean 3.3, m2 0.81, m4 2.9217: kurtosis 4.45. S = 0.95: 1 lies below 3.3 - 2 S, but not below 3.3 - sqrt(20) S.
PEAKED = [1, 3, 3, 3, 3, 4, 4, 4, 4, 4]
ALIKE = [3] * 10


def columns(*scores: list[int]) -> "np.typing.NDArray[np.float64]":
    return np.array(scores, np.float64).T


def mirrored(scores: list[int]) -> list[int]:
    return [6 - score for score in scores]


def test_the_interval_is_students() -> None:
    mean = mean_interval([3, 4, 5])  # s = 1, t(0.975, 2) = 4.302653
    assert mean.value == 4 and mean.half_width == pytest.approx(4.302653 / 3**0.5, abs=1e-6)
    assert mean_interval([2, 2]).half_width == 0
    assert mean_interval([4]) == (4, None)


def test_screening_counts_outliers_by_kurtosis() -> None:
    first, *others = screen(columns(NORMAL, mirrored(NORMAL), PEAKED, ALIKE))
    assert first == (1, 1, 4, True)
    assert not any(one.above or one.below or one.rejected for one in others)


def test_a_score_on_the_limit_of_two_deviations_is_outlying() -> None:
    # -2 and 2 beside six of 0: m2 = 1, m4 = 4, kurtosis 4; S = sqrt(8 / 7), below which 2 / S is 1.87: not outlying.
    assert [one.above + one.below for one in screen(columns([1, 5, 3, 3, 3, 3, 3, 3]))] == [0] * 8
    # Sum of squares 20 by six raters: mean 0, deviations -1 (five) and 5: kurtosis 4.2, limit sqrt(20 * 30 / 5) = 11.
    assert [one.above for one in screen(columns([2, 2, 2, 2, 2, 5]))] == [0] * 6


def test_only_outliers_on_both_sides_and_above_five_percent_reject() -> None:
    one_sided = screen(columns(*[NORMAL] * 4))[0]
    assert (one_sided.above, one_sided.below, one_sided.rejected) == (0, 4, False)
    assert not screen(columns(NORMAL, mirrored(NORMAL), *[ALIKE] * 38))[0].rejected  # 2 of 40 are 5 %
    assert screen(columns(NORMAL, mirrored(NORMAL), *[ALIKE] * 37))[0].rejected
    # |2 - 1| / 3 is 0.33, |3 - 2| / 5 is 0.2
    assert not screen(columns(*[NORMAL] * 2, mirrored(NORMAL)))[0].rejected
    assert screen(columns(*[NORMAL] * 3, *[mirrored(NORMAL)] * 2))[0].rejected
    assert screen(columns([3])) == [(0, 0, 1, False)]


def test_holms_correction() -> None:
    # In order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1] and holm([]) == []


def test_wilsons_interval() -> None:
    # z = 1.96: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half width 1.41601 * sqrt(0.016 + 0.0096036) = 0.22658
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 3.841459 / 13.841459), abs=1e-6)
    assert wilson(0, 0) == (0, 1)


def test_the_sign_test_is_binomial() -> None:
    assert sign_test(8, 2) == sign_test(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert sign_test(5, 5) == 1 and sign_test(0, 0) == 1
    assert sign_test(6, 0) == pytest.approx(2 / 64)


def test_paired_tests_are_signed_rank() -> None:
    base = np.full(6, 3.0)
    better = base + np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    first, second, third = paired_tests({"a": base, "b": better, "c": base.copy()})
    assert (first.first, first.second, first.pairs) == ("a", "b", 6)
    assert first.difference == pytest.approx(-0.35)
    assert first.p == pytest.approx(2 / 2**6)  # all of one sign: the rarest of 2^6 cases, twice
    assert first.p_holm == pytest.approx(3 * 2 / 2**6)
    assert (second.p, second.difference) == (1, 0) and third.p == first.p


def test_preferences_count_votes_and_raters() -> None:
    votes = {("a", "b"): {"x": [-1, -1, 1], "y": [-1, 0, 0], "z": [1, -1, 0]}, ("a", "c"): {"x": [0]}}
    first, second = preferences(votes)
    assert first[:6] == ("a", "b", 4, 3, 2, 4 / 6)
    assert (first.low, first.high) == wilson(4, 6)
    assert first.raters == 2 and first.p == pytest.approx(0.5) and first.p_holm == pytest.approx(1)
    assert second.share is None and (second.low, second.high, second.raters, second.p) == (0, 1, 0, 1)
