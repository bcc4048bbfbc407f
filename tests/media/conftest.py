"""What tests of images, videos and cameras share."""

import pytest

from clearcall.imaging.frame import Frame
from clearcall.runtime.sharpener import Sharpener


@pytest.fixture(scope="session")
def sharpener() -> Sharpener:
    """A Sharpener of one expert: the router would leave sharp images, of which some tests are made, alone."""
    return Sharpener("fast", "onnxruntime", 1, expert="bicubic_x2.0")


@pytest.fixture(scope="session")
def plain() -> Sharpener:
    """A Sharpener that changes nothing, so that frames can be told by their pixels."""
    return Sharpener("fast", "onnxruntime", 1, expert="identity")


@pytest.fixture(scope="session")
def scene(photos: dict[str, Frame]) -> Frame:
    """A photograph over which the camera of a video pans."""
    return photos["astronaut"][60:260, 150:350]
