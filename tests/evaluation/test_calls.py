"""Clips through encoders: what is read, how it is scored, and the report."""

import csv
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.data import clips as clips_module
from clearcall.data.clips import clip_files, read_clip
from clearcall.evaluation.calls import (
    ALONE,
    CRISP,
    FACTORS,
    INPUT,
    MASK,
    NATURAL,
    QPS,
    Score,
    Setting,
    _as_video,
    flicker,
    measure_clips,
    receive,
)
from clearcall.evaluation.vmaf import vmaf, vmaf_program
from clearcall.imaging.frame import Frame, Restore
from clearcall.imaging.looks import Look
from clearcall.imaging.metrics import psnr_db
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.reporting.calls import calls_tables, find_face, summary_table, verdict, write_calls
from clearcall.runtime.sharpener import Sharpener
from clearcall.temporal.filter import TemporalFilter


def flat(value: int) -> Frame:
    return np.full((20, 30, 3), value, np.uint8)


AddVideo = Callable[[Path, list[Frame]], None]


@pytest.fixture
def clips(photos: dict[str, Frame], add_video: AddVideo, tmp_path: Path) -> Path:
    """A video of a window that moves over one photograph, and another photograph."""
    folder = tmp_path / "clips"
    folder.mkdir()
    add_video(folder / "call.mp4", [photos["chelsea"][80:176, 100 + 2 * step : 228 + 2 * step] for step in range(6)])
    Image.fromarray(photos["astronaut"][0:128, 160:288]).save(folder / "photo.png")
    (folder / "notes.txt").write_text("x")
    return folder


def test_flicker_is_of_the_errors() -> None:
    """Errors of 3, -1 and -1 levels: they change by 4 and by 0, 2 on average."""
    sharp = [flat(100), flat(50), flat(200)]
    assert flicker(sharp, [flat(103), flat(49), flat(199)]) == 2
    assert flicker(sharp, [flat(107), flat(57), flat(207)]) == 0  # a constant error
    assert flicker(sharp, sharp) == 0


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=2, max_size=5))
def test_flicker_of_flat_frames_is_that_of_their_errors(values: list[tuple[int, int]]) -> None:
    sharp, other = [flat(value) for value, _ in values], [flat(value) for _, value in values]
    errors = [there - here for here, there in values]
    expected = np.mean(np.abs(np.diff(errors)))
    assert flicker(sharp, other) == pytest.approx(expected)


def test_clips_are_videos_and_photographs(clips: Path, photos: dict[str, Frame]) -> None:
    files = clip_files(clips)
    assert [path.name for path in files] == ["call.mp4", "photo.png"]
    video, photo = (read_clip(path, 4, 720) for path in files)
    assert [frame.shape for frame in video.frames] == [(96, 128, 3)] * 4
    assert all(psnr_db(photos["chelsea"][80:176, 100 + 2 * i : 228 + 2 * i], video.frames[i]) > 30 for i in range(4))
    assert len(photo.frames) == 4
    assert (photo.frames[-1] == photos["astronaut"][0:128, 160:288]).all()
    assert (photo.frames[0] != photo.frames[-1]).any()
    assert all(
        (one == other).all() for one, other in zip(photo.frames, read_clip(files[1], 4, 720).frames, strict=True)
    )
    assert read_clip(files[0], 2, 64).frames[0].shape == (64, 85, 3)  # 128 x 64 / 96 = 85.3


def test_photographs_may_bend_before_a_camera_that_stands_still(
    clips: Path, photos: dict[str, Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise frames change smoothly; without bending, by a camera's noise alone, in each frame another."""
    still = photos["astronaut"][0:128, 160:288].astype(float)

    def changes(other: str) -> list[Frame]:
        with monkeypatch.context() as without:
            without.setattr(clips_module, other, lambda clip, *_: clip)
            return read_clip(clips / "photo.png", 12, 720, "bend").frames

    bends, noise = changes("with_noise"), changes("bent")
    for frames in (bends, noise, read_clip(clips / "photo.png", 12, 720, "bend").frames):
        assert len(frames) == 12 and all((one != other).any() for one, other in pairwise(frames))
    assert max(np.abs(one.astype(float) - other).mean() for one, other in pairwise(bends)) < 10
    assert (bends[0] - still).std() > 2
    low, high = clips_module._NOISE_LEVELS
    assert all(low < (frame - still).std() < high + 0.5 for frame in noise)
    assert (noise[0].astype(float) - noise[1]).std() > 1.2 * (noise[0] - still).std()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.mp4", "cannot be read as a video"),
        ("a.png", "cannot be used"),
        ("one.mp4", "holds 1 frames, and at least 2"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, add_video: AddVideo, name: str, message: str) -> None:
    (tmp_path / name).write_text("neither video nor image")
    if name.startswith("one"):
        add_video(tmp_path / name, [np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(UserError, match=message) as caught:
        read_clip(tmp_path / name, 4, 720)
    assert name in str(caught.value)


def test_videos_of_telephones_and_recorders_are_clips_too(
    photos: dict[str, Frame], add_video: AddVideo, tmp_path: Path
) -> None:
    """Turned, with a tag in another code page, and of two sizes one after the other."""
    wide, high = photos["chelsea"][80:176, 100:228], photos["chelsea"][80:208, 100:196]
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w", metadata_errors="surrogateescape") as video:
        video.metadata["artist"] = "M\udcfcller"
        stream: Any = video.add_stream("libx264", rate=Fraction(30), options={"qp": "1"})
        stream.height, stream.width = wide.shape[:2]
        stream.set_display_matrix((0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30))
        for _ in range(3):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(wide, format="rgb24")))
        video.mux(stream.encode())
    frames = read_clip(path, 3, 720).frames
    assert [frame.shape for frame in frames] == [(128, 96, 3)] * 3
    assert max(psnr_db(np.ascontiguousarray(np.rot90(wide, turns)), frames[0]) for turns in (1, 3)) > 30
    for name, one in (("a.ts", wide), ("b.ts", high)):
        add_video(tmp_path / name, [one] * 3)
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert [frame.shape for frame in read_clip(tmp_path / "both.ts", 6, 720).frames] == [(96, 128, 3)] * 6
    assert [file.name for file in clip_files(tmp_path)] == ["a.ts", "b.ts", "both.ts", "video.mkv"]


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither videos"):
        clip_files(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        clip_files(tmp_path / "none")


def test_a_clip_arrives_in_its_own_size_and_in_step(clips: Path) -> None:
    clip = read_clip(clips / "call.mp4", 5, 720)
    for factor in FACTORS:
        arrived = receive(clip, Setting("vp8", 22, factor))
        assert [frame.shape for frame in arrived] == [frame.shape for frame in clip.frames]
        for index, frame in enumerate(arrived):
            others = [psnr_db(other, frame) for other in clip.frames]
            assert others.index(max(others)) == index


def test_scores_and_report(clips: Path, tmp_path: Path) -> None:
    seen: list[Frame] = []

    def sharpen(frame: Frame) -> Frame:
        seen.append(frame)
        return unsharp_mask(frame, 0.5, 30.0)  # far too much

    reports = tmp_path / "reports"
    looks: dict[Look, Callable[[], Restore]] = {"natural": lambda: sharpen, "crisp": lambda: lambda frame: frame}
    scores, strips = measure_clips(clip_files(clips), partial(read_clip, frames=3, height=720), ["h264"], looks, 1)
    settings = len(QPS) * len(FACTORS)
    assert len(seen) == 2 * 3 * 2 * settings  # clips, frames, with those before and without
    assert len(scores) == 2 * 5 * settings
    by_contender = {name: [s for s in scores if s.contender == name] for name in (INPUT, NATURAL, CRISP, ALONE, MASK)}
    assert all(s.worst_db == 0 and s.worse_frames == 0 for s in by_contender[INPUT])
    for name in (NATURAL, ALONE):
        assert all(s.worse_frames == s.frames == 3 and s.worst_db < -1 for s in by_contender[name])
    assert all(
        mask.ssim >= plain.ssim - 0.01 for mask, plain in zip(by_contender[MASK], by_contender[INPUT], strict=True)
    )
    coarser = [s.psnr_db for s in by_contender[INPUT] if (s.clip, s.factor) == ("call.mp4", 1)]
    assert coarser == sorted(coarser, reverse=True)
    # The first is of the video's frames as they arrive, which the model gets one by one and in order, first with what
    # those before show of each.
    clip = read_clip(clips / "call.mp4", 3, 720)
    arrived = receive(clip, Setting("h264", QPS[0], FACTORS[0]))
    filtered = map(TemporalFilter().rgb, arrived)
    assert all((one == other).all() for one, other in zip([*filtered, *arrived], seen, strict=False))
    by_setting = [(seen[start : start + 3], seen[start + 3 : start + 6]) for start in range(0, len(seen), 6)]
    assert any((one != other).any() for pair in by_setting for one, other in zip(*pair, strict=True))
    assert by_contender[INPUT][0].psnr_db == pytest.approx(np.mean([*map(psnr_db, clip.frames, arrived)]))
    assert all(score.vmaf is not None and 0 <= score.vmaf <= 100 for score in scores)  # `make install` brings FFmpeg
    tables = write_calls(scores, strips, "masked", "clearcall calls clips", reports)
    text = (reports / "calls.md").read_text(encoding="utf-8")
    signal, perceived, summary = tables.split("\n\n")
    assert summary == summary_table(scores) and "VMAF NEG" in perceived
    assert text.index(summary) < text.index("sharpened by `masked`") < text.index(signal) < text.index(perceived)
    assert "48 of 48 frames are worse than they arrived" in text
    with (reports / "calls.csv").open(newline="", encoding="utf-8") as file:
        assert [float(row["ssim"]) for row in csv.DictReader(file)] == [score.ssim for score in scores]
    with Image.open(reports / "calls.png") as strip:
        assert strip.width > 3 * 80 * 3 and strip.height > 5 * 80 * 3
    assert sorted(path.name for path in reports.iterdir()) == ["calls.csv", "calls.md", "calls.png"]


def test_scores_are_the_same_for_any_number_of_jobs(clips: Path) -> None:
    """The model chooses an expert by the frames before: one clip's must not reach another's."""
    model = partial(Sharpener, "fast", "onnxruntime", 1, video=True)
    looks: dict[Look, Callable[[], Restore]] = {
        "natural": partial(model, look="natural"),
        "crisp": partial(model, look="crisp"),
    }
    one, two, four = (
        measure_clips(clip_files(clips), partial(read_clip, frames=2, height=64), ["h264"], looks, jobs)[0]
        for jobs in (1, 2, 4)
    )
    assert one == two == four
    assert [score.clip for score in one[:: len(one) // 2]] == ["call.mp4", "photo.png"]


def test_a_video_is_restored_as_by_map(clips: Path) -> None:
    """As `clearcall sharpen` does it, whatever video was before."""
    sharpener = Sharpener("fast", "onnxruntime", 1, video=True)
    for path in clip_files(clips):
        frames = read_clip(path, 6, 720).frames
        expected = Sharpener("fast", "onnxruntime", 1, coded=True).map(frames)
        assert all((one == other).all() for one, other in zip(_as_video(sharpener, frames), expected, strict=True))


def test_vmaf_knows_the_original_from_a_copy(photos: dict[str, Frame]) -> None:
    program = vmaf_program()
    assert program is not None
    # A pan over a photograph, of an odd size: the last row and column do not count.
    sharp = [photos["astronaut"][20:201, 100 + step : 301 + step] for step in range(3)]
    soft = [np.asarray(cv2.GaussianBlur(frame, (0, 0), 1.5), np.uint8) for frame in sharp]
    boosted = [unsharp_mask(frame, 1.5, 2.0) for frame in soft]
    whole, blurred, masked = (vmaf(sharp, frames, program) for frames in (sharp, soft, boosted))
    assert whole.vmaf > 95 and whole.neg > 95
    assert blurred.vmaf < 80 and blurred.neg <= blurred.vmaf + 0.5
    assert masked.vmaf > blurred.vmaf + 5
    assert masked.vmaf - masked.neg > blurred.vmaf - blurred.neg  # NEG gives less for contrast
    cut = [frame.copy() for frame in sharp]
    for frame in cut:
        frame[-1], frame[:, -1] = 0, 0
    assert vmaf(sharp, cut, program) == whole


def test_vmaf_that_fails_says_so(photos: dict[str, Frame]) -> None:
    frames = [photos["coffee"][:64, :64]] * 2
    with pytest.raises(UserError, match="false could not compute VMAF"):
        vmaf(frames, frames, "false")


def test_without_libvmaf_the_report_does_without(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def same(frame: Frame) -> Frame:
        return frame

    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho ' .. psnr VV->V'\n")  # one without the filter
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    vmaf_program.cache_clear()
    try:
        looks: dict[Look, Callable[[], Restore]] = {"natural": lambda: same, "crisp": lambda: same}
        scores, strips = measure_clips([clips / "photo.png"], partial(read_clip, frames=2, height=720), ["vp8"], looks)
    finally:
        vmaf_program.cache_clear()
    assert all(score.vmaf is None and score.vmaf_neg is None for score in scores)
    tables = write_calls(scores, strips, "none", "clearcall calls clips", tmp_path / "reports")
    assert "VMAF" not in tables and "flicker" in tables and "VMAF" not in summary_table(scores)
    assert "VMAF was not computed" in (tmp_path / "reports" / "calls.md").read_text(encoding="utf-8")
    with (tmp_path / "reports" / "calls.csv").open(newline="", encoding="utf-8") as file:
        assert {row["vmaf"] for row in csv.DictReader(file)} == {""}


def test_a_face_is_found_where_there_is_one(photos: dict[str, Frame]) -> None:
    top, left = find_face(photos["astronaut"], 80) or (-1, -1)
    assert 60 <= top <= 110 and 170 <= left <= 210  # hers is about 95 pixels wide, its middle near (121, 223)
    assert find_face(photos["coffee"], 80) is None
    assert find_face(photos["astronaut"][:60], 80) is None  # too small for the square


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_chroma_of_a_grey_clip_is_in_no_mean() -> None:
    """By hand: of 40 -> 41 dB and 100 -> 50 dB, the first alone counts."""

    def score(clip: str, contender: str, chroma: float) -> Score:
        return Score(clip, "vp9", 27, 2, contender, 10, 30.0, 31.0, chroma, 0.9, 70.0, 60.0, 1.5, 0.0, 0)

    scores = [score("colour", name, 41.0 if name == NATURAL else 40.0) for name in (INPUT, NATURAL, CRISP, ALONE, MASK)]
    scores += [score("grey", name, 50.0 if name == NATURAL else 100.0) for name in (INPUT, NATURAL, CRISP, ALONE, MASK)]
    assert cells(summary_table(scores).splitlines()[2])[2] == "+1.00"
    assert cells(calls_tables(scores)[0].splitlines()[2])[13:15] == ["40.00", "+1.00"]


def test_the_tables_are_of_means_over_clips() -> None:
    def score(clip: str, contender: str, psnr: float, worst: float, worse: int, neg: float) -> Score:
        return Score(clip, "vp9", 27, 2, contender, 10, psnr, psnr + 1, 40.0, 0.9, 70.0, neg, 1.5, worst, worse)

    scores = [
        *(score(clip, name, 30.0, 0.0, 0, 60.0) for clip in "ab" for name in (INPUT, ALONE, MASK)),
        score("a", NATURAL, 29.5, 0.5, 0, 61.0),
        score("b", NATURAL, 33.5, -0.25, 3, 64.0),
        score("a", CRISP, 29.0, 0.0, 4, 63.0),
        score("b", CRISP, 30.5, 0.0, 5, 65.0),
    ]
    signal, perceived = (cells(table.splitlines()[2]) for table in calls_tables(scores))
    assert signal[:8] == ["vp9", "half", "27", "30.00", "+1.50", "-0.25", "+0.00", "+0.00"]
    assert signal[8:13] == ["31.00", "+1.50", "-0.25", "+0.00", "+0.00"]
    assert signal[13:] == ["40.00", *["+0.00"] * 4, "0.9000", *["+0.0000"] * 4, "3 of 20"]
    assert perceived[3:8] == ["1.50", *["+0.00"] * 4]
    assert perceived[8:] == ["70.0", *["+0.0"] * 4, "60.0", "+2.5", "+4.0", "+0.0", "+0.0"]
    assert [cells(line) for line in summary_table(scores).splitlines()[2:4]] == [
        [NATURAL, "+1.50", "+0.00", "+0.0000", "+2.5"],
        [CRISP, "-0.25", "+0.00", "+0.0000", "+4.0"],
    ]
    assert verdict(scores) == (
        "3 of 20 frames are worse than they arrived; the least gain of a frame is -0.25 dB in b (vp9, QP 27, half). "
        "Of 2 means over a clip, 1 are below what arrived by more than 0.005 dB; the least gain is -0.50 dB in a (vp9, "
        "QP 27, half)."
    )


def test_the_command_and_an_unknown_codec(clips: Path) -> None:
    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        program = [
            sys.executable,
            "-c",
            "from clearcall.cli import main; main()",
            "bench",
            "calls",
            "clips",
            *arguments,
        ]
        return subprocess.run(program, cwd=clips.parent, capture_output=True, text=True, check=False)

    (clips / "call.mp4").unlink()
    options = ["--codec", "vp8", "--frames", "2", "--provider", "onnxruntime", "--threads", "1", "--output", "out"]
    done = command(*options)
    assert done.returncode == 0, done.stderr
    assert "Written: out/calls.md" in done.stdout
    text = (clips.parent / "out" / "calls.md").read_text(encoding="utf-8")
    assert "--model best --codec=vp8 --frames=2` on" in text and "\n1 clips, 2 frames." in text
    done = command(*options, "--motion", "bend")
    assert done.returncode == 0, done.stderr
    text = (clips.parent / "out" / "calls.md").read_text(encoding="utf-8")
    assert "--codec=vp8 --frames=2 --motion=bend`" in text and "that bend as faces do" in text
    refused = command("--codec", "h263")
    assert refused.returncode == 1
    assert refused.stderr == "error: unknown codec h263: choose from h264, vp8, vp9, av1\n"


def test_the_bundled_photographs_need_no_folder() -> None:
    files = clip_files(Path("bundled"))
    assert [path.name for path in files] == ["astronaut.png", "chelsea.png", "coffee.png", "page.png"]
    assert all(path.is_file() for path in files)
