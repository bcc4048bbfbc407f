"""Made-up pages of text."""

import numpy as np
import pytest

from clearcall.data.synthetic import text_page


@pytest.mark.parametrize("seed", range(6))
def test_a_page_is_ink_on_paper(seed: int) -> None:
    page = text_page(200, 301, np.random.default_rng(seed))
    assert page.shape == (200, 301, 3) and page.dtype == np.uint8
    dark = (page < 128).mean()
    assert 0.03 < min(dark, 1 - dark) < 0.5
    assert (page == page[..., :1]).all()


def test_the_same_draws_give_the_same_page_and_others_another() -> None:
    first, again, other = (text_page(64, 80, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
