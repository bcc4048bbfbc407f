"""Films: real files in, the result decoded again and held against the Sharpener and the input's own packets."""

import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.codec.context import Flags
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from PIL import Image

from clearcall.classical import unsharp_mask
from clearcall.errors import UserError
from clearcall.sharpener import Sharpener, _Variant
from clearcall.temporal import TemporalFilter
from clearcall.video.clock import BusyClock
from clearcall.video.read import METADATA, Reader, Timeline, frame_at, planar, plane_of, rate_of
from clearcall.video.run import sharpen_video, time_video
from clearcall.video.write import Writer

Frame = npt.NDArray[np.uint8]
Interrupted = Callable[..., "subprocess.CompletedProcess[str]"]
WIDTH, HEIGHT = 96, 64
FINE = Fraction(1, 12800)
# In units of 1 / 12800 s: as from a camera whose frames come late now and then.
LATE = (0, 512, 1024, 2560, 3072, 3584, 4608, 6144, 6656, 15360)
QUARTER = {90: (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30), 180: (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30)}
LOSSLESS = {"crf": "0", "preset": "ultrafast"}


@dataclass(frozen=True)
class Shown:
    """A decoded frame: its planes, when it is shown, and what is said of its colours."""

    planes: tuple[Frame, Frame, Frame]
    time: Fraction
    colours: tuple[int, int, int, int]
    rotation: int


def command(*arguments: str, program: str = "") -> "subprocess.CompletedProcess[str]":
    text = program or "from clearcall.cli import main; main()"
    return subprocess.run([sys.executable, "-c", text, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sharpener() -> Sharpener:
    return Sharpener("fast", "onnxruntime", 1)


@pytest.fixture(scope="module")
def scene(photos: dict[str, Frame]) -> Frame:
    """A photograph through which films move."""
    return photos["astronaut"][60:260, 150:350]


def rgb_at(scene: Frame, number: int, width: int = WIDTH, height: int = HEIGHT) -> Frame:
    return np.ascontiguousarray(np.roll(scene, (number, 3 * number), (0, 1))[:height, :width])


def write_film(
    path: Path,
    scene: Frame,
    times: Iterable[int] = range(0, 10 * 512, 512),
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    sound: bool | int = False,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    kind: str | None = None,
    tags: dict[str, Any] | None = None,
    metadata: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write a film of a photograph that moves, its colour tags and other traits as given, `sound` of 20 packets."""
    with av.open(str(path), "w", format=kind, options=muxer or {}, **METADATA) as out:
        stream = out.add_stream(codec, 25, options or {}, width=size[0], height=size[1])
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = FINE
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_matrix(QUARTER[rotation])
        out.metadata.update({"title": "A call"} | (metadata or {}))
        audio = out.add_stream("aac" if codec != "libvpx-vp9" else "libopus", 48000) if sound else None
        times = list(times)
        stream.codec_context.flags |= Flags.frame_duration
        for number, (pts, following) in enumerate(zip(times, [*times[1:], times[-1] + 512], strict=True)):
            rgb = VideoFrame.from_ndarray(rgb_at(scene, number, *size), format="rgb24")
            frame = rgb.reformat(format=pixel_format, dst_color_range=(tags or {}).get("color_range"))
            frame.pts, frame.time_base, frame.duration = pts, FINE, following - pts
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if isinstance(audio, av.AudioStream):
            noise = np.random.default_rng(0)
            for number in range(20 if sound is True else sound):
                samples = (0.1 * noise.standard_normal((2, 1024))).astype(np.float32)
                heard = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
                heard.sample_rate, heard.pts, heard.time_base = 48000, 1024 * number, Fraction(1, 48000)
                out.mux(audio.encode(heard))
            out.mux(audio.encode(None))
    return path


def shown(path: Path) -> list[Shown]:
    """Decode a film, as 8 bits 4:2:0."""
    frames = []
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            flat = planar(frame, frame.width, frame.height)
            assert frame.pts is not None and frame.time_base is not None
            colours = (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc)
            planes = (plane_of(flat, 0).copy(), plane_of(flat, 1).copy(), plane_of(flat, 2).copy())
            frames.append(Shown(planes, frame.pts * frame.time_base, colours, frame.rotation))
    return frames


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """Return every packet of the streams of a kind, and its time."""
    with av.open(str(path)) as film:
        return [
            (bytes(packet), (packet.pts or 0) * packet.time_base)
            for packet in film.demux()
            if packet.size and packet.stream.type == kind
        ]


def sharpened(sharpener: Sharpener, frames: list[Shown]) -> list[Frame]:
    """Return what is to be expected of the lumas of a film."""
    temporal = TemporalFilter()
    return [sharpener(temporal(frame.planes[0]), "gray") for frame in frames]


def assert_sharpened(sharpener: Sharpener, before: list[Shown], after: list[Shown]) -> None:
    """Hold losslessly encoded frames against what filter and Sharpener make of the input's: luma alone may differ."""
    assert len(after) == len(before) > 0
    for old, new, expected in zip(before, after, sharpened(sharpener, before), strict=True):
        np.testing.assert_array_equal(new.planes[0], expected)
        np.testing.assert_array_equal(new.planes[1], old.planes[1])
        np.testing.assert_array_equal(new.planes[2], old.planes[2])
        assert new.colours == old.colours
        assert new.rotation == old.rotation
    assert (after[0].planes[0] != before[0].planes[0]).mean() > 0.05  # it does something


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
def test_luma_is_sharpened_and_all_else_is_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, suffix: str
) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    tags: dict[str, Any] = {"color_range": 1, "colorspace": 5, "color_primaries": 9, "color_trc": 1}
    tags["sample_aspect_ratio"] = Fraction(4, 3)
    options = {"bf": "0"}  # of B-frames FFmpeg reads another duration than it wrote
    write_film(source, scene, LATE, sound=True, rotation=90, options=options, tags=tags)
    summary = sharpen_video(sharpener, source, target, crf=0)
    before, after = shown(source), shown(target)
    assert_sharpened(sharpener, before, after)
    assert before[0].colours == (1, 5, 9, 1) and before[0].rotation == 90
    assert [frame.time for frame in after] == [pts * FINE for pts in LATE]
    assert packets(target, "audio") == packets(source, "audio")
    assert len(packets(target, "audio")) > 20
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert new.metadata["title"] == "A call"
        assert new.duration == old.duration
        assert new.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert new.streams.video[0].time_base == FINE
        assert new.streams.video[0].average_rate == old.streams.video[0].average_rate
        assert new.streams.video[0].codec_context.name == "h264"
    assert summary.frames == len(LATE) and not summary.interrupted
    assert summary.sharpen_fps > 0 and summary.encode_fps
    assert str(summary).startswith("10 frames, decode + sharpen ")


def test_a_clock_counts_the_time_in_which_anybody_is_inside() -> None:
    seconds = 0.0
    clock = BusyClock(lambda: seconds)
    clock.__enter__()  # 0: one inside
    seconds = 1
    clock.__enter__()  # two
    seconds = 3
    clock.__exit__()
    seconds = 4
    with clock.left():  # nobody
        seconds = 10
        with clock:  # another
            seconds = 12
        seconds = 20
    seconds = 21
    clock.__exit__()
    assert clock.busy_s == 4 + 2 + 1


def test_sharpening_during_the_wait_for_the_encoder_counts(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames in flight are sharpened while the loop waits: that time went uncounted, and 76 fps were told for 41."""
    sharpen, write = _Variant.sharpen, Writer._write
    slow_s, frames_in_flight = 0.02, 1  # the fixture has one thread

    def slowly_sharpened(*arguments: Any) -> None:
        time.sleep(slow_s)
        sharpen(*arguments)

    def slowly_written(*arguments: Any) -> None:
        time.sleep(3 * slow_s)
        write(*arguments)

    monkeypatch.setattr(_Variant, "sharpen", slowly_sharpened)
    monkeypatch.setattr(Writer, "_write", slowly_written)
    source = write_film(tmp_path / "in.mp4", scene, range(0, 60 * 512, 512))
    started = time.perf_counter()
    summary = sharpen_video(sharpener, source, tmp_path / "out.mp4")
    assert summary.sharpen_fps > 1.2 * 60 / (time.perf_counter() - started)  # the wait itself does not count
    assert summary.sharpen_fps <= frames_in_flight / slow_s


def test_a_dry_run_decodes_and_sharpens_all_and_writes_nothing(
    sharpener: Sharpener, scene: Frame, tmp_path: Path
) -> None:
    source = write_film(tmp_path / "in.mkv", scene, sound=True)
    summary = time_video(sharpener, source, unsharp=0.2)
    assert (summary.frames, summary.encode_fps, summary.interrupted) == (10, None, False)
    assert summary.sharpen_fps > 0 and str(summary).endswith("; nothing was encoded or written")
    assert list(tmp_path.iterdir()) == [source]


def test_past_frames_can_be_left_out(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene, options={"crf": "35"})
    run = command("video", str(source), str(tmp_path / "out.mkv"), "--crf=0", "--no-past-frames",
                  "--provider=onnxruntime", "--threads=1")  # fmt: skip
    assert run.returncode == 0, run.stderr
    before, after = shown(source), shown(tmp_path / "out.mkv")
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.planes[0], sharpener(old.planes[0], "gray"))
    with_past = sharpened(sharpener, before)
    assert any((one != new.planes[0]).any() for one, new in zip(with_past, after, strict=True))
    assert time_video(sharpener, source, past_frames=False).frames == 10


def test_a_dry_run_by_command(scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene)
    run = command("video", str(source), "--dry-run", "--provider", "onnxruntime", "--threads", "1")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{source}: 10 frames, decode + sharpen ")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a file for the result, or say --dry-run"),
        (["out.mp4", "--dry-run"], "--dry-run writes nothing: leave out OUT"),
        (["--crf", "20", "--dry-run"], "--dry-run writes nothing: leave out OUT"),
    ],
)
def test_a_film_needs_either_a_result_or_a_dry_run(arguments: list[str], message: str) -> None:
    run = command("video", "in.mp4", *arguments)
    assert run.returncode == 1 and run.stderr.startswith(f"error: {message}")


def test_the_default_quality_is_near_the_sharpeners_own(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene)
    for name in ("out.mp4", "out.webm"):
        sharpen_video(sharpener, source, tmp_path / name)
        before, after = shown(source), shown(tmp_path / name)
        assert len(after) == len(before)
        for new, expected in zip(after, sharpened(sharpener, before), strict=True):
            assert np.abs(expected.astype(np.float64) - new.planes[0]).mean() < 3
    with av.open(str(tmp_path / "out.webm")) as film:
        assert film.streams.video[0].codec_context.name == "libvpx-vp9" or film.streams.video[0].name == "vp9"


def test_the_strength_counts(scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene)
    sharpen_video(
        Sharpener("fast", "onnxruntime", 1, strength=0), source, tmp_path / "out.mp4", crf=0, past_frames=False
    )
    for old, new in zip(shown(source), shown(tmp_path / "out.mp4"), strict=True):
        np.testing.assert_array_equal(new.planes[0], old.planes[0])


def test_an_unsharp_mask_may_follow(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0, unsharp=0.5)
    before = shown(source)
    for old, new, expected in zip(before, shown(tmp_path / "out.mp4"), sharpened(sharpener, before), strict=True):
        np.testing.assert_array_equal(new.planes[0], unsharp_mask(expected, 1.0, 0.5))
        np.testing.assert_array_equal(new.planes[1], old.planes[1])
    with pytest.raises(UserError, match="the amount of the unsharp mask must be from 0 to 2, not -1"):
        sharpen_video(sharpener, source, tmp_path / "none.mp4", unsharp=-1)


def test_b_frames_and_references_of_the_input_are_not_harmed(
    sharpener: Sharpener, scene: Frame, tmp_path: Path
) -> None:
    """A decoder predicts frames from those that it has handed out: writing into these would spoil later ones."""
    options = {"g": "60", "bf": "3", "refs": "4", "crf": "30"}
    source = write_film(tmp_path / "in.mp4", scene, range(0, 40 * 512, 512), options=options)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    assert_sharpened(sharpener, shown(source), shown(tmp_path / "out.mp4"))


def test_the_encoder_chooses_its_own_kinds_of_frames(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene, options={"g": "1"})
    sharpen_video(sharpener, source, tmp_path / "out.mp4")
    kinds = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as film:
            kinds.append([frame.pict_type == PictureType.I for frame in film.decode(video=0)])
    assert all(kinds[0])
    assert not all(kinds[1])


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"),
    [("mjpeg", "yuvj420p", "in.mkv"), ("libx264", "yuvj420p", "in.mp4"), ("rawvideo", "nv12", "in.mkv")],
)
def test_full_range_and_nv12_keep_every_value(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, codec: str, pixel_format: str, name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    full = {"color_range": 2} if pixel_format == "yuvj420p" else {}
    source = write_film(tmp_path / name, scene, codec=codec, pixel_format=pixel_format, tags=full)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    before, after = shown(source), shown(tmp_path / "out.mp4")
    assert_sharpened(sharpener, before, after)
    if full:
        assert after[0].colours[0] == 2
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"),
    [("libx264", "yuv420p10le", "in.mp4"), ("mjpeg", "yuvj422p", "in.mkv"), ("ffv1", "bgr0", "in.mkv")],
)
def test_other_depths_and_colours_are_converted_and_it_is_said(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, codec: str, pixel_format: str, name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    full = {"color_range": 2} if pixel_format == "yuvj422p" else {}
    source = write_film(tmp_path / name, scene, codec=codec, pixel_format=pixel_format, tags=full)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    before, after = shown(source), shown(tmp_path / "out.mp4")
    for old, new, expected in zip(before, after, sharpened(sharpener, before), strict=True):
        np.testing.assert_array_equal(new.planes[0], expected)
        np.testing.assert_array_equal(new.planes[1], old.planes[1])
    assert f"{source} is " in (said := capsys.readouterr().err)
    assert "converted to 8 bits, 4:2:0" in said
    with av.open(str(tmp_path / "out.mp4")) as film:
        assert film.streams.video[0].pix_fmt in {"yuv420p", "yuvj420p"}
    if full:
        assert after[0].colours[0] == 2


def test_colours_of_rgb_come_back_as_they_were(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    flat = np.full_like(scene, (200, 40, 90))
    source = write_film(tmp_path / "in.mkv", flat, codec="ffv1", pixel_format="bgr0")
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    with av.open(str(tmp_path / "out.mp4")) as film:
        frame = next(film.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (1, 1)
        rgb = frame.to_ndarray(format="rgb24").astype(int)
    assert np.abs(rgb[8:-8, 8:-8] - (200, 40, 90)).max() <= 4


@pytest.mark.parametrize("size", [(95, 63), (95, 64), (96, 63)])
def test_odd_sizes_are_kept_in_webm_and_padded_for_h264(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    width, height = size
    source = write_film(tmp_path / "in.webm", scene, range(0, 3 * 512, 512), codec="libvpx-vp9", size=size)
    sharpen_video(sharpener, source, tmp_path / "out.webm")
    before, kept = shown(source), shown(tmp_path / "out.webm")
    assert "odd" not in capsys.readouterr().err
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    padded = shown(tmp_path / "out.mp4")
    assert "has an odd side" in capsys.readouterr().err
    assert len(before) == len(kept) == len(padded) == 3
    for old, webm, mp4, expected in zip(before, kept, padded, sharpened(sharpener, before), strict=True):
        assert webm.planes[0].shape == (height, width)
        assert np.abs(webm.planes[0].astype(int) - expected).mean() < 3
        np.testing.assert_array_equal(mp4.planes[0], np.pad(expected, ((0, height % 2), (0, width % 2)), "edge"))
        np.testing.assert_array_equal(mp4.planes[1], old.planes[1])


# What is shown.


def as_displayed(plane: Frame, rotation: int) -> Frame:
    return np.rot90(plane, rotation // 90)


@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (94, 62)])
def test_side_by_side_shows_the_input_on_the_left(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, rotation: int, size: tuple[int, int]
) -> None:
    source = write_film(tmp_path / "in.mp4", scene, (0, 512), rotation=rotation, size=size)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", view="side-by-side", crf=0)
    before = shown(source)
    for old, new, after in zip(before, shown(tmp_path / "out.mp4"), sharpened(sharpener, before), strict=True):
        assert new.rotation == old.rotation
        luma = (old.planes[0], after)
        for index, halves in ((0, luma), (1, (old.planes[1],) * 2), (2, (old.planes[2],) * 2)):
            left, right = np.hsplit(as_displayed(new.planes[index], rotation % 360), 2)
            np.testing.assert_array_equal(left, as_displayed(halves[0], rotation % 360))
            np.testing.assert_array_equal(right, as_displayed(halves[1], rotation % 360))


def test_odd_halves_begin_with_whole_chroma(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.webm", scene, (0,), codec="libvpx-vp9", size=(95, 63))
    sharpen_video(sharpener, source, tmp_path / "out.mp4", view="side-by-side", crf=0)
    old, new = shown(source)[0], shown(tmp_path / "out.mp4")[0]
    assert new.planes[0].shape == (64, 192)
    np.testing.assert_array_equal(new.planes[0][:63, :95], old.planes[0])
    np.testing.assert_array_equal(new.planes[0][:63, 96:191], sharpener(old.planes[0], "gray"))
    np.testing.assert_array_equal(new.planes[1], np.hstack([old.planes[1]] * 2))


@pytest.mark.parametrize("rotation", [0, 90, 180])
def test_split_shows_the_input_in_the_left_half(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, rotation: int
) -> None:
    source = write_film(tmp_path / "in.mp4", scene, (0, 512), rotation=rotation)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", view="split", crf=0)
    old_frames = shown(source)
    for old, new, expected in zip(
        old_frames, shown(tmp_path / "out.mp4"), sharpened(sharpener, old_frames), strict=True
    ):
        before, result = (as_displayed(frame.planes[0], rotation) for frame in (old, new))
        after = as_displayed(expected, rotation)
        half = before.shape[1] // 2
        np.testing.assert_array_equal(result[:, :half], before[:, :half])
        assert (result[:, half : half + 2] == 235).all()
        np.testing.assert_array_equal(result[:, half + 2 :], after[:, half + 2 :])
        chroma = as_displayed(new.planes[1], rotation)
        assert (chroma[:, half // 2] == 128).all()
        rest = np.arange(chroma.shape[1]) != half // 2
        np.testing.assert_array_equal(chroma[:, rest], as_displayed(old.planes[1], rotation)[:, rest])


# Streams beside the picture.


def with_streams(path: Path, film: Path, *, cover: bool = False, subtitles: str = "", font: bool = False) -> Path:
    """Copy a film into a new file, with more streams and chapters."""
    with av.open(str(film)) as source, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        out.set_chapters(
            [{"id": 1, "start": 100, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "Äther"}}]
        )
        extra: list[av.Packet[Any]] = []
        if cover:
            stream = out.add_mux_stream("mjpeg", width=16, height=16, time_base=Fraction(1, 90000))
            stream.disposition = Disposition.attached_pic
            file = io.BytesIO()
            Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(file, "JPEG")
            extra.append(packet_of(file.getvalue(), stream, 0, Fraction(1, 90000)))
        if subtitles:
            stream = out.add_mux_stream(subtitles, time_base=Fraction(1, 1000))
            stream.metadata["language"] = "deu"
            for start in (50, 150):
                text = f"Grüße {start}".encode()
                if subtitles == "mov_text":
                    text = len(text).to_bytes(2, "big") + text
                extra.append(packet_of(text, stream, start, Fraction(1, 1000)))
        if font:
            out.add_attachment("font.ttf", "font/ttf", b"not a font, but bytes" * 9)
        for packet in extra:
            out.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    return path


def packet_of(data: bytes, stream: av.stream.Stream, pts: int, time_base: Fraction) -> "av.Packet[Any]":
    packet: av.Packet[Any] = av.Packet(data)
    packet.stream, packet.time_base = stream, time_base
    packet.pts = packet.dts = pts
    packet.duration, packet.is_keyframe = 80, True
    return packet


def test_subtitles_fonts_and_chapters_of_matroska_are_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_film(tmp_path / "plain.mp4", scene, sound=True)
    source = with_streams(tmp_path / "in.mkv", plain, subtitles="subrip", font=True)
    sharpen_video(sharpener, source, tmp_path / "out.mkv", crf=0)
    assert_sharpened(sharpener, shown(source), shown(tmp_path / "out.mkv"))
    with av.open(str(source)) as old, av.open(str(tmp_path / "out.mkv")) as new:
        assert sorted(stream.type for stream in new.streams) == ["attachment", "audio", "subtitle", "video"]
        assert new.streams.subtitles[0].language == "deu"
        assert new.streams.attachments[0].data == b"not a font, but bytes" * 9
        chapters = [chapter | {"id": 0} for chapter in old.chapters()]
        assert [chapter | {"id": 0} for chapter in new.chapters()] == chapters
        assert chapters[0]["metadata"] == {"title": "Äther"}
    for kind, least in (("audio", 20), ("subtitle", 2)):
        assert packets(tmp_path / "out.mkv", kind) == packets(source, kind)
        assert len(packets(source, kind)) >= least
    assert "warning" not in capsys.readouterr().err


def test_subtitles_cover_and_chapters_of_mp4_are_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_film(tmp_path / "plain.mp4", scene, sound=True)
    source = with_streams(tmp_path / "in.mp4", plain, subtitles="mov_text", cover=True)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    assert_sharpened(sharpener, shown(source), shown(tmp_path / "out.mp4"))
    covers = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as film:
            assert [chapter["metadata"] for chapter in film.chapters()] == [{"title": "Äther"}]
            pictures = [one.index for one in film.streams.video if one.disposition & Disposition.attached_pic]
            covers.append([bytes(packet) for packet in film.demux() if packet.stream_index in pictures and packet.size])
    assert covers[0] == covers[1]
    assert len(covers[0]) == 1
    assert packets(tmp_path / "out.mp4", "subtitle") == packets(source, "subtitle")
    assert packets(tmp_path / "out.mp4", "audio") == packets(source, "audio")
    assert "warning" not in capsys.readouterr().err


def test_a_cover_is_kept_in_matroska(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = with_streams(tmp_path / "in.mp4", write_film(tmp_path / "plain.mp4", scene), cover=True)
    sharpen_video(sharpener, source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as film:
        assert [int(stream.disposition & Disposition.attached_pic) for stream in film.streams.video] == [0, 1024]


def test_a_timecode_is_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_film(tmp_path / "in.mov", scene, metadata={"timecode": "10:00:00:00"})
    with av.open(str(source)) as film:
        assert [stream.type for stream in film.streams] == ["video", "data"]
    for suffix in ("mov", "mp4", "mkv"):
        sharpen_video(sharpener, source, tmp_path / f"out.{suffix}", crf=0)
        assert_sharpened(sharpener, shown(source), shown(tmp_path / f"out.{suffix}"))
        with av.open(str(tmp_path / f"out.{suffix}")) as film:
            kept = {name.lower(): value for name, value in film.streams.video[0].metadata.items()}
            assert kept["timecode"] == "10:00:00:00"
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["mov", "mp4"])
def test_metadata_that_mp4_has_no_place_for_is_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, suffix: str
) -> None:
    own = {"com.apple.quicktime.make": "Apple", "mykey": "Grüße", "comment": "C", "artist": "me"}
    source = write_film(tmp_path / "in.mov", scene, metadata=own, muxer={"movflags": "use_metadata_tags"})
    sharpen_video(sharpener, source, tmp_path / f"out.{suffix}")
    with av.open(str(tmp_path / f"out.{suffix}")) as film:
        assert own | {"title": "A call"} == {name: film.metadata[name] for name in [*own, "title"]}
    # What has a place goes there, where every player looks.
    sharpen_video(sharpener, write_film(tmp_path / "plain.mkv", scene), tmp_path / f"plain.{suffix}")
    assert b"\xa9nam" in (tmp_path / f"plain.{suffix}").read_bytes()


def test_what_a_container_cannot_hold_is_refused_or_named(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_film(tmp_path / "plain.mp4", scene, sound=True)
    with pytest.raises(UserError, match=r"\(audio, aac\) cannot be copied into a webm file: name a .mkv file"):
        sharpen_video(sharpener, plain, tmp_path / "out.webm")
    subtitled = with_streams(tmp_path / "in.mkv", plain, subtitles="subrip")
    with pytest.raises(UserError, match=r"\(subtitle, srt\) cannot be copied into a mp4 file: name a .mkv"):
        sharpen_video(sharpener, subtitled, tmp_path / "out.mp4")
    # And the other way round: what fits into MP4 alone is not sent to Matroska.
    subtitled = with_streams(tmp_path / "in.mp4", plain, subtitles="mov_text")
    with pytest.raises(UserError, match=r"mov_text\) cannot be copied into a matroska file: name a .mp4 file$"):
        sharpen_video(sharpener, subtitled, tmp_path / "out.mkv")
    assert not list(tmp_path.glob("*out*"))
    font = with_streams(tmp_path / "font.mkv", plain, font=True)
    capsys.readouterr()
    sharpen_video(sharpener, font, tmp_path / "out.mp4")
    assert "cannot be in a mp4 file and is left out" in capsys.readouterr().err
    assert len(shown(tmp_path / "out.mp4")) == 10


def test_a_second_film_in_the_file_is_copied(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_film(tmp_path / "a.mp4", scene), write_film(tmp_path / "b.mp4", scene[::-1], size=(64, 48))
    with av.open(str(first)) as a, av.open(str(second)) as b, av.open(str(tmp_path / "in.mkv"), "w") as out:
        streams = [out.add_stream_from_template(film.streams.video[0], opaque=True) for film in (a, b)]
        for one, two in zip(a.demux(), b.demux(), strict=True):
            for packet, stream in ((one, streams[0]), (two, streams[1])):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    sharpen_video(sharpener, tmp_path / "in.mkv", tmp_path / "out.mkv", crf=0)
    assert "is copied as it is: only the first film of a file is sharpened" in capsys.readouterr().err
    with av.open(str(tmp_path / "in.mkv")) as old, av.open(str(tmp_path / "out.mkv")) as new:
        kept, copied = ([bytes(packet) for packet in film.demux(video=1) if packet.size] for film in (old, new))
    assert kept == copied
    assert_sharpened(sharpener, shown(tmp_path / "in.mkv"), shown(tmp_path / "out.mkv"))


# Films that are not as they should be.


def test_a_film_that_is_cut_short_is_done_as_far_as_it_goes(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = range(0, 100 * 512, 512)  # 4 s
    for name in ("in.mkv", "in.mp4"):
        path, options = tmp_path / name, {"g": "10", "bf": "0"}
        write_film(tmp_path / "whole.mp4", scene, times, options=options)
        with av.open(str(tmp_path / "whole.mp4")) as source, av.open(
            str(path), "w", container_options={"movflags": "faststart"} if name == "in.mp4" else {}
        ) as out:  # fmt: skip
            stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
            stream.codec_context.framerate = Fraction(25)
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        capsys.readouterr()
        summary = sharpen_video(sharpener, path, tmp_path / f"out{path.suffix}", crf=0)
        said = capsys.readouterr().err
        assert 30 < summary.frames < 70
        assert f"{path} is cut short: it ends after {summary.frames / 25:.1f} s of 4.0 s" in said
        whole, cut = shown(tmp_path / "whole.mp4")[: summary.frames], shown(tmp_path / f"out{path.suffix}")
        assert_sharpened(sharpener, whole[:-1], cut[:-1])  # the last one was cut itself


def test_a_broken_place_costs_no_more_than_its_frames(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_film(tmp_path / "in.mkv", scene, range(0, 30 * 512, 512), codec="mjpeg", pixel_format="yuvj420p",
                      tags={"color_range": 2})  # fmt: skip
    with av.open(str(path)) as film:
        places = [(packet.pos, packet.size) for packet in film.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    position, size = places[15]
    start = bytes(data).index(b"\xff\xd8", position or 0)
    data[start : start + size] = b"\0" * size
    path.write_bytes(data)
    summary = sharpen_video(sharpener, path, tmp_path / "out.mkv", crf=0)
    assert summary.frames == 29
    assert f"{path} is broken in 1 places: frames may be missing" in capsys.readouterr().err
    times = [frame.time for frame in shown(tmp_path / "out.mkv")]
    assert times == [Fraction(40 * number, 1000) for number in range(30) if number != 15]


def test_a_film_without_times_gets_them_from_its_rate(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.h264", scene, kind="h264", options={"bf": "0"})
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    times = [frame.time for frame in shown(tmp_path / "out.mp4")]
    assert len(times) == 10
    assert {later - earlier for earlier, later in pairwise(times)} == {Fraction(1, 25)}


def test_times_that_are_missing_or_run_backwards_go_on_at_the_rate(scene: Frame, tmp_path: Path) -> None:
    """At 25 frames a second one frame is 512 units of 1 / 12800 s."""
    times = [0, 512, 300, None, 5000]
    with av.open(str(write_film(tmp_path / "in.mp4", scene))) as film:
        reader = Reader(film, film.streams.video[0], (WIDTH, HEIGHT), tmp_path / "in.mp4", threading.Event())
        prepared = []
        for pts in times:
            frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
            frame.pts = pts
            prepared.append(reader._prepared(frame).pts)
    assert prepared == [0, 512, 1024, 1536, 5000]


def test_pieces_that_were_put_together_run_on(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    """Two recordings of a transport stream, as a recorder leaves them: each begins at its own time."""
    piece = write_film(tmp_path / "a.ts", scene, range(0, 50 * 512, 512), kind="mpegts", sound=94)
    (tmp_path / "in.ts").write_bytes(2 * piece.read_bytes())
    sharpen_video(sharpener, tmp_path / "in.ts", tmp_path / "out.mkv", crf=0)
    times = [frame.time for frame in shown(tmp_path / "out.mkv")]
    assert len(times) == 100
    heard = [time for _, time in packets(tmp_path / "out.mkv", "audio")]
    assert len(heard) == 2 * len(packets(piece, "audio"))
    assert all(later > earlier for moments in (times, heard) for earlier, later in pairwise(moments))
    # Sound and picture stay together: between the pieces' beginnings lies as much of the one as of the other.
    assert times[50] - times[0] == pytest.approx(heard[len(heard) // 2] - heard[0], abs=0.002)
    assert 2 <= times[50] - times[0] < 2.1


def test_the_timeline_by_hand() -> None:
    """Streams 0 and 1 have a packet each second, of which the latter's come later; 2 is a subtitle now and then."""

    def moved(stream: int, at: int) -> int:
        kind = SimpleNamespace(type=("video", "audio", "subtitle")[stream])
        times = {"pts": at, "dts": at, "time_base": Fraction(1), "duration": 1, "is_discard": False}
        packet: Any = SimpleNamespace(stream=kind, stream_index=stream, **times)
        timeline.moved(packet)
        assert packet.pts == packet.dts
        return int(packet.pts)

    timeline = Timeline(Fraction(2))  # the film begins at -2
    assert [moved(0, at) for at in range(-2, 8)] == [*range(10)]
    assert [moved(1, at) for at in range(-2, 7)] == [*range(9)]
    # The next piece begins at 0 again; of stream 1 a packet of the old one is still to come.
    assert moved(0, 0) == 10
    assert moved(1, 7) == 9
    assert moved(1, 0) == 10
    assert moved(2, 1) == 11  # never seen before
    assert [moved(0, at) for at in (1, 2, 30)] == [11, 12, 40]  # a pause is one
    assert moved(0, 29) == 39  # back by no more than a second: out of order
    assert moved(2, 27) == 37
    assert moved(2, 20) == 30  # a text out of order is no new piece
    assert moved(0, 31) == 41


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_frame_is_found_in_a_film_that_can_only_be_entered_at_its_beginning(
    scene: Frame, tmp_path: Path, part: float
) -> None:
    path = write_film(tmp_path / "in.ts", scene, range(0, 100 * 512, 512), kind="mpegts", options={"g": "1000"})
    begin = shown(path)[0].time
    assert frame_at(path, part).time == pytest.approx(float(begin) + min(4 * part, 99 / 25), abs=0.05)


def test_a_film_that_begins_late_is_not_cut_short(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_film(tmp_path / "in.mkv", scene, range(100 * 12800, 100 * 12800 + 10 * 512, 512))
    sharpen_video(sharpener, source, tmp_path / "out.mkv")
    assert shown(tmp_path / "out.mkv")[0].time == 100
    assert "cut short" not in capsys.readouterr().err


def test_transparency_is_left_out_and_it_is_said(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_film(tmp_path / "in.webm", scene, codec="libvpx-vp9", pixel_format="yuva420p")
    sharpen_video(sharpener, source, tmp_path / "out.webm")
    assert "is transparent in places: that is left out" in capsys.readouterr().err
    with av.open(str(source)) as old, av.open(str(tmp_path / "out.webm")) as new:
        tags = [{name.lower() for name in film.streams.video[0].metadata} for film in (old, new)]
    assert "alpha_mode" in tags[0] and "alpha_mode" not in tags[1]


def test_a_rate_that_no_camera_has_is_taken_for_the_unit_of_time(scene: Frame, tmp_path: Path) -> None:
    for name, told, taken in (("a.mkv", 1000, 25), ("b.mkv", 50, 50)):
        write_film(tmp_path / name, scene, tags={"framerate": Fraction(told)})
        with av.open(str(tmp_path / name)) as film:
            assert film.streams.video[0].average_rate == told
            assert rate_of(film.streams.video[0]) == taken


def test_a_film_of_unknown_length_is_done(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_film(tmp_path / "told.webm", scene, codec="libvpx-vp9", sound=True)
    live = {"live": "1"}
    with (
        av.open(str(tmp_path / "told.webm")) as told,
        av.open(str(tmp_path / "in.webm"), "w", container_options=live) as out,
    ):
        streams = [out.add_stream_from_template(stream, opaque=True) for stream in told.streams]
        for packet in told.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    with av.open(str(tmp_path / "in.webm")) as film:
        assert film.duration is None
    sharpen_video(sharpener, tmp_path / "in.webm", tmp_path / "out.webm")
    said = capsys.readouterr().err
    assert "sharpening: 10/?" in said and "cut short" not in said
    assert [frame.time for frame in shown(tmp_path / "out.webm")] == [Fraction(number, 25) for number in range(10)]
    assert packets(tmp_path / "out.webm", "audio") == packets(tmp_path / "in.webm", "audio")


def test_an_interlaced_film_is_warned_of(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_film(tmp_path / "in.mp4", scene, options={"x264-params": "tff=1:interlaced=1"})
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    assert "in.mp4 is interlaced" in capsys.readouterr().err
    assert_sharpened(sharpener, shown(source), shown(tmp_path / "out.mp4"))


def test_a_packet_that_the_container_refuses_is_counted_and_the_others_go_on(scene: Frame, tmp_path: Path) -> None:
    write_film(tmp_path / "in.mp4", scene, sound=True)
    with av.open(str(tmp_path / "in.mp4")) as film, av.open(str(tmp_path / "out.mp4"), "w") as out:
        encoder = out.add_stream("libx264", 25, width=WIDTH, height=HEIGHT)
        assert isinstance(encoder, av.VideoStream)
        copy = out.add_stream_from_template(film.streams.audio[0])
        heard: list[av.Packet[Any]] = [packet for packet in film.demux(audio=0) if packet.size]
        with Writer(out, encoder) as writer:
            for number in (0, 1, 2, 1, 3):  # one comes a second time, when it is too late
                heard[number].stream = copy
                heard[number].time_base, heard[number].pts = Fraction(1, 48000), 1024 * number
                heard[number].dts = 1024 * number
                writer.put(heard[number])
        assert writer.refused == 1
    assert [data for data, _ in packets(tmp_path / "out.mp4", "audio")] == [bytes(packet) for packet in heard[:4]]


def test_frames_that_change_their_size_are_scaled_to_the_first(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [write_film(tmp_path / f"{size[0]}.h264", scene, kind="h264", size=size) for size in ((96, 64), (48, 32))]
    (tmp_path / "in.h264").write_bytes(b"".join(path.read_bytes() for path in parts))
    summary = sharpen_video(sharpener, tmp_path / "in.h264", tmp_path / "out.mp4")
    assert summary.frames == 20
    assert {frame.planes[0].shape for frame in shown(tmp_path / "out.mp4")} == {(64, 96)}
    assert "changes its size: all frames are scaled to that of the first, 96x64" in capsys.readouterr().err


@pytest.mark.usefixtures("_sound")
def test_what_is_no_film_is_one_message_each(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", scene)
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "head.mp4").write_bytes(film.read_bytes()[:-1000])  # where the packets are is told at the end
    write_film(tmp_path / "heard.mp4", scene, sound=True)
    with av.open(str(tmp_path / "heard.mp4")) as old, av.open(str(tmp_path / "none.mkv"), "w") as out:
        out.add_stream("libx264", 25, width=96, height=64)
        audio = out.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(audio=0):
            if packet.size:
                packet.stream = audio
                out.mux(packet)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(film)
    ours = sorted(tmp_path.iterdir())
    for source, target, message in (
        ("nothing.mp4", "out.mp4", "there is no film"),
        ("folder.mp4", "out.mp4", "there is no film"),
        ("text.mp4", "out.mp4", "cannot be read as a film: Invalid data"),
        ("empty.mp4", "out.mp4", "cannot be read as a film"),
        ("head.mp4", "out.mp4", "cannot be read as a film"),
        ("sound.wav", "out.mp4", "holds no moving picture"),
        ("none.mkv", "out.mp4", "holds no frame that can be decoded"),
        ("film.mp4", "out.avi", "must end in one of .mp4, .m4v, .mov, .mkv, .webm"),
        ("film.mp4", "film.mp4", "is the film itself"),
        ("film.mp4", "link.mp4", "is the film itself"),
        ("film.mp4", "folder.mp4", "is a folder: name a file"),
        ("film.mp4", "text.mp4/out.mp4", "cannot be sharpened into"),
    ):
        with pytest.raises(UserError, match=message):
            sharpen_video(sharpener, tmp_path / source, tmp_path / target)
        assert sorted(tmp_path.iterdir()) == ours


def test_a_network_for_rgb_is_refused(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharpener, "graph", replace(sharpener.graph, kind="rgb"))
    with pytest.raises(UserError, match=r"fast\.onnx works on RGB: a film needs a luma network such as fast"):
        sharpen_video(sharpener, write_film(tmp_path / "in.mp4", scene), tmp_path / "out.mp4")


def test_an_unwritable_folder_is_told(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_film(tmp_path / "in.mp4", scene)

    # Root may write anywhere, so a folder's mode would not do.
    def refuse(*, dir: Path, **_: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(dir))

    monkeypatch.setattr("clearcall.files.tempfile.mkstemp", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        sharpen_video(sharpener, source, tmp_path / "out.mp4")


def test_a_full_disk_ends_it_with_nothing_left_behind(scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene, range(0, 50 * 512, 512))
    (tmp_path / "out").mkdir()
    program = (  # a limit of the file's size stands for the disk's
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\nfrom clearcall.cli import main\nmain()"
    )
    arguments = ("video", str(source), str(tmp_path / "out" / "out.mp4"), "--provider", "onnxruntime", "--crf", "0")
    done = command(*arguments, program=program)
    assert done.returncode == 1
    assert "error: " in done.stderr and "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_film_of_what_was_done(
    scene: Frame, tmp_path: Path, interrupted: Interrupted, number: int
) -> None:
    source = write_film(tmp_path / "in.mp4", scene, range(0, 100 * 512, 512), sound=True, options={"bf": "0"})
    # Slowed down, so that it is interrupted in the midst.
    program = (
        "import time\nfrom clearcall.video.canvas import Canvas\nshow = Canvas.show\n"
        "Canvas.show = lambda *a: (time.sleep(0.05), print('shown', flush=True), show(*a))[2]\n"
        "from clearcall.cli import main\nmain()"
    )
    target = tmp_path / "out" / "out.mp4"
    options = ["--provider", "onnxruntime", "--threads", "1", "--crf", "0"]
    done = interrupted(program, "video", str(source), str(target), *options, send=number)
    assert done.returncode == 130
    assert f"warning: interrupted: {target} holds what was done until then" in done.stderr
    assert "Traceback" not in done.stderr
    count = int(done.stdout.splitlines()[-1].split(": ")[1].split(" frames")[0])
    assert 20 <= count < 60
    assert list(target.parent.iterdir()) == [target]
    assert_sharpened(Sharpener("fast", "onnxruntime", 1), shown(source)[:count], shown(target))
    assert [frame.time for frame in shown(target)] == [Fraction(number, 25) for number in range(count)]


def test_ctrl_c_ends_a_dry_run_and_is_told(scene: Frame, tmp_path: Path, interrupted: Interrupted) -> None:
    source = write_film(tmp_path / "in.mp4", scene, range(0, 100 * 512, 512))
    program = (
        "import time\nfrom clearcall.video import run\n"
        "run.unsharp_in_place = lambda *a: (time.sleep(0.05), print('shown', flush=True))\n"
        "from clearcall.cli import main\nmain()"
    )
    done = interrupted(program, "video", str(source), "--dry-run", "--provider", "onnxruntime")
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert "warning: interrupted: that is of what was done until then" in done.stderr
    assert 20 <= int(done.stdout.splitlines()[-1].split(": ")[1].split(" frames")[0]) < 60


def test_the_command_sharpens_a_film_and_tells_its_rates(scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene, sound=True)
    options = ("--provider", "onnxruntime", "--threads", "1")
    done = command("video", str(source), str(tmp_path / "out.mp4"), *options, "--split")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'out.mp4'}: 10 frames, decode + sharpen ")
    assert len(shown(tmp_path / "out.mp4")) == 10
    both = command("video", str(source), str(tmp_path / "both.mp4"), "--split", "--side-by-side")
    assert both.returncode == 1
    assert both.stderr == "error: --side-by-side and --split exclude each other: choose one\n"
