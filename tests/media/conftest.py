"""What tests of images, videos and cameras share."""

import pytest

from clearcall.runtime.sharpener import Sharpener


@pytest.fixture(scope="session")
def sharpener() -> Sharpener:
    """A Sharpener of one expert: the router would leave sharp images, of which some tests are made, alone."""
    return Sharpener("fast", "onnxruntime", 1, expert="bicubic_x2.0")
