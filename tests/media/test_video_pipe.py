"""Pipes of YUV4MPEG: the command with real standard input and output."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from tests.make.videos import QUARTER, STEP, i420_of, shown, write_video

from clearcall.imaging.frame import Frame
from clearcall.media.video.read import plane_of
from clearcall.runtime.sharpener import Sharpener
from clearcall.temporal.filter import TemporalFilter

OPTIONS = ("--model", "fast", "--provider", "onnxruntime", "--threads", "1")
COMMAND = [sys.executable, "-c", "from clearcall.cli import main; main()", "sharpen"]


@pytest.fixture(scope="module")
def source(photos: dict[str, Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = photos["astronaut"][60:260, 150:350]
    return write_video(tmp_path_factory.mktemp("pipe") / "in.mp4", scene, range(0, 60 * STEP, STEP))


def test_a_file_goes_through_two_pipes(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.y4m", tmp_path / "second.y4m"
    done = subprocess.run(
        [*COMMAND, str(source), "-", "--duration", "0.4", "--no-past-frames", *OPTIONS], capture_output=True, check=True
    )
    assert done.stdout.startswith(b"YUV4MPEG2 W96 H64 F25:1 ")
    assert b"in.mp4: 10 frames, decode + sharpen" in done.stderr
    first.write_bytes(done.stdout)
    sharpener = Sharpener("fast", "onnxruntime", 1, video=True, coded=True)
    before = [frame.planes for frame in shown(source)[:10]]
    for frame, (luma, *chroma) in zip(i420_of(first), before, strict=True):
        np.testing.assert_array_equal(frame[:64], sharpener(luma, "gray"))
        np.testing.assert_array_equal(frame[64:].reshape(2, 32, 48), np.stack(chroma))

    again = subprocess.run([*COMMAND, "-", "-", *OPTIONS], input=done.stdout, capture_output=True, check=True)
    second.write_bytes(again.stdout)
    sharpener, temporal = Sharpener("fast", "onnxruntime", 1, video=True), TemporalFilter()
    for frame, given in zip(i420_of(second), i420_of(first), strict=True):
        np.testing.assert_array_equal(frame[:64], sharpener(temporal(given[:64]), "gray"))


def test_what_a_pipe_cannot_tell_is_applied(photos: dict[str, Frame], tmp_path: Path) -> None:
    """A rotation, wide pixels and HDR; full range has a place in its header."""
    path, frame = tmp_path / "in.mkv", VideoFrame.from_ndarray(photos["astronaut"][:64, 150:246], "rgb24")
    for tags in ({"color_range": 2}, {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}):
        is_hdr = "color_trc" in tags
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", 25, width=96, height=64, pix_fmt="yuv420p10le" if is_hdr else "yuv420p")
            stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
            stream.set_display_matrix(QUARTER[90])
            shown = frame.reformat(format=stream.pix_fmt)
            for name, value in tags.items():
                setattr(stream.codec_context, name, value)
                setattr(shown, name, value)
            out.mux(stream.encode(shown))
            out.mux(stream.encode(None))
        options = ("--model", "quality", *OPTIONS[2:])
        done = subprocess.run([*COMMAND, str(path), "-", *options], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(b"YUV4MPEG2 W64 H128 F25:1 ")
        assert (b"COLORRANGE=FULL\n" in done.stdout, b"converted to SDR" in done.stderr) == (not is_hdr, is_hdr)
        (tmp_path / "out.y4m").write_bytes(done.stdout)
        wide = done.stdout.replace(b" A0:0 ", b" A2:1 ", 1)
        again = subprocess.run([*COMMAND, "-", "-", *options], input=wide, capture_output=True, check=True)
        assert again.stdout.startswith(b"YUV4MPEG2 W128 H128 ")
        upright = cv2.resize(np.rot90(plane_of(shown, 0), k=1).astype(np.float32), (64, 128))
        luma = i420_of(tmp_path / "out.y4m")[0][:128]
        assert np.corrcoef(luma.ravel(), upright.ravel())[0, 1] > 0.8  # HDR is clipped


def test_a_part_behind_the_end_is_told_in_a_pipe_too(source: Path) -> None:
    done = subprocess.run([*COMMAND, str(source), "-", "--start", "9", *OPTIONS], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"in.mp4 has no frame from 9 s on" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_ends_it_quietly(source: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, str(source), "-", *OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.read(10) == b"YUV4MPEG2 "
        run.stdout.close()
        told = run.stderr.read().decode()
        assert run.wait(60) == 0
    assert "frames, decode + sharpen" in told
    assert "error" not in told.lower()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "-"], "standard input is no YUV4MPEG: send it with `ffmpeg"),
        (["-", "out.mp4"], "standard input is sharpened into standard output alone"),
        (["-", "-", "--crf", "20"], "a pipe carries plain frames that are not encoded"),
    ],
)
def test_what_cannot_be_piped_is_one_message(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments, *OPTIONS], input=b"no video", capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of Unix")
def test_no_video_is_written_to_a_terminal(source: Path) -> None:
    screen, terminal = os.openpty()
    done = subprocess.run(
        [*COMMAND, str(source), "-", *OPTIONS],
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(terminal)
    os.close(screen)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output is a terminal, which shows no video: pipe it on")
