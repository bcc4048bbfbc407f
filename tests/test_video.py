"""Films: real files in, the result decoded again and held against the Sharpener and the input's own packets."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.codec.context import Flags
from av.stream import Disposition
from av.video.frame import VideoFrame
from PIL import Image

from clearcall.errors import UserError
from clearcall.sharpener import Sharpener
from clearcall.video.read import planar, plane_of
from clearcall.video.run import sharpen_video
from test_cli import command

Frame = npt.NDArray[np.uint8]
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
    sound: bool = False,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    kind: str | None = None,
    **context: Any,
) -> Path:
    """Write a film of a photograph that moves, its colour tags and other traits as given."""
    with av.open(str(path), "w", format=kind) as out:
        stream = out.add_stream(codec, 25, options or {}, width=size[0], height=size[1])
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = FINE
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_matrix(QUARTER[rotation])
        out.metadata["title"] = "A call"
        audio = out.add_stream("aac" if codec != "libvpx-vp9" else "libopus", 48000) if sound else None
        times = list(times)
        stream.codec_context.flags |= Flags.frame_duration
        for number, (pts, following) in enumerate(zip(times, [*times[1:], times[-1] + 512], strict=True)):
            rgb = VideoFrame.from_ndarray(rgb_at(scene, number, *size), format="rgb24")
            frame = rgb.reformat(format=pixel_format, dst_color_range=context.get("color_range"))
            frame.pts, frame.time_base, frame.duration = pts, FINE, following - pts
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if isinstance(audio, av.AudioStream):
            noise = np.random.default_rng(0)
            for number in range(20):
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


def assert_sharpened(sharpener: Sharpener, before: list[Shown], after: list[Shown]) -> None:
    """Hold losslessly encoded frames against what the Sharpener makes of the input's: luma alone may differ."""
    assert len(after) == len(before) > 0
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.planes[0], sharpener(old.planes[0], "gray"))
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
    tags = {"color_range": 1, "colorspace": 5, "color_primaries": 9, "color_trc": 1}
    options = {"bf": "0"}  # of B-frames FFmpeg reads another duration than it wrote
    write_film(
        source, scene, LATE, sound=True, rotation=90, options=options, sample_aspect_ratio=Fraction(4, 3), **tags
    )
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
    assert summary.sharpen_fps > 0 and summary.encode_fps > 0
    assert str(summary).startswith("10 frames, decode + sharpen ")


def test_the_default_quality_is_near_the_sharpeners_own(sharpener: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene)
    for name in ("out.mp4", "out.webm"):
        sharpen_video(sharpener, source, tmp_path / name)
        before, after = shown(source), shown(tmp_path / name)
        assert len(after) == len(before)
        for old, new in zip(before, after, strict=True):
            expected = sharpener(old.planes[0], "gray").astype(np.float64)
            assert np.abs(expected - new.planes[0]).mean() < 3
    with av.open(str(tmp_path / "out.webm")) as film:
        assert film.streams.video[0].codec_context.name == "libvpx-vp9" or film.streams.video[0].name == "vp9"


def test_the_strength_counts(scene: Frame, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", scene)
    sharpen_video(Sharpener("fast", "onnxruntime", 1, strength=0), source, tmp_path / "out.mp4", crf=0)
    for old, new in zip(shown(source), shown(tmp_path / "out.mp4"), strict=True):
        np.testing.assert_array_equal(new.planes[0], old.planes[0])


def test_b_frames_and_references_of_the_input_are_not_harmed(
    sharpener: Sharpener, scene: Frame, tmp_path: Path
) -> None:
    """A decoder predicts frames from those that it has handed out: writing into these would spoil later ones."""
    options = {"g": "60", "bf": "3", "refs": "4", "crf": "30"}
    source = write_film(tmp_path / "in.mp4", scene, range(0, 40 * 512, 512), options=options)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    assert_sharpened(sharpener, shown(source), shown(tmp_path / "out.mp4"))


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"),
    [("mjpeg", "yuvj420p", "in.mkv"), ("libx264", "yuvj420p", "in.mp4"), ("rawvideo", "nv12", "in.mkv")],
)
def test_full_range_and_nv12_keep_every_value(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, codec: str, pixel_format: str, name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    full = {"color_range": 2} if pixel_format == "yuvj420p" else {}
    source = write_film(tmp_path / name, scene, codec=codec, pixel_format=pixel_format, **full)
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
    source = write_film(tmp_path / name, scene, codec=codec, pixel_format=pixel_format, **full)
    sharpen_video(sharpener, source, tmp_path / "out.mp4", crf=0)
    before, after = shown(source), shown(tmp_path / "out.mp4")
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.planes[0], sharpener(old.planes[0], "gray"))
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
    for old, webm, mp4 in zip(before, kept, padded, strict=True):
        expected = sharpener(old.planes[0], "gray")
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
    for old, new in zip(shown(source), shown(tmp_path / "out.mp4"), strict=True):
        assert new.rotation == old.rotation
        luma = (old.planes[0], sharpener(old.planes[0], "gray"))
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
    for old, new in zip(shown(source), shown(tmp_path / "out.mp4"), strict=True):
        before, result = (as_displayed(frame.planes[0], rotation) for frame in (old, new))
        after = as_displayed(sharpener(old.planes[0], "gray"), rotation)
        half = before.shape[1] // 2
        np.testing.assert_array_equal(result[:, :half], before[:, :half])
        assert (result[:, half : half + 2] == 235).all()
        np.testing.assert_array_equal(result[:, half + 2 :], after[:, half + 2 :])
        chroma = as_displayed(new.planes[1], rotation)
        assert (chroma[:, half // 2] == 128).all()
        rest = np.arange(chroma.shape[1]) != half // 2
        np.testing.assert_array_equal(chroma[:, rest], as_displayed(old.planes[1], rotation)[:, rest])
