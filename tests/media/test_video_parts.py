"""Parts of videos, codecs, and interlaced videos."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.make.commands import run_command
from tests.make.videos import FINE, STEP, packets, rgb_at, shown, write_video

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.media.video.part import Part, parse_time
from clearcall.media.video.run import sharpen_video, time_video
from clearcall.media.video.write import VideoCodec
from clearcall.runtime.sharpener import Sharpener


def part(start: float, duration: float | None = None) -> Part:
    return Part(Fraction(str(start)), None if duration is None else Fraction(str(duration)))


@pytest.mark.parametrize(
    ("wanted", "first", "count"),
    [(part(0.4), 10, 30), (part(0.41, 0.2), 11, 5), (part(0, 0.2), 0, 5), (part(1.5, 9), 38, 2)],
)
@pytest.mark.parametrize("first_time", [0, 100 * STEP])
@pytest.mark.parametrize("options", [{"g": "12", "bf": "2"}, {"g": "250"}])
def test_a_part_has_its_frames_from_time_0_on(
    plain: Sharpener, scene: Frame, tmp_path: Path, wanted: Part, first: int, count: int, first_time: int,
    options: dict[str, str],
) -> None:  # fmt: skip
    times = range(first_time, first_time + 40 * STEP, STEP)
    source = write_video(tmp_path / "in.mkv", scene, times, options=options)
    target = tmp_path / "out.mkv"
    assert sharpen_video(plain, source, target, crf=0, past_frames=False, part=wanted).frames == count
    before, after = shown(source)[first : first + count], shown(target)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.planes[0], old.planes[0])
        begin = wanted.start_s + first_time * FINE if not wanted.whole else 0
        assert abs(new.time - (old.time - begin)) <= Fraction(1, 1000)  # the unit of Matroska
    assert time_video(plain, source, part=wanted).frames == count


def test_sound_and_chapters_of_a_part_begin_with_it(plain: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", scene, range(0, 50 * STEP, STEP), sound=94, options={"bf": "0"})
    with av.open(str(source)) as video, av.open(str(tmp_path / "chapters.mkv"), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in video.streams}
        unit = Fraction(1, 1000)
        marks = [("a", 0, 500), ("b", 500, 1500), ("c", 1500, 2000)]
        out.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": unit, "metadata": {"title": title}}
                for number, (title, start, end) in enumerate(marks)
            ]
        )
        for packet in video.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    target = tmp_path / "out.mkv"
    sharpen_video(plain, tmp_path / "chapters.mkv", target, part=part(1, 0.8))
    with av.open(str(target)) as video:
        found = [
            (one["metadata"]["title"], *(one[end] * (one["time_base"] or 0) for end in ("start", "end")))
            for one in video.chapters()
        ]
        sound = [
            (packet.pts or 0) * (packet.time_base or Fraction(0)) for packet in video.demux(audio=0) if packet.size
        ]
    assert [(title, float(start), float(end)) for title, start, end in found] == [("b", 0, 0.5), ("c", 0.5, 0.8)]
    packet_s = 1024 / 48000
    assert 0 <= sound[0] < packet_s + 0.001
    assert 0.8 - packet_s - 0.001 <= sound[-1] < 0.8
    # The same samples, not others of the same times.
    heard, came = ([data for data, _ in packets(path, "audio")] for path in (target, source))
    assert came[came.index(heard[0]) :][: len(heard)] == heard


def test_a_part_behind_the_end_is_refused(plain: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene)
    with pytest.raises(UserError, match=r"has no frame from 7 s on: it lasts 0\.4 s"):
        sharpen_video(plain, source, tmp_path / "out.mp4", part=part(7))
    assert not (tmp_path / "out.mp4").exists()
    with pytest.raises(UserError, match="has no frame from 7 s on"):
        time_video(plain, source, part=part(7))


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_times_are_read_as_people_write_them(hours: int, minutes: int, milliseconds: int) -> None:
    seconds = Fraction(milliseconds, 1000)
    expected = 3600 * hours + 60 * minutes + seconds
    assert parse_time(f"{hours}:{minutes:02}:{float(seconds):.3f}") == expected
    assert parse_time(f"{float(expected):.3f}") == expected


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-1", "1:-2", "1/0", "nan", "1::2", "1e999999999", "1_0"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no time: write seconds"):
        parse_time(text)


@pytest.mark.parametrize(
    ("name", "codec", "found"),
    [("out.mp4", "hevc", "hevc"), ("out.mkv", "av1", "av1"), ("out.webm", "av1", "av1"), ("out.mp4", "vp9", "vp9")],
)
def test_the_codec_is_the_one_asked_for(
    sharpener: Sharpener, scene: Frame, tmp_path: Path, name: str, codec: VideoCodec, found: str
) -> None:
    source = write_video(tmp_path / "in.mp4", scene)
    sharpen_video(sharpener, source, tmp_path / name, codec=codec, past_frames=False)
    with av.open(str(tmp_path / name)) as video:
        assert video.streams.video[0].codec_context.codec.canonical_name == found
    result, expected = shown(tmp_path / name), shown(source)
    assert len(result) == len(expected)
    for old, new in zip(expected, result, strict=True):
        wanted = sharpener(old.planes[0], "gray").astype(np.float64)
        assert np.sqrt(np.mean((new.planes[0] - wanted) ** 2)) < 6  # lossy


def test_a_codec_that_does_not_fit_is_refused(scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene)
    done = run_command("sharpen", str(source), str(tmp_path / "out.webm"), "--codec", "h264")
    assert done.returncode == 1
    assert "out.webm cannot hold h264: choose vp9 or av1, or name a .mkv file" in done.stderr
    assert not (tmp_path / "out.webm").exists()


def write_interlaced(path: Path, scene: Frame) -> Path:
    """Write ten frames whose odd lines are half a frame later than the even ones."""

    def woven(number: int) -> Frame:
        early, late = rgb_at(scene, 2 * number), rgb_at(scene, 2 * number + 1)
        late[::2] = early[::2]
        return late

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", 25, {"x264-params": "tff=1:interlaced=1", "crf": "5"}, width=96, height=64)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        for number in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(woven(number), format="rgb24")))
        out.mux(stream.encode(None))
    return path


def combing(luma: Frame) -> float:
    """Return how much lines differ from the mean of both neighbours: an interlaced frame of motion has teeth."""
    lines = luma.astype(np.float64)
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


def test_interlaced_frames_become_whole_ones(
    plain: Sharpener, scene: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_interlaced(tmp_path / "in.mp4", scene)
    sharpen_video(plain, source, tmp_path / "out.mp4", crf=0, past_frames=False)
    before, after = shown(source), shown(tmp_path / "out.mp4")
    assert [frame.time for frame in after] == [frame.time for frame in before]
    smooth = np.mean([combing(frame.planes[0]) for frame in after])
    assert smooth < 0.7 * np.mean([combing(frame.planes[0]) for frame in before])
    # Every other line is the one that came.
    for old, new in zip(before, after, strict=True):
        added = np.abs(new.planes[0].astype(int) - old.planes[0])
        assert min(added[::2].mean(), added[1::2].mean()) == 0
        assert added.mean() > 2
    assert "in.mp4 is interlaced: it is deinterlaced" in capsys.readouterr().err
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert not any(frame.interlaced_frame for frame in video.decode(video=0))
