"""Videos among the photographs: their frames with those before each, from the folder to the pairs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from tests.make.photographs import download_params
from tests.make.videos import QUARTER

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.data.checks import check_images
from clearcall.data.degrade import degradations
from clearcall.data.degrade.codecs import Transmission, transmit
from clearcall.data.degrade.degradations import build_degradation
from clearcall.data.degrade.write import degrade_pairs
from clearcall.data.ingest.download import download
from clearcall.data.ingest.videos import sample_frames
from clearcall.data.manifest import CLIP_FRAMES, ImageRecord, read_manifest, write_manifest
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db
from clearcall.params import CheckData, CountPerSplit, DegradationStep, DegradePairs, Params

AddVideo = Callable[[Path, list[Frame]], None]
LIMITS = CheckData(min_images=CountPerSplit(train=1, validation=1, test=1), side_range=(64, 128))
CODEC = {"op": "codec", "codecs": ["h264"], "factors": [1.0], "qp_range": [30, 30], "loss_rates": [0.0]}
STEP: TypeAdapter[DegradationStep] = TypeAdapter(DegradationStep)


def panned(photo: Frame, frames: int) -> list[Frame]:
    """Return a window of 96 x 128 that moves over a photograph by two pixels a frame."""
    return [np.ascontiguousarray(photo[80:176, 100 + 2 * step : 228 + 2 * step]) for step in range(frames)]


def encode(
    path: Path,
    frames: Sequence[Frame],
    times: Sequence[int] | None = None,
    *,
    codec: str = "libx264",
    rate: int = 30,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    matrix: tuple[int, ...] = (),
    **traits: int,
) -> None:
    """Write a video with such traits of its stream; `times` are in frame periods."""
    with av.open(str(path), "w", container_options=container or {}) as video:
        stream: Any = video.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        for name, value in traits.items():
            setattr(stream, name, value)
        if matrix:
            stream.set_display_matrix(matrix)
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, rate)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


@pytest.fixture
def folder(photos: dict[str, Frame], add_video: AddVideo, tmp_path: Path) -> Path:
    """A video to train on, one of a single frame to validate with, and a photograph as the test."""
    top = tmp_path / "mine"
    for split in ("train", "validation", "test"):
        (top / split).mkdir(parents=True)
    add_video(top / "train" / "talk.mp4", panned(photos["chelsea"], 40))
    add_video(top / "validation" / "short.mkv", panned(photos["coffee"], 1))
    Image.fromarray(photos["astronaut"][:96, 160:288]).save(top / "test" / "still.png")
    return top


def test_frames_are_taken_at_even_distances_with_the_frames_before_them(
    photos: dict[str, Frame], add_video: AddVideo, tmp_path: Path
) -> None:
    """A quarter, a half and three quarters of 40 frames: numbers 10, 20 and 30."""
    sent, path = panned(photos["chelsea"], 40), tmp_path / "video.mp4"
    add_video(path, sent)
    found = list(sample_frames(path, 3))
    assert [one.seconds for one in found] == pytest.approx([10 / 30, 20 / 30, 1.0])
    for number, one in zip((10, 20, 30), found, strict=True):
        assert len(one.before) == CLIP_FRAMES - 1
        shown = [*one.before, one.frame]
        for frame, original in zip(shown, sent[number - CLIP_FRAMES + 1 : number + 1], strict=True):
            assert psnr_db(original, frame) > 35 > psnr_db(sent[0], frame)


def test_of_a_short_video_no_frame_is_taken_twice(
    photos: dict[str, Frame], add_video: AddVideo, tmp_path: Path
) -> None:
    add_video(tmp_path / "video.mp4", panned(photos["chelsea"], 3))
    found = list(sample_frames(tmp_path / "video.mp4", 20))
    assert [len(one.before) for one in found] == [1, 2]  # the first frame lies before a twentieth


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("video.ts", "libx264", {}),
        ("video.ts", "mpeg4", {}),  # whose decoder begins anywhere, on a grey frame that it makes up
        ("video.mpg", "mpeg2video", {}),
        ("video.mpg", "libx264", {}),  # some of whose frames have no time
        ("video.webm", "libvpx", {"live": "1"}),
        ("video.mkv", "libx264", {"live": "1"}),
        ("video.avi", "libx264", {}),
    ],
)
def test_videos_that_cannot_be_entered_everywhere_or_tell_no_length(
    photos: dict[str, Frame], tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """Key frames come every 25 frames, and some are behind the place that a container gives for them."""
    path, sent = tmp_path / name, panned(photos["chelsea"], 90)
    encode(path, sent, codec=codec, container=options, gop_size=25, bit_rate=4_000_000)
    found = list(sample_frames(path, 5))
    assert [len(one.before) for one in found] == [CLIP_FRAMES - 1] * 5
    numbers = [int(np.argmax([psnr_db(frame, one.frame) for frame in sent])) for one in found]
    assert numbers == pytest.approx([15, 30, 45, 60, 75], abs=10)  # some tell the times of but a few frames
    assert min(np.diff(numbers)) >= 10
    for number, one in zip(numbers, found, strict=True):
        assert psnr_db(sent[number], one.frame) > 27
        for frame, original in zip(one.before, sent[number - CLIP_FRAMES + 1 : number], strict=True):
            assert psnr_db(original, frame) > psnr_db(sent[0], frame) + 3


@pytest.mark.parametrize(
    ("name", "begin_s"), [("video.mkv", 20), ("video.mp4", 20), ("video.ts", 20), ("video.ts", -2)]
)
def test_times_are_from_the_beginning_of_a_video(
    photos: dict[str, Frame], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, begin_s: int
) -> None:
    """Matroska tells its length from zero, the others from the first frame."""
    path, sent = tmp_path / name, panned(photos["chelsea"], 90)
    times = [index + 30 * begin_s for index in range(90)]
    encode(path, sent, times, options={"bf": "0", "g": "10"}, container={"avoid_negative_ts": "disabled"})
    found = list(sample_frames(path, 2))
    assert [one.seconds for one in found] == pytest.approx([1.0, 2.0], abs=0.1)
    numbers = [int(np.argmax([psnr_db(frame, one.frame) for frame in sent])) for one in found]
    assert numbers == pytest.approx([30, 60], abs=3)
    assert "ends after" not in capsys.readouterr().err


def test_a_frame_long_after_the_one_before_it_has_all_its_predecessors(
    photos: dict[str, Frame], tmp_path: Path
) -> None:
    """At a rate that varies, seven frames may take longer than on average: here ten a second, and then sixty."""
    path, sent = tmp_path / "video.mp4", panned(photos["chelsea"], 80)
    times = [6 * index if index < 20 else 100 + index for index in range(80)]
    encode(path, sent, times, rate=60, options={"g": "5", "bf": "0"})
    found = list(sample_frames(path, 2))
    assert found[0].seconds == pytest.approx(1.0, abs=0.1)
    assert [len(one.before) for one in found] == [CLIP_FRAMES - 1] * 2


def test_frames_before_a_turn_or_of_another_size_are_left_out(
    photos: dict[str, Frame], add_video: AddVideo, tmp_path: Path
) -> None:
    wide = panned(photos["chelsea"], 12)
    add_video(tmp_path / "a.ts", wide)
    add_video(tmp_path / "b.ts", [np.ascontiguousarray(frame[:80]) for frame in wide[:4]])
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    shapes = {
        (one.frame.shape, *{frame.shape for frame in one.before}) for one in sample_frames(tmp_path / "both.ts", 20)
    }
    assert ((96, 128, 3), (96, 128, 3)) in shapes
    assert all(len(set(of_one)) == 1 for of_one in shapes)


def test_a_turned_video_is_taken_upright(photos: dict[str, Frame], tmp_path: Path) -> None:
    path, sent = tmp_path / "video.mkv", panned(photos["chelsea"], 4)
    encode(path, sent, options={"qp": "1"}, matrix=QUARTER[90])
    (one,) = sample_frames(path, 1)
    assert {frame.shape for frame in (one.frame, *one.before)} == {(128, 96, 3)}
    upright = [np.ascontiguousarray(np.rot90(frame, turns)) for frame in sent for turns in (1, 3)]
    assert max(psnr_db(frame, one.frame) for frame in upright) > 35


def test_a_corrupt_video_is_refused_and_a_cut_one_gives_what_there_is(
    photos: dict[str, Frame], add_video: AddVideo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_video(tmp_path / "video.mkv", panned(photos["chelsea"], 90))
    whole = (tmp_path / "video.mkv").read_bytes()
    damaged = bytearray(whole)
    for place in range(len(whole) // 3, 2 * len(whole) // 3, 997):
        damaged[place : place + 60] = b"x" * 60
    (tmp_path / "damaged.mkv").write_bytes(damaged)
    with pytest.raises(UserError, match=r"damaged\.mkv is broken about .* s after its beginning: mend or remove it"):
        list(sample_frames(tmp_path / "damaged.mkv", 8))
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert 3 <= len(list(sample_frames(tmp_path / "cut.mkv", 8))) < 8
    assert "cut.mkv: its picture ends after" in capsys.readouterr().err


def test_videos_of_a_folder_become_photographs(folder: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    records = download(download_params(folder, video_frames=3), raw).records
    assert read_manifest(raw) == records
    talk = [record for record in records if record.source.startswith("folder: train/talk.mp4")]
    assert [record.path for record in talk] == ["train/talk_0.33s.png", "train/talk_0.67s.png", "train/talk_1.00s.png"]
    assert talk[1].source == "folder: train/talk.mp4 at 0.67 s"
    assert {(record.split, record.group, record.note) for record in talk} == {
        ("train", "train/talk", "frame of a video")
    }
    with Image.open(raw / talk[0].before) as image:
        assert image.size == (128, 96 * (CLIP_FRAMES - 1))
    others = [record for record in records if record not in talk]
    assert [(record.path, record.before) for record in others] == [
        ("test/still.png", ""),
        ("validation/short_0.00s.png", ""),
    ]
    assert check_images(raw, LIMITS, tmp_path / "docs")["rows"] == 5


def test_what_was_before_a_frame_is_checked(folder: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    records = download(download_params(folder, video_frames=3), raw).records
    broken, cut = (record for record in records if record.path in {"train/talk_0.33s.png", "train/talk_0.67s.png"})
    (raw / broken.before).write_bytes(b"no picture")
    Image.new("RGB", (128, 100)).save(raw / cut.before)
    with pytest.raises(UserError) as caught:
        check_images(raw, LIMITS, tmp_path / "docs")
    lines = str(caught.value).splitlines()[1:4]
    for line, words, record in zip(
        lines, ("can be read to its end", "holds complete frames", "has the SHA-256"), (broken, cut, cut), strict=True
    ):
        assert words in line and record.path in line
    assert "2 of 3 photographs pass. Failing:" in lines[0]  # those from videos; no other has earlier frames


def test_a_codec_sends_what_was_really_before(committed: Params, folder: Path, tmp_path: Path) -> None:
    """The same as by hand, and not what a still would have come out as."""
    raw, pairs = tmp_path / "raw", tmp_path / "pairs"
    records = download(download_params(folder, video_frames=3), raw).records
    values = committed.degrade_pairs.model_dump() | {"mix": ("call",), "scales": (1.0, 0.75), "workers": 1}
    values["degradations"] = {"call": [CODEC]}
    degrade_pairs(raw, pairs, records, DegradePairs.model_validate(values))
    of_one = [pair for pair in read_pairs(pairs) if pair.image == "train/talk_0.67s.png"]
    before = next(record.before for record in records if record.path == of_one[0].image)
    with Image.open(raw / before) as image:
        frames = [image.crop((0, top, 128, top + 96)) for top in range(0, image.height, 96)]
    step = STEP.validate_python(CODEC)
    for pair, size in zip(of_one, [(128, 96), (96, 72)], strict=True):
        smaller = [np.asarray(frame.resize(size, Image.Resampling.LANCZOS)) for frame in frames]
        sharp, degraded = PairReader(pairs).sharp(pair), PairReader(pairs).degraded(pair)
        draws = [build_degradation([step], *size, seed, smaller)(sharp) for seed in (1, 2)]
        assert (draws[0] == draws[1]).all()  # all that is drawn is how a still would move
        assert (degraded == draws[0]).all()
        assert (degraded != build_degradation([step], *size, 1)(sharp)).any()


def test_steps_before_the_codec_are_done_to_all_frames(
    photos: dict[str, Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blurred alike, or the encoder would see the blur come and go: by one draw of the many that there could be."""
    *before, sharp = panned(photos["chelsea"], 3)
    blur = STEP.validate_python({"op": "gaussian_blur", "sigma_range": [0.3, 3.0]})
    codec = STEP.validate_python({**CODEC, "qp_range": [10, 10]})
    sent: list[Frame] = []

    def spy(one: Frame, how: Transmission, frames: Sequence[Frame]) -> Frame:
        sent.extend([*frames, one])
        return transmit(one, how, frames)

    monkeypatch.setattr(degradations, "transmit", spy)
    build_degradation([blur, codec], 128, 96, 1, before)(sharp)
    blurred = [build_degradation([blur], 128, 96, 1)(frame) for frame in (*before, sharp)]
    assert all((one == other).all() for one, other in zip(sent, blurred, strict=True))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (b"no video", "train/talk.mp4 cannot be read as a video"),
        (None, "train/talk.mp4: 128 x 96 pixels, a side is below min_side 100"),
    ],
    ids=["broken", "small"],
)
def test_a_video_that_cannot_be_used_is_named(folder: Path, tmp_path: Path, fault: bytes | None, message: str) -> None:
    if fault is not None:
        (folder / "train" / "talk.mp4").write_bytes(fault)
    with pytest.raises(UserError) as caught:
        download(download_params(folder, video_frames=3, min_side=100), tmp_path / "raw")
    assert message in str(caught.value)
    assert not (tmp_path / "raw").exists()


def test_a_manifest_has_columns_about_videos_only_where_there_is_one(tmp_path: Path) -> None:
    record = ImageRecord("a.png", "0" * 64, 48, 40, "RGB", "made", "CC0", "a", "train")
    write_manifest(tmp_path, [record])
    assert "before" not in (tmp_path / "manifest.csv").read_text(encoding="utf-8")
    filmed = replace(record, path="b.png", before="before/b.png", before_sha256="1" * 64)
    write_manifest(tmp_path, [record, filmed])
    assert read_manifest(tmp_path) == [record, filmed]


def test_a_stack_that_does_not_fit_its_frame_is_refused(committed: Params, folder: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    records = download(download_params(folder, video_frames=3), raw).records
    at = next(index for index, record in enumerate(records) if record.before)
    Image.new("RGB", (128, 100)).save(raw / records[at].before)
    records[at] = replace(records[at], before_sha256=sha256_of(raw / records[at].before))
    params = committed.degrade_pairs.model_copy(update={"mix": ("call",), "workers": 1})
    with pytest.raises(UserError, match=r"is 100x128 RGB, not the 96x128 RGB of the manifest"):
        degrade_pairs(raw, tmp_path / "pairs", records, params)
