"""Videos: real files in, the result decoded again and held against the Sharpener and the input's own packets."""

import gc
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from tests.make.commands import run_command, run_interrupted
from tests.make.videos import (
    FINE,
    HEIGHT,
    QUARTER,
    STEP,
    WIDTH,
    Shown,
    copy_packets,
    frames_of,
    packets,
    remux,
    rgb_at,
    shown,
    write_pieces,
    write_video,
)

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.imaging.looks import CRISP_AMOUNT, CRISP_RADIUS_PX, Look
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.media.camera.source import _limited_601
from clearcall.media.video import fit, hdr, read
from clearcall.media.video.canvas import View, add_change, eight_bits
from clearcall.media.video.read import Reader, Timeline, frame_at, planar, plane_of, rate_of
from clearcall.media.video.run import BusyClock, sharpen_video, time_video
from clearcall.media.video.write import Writer
from clearcall.runtime.sharpener import Sharpener, _Variant
from clearcall.temporal.filter import TemporalFilter

ON_ONE_THREAD = ("--model", "fast", "--provider", "onnxruntime", "--threads", "1")
# In units of 1 / 12800 s: as from a camera whose frames come late now and then.
LATE = (0, 512, 1024, 2560, 3072, 3584, 4608, 6144, 6656, 15360)


def sharpened(sharpener: Sharpener, frames: list[Shown]) -> list[Frame]:
    """Return what is to be expected of the lumas of a video."""
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
    if sharpener.expert != "identity":
        assert (after[0].planes[0] != before[0].planes[0]).mean() > 0.05  # it does something


def assert_luma(sharpener: Sharpener, before: list[Shown], after: list[Shown]) -> None:
    assert len(after) == len(before)
    for old, new, expected in zip(before, after, sharpened(sharpener, before), strict=True):
        np.testing.assert_array_equal(new.planes[0], expected)
        np.testing.assert_array_equal(new.planes[1], old.planes[1])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
def test_luma_is_sharpened_and_all_else_is_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, suffix: str
) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    tags: dict[str, Any] = {"color_range": 1, "colorspace": 5, "color_primaries": 9, "color_trc": 1}
    tags["sample_aspect_ratio"] = Fraction(4, 3)
    options = {"bf": "0"}  # of B-frames FFmpeg reads another duration than it wrote
    write_video(source, scene, LATE, sound=True, rotation=90, options=options, tags=tags)
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
    write = Writer._write
    slow_s, frames_in_flight, count = 0.01, 1, 12  # the fixture has one thread

    def slowly_sharpened(_: object, frame: Frame, *arguments: Any) -> None:
        time.sleep(slow_s)  # instead of computing, which takes long on a loaded machine
        np.copyto(arguments[3], frame)

    def slowly_written(*arguments: Any) -> None:
        time.sleep(3 * slow_s)
        write(*arguments)

    monkeypatch.setattr(_Variant, "sharpen", slowly_sharpened)
    monkeypatch.setattr(Writer, "_write", slowly_written)
    source = write_video(tmp_path / "in.mp4", scene, range(0, count * STEP, STEP))
    started = time.perf_counter()
    summary = sharpen_video(sharpener, source, tmp_path / "out.mp4")
    assert summary.sharpen_fps > 1.2 * count / (time.perf_counter() - started)  # the wait itself does not count
    assert summary.sharpen_fps <= frames_in_flight / slow_s


def test_a_dry_run_decodes_and_sharpens_all_and_writes_nothing(
    sharpener: Sharpener, scene: Frame, tmp_path: Path
) -> None:
    source = write_video(tmp_path / "in.mkv", scene, sound=True)
    run = run_command("sharpen", str(source), "--dry-run", *ON_ONE_THREAD)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{source}: 10 frames, decode + sharpen ")
    summary = time_video(sharpener, source)
    assert (summary.frames, summary.encode_fps, summary.interrupted) == (10, None, False)
    assert time_video(sharpener, source, past_frames=False).frames == 10
    assert summary.sharpen_fps > 0 and str(summary).endswith("fps")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a file for the result, or say --dry-run"),
        (["out.mp4", "--dry-run"], "--dry-run writes nothing: leave out OUT"),
        (["--crf", "20", "--dry-run"], "--dry-run writes nothing: leave out OUT"),
        (["out.mp4", "--split", "--side-by-side"], "--side-by-side and --split exclude each other: choose one\n"),
        (["out.mp4", "--size", "96x64", "--scale", "2"], "--scale and --size exclude each other: choose one\n"),
        (["out.mp4", "--size", "96x63"], "size '96x63': give width x height as even numbers from 2 to 8192"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_command("sharpen", "in.mp4", *arguments)
    assert run.returncode == 1 and not list(tmp_path.iterdir())
    assert run.stderr.startswith(f"error: {message}") and run.stderr.count("\n") == 1


def test_the_default_quality_is_near_the_sharpeners_own(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene, range(0, 4 * STEP, STEP))
    for name in ("out.mp4", "out.webm"):
        sharpen_video(sharpener, source, tmp_path / name)
        before, after = shown(source), shown(tmp_path / name)
        assert len(after) == len(before)
        for new, expected in zip(after, sharpened(sharpener, before), strict=True):
            assert np.abs(expected.astype(np.float64) - new.planes[0]).mean() < 4  # 8-bit levels, by the encoder
    with av.open(str(tmp_path / "out.webm")) as video:
        assert video.streams.video[0].codec_context.codec.canonical_name == "vp9"


@pytest.mark.parametrize(
    ("look", "strength", "amount"), [("natural", 1.0, 0.0), ("natural", 0.0, 0.0), ("crisp", 1.0, CRISP_AMOUNT)]
)
def test_strength_and_look_count_for_luma_alone_without_past_frames(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, look: Look, strength: float, amount: float
) -> None:
    """Crisp is an unsharp mask of the natural look."""
    source = write_video(tmp_path / "in.mp4", scene)
    other = Sharpener("fast", "onnxruntime", 1, strength, expert="bicubic_x2.0", look=look)
    sharpen_video(other, source, tmp_path / "out.mp4", crf=0, past_frames=False)
    for old, new in zip(shown(source), shown(tmp_path / "out.mp4"), strict=True):
        natural = sharpener(old.planes[0], "gray") if strength else old.planes[0]
        np.testing.assert_array_equal(new.planes[0], unsharp_mask(natural, CRISP_RADIUS_PX, amount))
        np.testing.assert_array_equal(new.planes[1], old.planes[1])


def test_b_frames_and_references_of_the_input_are_not_harmed(
    sharpener: Sharpener, scene: Frame, tmp_path: Path
) -> None:
    """A decoder predicts frames from those that it has handed out: writing into these would spoil later ones."""
    options = {"g": "60", "bf": "3", "refs": "4", "crf": "30"}
    source = write_video(tmp_path / "in.mp4", scene, range(0, 20 * STEP, STEP), options=options)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    assert_sharpened(sharpener, shown(source), shown(tmp_path / "out.mp4"))


def test_the_encoder_chooses_its_own_kinds_of_frames(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene, options={"g": "1"})
    sharpen_video(sharpener, source, tmp_path / "out.mp4")
    kinds = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as video:
            kinds.append([frame.pict_type == PictureType.I for frame in video.decode(video=0)])
    assert all(kinds[0])
    assert not all(kinds[1])


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix", "converted"),
    [
        ("mjpeg", "yuvj420p", ".mkv", False),
        ("libx264", "yuvj420p", ".mp4", False),
        ("rawvideo", "nv12", ".mkv", False),
        ("libx264", "yuv420p10le", ".mp4", True),
        ("mjpeg", "yuvj422p", ".mkv", True),
        ("ffv1", "bgr0", ".mkv", True),
    ],
)
def test_full_range_and_nv12_keep_every_value_and_other_formats_are_converted_and_it_is_said(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, codec: str, pixel_format: str, suffix: str,
    capsys: pytest.CaptureFixture[str], *, converted: bool,
) -> None:  # fmt: skip
    full = {"color_range": 2} if pixel_format.startswith("yuvj") else {}
    source = write_video(tmp_path / f"in{suffix}", scene, codec=codec, pixel_format=pixel_format, tags=full)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    said, before, after = capsys.readouterr().err, shown(source), shown(tmp_path / "out.mp4")
    if converted:
        assert_luma(sharpener, before, after)
        assert f"{source} is {pixel_format}: it is converted to 8 bits, 4:2:0" in said
    else:
        assert_sharpened(sharpener, before, after)
        assert "warning" not in said
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert video.streams.video[0].pix_fmt in {"yuv420p", "yuvj420p"}
    if full:
        assert after[0].colours[0] == 2


def test_colours_of_rgb_come_back_as_they_were(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    flat = np.full_like(scene, (200, 40, 90))
    source = write_video(tmp_path / "in.mkv", flat, codec="ffv1", pixel_format="bgr0")
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    with av.open(str(tmp_path / "out.mp4")) as video:
        frame = next(video.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (1, 1)
        rgb = frame.to_ndarray(format="rgb24").astype(int)
    assert np.abs(rgb[8:-8, 8:-8] - (200, 40, 90)).max() <= 4


@pytest.mark.parametrize("size", [(95, 64), (96, 63)])
def test_odd_sizes_are_kept_in_webm_and_padded_for_h264(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    width, height = size
    source = write_video(tmp_path / "in.webm", scene, range(0, 3 * STEP, STEP), codec="libvpx-vp9", size=size)
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


@pytest.mark.parametrize(("rotation", "size"), [(0, (WIDTH, HEIGHT)), (90, (94, 62)), (180, (94, 62))])
def test_side_by_side_shows_the_input_on_the_left(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, rotation: int, size: tuple[int, int]
) -> None:
    source = write_video(tmp_path / "in.mp4", scene, (0, 512), rotation=rotation, size=size)
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
    source = write_video(tmp_path / "in.webm", scene, (0,), codec="libvpx-vp9", size=(95, 63))
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
    source = write_video(tmp_path / "in.mp4", scene, (0, 512), rotation=rotation)
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


@pytest.fixture(scope="module")
def colourful(colour_onnx: Path) -> Sharpener:
    """A network that adds 20 levels to Cb, 12 to Cr and nothing to luma."""
    return Sharpener(colour_onnx, "onnxruntime", 1)


@pytest.mark.parametrize("view", ["plain", "split", "side-by-side"])
def test_chroma_is_restored_where_the_network_does_it(
    colourful: Sharpener, scene: Frame, tmp_path: Path, view: View
) -> None:
    """In the part of the frame that shows the result."""
    source = write_video(tmp_path / "in.mp4", scene, (0, 512))
    sharpen_video(colourful, source, tmp_path / "out.mp4", view=view, crf=0)
    for old, new in zip(shown(source), shown(tmp_path / "out.mp4"), strict=True):
        for index, added in ((1, 20), (2, 12)):
            before, after = old.planes[index], new.planes[index]
            if view == "side-by-side":
                left, after = np.hsplit(after, 2)
                np.testing.assert_array_equal(left, before)
            half = before.shape[1] // 2 if view == "split" else -1
            np.testing.assert_array_equal(after[:, : max(0, half)], before[:, : max(0, half)])
            result = np.minimum(before[:, half + 1 :].astype(int) + added, 255)
            np.testing.assert_array_equal(after[:, half + 1 :], result)
    assert time_video(colourful, source).frames == 2


def test_chroma_of_an_odd_frame_is_left_alone(colourful: Sharpener, scene: Frame, tmp_path: Path) -> None:
    """4:2:0 of odd sides is no I420."""
    source = write_video(tmp_path / "in.webm", scene, (0,), codec="libvpx-vp9", size=(95, 63))
    sharpen_video(colourful, source, tmp_path / "out.webm", crf=0)
    old, new = shown(source)[0], shown(tmp_path / "out.webm")[0]
    assert np.abs(new.planes[1].astype(int) - old.planes[1]).max() <= 4  # VP9 at its best is not lossless


# Streams beside the sharpened one.


def with_streams(path: Path, video: Path, *, cover: bool = False, subtitles: str = "", font: bool = False) -> Path:
    """Copy a video into a new file, with more streams and chapters."""
    with av.open(str(video)) as source, av.open(str(path), "w") as out:
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
        copy_packets(source, out, streams)
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
    plain = write_video(tmp_path / "plain.mp4", scene, sound=True)
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
    plain = write_video(tmp_path / "plain.mp4", scene, sound=True)
    source = with_streams(tmp_path / "in.mp4", plain, subtitles="mov_text", cover=True)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    assert_sharpened(sharpener, shown(source), shown(tmp_path / "out.mp4"))
    covers = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as video:
            assert [chapter["metadata"] for chapter in video.chapters()] == [{"title": "Äther"}]
            images = [one.index for one in video.streams.video if one.disposition & Disposition.attached_pic]
            covers.append([bytes(packet) for packet in video.demux() if packet.stream_index in images and packet.size])
    assert covers[0] == covers[1]
    assert len(covers[0]) == 1
    assert packets(tmp_path / "out.mp4", "subtitle") == packets(source, "subtitle")
    assert packets(tmp_path / "out.mp4", "audio") == packets(source, "audio")
    assert "warning" not in capsys.readouterr().err


def test_a_cover_is_kept_in_matroska(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = with_streams(tmp_path / "in.mp4", write_video(tmp_path / "plain.mp4", scene), cover=True)
    sharpen_video(sharpener, source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as video:
        assert [int(stream.disposition & Disposition.attached_pic) for stream in video.streams.video] == [0, 1024]


def test_a_timecode_is_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_video(tmp_path / "in.mov", scene, metadata={"timecode": "10:00:00:00"})
    with av.open(str(source)) as video:
        assert [stream.type for stream in video.streams] == ["video", "data"]
    for suffix in ("mov", "mp4", "mkv"):
        sharpen_video(sharpener, source, tmp_path / f"out.{suffix}", crf=0)
        assert_sharpened(sharpener, shown(source), shown(tmp_path / f"out.{suffix}"))
        with av.open(str(tmp_path / f"out.{suffix}")) as video:
            kept = {name.lower(): value for name, value in video.streams.video[0].metadata.items()}
            assert kept["timecode"] == "10:00:00:00"
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["mov", "mp4"])
def test_metadata_that_mp4_has_no_place_for_is_kept(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, suffix: str
) -> None:
    own = {"com.apple.quicktime.make": "Apple", "mykey": "Grüße", "comment": "C", "artist": "me"}
    source = write_video(tmp_path / "in.mov", scene, metadata=own, muxer={"movflags": "use_metadata_tags"})
    sharpen_video(sharpener, source, tmp_path / f"out.{suffix}")
    with av.open(str(tmp_path / f"out.{suffix}")) as video:
        assert own | {"title": "A call"} == {name: video.metadata[name] for name in [*own, "title"]}
    # What has a place goes there, where every player looks.
    sharpen_video(sharpener, write_video(tmp_path / "plain.mkv", scene), tmp_path / f"plain.{suffix}")
    assert b"\xa9nam" in (tmp_path / f"plain.{suffix}").read_bytes()


def test_what_a_container_cannot_hold_is_refused_or_named(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_video(tmp_path / "plain.mp4", scene, sound=True)
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


def test_a_second_video_in_the_file_is_copied(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_video(tmp_path / "a.mp4", scene), write_video(tmp_path / "b.mp4", scene[::-1], size=(64, 48))
    with av.open(str(first)) as a, av.open(str(second)) as b, av.open(str(tmp_path / "in.mkv"), "w") as out:
        streams = [out.add_stream_from_template(video.streams.video[0], opaque=True) for video in (a, b)]
        for one, two in zip(a.demux(), b.demux(), strict=True):
            for packet, stream in ((one, streams[0]), (two, streams[1])):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    sharpen_video(sharpener, tmp_path / "in.mkv", tmp_path / "out.mkv", crf=0)
    assert "is copied as it is: only the first video of a file is sharpened" in capsys.readouterr().err
    with av.open(str(tmp_path / "in.mkv")) as old, av.open(str(tmp_path / "out.mkv")) as new:
        kept, copied = ([bytes(packet) for packet in video.demux(video=1) if packet.size] for video in (old, new))
    assert kept == copied
    assert_sharpened(sharpener, shown(tmp_path / "in.mkv"), shown(tmp_path / "out.mkv"))


# Videos that are not as they should be.


@pytest.mark.parametrize(("suffix", "muxer"), [(".mkv", {}), (".mp4", {"movflags": "faststart"})])
def test_a_truncated_video_is_done_as_far_as_it_goes(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    suffix: str, muxer: dict[str, str],
) -> None:  # fmt: skip
    complete, path = tmp_path / "complete.mp4", tmp_path / f"in{suffix}"
    write_video(complete, scene, range(0, 60 * STEP, STEP), options={"g": "10", "bf": "0"})
    data = remux(complete, path, **muxer).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    summary = sharpen_video(sharpener, path, tmp_path / f"out{suffix}", crf=0)
    assert 15 < summary.frames < 35
    assert f"{path} is cut short: it ends after {summary.frames / 25:.1f} s of 2.4 s" in capsys.readouterr().err
    before, after = shown(complete)[: summary.frames], shown(tmp_path / f"out{suffix}")
    assert_sharpened(sharpener, before[:-1], after[:-1])  # the last one was truncated itself


def test_a_broken_place_costs_no_more_than_its_frames(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "in.mkv", scene, range(0, 30 * STEP, STEP), codec="mjpeg", pixel_format="yuvj420p",
                      tags={"color_range": 2})  # fmt: skip
    with av.open(str(path)) as video:
        places = [(packet.pos, packet.size) for packet in video.demux(video=0) if packet.size]
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


def test_a_video_without_times_gets_them_from_its_rate(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.h264", scene, kind="h264", options={"bf": "0"})
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    times = [frame.time for frame in shown(tmp_path / "out.mp4")]
    assert len(times) == 10
    assert {later - earlier for earlier, later in pairwise(times)} == {Fraction(1, 25)}


def test_times_that_are_missing_or_run_backwards_go_on_at_the_rate(scene: Frame, tmp_path: Path) -> None:
    """At 25 frames a second one frame is 512 units of 1 / 12800 s."""
    times = [0, 512, 300, None, 5000]
    with av.open(str(write_video(tmp_path / "in.mp4", scene))) as video:
        reader = Reader(video, video.streams.video[0], lambda frame: frame, tmp_path / "in.mp4", threading.Event())
        prepared = []
        for pts in times:
            frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
            frame.pts = pts
            prepared.append(reader._prepared(frame).pts)
    assert prepared == [0, 512, 1024, 1536, 5000]


def test_pieces_that_were_put_together_run_on(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    """Two recordings of a transport stream, as a recorder leaves them: each begins at its own time."""
    piece = write_video(tmp_path / "a.ts", scene, range(0, 30 * STEP, STEP), kind="mpegts", sound=56)
    (tmp_path / "in.ts").write_bytes(2 * piece.read_bytes())
    sharpen_video(sharpener, tmp_path / "in.ts", tmp_path / "out.mkv", crf=0)
    times = [frame.time for frame in shown(tmp_path / "out.mkv")]
    assert len(times) == 60
    heard = [time for _, time in packets(tmp_path / "out.mkv", "audio")]
    assert len(heard) == 2 * len(packets(piece, "audio"))
    assert all(later > earlier for moments in (times, heard) for earlier, later in pairwise(moments))
    # Sound and video stay together: between the pieces' beginnings lies as much of the one as of the other.
    assert times[30] - times[0] == pytest.approx(heard[len(heard) // 2] - heard[0], abs=0.002)
    assert 1.2 <= times[30] - times[0] < 1.3


def test_the_timeline_by_hand() -> None:
    """Streams 0 and 1 have a packet each second, of which the latter's come later; 2 is a subtitle now and then."""

    def moved(stream: int, at: int) -> int:
        kind = SimpleNamespace(type=("video", "audio", "subtitle")[stream])
        times = {"pts": at, "dts": at, "time_base": Fraction(1), "duration": 1, "is_discard": False}
        packet: Any = SimpleNamespace(stream=kind, stream_index=stream, **times)
        timeline.moved(packet)
        assert packet.pts == packet.dts
        return int(packet.pts)

    timeline = Timeline(Fraction(2))  # the video begins at -2
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


def test_a_frame_is_found_in_a_video_that_can_only_be_entered_at_its_beginning(scene: Frame, tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.ts", scene, range(0, 100 * STEP, STEP), kind="mpegts", options={"g": "1000"})
    begin = shown(path)[0].time
    for part in (0.0, 0.5, 1.0):
        assert frame_at(path, part).time == pytest.approx(float(begin) + min(4 * part, 99 / 25), abs=0.05)


def test_a_video_that_begins_late_is_not_called_truncated(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_video(tmp_path / "in.mkv", scene, range(100 * 12800, 100 * 12800 + 10 * 512, 512))
    sharpen_video(sharpener, source, tmp_path / "out.mkv")
    assert shown(tmp_path / "out.mkv")[0].time == 100
    assert "cut short" not in capsys.readouterr().err


def test_transparency_is_warned_of(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_video(tmp_path / "in.webm", scene, codec="libvpx-vp9", pixel_format="yuva420p")
    sharpen_video(sharpener, source, tmp_path / "out.mkv", crf=0)
    assert "is transparent in places: that is left out" in capsys.readouterr().err
    assert_luma(sharpener, shown(source), shown(tmp_path / "out.mkv"))
    with av.open(str(tmp_path / "out.mkv")) as video:
        assert "alpha_mode" not in {tag.lower() for tag in video.streams.video[0].metadata}


def test_a_rate_that_no_camera_has_is_taken_for_the_unit_of_time(scene: Frame, tmp_path: Path) -> None:
    for name, told, taken in (("a.mkv", 1000, 25), ("b.mkv", 50, 50)):
        write_video(tmp_path / name, scene, tags={"framerate": Fraction(told)})
        with av.open(str(tmp_path / name)) as video:
            assert video.streams.video[0].average_rate == told
            assert rate_of(video.streams.video[0]) == taken


def test_a_video_of_unknown_length_is_done(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "told.webm", scene, codec="libvpx-vp9", sound=True)
    remux(tmp_path / "told.webm", tmp_path / "in.webm", live="1")
    with av.open(str(tmp_path / "in.webm")) as video:
        assert video.duration is None
    sharpen_video(sharpener, tmp_path / "in.webm", tmp_path / "out.webm")
    said = capsys.readouterr().err
    assert "sharpening: 10/?" in said and "cut short" not in said
    assert [frame.time for frame in shown(tmp_path / "out.webm")] == [Fraction(number, 25) for number in range(10)]
    assert packets(tmp_path / "out.webm", "audio") == packets(tmp_path / "in.webm", "audio")


def test_a_packet_that_the_container_refuses_is_counted_and_the_others_go_on(scene: Frame, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", scene, sound=True)
    with av.open(str(tmp_path / "in.mp4")) as video, av.open(str(tmp_path / "out.mp4"), "w") as out:
        encoder = out.add_stream("libx264", 25, width=WIDTH, height=HEIGHT)
        assert isinstance(encoder, av.VideoStream)
        copy = out.add_stream_from_template(video.streams.audio[0])
        heard: list[av.Packet[Any]] = [packet for packet in video.demux(audio=0) if packet.size]
        with Writer(out, encoder) as writer:
            for number in (0, 1, 2, 1, 3):  # one comes a second time, when it is too late
                heard[number].stream = copy
                heard[number].time_base, heard[number].pts = Fraction(1, 48000), 1024 * number
                heard[number].dts = 1024 * number
                writer.put(heard[number])
        assert writer.refused == 1
    assert [data for data, _ in packets(tmp_path / "out.mp4", "audio")] == [bytes(packet) for packet in heard[:4]]


# Sizes that change, and one that is asked for.


def growing(path: Path, scene: Frame, codec: str, *sizes: tuple[int, int]) -> Path:
    """Write a WebM whose frames change their size, three of each, as recorders write what a call sends."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, 25, width=sizes[0][0], height=sizes[0][1])
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        for piece, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
            encoder.options = (
                {"preset": "12"} if codec == "libsvtav1" else {"crf": "4", "b": "4M", "lag-in-frames": "0"}
            )
            made = []
            for number in range(3):
                frame = VideoFrame.from_ndarray(rgb_at(scene, number, width, height), "rgb24").reformat(
                    format="yuv420p"
                )
                frame.pts, frame.time_base = number, Fraction(1, 25)
                made += encoder.encode(frame)
            for number, packet in enumerate(made + encoder.encode(None)):
                packet.pts = packet.dts = 3 * piece + number
                packet.time_base, packet.stream = Fraction(1, 25), stream
                out.mux(packet)
    return path


@pytest.mark.parametrize("scale", [planar, _limited_601])
@pytest.mark.parametrize("form", ["yuv420p", "bgr24"])
def test_frames_are_upscaled_by_bicubic_interpolation(scene: Frame, scale: fit.Convert, form: str) -> None:
    given = VideoFrame.from_ndarray(np.asarray(Image.fromarray(scene).resize((100, 100)))).reformat(format=form)
    luma = plane_of(given.reformat(format="yuv420p"), 0)
    wanted = np.asarray(Image.fromarray(luma).resize((200, 200), Image.Resampling.BICUBIC), np.int16)
    off = np.abs(wanted - plane_of(scale(given, 200, 200), 0))[8:-8, 8:-8]  # the edges are another matter
    assert off.mean() < 0.9  # 8-bit levels; bilinear is 1.2 off


@pytest.mark.parametrize("sizes", [((96, 64), (48, 32)), ((48, 32), (96, 64)), ((48, 32), (96, 64), (72, 48))])
def test_frames_that_change_their_size_are_scaled_to_the_largest(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, sizes: tuple[tuple[int, int], ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """They were scaled to the first: a recording of a call, which begins small, stayed so."""
    source = write_pieces(tmp_path / "in.h264", scene, *sizes)
    summary = sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    assert summary.frames == 10 * len(sizes)
    assert_luma(sharpener, shown(source, (96, 64)), shown(tmp_path / "out.mp4"))
    assert "changes its size: all frames are scaled to 96x64; --size names another" in capsys.readouterr().err
    assert time_video(sharpener, source).frames == summary.frames


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9", "libsvtav1"])
def test_recordings_of_calls_that_grow_come_out_at_their_largest(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, codec: str
) -> None:
    source = growing(tmp_path / "in.webm", scene, codec, (80, 64), (161, 127), (102, 80))
    sharpen_video(sharpener, source, tmp_path / "out.mkv", crf=0)
    sharpen_video(sharpener, source, tmp_path / "out.webm")
    h264, vp9 = shown(tmp_path / "out.mkv"), shown(tmp_path / "out.webm")
    assert {frame.planes[0].shape for frame in h264} == {(128, 162)}  # the odd row and column are repeated
    assert {frame.planes[0].shape for frame in vp9} == {(127, 161)}
    expected = sharpened(sharpener, shown(source, (161, 127)))
    assert len(h264) == len(vp9) == len(expected) == 9
    for padded, luma in zip(h264, expected, strict=True):
        np.testing.assert_array_equal(padded.planes[0][:127, :161], luma)


def test_a_size_may_be_asked_for(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_video(tmp_path / "in.mp4", scene)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0, size=(144, 96))
    assert_luma(sharpener, shown(source, (144, 96)), shown(tmp_path / "out.mp4"))
    assert "changes its size" not in capsys.readouterr().err
    # It is that of the frame as it is shown: a phone's is stored in landscape.
    turned = write_video(tmp_path / "turned.mp4", scene, rotation=90)
    sharpen_video(sharpener, turned, tmp_path / "turned_out.mp4", crf=0, size=(128, 192))
    after = shown(tmp_path / "turned_out.mp4")
    assert after[0].planes[0].shape == (128, 192) and after[0].rotation == 90
    assert_luma(sharpener, shown(turned, (192, 128)), after)


def test_a_frame_keeps_its_shape_in_a_size_of_another(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene, tags={"color_range": 1})
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0, size=(128, 64))
    before = shown(source, (96, 64))
    for old, new in zip(before, shown(tmp_path / "out.mp4"), strict=True):
        assert np.abs(new.planes[0][:, :12].astype(int) - 16).max() <= 16  # the network sees the edge
        assert np.abs(new.planes[0][:, -12:].astype(int) - 16).max() <= 16
        np.testing.assert_array_equal(new.planes[1][:, 8:56], old.planes[1])
        assert (new.planes[1][:, :8] == 128).all() and (new.planes[1][:, 56:] == 128).all()
        assert np.abs(new.planes[0][:, 20:108].astype(int) - old.planes[0][:, 4:92]).mean() < 8
    # Where pixels are wide, the size that is asked for has square ones.
    wide = write_video(tmp_path / "wide.mkv", scene, tags={"sample_aspect_ratio": Fraction(4, 3)})
    sharpen_video(sharpener, wide, tmp_path / "wide.mp4", crf=0, size=(128, 64))
    assert_luma(sharpener, shown(wide, (128, 64)), shown(tmp_path / "wide.mp4"))
    sharpen_video(sharpener, wide, tmp_path / "same.mp4", crf=0, size=(96, 64))
    with av.open(str(tmp_path / "same.mp4")) as same:
        assert same.streams.video[0].sample_aspect_ratio in (None, 0, 1)
    with av.open(str(tmp_path / "wide.mp4")) as video:
        assert video.streams.video[0].sample_aspect_ratio == 1


def test_pixels_may_change_their_shape_with_the_size(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    """96x64 of square pixels and 64x64 of 3:2 look alike; 64x64 of square ones has bars at its sides."""
    first = write_pieces(tmp_path / "first.h264", scene, (96, 64), tags={"sample_aspect_ratio": Fraction(1)})
    for name, pixel in (("alike", Fraction(3, 2)), ("square", Fraction(1))):
        second = write_pieces(tmp_path / "second.h264", scene, (64, 64), tags={"sample_aspect_ratio": pixel})
        source = tmp_path / f"{name}.h264"
        source.write_bytes(first.read_bytes() + second.read_bytes())
        sharpen_video(sharpener, source, tmp_path / f"{name}.mp4", crf=0)
        after = shown(tmp_path / f"{name}.mp4")
        with av.open(str(tmp_path / f"{name}.mp4")) as video:
            assert video.streams.video[0].sample_aspect_ratio == 1
        assert len(after) == 20 and after[-1].planes[0].shape == (64, 96)
        bars = [(plane[:, 0] == plane[:, 7]).all() for plane in (after[0].planes[1], after[-1].planes[1])]
        assert bars == [False, name == "square"]
        if name == "alike":
            assert_luma(sharpener, shown(source, (96, 64)), after)


def test_frames_that_are_turned_otherwise_are_laid_as_the_first(
    sharpener: Sharpener, scene: Frame, tmp_path: Path
) -> None:
    """Of a rotation H.264 may tell in key frames alone; it holds until the next of them."""
    lying = write_video(tmp_path / "lying.mp4", scene, options={"bf": "0"})
    source = write_pieces(tmp_path / "in.h264", scene, (64, 96))
    upright = shown(source, (64, 96))
    with av.open(str(lying)) as video:
        stream = video.streams.video[0]
        insert = "h264_mp4toannexb,h264_metadata=display_orientation=insert:rotate=90"
        turned = BitStreamFilterContext(insert, stream)
        data = b"".join(bytes(one) for packet in video.demux(stream) if packet.size for one in turned.filter(packet))
    source.write_bytes(data + source.read_bytes())
    assert [frame.rotation for frame in frames_of(source)] == [90] + [0] * 19
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    after = shown(tmp_path / "out.mp4")
    turned_back = []
    for one in upright:
        y, u, v = (np.rot90(plane, -1) for plane in one.planes)
        turned_back.append(replace(one, planes=(y, u, v)))
    before = shown(lying, (96, 64)) + turned_back
    assert {frame.rotation for frame in after} == {90}
    assert_luma(sharpener, before, after)


def test_frames_are_freed_as_soon_as_they_are_used(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    """Each frame that waits for the garbage collector instead takes megabytes, and fresh memory is slow."""
    source = write_video(tmp_path / "in.mp4", scene)
    gc.collect()
    gc.disable()
    try:
        sharpen_video(sharpener, source, tmp_path / "out.mp4")
        left = [one for one in gc.get_objects() if isinstance(one, VideoFrame)]
    finally:
        gc.enable()
    assert len(left) <= 1  # the first one, whose metadata are read


def test_of_constant_sizes_only_key_frames_are_decoded(
    scene: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, frames = read.decoded, list[VideoFrame]()

    def counted(*arguments: Any) -> Iterator[VideoFrame]:
        for frame in decode(*arguments):
            frames.append(frame)
            yield frame

    monkeypatch.setattr(fit, "decoded", counted)
    for codec, name in (("libx264", "in.mp4"), ("libvpx-vp9", "in.webm")):
        path = write_video(tmp_path / name, scene, range(0, 40 * STEP, STEP), codec=codec, options={"g": "10"})
        frames.clear()
        assert list(fit.frame_pixels(path, frame_at(path, 0))) == [(96, 64)]
        assert [frame.key_frame for frame in frames] == [True] * 4


def vp9_header(bits: str) -> bytes:
    padded = bits.ljust(64, "0")
    return bytes(int(padded[at : at + 8], 2) for at in range(0, 64, 8))


@pytest.mark.parametrize(
    ("bits", "states"),
    [
        ("10" + "00" + "0" + "0" + "1" + "0", False),  # a key frame
        ("10" + "00" + "1" + "000", False),  # a frame that is shown once more
        ("10" + "00" + "0" + "1" + "1" + "0" + "00" + "1" * 20 + "1", False),  # of the size of its first reference
        ("10" + "00" + "0" + "1" + "1" + "0" + "00" + "1" * 20 + "001", False),  # of the third's
        ("10" + "00" + "0" + "1" + "1" + "0" + "00" + "1" * 20 + "000", True),
        ("10" + "00" + "0" + "1" + "1" + "1" + "1" * 20 + "000", True),  # resilient to errors
        ("10" + "11" + "0" + "0" + "1" + "1" + "0" + "00" + "1" * 20 + "000", True),  # of profile 3
        ("10" + "00" + "0" + "1" + "0" + "0" + "1", True),  # hidden, of no reference
        ("10" + "00" + "0" + "1" + "0" + "0" + "0" + "00" + "1" * 20 + "010", False),  # hidden, of its second's
        ("01" + "00" + "0" + "1" + "1" + "0" + "00" + "1" * 20 + "000", False),  # no VP9
    ],
)
def test_vp9_frames_that_state_their_size_are_known(bits: str, *, states: bool) -> None:
    frame = vp9_header(bits)
    assert fit.states_size(frame) == states
    marker = bytes([0b110_00_001])  # an index of two frames, whose lengths have a byte each
    index = marker + bytes([8, 8]) + marker
    assert fit.states_size(vp9_header("1000" + "1") + frame + index) == states
    assert not fit.states_size(b"")
    assert not fit.states_size(marker)


def restated(packet: bytes, width: int, height: int) -> bytes:
    """Let a VP9 frame state a size instead of inheriting that of its first reference; one of few blocks, of profile 0.

    Blocks are of 8x8 pixels: what is coded of them stays valid as long as there are as many.
    """
    bits = "".join(f"{byte:08b}" for byte in packet)
    is_shown, resilient = bits[6], bits[7]
    at = end = 8 + (is_shown == "0") + 2 * (resilient == "0") + 20
    assert bits[at] == "1"

    def taken(count: int) -> bool:
        nonlocal end
        end += count
        return bits[end - 1] == "1"

    taken(3)  # the reference, another size to show it at, precise motion
    taken(0 if taken(1) else 2)  # interpolation
    taken((2 if resilient == "0" else 0) + 2 + 9)  # contexts, the loop filter's level and sharpness
    if taken(1) and taken(1):
        for _ in range(6):
            taken(7 if taken(1) else 0)
    taken(8)
    for _ in range(3):  # quantization
        taken(5 if taken(1) else 0)
    assert not taken(1)  # segments
    taken(1 if taken(1) else 0)  # tiles
    taken(16)  # how long the second header is
    stated = f"{bits[:at]}000{width - 1:016b}{height - 1:016b}{bits[at + 1 : end]}"
    complete = stated + "0" * (-len(stated) % 8)
    return int(complete, 2).to_bytes(len(complete) // 8) + packet[-(-end // 8) :]


def test_vp9_may_grow_between_key_frames(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    """Browsers let it do so; of the key frames alone it would look small."""
    small, source = growing(tmp_path / "small.webm", scene, "libvpx-vp9", (90, 58)), tmp_path / "in.webm"
    with av.open(str(small)) as video, av.open(str(source), "w") as out:
        stream = out.add_stream_from_template(video.streams.video[0], opaque=True)
        for packet in video.demux():
            if packet.size:
                data = bytes(packet) if packet.is_keyframe else restated(bytes(packet), 96, 64)
                copy = packet_of(data, stream, packet.pts or 0, packet.time_base)
                copy.is_keyframe = packet.is_keyframe
                out.mux(copy)
    sizes = [(frame.width, frame.height, frame.key_frame) for frame in frames_of(source)]
    assert sizes == [(90, 58, True), (96, 64, False), (96, 64, False)]
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    before, after = shown(source, (96, 64)), shown(tmp_path / "out.mp4")
    assert len(after) == 3
    for old, new in zip(before[1:], after[1:], strict=True):  # those of the large size
        np.testing.assert_array_equal(new.planes[1], old.planes[1])


# HDR.

MASTERED = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
STATIC = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")


def write_hdr(path: Path, *, trc: int = 16, mastered: bool = True, count: int = 6, rotation: int = 0) -> Path:
    """Write a lossless 10-bit HEVC of a smooth ramp of 10-bit levels beside moving detail."""
    told = f":hdr10=1:master-display={MASTERED}:max-cll=1000,400" if mastered else ""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", 25, {"x265-params": f"log-level=none:lossless=1{told}"}, width=96, height=64)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p10le"
        if rotation:
            stream.set_display_matrix(QUARTER[rotation])
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, trc, 9, 1
        y, x = np.mgrid[0:64, 0:96]
        for number in range(count):
            frame = VideoFrame(96, 64, "yuv420p10le")
            luma = 300 + x + 60 * np.sin((x + 2 * number) / 3) * np.cos(y / 3) * (y >= 32)
            for index, plane in enumerate((luma, np.full((32, 48), 480), np.full((32, 48), 530))):
                plane_of(frame, index)[:] = plane.astype(np.uint16)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = 9, 1, 9, trc
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def tags_of(frame: VideoFrame) -> tuple[Any, ...]:
    return frame.format.name, frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range


@pytest.mark.parametrize(
    ("suffix", "codec", "trc", "mastered"),
    [
        (".mp4", "hevc", 16, True),
        (".mov", "hevc", 18, False),
        (".mkv", "hevc", 16, True),
        (".webm", "av1", 16, True),
        (".webm", "av1", 18, False),
    ],
)
def test_hdr_keeps_its_ten_bits_and_what_they_mean(
    sharpener: Sharpener, tmp_path: Path, suffix: str, codec: str, trc: int, *, mastered: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """PQ and HLG became 8 bits without the metadata that say how bright they are."""
    source, target = write_hdr(tmp_path / "in.mp4", trc=trc, mastered=mastered), tmp_path / f"out{suffix}"
    sharpen_video(sharpener, source, target, crf=1)
    said = capfd.readouterr().err
    assert "warning" not in said and "Svt" not in said and "x265" not in said
    before, after = frames_of(source), frames_of(target)
    assert len(after) == len(before) == 6
    with av.open(str(target)) as video:
        assert video.streams.video[0].codec_context.codec.canonical_name == codec
    lumas = [np.minimum((plane_of(frame, 0) + 2) // 4, 255).astype(np.uint8) for frame in before]
    temporal = TemporalFilter()
    for old, new, luma in zip(before, after, lumas, strict=True):
        assert tags_of(new) == tags_of(old) == ("yuv420p10le", trc, 9, 9, 1)
        for name in STATIC:
            assert (new.side_data.get(name) is not None) == mastered
            if mastered:
                assert static_of(new, name) == pytest.approx(static_of(old, name), rel=0.01, abs=1e-4)
        ten, result = plane_of(old, 0).astype(int), plane_of(new, 0).astype(int)
        around = sliding_window_view(np.pad(luma.astype(int), 1, "edge"), (3, 3)).reshape(*luma.shape, 9)
        textured = around.max(axis=-1) - around.min(axis=-1) > 1
        expected = ten + 4 * textured * (sharpener(temporal(luma), "gray").astype(int) - luma)
        assert (expected != ten)[40:].mean() > 0.1 and (expected == ten)[:28].all()
        assert np.abs(result - expected).mean() < 2  # 10-bit levels
        assert np.abs(plane_of(new, 1).astype(int) - plane_of(old, 1)).mean() < 1.5
        # A ramp of single 10-bit levels stays one, where 8 bits make steps of four.
        ramp = result[4:28].mean(axis=0)[8:88]
        assert np.abs(ramp - ten[4:28].mean(axis=0)[8:88]).mean() < 1.5  # encoders of later versions are coarser
        assert len(set(np.round(ramp))) > 40  # of 80; 8 bits would leave 20


def static_of(frame: VideoFrame, name: str) -> list[float]:
    """Return the numbers of static metadata, rationals divided."""
    data = frame.side_data.get(name)
    assert data is not None
    numbers = np.frombuffer(cast(bytes, data), np.int32).astype(float)
    return list(numbers) if len(numbers) == 2 else list(numbers[:20:2] / numbers[1:20:2])


@pytest.mark.parametrize("view", ["side-by-side", "split"])
def test_hdr_is_shown_beside_its_input(sharpener: Sharpener, tmp_path: Path, view: Any) -> None:
    source = write_hdr(tmp_path / "in.mp4", rotation=90)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", view=view, crf=1)
    old, new = frames_of(source)[0], frames_of(tmp_path / "out.mp4")[0]
    assert tags_of(new) == tags_of(old) and new.rotation == 90
    luma, shown_luma = (as_displayed(plane_of(frame, 0), 90).astype(int) for frame in (old, new))
    half = shown_luma.shape[1] // 2
    assert np.abs(shown_luma[:, : half - 8] - luma[:, : half - 8]).mean() < 2
    if view == "split":
        assert np.abs(shown_luma[:, half : half + 2] - 940).mean() < 20


def test_hdr_that_grows_keeps_its_depth(sharpener: Sharpener, tmp_path: Path) -> None:
    source = write_hdr(tmp_path / "in.mp4")
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=1, size=(256, 128))
    old, new = frames_of(source)[0], frames_of(tmp_path / "out.mp4")[0]
    assert tags_of(new) == tags_of(old) and (new.width, new.height) == (256, 128)
    luma = plane_of(new, 0)
    assert np.abs(luma[:, :28].astype(int) - 64).mean() < 4  # the bars are black
    ramp = luma[8:56].mean(axis=0)[48:208]
    # Smoother than an 8-bit level, which is four of these.
    assert np.abs(np.diff(ramp, 2)).max() < 4 and len(set(np.round(ramp))) > 60


def test_ten_bits_keep_what_the_network_does_not_change() -> None:
    luma = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    eight = eight_bits(luma)
    np.testing.assert_array_equal(eight, np.minimum(np.round(luma / 4 + 1e-9), 255))
    np.testing.assert_array_equal(add_change(luma, eight), luma)
    # Of a gradient rounding makes steps, which are not to be sharpened; elsewhere a level is one of four.
    np.testing.assert_array_equal(add_change(luma.reshape(1, -1), 255 - eight.reshape(1, -1)), luma.reshape(1, -1))
    lighter = add_change(luma, np.minimum(eight.astype(int) + 1, 255).astype(np.uint8))
    np.testing.assert_array_equal(lighter, np.where(eight < 255, np.minimum(luma + 4, 1023), luma))


def test_hdr_of_other_formats_is_converted_to_ten_bits_and_it_is_said(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    source = write_video(tmp_path / "in.mkv", scene, codec="ffv1", pixel_format="yuv422p10le", tags=tags)
    sharpen_video(sharpener, source, tmp_path / "out.mkv")
    assert "is yuv422p10le: it is converted to 10 bits, 4:2:0" in capsys.readouterr().err
    assert {tags_of(frame) for frame in frames_of(tmp_path / "out.mkv")} == {("yuv420p10le", 16, 9, 9, 1)}


@pytest.mark.parametrize("count", [1, 2])
def test_a_hevc_of_one_or_two_frames_has_its_times(scene: Frame, tmp_path: Path, count: int) -> None:
    """Of so few, x265 leaves the decoding times uninitialised: glibc is told to fill them with something."""
    source = write_video(tmp_path / "in.mp4", scene, range(0, count * STEP, STEP))
    program = "from clearcall.cli import main; main()"
    arguments = ("sharpen", str(source), str(tmp_path / "out.mp4"), *ON_ONE_THREAD)
    command = [sys.executable, "-c", program, *arguments, "--codec", "hevc"]
    subprocess.run(command, env=os.environ | {"MALLOC_PERTURB_": "1"}, check=True)
    assert [one.time for one in shown(tmp_path / "out.mp4")] == [Fraction(number, 25) for number in range(count)]


def test_hdr_without_an_encoder_for_it_is_refused(
    sharpener: Sharpener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_hdr(tmp_path / "in.mp4", count=3)
    monkeypatch.setattr("clearcall.media.video.write.av.codecs_available", {"libx264"})
    for name, codec in (("out.mp4", "libx265"), ("out.webm", "libsvtav1")):
        with pytest.raises(UserError, match=f"is HDR, for which this build of PyAV lacks {codec}: convert it to SDR"):
            sharpen_video(sharpener, source, tmp_path / name)
    assert list(tmp_path.iterdir()) == [source]


def test_dynamic_metadata_of_hdr_are_told_of_and_dolby_vision_alone_is_refused() -> None:
    """No encoder here can make them."""
    frame: Any = SimpleNamespace(side_data={"DYNAMIC_HDR_PLUS": b"", "DOVI_METADATA": b""}, color_trc=16)
    assert hdr.lost_metadata(frame) == ["HDR10+", "Dolby Vision"]
    hdr.check_hdr(Path("in.mp4"), frame)
    frame.color_trc = 2
    with pytest.raises(UserError, match=r"in\.mp4 is HDR in Dolby Vision alone, .*: convert it"):
        hdr.check_hdr(Path("in.mp4"), frame)


@pytest.mark.usefixtures("_sound")
def test_what_is_no_video_is_one_message_each(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", scene)
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "head.mp4").write_bytes(video.read_bytes()[:-1000])  # where the packets are is told at the end
    write_video(tmp_path / "heard.mp4", scene, sound=True)
    with av.open(str(tmp_path / "heard.mp4")) as old, av.open(str(tmp_path / "none.mkv"), "w") as out:
        out.add_stream("libx264", 25, width=96, height=64)
        copy_packets(old, out, {1: out.add_stream_from_template(old.streams.audio[0])})
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(video)
    ours = sorted(tmp_path.iterdir())
    for source, target, message in (
        ("nothing.mp4", "out.mp4", "there is no video"),
        ("folder.mp4", "out.mp4", "there is no video"),
        ("text.mp4", "out.mp4", "cannot be read as a video: Invalid data"),
        ("empty.mp4", "out.mp4", "cannot be read as a video"),
        ("head.mp4", "out.mp4", "cannot be read as a video"),
        ("sound.wav", "out.mp4", "holds no moving picture"),
        ("none.mkv", "out.mp4", "holds no frame that can be decoded"),
        ("video.mp4", "out.avi", "must end in one of .mp4, .m4v, .mov, .mkv, .webm"),
        ("video.mp4", "video.mp4", "is the input itself"),
        ("video.mp4", "link.mp4", "is the input itself"),
        ("video.mp4", "folder.mp4", "is a folder: name a file"),
        ("video.mp4", "none.mkv", "none.mkv exists: name another file for the result, or --overwrite to replace it"),
        ("video.mp4", "text.mp4/out.mp4", "text.mp4 is a file or below one: name a folder for out.mp4"),
    ):
        with pytest.raises(UserError, match=message):
            sharpen_video(sharpener, tmp_path / source, tmp_path / target)
        assert sorted(tmp_path.iterdir()) == ours


def test_a_video_that_exists_is_replaced_only_if_that_is_wanted(scene: Frame, tmp_path: Path) -> None:
    source, target = write_video(tmp_path / "in.mp4", scene), tmp_path / "out.mp4"
    target.write_bytes(b"mine")
    arguments = ("sharpen", str(source), str(target), *ON_ONE_THREAD)
    refused = run_command(*arguments)
    assert refused.returncode == 1
    assert f"error: {target} exists: name another file for the result, or --overwrite to replace it\n" in refused.stderr
    assert target.read_bytes() == b"mine"
    assert run_command(*arguments, "--overwrite").returncode == 0
    assert len(shown(target)) == len(shown(source))


def test_a_network_for_rgb_is_refused(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharpener, "graph", replace(sharpener.graph, kind="rgb"))
    with pytest.raises(UserError, match=r"fast\.onnx works on RGB: a video needs a luma network such as fast"):
        sharpen_video(sharpener, write_video(tmp_path / "in.mp4", scene), tmp_path / "out.mp4")


def test_a_full_disk_leaves_no_half_of_a_video(scene: Frame, tmp_path: Path) -> None:
    source, target = write_video(tmp_path / "in.mp4", scene, range(0, 20 * STEP, STEP)), tmp_path / "out" / "out.mp4"
    program = (  # a limit of the file's size stands for the disk's, of all of a process
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from clearcall.cli import main\nmain()"
    )
    arguments = ("sharpen", str(source), str(target), *ON_ONE_THREAD, "--crf", "0")
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: " in done.stderr and "File too large" in done.stderr
    assert list(target.parent.iterdir()) == []  # nor a group of frames from which it could go on


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_video_of_what_was_done(scene: Frame, tmp_path: Path, send: signal.Signals) -> None:
    source = write_video(tmp_path / "in.mp4", scene, range(0, 40 * STEP, STEP), sound=True, options={"bf": "0"})
    target = tmp_path / "out" / "out.mp4"
    arguments = ("sharpen", str(source), str(target), *ON_ONE_THREAD, "--crf", "0")
    done = run_interrupted(5, "clearcall.media.video.canvas:Canvas.show", *arguments, send=send)
    assert done.returncode == 130
    assert f"warning: interrupted: {target} holds what was done until then" in done.stderr
    count = int(done.stdout.split(": ")[1].split(" frames")[0])
    assert 5 <= count < 20
    assert list(target.parent.iterdir()) == [target]
    assert_sharpened(Sharpener("fast", "onnxruntime", 1), shown(source)[:count], shown(target))
    assert [frame.time for frame in shown(target)] == [Fraction(number, 25) for number in range(count)]


def test_ctrl_c_ends_a_dry_run_with_a_warning(scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene, range(0, 40 * STEP, STEP))
    arguments = ("sharpen", str(source), "--dry-run", *ON_ONE_THREAD)
    done = run_interrupted(5, "clearcall.core.console:ProgressBar.note", *arguments)
    assert done.returncode == 130
    assert "warning: interrupted: that is of what was done until then" in done.stderr
    assert 5 <= int(done.stdout.split(": ")[1].split(" frames")[0]) < 20


def test_the_command_sharpens_a_video_and_tells_its_rates(scene: Frame, tmp_path: Path) -> None:
    source, target = write_video(tmp_path / "in.mp4", scene, sound=True), tmp_path / "out.mp4"
    done = run_command("sharpen", str(source), str(target), *ON_ONE_THREAD[2:], "--split", "--size", "48x32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{target}: 10 frames, decode + sharpen ")
    assert [frame.planes[0].shape for frame in shown(target)] == [(32, 48)] * 10
