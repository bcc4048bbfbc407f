"""Real encoders: what comes out is registered, the same for a seed, and worse with a coarser quantizer or with loss."""

from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from clearcall.core.errors import UserError
from clearcall.data.degrade import codecs
from clearcall.data.degrade.codecs import Transmission, send, transmit
from clearcall.data.manifest import CLIP_FRAMES
from clearcall.data.synthetic import pan_and_zoom
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db
from clearcall.params import CallCodec, DegradationStep

CODECS: tuple[CallCodec, ...] = get_args(CallCodec)
STEP: TypeAdapter[DegradationStep] = TypeAdapter(DegradationStep)


@pytest.fixture(scope="module")
def still(photos: dict[str, Frame]) -> Frame:
    """A face, with odd sides."""
    return photos["astronaut"][:225, 100:357].copy()


def sent(codec: CallCodec, **changes: Any) -> Transmission:
    return replace(Transmission(codec, 2.0, 22, pan=(2.3, -1.7), zoom=1.006, loss_rate=0.0, seed=5), **changes)


def grey(image: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


@pytest.mark.parametrize("loss_rate", [0.0, 0.1])
@pytest.mark.parametrize("codec", CODECS)
def test_the_image_is_registered_with_the_still(codec: CallCodec, loss_rate: float, still: Frame) -> None:
    """To a fifth of a pixel by phase correlation, and no shift by a pixel fits better."""
    from skimage.registration import phase_cross_correlation

    got = transmit(still, sent(codec, loss_rate=loss_rate))
    assert got.shape == still.shape and got.dtype == np.uint8
    # The library ships no types.
    shift = phase_cross_correlation(grey(still), grey(got), upsample_factor=20)[0]  # type: ignore[no-untyped-call]
    assert np.abs(shift).max() <= 0.2
    inner, middle = slice(4, -4), psnr_db(still[4:-4, 4:-4], got[4:-4, 4:-4])
    for moved in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        assert psnr_db(still[4:-4, 4:-4], np.roll(got, moved, (0, 1))[inner, inner]) < middle - 0.5


@pytest.mark.parametrize("codec", CODECS)
def test_seed_and_quantizer_decide(codec: CallCodec, still: Frame) -> None:
    fine = transmit(still, sent(codec))
    assert (transmit(still, sent(codec)) == fine).all()
    assert psnr_db(still, fine) > psnr_db(still, transmit(still, sent(codec, qp=40))) + 1
    assert psnr_db(still, transmit(still, sent(codec, factor=1.0))) > psnr_db(still, fine) + 1


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_lost_is_seen_and_the_seed_says_what(codec: CallCodec, still: Frame) -> None:
    clip = pan_and_zoom(still, 6, (3.0, 1.0), 1.0)
    whole = send(clip, codec, 8)
    lossy = send(clip, codec, 8, loss_rate=0.3, seed=1)
    assert len(whole) == len(lossy) == 6
    assert (whole[0] == lossy[0]).all()  # the key frame always arrives
    assert any((one != other).any() for one, other in zip(whole, lossy, strict=True))
    again = send(clip, codec, 8, loss_rate=0.3, seed=1)
    assert all((one == other).all() for one, other in zip(lossy, again, strict=True))
    others = [send(clip, codec, 8, loss_rate=0.3, seed=seed) for seed in range(2, 5)]
    assert any((one != other).any() for clips in others for one, other in zip(lossy, clips, strict=True))


def test_vp8_does_not_go_by_the_clock() -> None:
    """At a speed above zero it does, and a busy machine gave other images than an idle one."""
    assert int(codecs._encoder("vp8", 32, 64, 64).options["cpu-used"]) < 0


def test_a_frame_that_is_lost_is_the_one_before_and_the_next_is_whole(still: Frame) -> None:
    """With all packets lost, VP8 shows the key frame until the last frame, which arrives as a key frame."""
    clip = pan_and_zoom(still, 4, (3.0, 1.0), 1.0)
    got = send(clip, "vp8", 10, loss_rate=0.999999, seed=0)
    assert (got[1] == got[0]).all() and (got[2] == got[0]).all()
    assert psnr_db(clip[3], got[3]) > psnr_db(clip[3], got[0]) + 5
    assert psnr_db(clip[3], got[3]) == pytest.approx(psnr_db(clip[0], got[0]), abs=1)


def test_of_h264_the_first_slice_arrives_and_the_rest_is_concealed(still: Frame) -> None:
    clip = pan_and_zoom(still, 3, (3.0, 1.0), 1.0)
    whole, lossy = send(clip, "h264", 10), send(clip, "h264", 10, loss_rate=0.999999)
    assert (whole[1][:8] == lossy[1][:8]).all()
    assert (whole[1][-32:] != lossy[1][-32:]).any()
    assert psnr_db(clip[1], lossy[1]) > 20


def test_pan_and_zoom_ends_with_the_still_and_moves_as_told(still: Frame) -> None:
    panned = pan_and_zoom(still, 3, (2, -3), 1.0)
    assert (panned[2] == still).all()
    assert (panned[1][3:, :-2] == still[:-3, 2:]).all()  # a frame ago all was 2 further left and 3 further down
    assert (panned[0][6:, :-4] == still[:-6, 4:]).all()
    zoomed = pan_and_zoom(still, 2, (0, 0), 2.0)
    assert (zoomed[0][112, 128] == still[112, 128]).all()  # the middle stays
    assert (zoomed[0][122, 138] == still[132, 148]).all()  # a frame ago all was half as far from it


def test_a_filtered_image_has_what_the_frames_before_it_show(still: Frame) -> None:
    """As a video has it: another frame than without them."""
    how = sent("h264", qp=34)
    alone, filtered = transmit(still, how), transmit(still, replace(how, filtered=True))
    assert (filtered != alone).any()
    clip = pan_and_zoom(still, CLIP_FRAMES, how.pan, how.zoom)
    assert (transmit(still, replace(how, filtered=True), clip[:-1]) == filtered).all()


def test_a_missing_encoder_is_named(still: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codecs._ENCODERS, "av1", "lib_of_nobody")
    with pytest.raises(UserError, match="PyAV has no encoder lib_of_nobody here, which av1 needs: leave av1 out"):
        send([still], "av1", 30)


def test_the_step_draws_all_from_its_seed(still: Frame) -> None:
    from clearcall.data.degrade.degradations import build_degradation

    values = {"op": "codec", "codecs": CODECS, "factors": [1.5, 2], "qp_range": [24, 36], "loss_rates": [0, 0.1]}
    step = STEP.validate_python(values)
    height, width = still.shape[:2]
    images = [build_degradation([step], width, height, seed)(still) for seed in (1, 1, 2, 3)]
    filtered = STEP.validate_python(values | {"temporal_filter": 1})
    assert (build_degradation([filtered], width, height, 1)(still) != images[0]).any()
    assert (images[0] == images[1]).all()
    assert (images[0] != images[2]).any() and (images[2] != images[3]).any()


@pytest.mark.parametrize(
    "change", [{"codecs": ["h263"]}, {"codecs": []}, {"factors": [0.5]}, {"qp_range": [40, 20]}, {"loss_rates": [1.0]}]
)
def test_wrong_params_are_refused(change: dict[str, Any]) -> None:
    values = {"op": "codec", "codecs": ["h264"], "factors": [2], "qp_range": [24, 36], "loss_rates": [0]}
    STEP.validate_python(values)
    with pytest.raises(ValidationError):
        STEP.validate_python(values | change)
