"""The videos of look.html, decoded: what arrived in the left half, what was made of it in the right one."""

import io
from itertools import pairwise

import av
import numpy as np
import pytest

from clearcall.data.clips import bundled_files
from clearcall.imaging.decode import read_rgb
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db
from clearcall.imaging.sizes import resized
from clearcall.media.slider import SplitVideo
from clearcall.reporting.played import play_calls

FRAMES = 6


@pytest.fixture(scope="module")
def played() -> tuple[dict[str, SplitVideo], list[Frame]]:
    """Videos whose output is the negative of the input, and all frames that were to be restored."""
    given: list[Frame] = []

    def negative(frame: Frame) -> Frame:
        given.append(frame.copy())
        return 255 - frame

    return play_calls(negative, FRAMES / 30), given


def halves(video: SplitVideo) -> list[tuple[Frame, Frame]]:
    with av.open(io.BytesIO(video.mp4), "r") as file:
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in file.decode(video=0)]
        (stream,) = file.streams
        assert isinstance(stream, av.VideoStream) and stream.average_rate == video.rate == 30
    return [(frame[:, : video.size[0]], frame[:, video.size[0] :]) for frame in frames]


def test_the_left_half_is_what_arrived_and_the_right_half_what_became_of_it(
    played: tuple[dict[str, SplitVideo], list[Frame]],
) -> None:
    videos, given = played
    assert list(videos) == ["Face in a call", "Text in a call"]
    assert len(given) == 2 * FRAMES
    for video, inputs in zip(videos.values(), (given[:FRAMES], given[FRAMES:]), strict=True):
        assert video.seconds == pytest.approx(FRAMES / 30)
        assert video.size == inputs[0].shape[1::-1]
        shown = halves(video)
        assert len(shown) == FRAMES
        for (left, right), frame in zip(shown, inputs, strict=True):
            assert psnr_db(frame, left) > 35 < psnr_db(255 - frame, right)
        assert all((one != other).any() for one, other in pairwise(inputs))  # it moves


def test_the_text_arrives_at_half_resolution_with_an_encoder_s_loss(
    played: tuple[dict[str, SplitVideo], list[Frame]],
) -> None:
    """The page has moved to its upper left corner when the video ends."""
    (_, text), given = played[0].values(), played[1]
    width, height = text.size[0] // 2, text.size[1] // 2
    page = np.asarray(read_rgb(bundled_files()[-1], min_side=1), np.uint8)[:height, :width]
    assert 25 < psnr_db(resized(page, text.size), given[-1]) < 40
    assert f"sent in {width}x{height} through H.264 at QP 27" in text.note
    assert "comes with scikit-image, the same whatever the run was trained on" in text.note
