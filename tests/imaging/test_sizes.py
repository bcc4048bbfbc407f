"""Sizes on the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearcall.core.errors import UserError
from clearcall.imaging.sizes import parse_size


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_size_is_width_and_height_in_even_numbers(width: int, height: int) -> None:
    text = f"{width}x{height}"
    if width % 2 or height % 2 or max(width, height) > 8192:
        with pytest.raises(UserError, match=f"size '{text}': give width x height as even numbers from 2 to 8192"):
            parse_size(text)
    else:
        assert parse_size(text) == (width, height)


@pytest.mark.parametrize(
    "text",
    ["", "1280", "1280x", "x", "axb", "0x2", "-2x2", "1280X720", "1280x720x3", "2x8194", f"{'9' * 5000}x2"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="give width x height"):
        parse_size(text)


def test_a_size_has_a_least_side() -> None:
    assert parse_size("16x16", 16) == (16, 16)
    with pytest.raises(UserError, match="from 16 to 8192"):
        parse_size("14x16", 16)
