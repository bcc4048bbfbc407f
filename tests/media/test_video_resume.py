"""A video whose run was killed goes on from the frames that were encoded."""

import resource
import signal
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.packet import Packet
from av.stream import Stream
from tests.make.commands import run_command, run_interrupted
from tests.make.videos import STEP, packets, shown, times_of, write_video

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.media.video.journal import SUFFIX, Journal
from clearcall.media.video.run import sharpen_video
from clearcall.media.video.write import VideoCodec
from clearcall.runtime.sharpener import Sharpener

SMALL = (96, 64)
ON_ONE_THREAD = ("--provider", "onnxruntime", "--threads", "1")


def packet(pts: int, dts: int, *, is_key: bool = False, data: bytes = b"data") -> "Packet[Stream]":
    made: Packet[Stream] = Packet(data)
    made.pts, made.dts, made.duration, made.is_keyframe = pts, dts, 1, is_key
    return made


# Two whole groups, each with a frame that is shown before the one it is predicted from, and the beginning of a third.
GROUPS = [(0, -1, True), (2, 0), (1, 1), (3, 2, True), (5, 3), (4, 4), (6, 5, True), (8, 6)]


def journal_of(path: Path, records: Sequence[tuple[int, ...]]) -> Path:
    with Journal(path, "work") as journal:
        journal.add([packet(one[0], one[1], is_key=len(one) > 2, data=bytes([one[0]])) for one in records])
    return path


def end_of(path: Path, work: str = "work") -> int | None:
    with Journal(path, work) as journal:
        return journal.end


def test_whole_groups_are_taken_up(tmp_path: Path) -> None:
    assert end_of(journal_of(tmp_path / "a.resume", GROUPS)) == 6


def test_a_group_that_others_are_predicted_across_is_not(tmp_path: Path) -> None:
    crossing = [*GROUPS[:6], (7, 5, True), (6, 6), (8, 7)]  # 6 is shown before the key frame that it comes after
    assert end_of(journal_of(tmp_path / "a.resume", crossing)) == 3


def test_other_work_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = journal_of(tmp_path / "a.resume", GROUPS)
    assert end_of(path, "other") is None
    assert "begun anew" in capsys.readouterr().err
    assert not path.exists()  # which held nothing of the other work


def test_what_was_torn_or_damaged_is_left_out(tmp_path: Path) -> None:
    path = journal_of(tmp_path / "a.resume", GROUPS)
    whole = path.read_bytes()
    ends = []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        ends.append(end_of(path))
    # A group is whole once the key frame of the next is.
    assert [value for at, value in enumerate(ends) if at == 0 or ends[at - 1] != value] == [None, 3, 6]
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert end_of(path) in {None, 3, 6}


def test_a_journal_belongs_to_one_process(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.resume", "work") as journal:
        journal.add([packet(0, 0, is_key=True), packet(1, 1, is_key=True)])
        with pytest.raises(UserError, match="in use"), Journal(tmp_path / "a.resume", "work"):
            pass
    assert end_of(tmp_path / "a.resume") == 1


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("hevc", ".mkv"), ("vp9", ".webm"), ("av1", ".mp4")])
def test_a_video_goes_on_wherever_it_was_stopped(
    plain: Sharpener, scene: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: VideoCodec, suffix: str
) -> None:
    # At a variable rate, and with sound.
    times = np.cumsum(np.random.default_rng(3).choice([STEP, STEP, 3 * STEP], 620)).tolist()
    source = write_video(tmp_path / "in.mkv", scene, times, size=SMALL, options={"bf": "2"}, sound=200)
    target = tmp_path / f"out{suffix}"
    journal = target.with_name(target.name + SUFFIX)
    if suffix == ".webm":
        source = write_video(tmp_path / "in.webm", scene, times, size=SMALL, codec="libvpx-vp9", sound=200)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", lambda _: None)
        sharpen_video(plain, source, target, codec=codec, past_frames=False)
    kept, whole = journal.read_bytes(), shown(target)
    sound = packets(target, "audio")
    assert len(whole) == 620
    ends = set()
    for length in (len(kept), len(kept) * 6 // 10, len(kept) // 3):
        journal.write_bytes(kept[:length])
        summary = sharpen_video(plain, source, target, codec=codec, past_frames=False, overwrite=True)
        assert not journal.exists()
        assert summary.frames == 620
        ends.add(summary.taken_up)
        again = shown(target)
        assert [one.time for one in again] == [one.time for one in whole]
        for old, new in zip(whole[: summary.taken_up], again[: summary.taken_up], strict=True):
            np.testing.assert_array_equal(new.planes[0], old.planes[0])
        for old, new in zip(whole, again, strict=True):
            assert np.abs(np.subtract(old.planes[0], new.planes[0], dtype=np.int16)).mean() < 2
        assert packets(target, "audio") == sound
    assert max(ends) >= 250 and len(ends) > 1


def test_a_killed_command_goes_on_when_it_is_run_again(scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene, range(0, 620 * STEP, STEP), size=SMALL, options={"bf": "0"})
    target = tmp_path / "out" / "out.mp4"
    arguments = ("sharpen", str(source), str(target), "--model", "fast", *ON_ONE_THREAD)
    killed = run_interrupted(600, "clearcall.media.video.canvas:Canvas.show", *arguments, send=signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL and not target.exists()
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "620 frames, 500 of them from a run that was stopped" in done.stdout
    assert list(target.parent.iterdir()) == [target]
    assert times_of(target) == [Fraction(number, 25) for number in range(620)]


def test_after_ctrl_c_the_same_command_goes_on(scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", scene, range(0, 320 * STEP, STEP), size=SMALL, options={"bf": "0"})
    target = tmp_path / "out.mp4"
    arguments = ("sharpen", str(source), str(target), "--model", "fast", *ON_ONE_THREAD)
    stopped = run_interrupted(300, "clearcall.media.video.canvas:Canvas.show", *arguments)
    assert stopped.returncode == 130 and "run again with --overwrite to go on" in stopped.stderr
    assert 300 <= len(times_of(target)) < 320
    done = run_command(*arguments, "--overwrite")
    assert "320 frames, 250 of them from a run that was stopped" in done.stdout
    assert len(times_of(target)) == 320


def test_a_disk_that_is_full_at_the_end_loses_nothing(plain: Sharpener, scene: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", scene, range(0, 320 * STEP, STEP), size=SMALL, sound=200)
    target = tmp_path / "out.mp4"
    sharpen_video(plain, source, target, past_frames=False)
    # A limit of the kernel in place of a disk: only the end of the file, its table of frames, is refused.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (target.stat().st_size - 1000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            sharpen_video(plain, source, target, past_frames=False, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sharpen_video(plain, source, target, past_frames=False, overwrite=True).taken_up >= 250
