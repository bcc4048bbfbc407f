"""A student adapts to a recording by a teacher alone, and recordings that teach nothing leave no worse model."""

import errno
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from skimage import data
from tests.make.commands import run_command

from clearcall.core.errors import UserError
from clearcall.data.degrade.codecs import send
from clearcall.data.manifest import CLIP_FRAMES, Split
from clearcall.data.recordings import RecordedFrame, read_recordings, sent
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import luma_psnr_db, psnr_db
from clearcall.imaging.sizes import resized
from clearcall.runtime.graph import load_graph
from clearcall.runtime.sharpener import Sharpener
from clearcall.training.adapt import (
    Adaptation,
    AdaptedExpert,
    adapt_to_frames,
    adapt_to_sharp,
    load_student,
    write_adapted,
)

SIZE = 192, 128  # width, height


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no project's folder, whose registry would get the adapted models."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def call(photos: dict[str, Frame]) -> tuple[list[Frame], list[Frame]]:
    """A face that a camera pans over: as it was, and downscaled by 2 and upscaled again."""
    face = photos["astronaut"]
    sharp = [np.ascontiguousarray(face[n : n + SIZE[1], 120 + 2 * n : 120 + 2 * n + SIZE[0]]) for n in range(40)]
    return sharp, [resized(resized(frame, (SIZE[0] // 2, SIZE[1] // 2)), SIZE) for frame in sharp]


def record(path: Path, frames: list[Frame]) -> Path:
    """Write frames as a video that loses nothing."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", 25, width=frames[0].shape[1], height=frames[0].shape[0], pix_fmt="bgr0")
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))
    return path


def test_it_comes_nearer_to_the_truth_that_it_never_saw(call: tuple[list[Frame], list[Frame]], tmp_path: Path) -> None:
    sharp, received = call
    frames = {
        "train": [RecordedFrame("call.mkv", n, received[n], coded=False) for n in (0, 5, 10, 15)],
        "validation": [RecordedFrame("call.mkv", n, received[n], coded=False) for n in (18, 21)],
    }
    networks = load_student("fast"), load_student("quality")
    done = adapt_to_frames(frames, "fast", *networks, steps=150)  # type: ignore[arg-type]  # these are splits
    write_adapted(done, tmp_path / "me.onnx")
    expert = next(one.name for one in done.experts if one.kept)

    def gain_db(model: str | Path) -> float:
        sharpen = Sharpener(model, "onnxruntime", expert=expert)
        return float(np.mean([luma_psnr_db(sharp[n], sharpen(received[n])) for n in (26, 32, 38)]))

    assert gain_db(tmp_path / "me.onnx") > gain_db("fast") + 0.05


def test_ones_own_sharp_frames_teach_what_an_encoder_takes_away(tmp_path: Path) -> None:
    """A page that is scrolled."""
    page = np.repeat(data.page()[..., np.newaxis], 3, axis=2)  # type: ignore[no-untyped-call]  # it has no types
    sharp = [np.ascontiguousarray(page[n : n + SIZE[1], 4 * n : 4 * n + SIZE[0]]) for n in range(40)]

    def frames(numbers: Iterable[int]) -> list[RecordedFrame]:
        return [RecordedFrame("call.mkv", n, sharp[n], coded=False, before=tuple(sharp[n - 5 : n])) for n in numbers]

    split: dict[Split, list[RecordedFrame]] = {"train": frames((5, 9, 13, 17)), "validation": frames((7, 15))}
    done = adapt_to_sharp(split, "fast", load_student("fast"), steps=250)
    write_adapted(done, tmp_path / "me.onnx")
    assert done.teacher is None
    for _name, received, made in done.examples():
        assert [*made] == ["general", "adapted", "sharp"]
        assert psnr_db(made["sharp"], received) < 45
    height, width = sharp[0].shape[:2]
    small = [resized(frame, (width // 2, height // 2)) for frame in sharp[20:]]
    arrived = [resized(frame, (width, height)) for frame in send(small, "h264", 27)]

    def gain_db(model: str | Path) -> float:
        sharpen = Sharpener(model, "onnxruntime", video=True, coded=True)
        return float(np.mean([*map(luma_psnr_db, sharp[20:], map(sharpen, arrived))]))

    assert gain_db(tmp_path / "me.onnx") > gain_db("fast") + 0.05
    write_adapted(done, tmp_path / "me.npz")
    assert load_graph(tmp_path / "me.npz").onnx == load_graph(tmp_path / "me.onnx").onnx
    assert (tmp_path / "me.npz").stat().st_size < 40_000


def test_frames_are_sent_with_those_before_them_and_keep_their_sharp_ones(
    call: tuple[list[Frame], list[Frame]], tmp_path: Path
) -> None:
    found = read_recordings([record(tmp_path / "call.mkv", call[0])], with_before=True)
    for one in found["train"]:
        assert len(one.before) == min(one.number, CLIP_FRAMES - 1)
        arrived = [*sent(one, seed=1)]
        assert all(other.coded and other.sharp is one.frame for other in arrived)
        losses_db = [psnr_db(one.frame, other.frame) for other in arrived]
        assert losses_db == sorted(losses_db, reverse=True)  # from finely to coarsely coded


def test_the_command_leaves_model_page_and_picture(call: tuple[list[Frame], list[Frame]], tmp_path: Path) -> None:
    recording = record(tmp_path / "call.mkv", call[1])
    output = tmp_path / "me.onnx"
    arguments = ("adapt", str(recording), "--output", str(output), "--model", "fast", "--teacher", "quality")
    done = run_command(*arguments, "--steps", "100")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"call.mkv", "me.onnx", "me.md", "me.png", "me.json"}
    page = output.with_suffix(".md").read_text(encoding="utf-8")
    figures = json.loads(output.with_suffix(".json").read_text())
    assert all(one["gain_db"] == one["adapted_db"] - one["general_db"] for one in figures.values())
    assert any(one["kept"] and one["gain_db"] > 0 for one in figures.values())
    assert "`call.mkv`" in page
    assert "![received, general, adapted and teacher](me.png)" in page
    output.unlink()
    for there in ("me.md", "me.png", "me.json"):
        again = run_command(*arguments)
        assert again.returncode == 1
        assert f"{there} exists" in again.stderr and "--overwrite" in again.stderr
        (tmp_path / there).unlink()


def test_a_file_that_differs_from_torch_replaces_nothing(
    call: tuple[list[Frame], list[Frame]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = RecordedFrame("call.mkv", 0, call[1][0], coded=False)
    student, kept = load_student("fast"), [AdaptedExpert("bicubic_x2.0", 1, 30.0, 30.0, 31.0, kept=True)]
    done = Adaptation("fast", student, student, student, kept, {}, {"bicubic_x2.0": [frame]})
    monkeypatch.setattr("clearcall.training.adapt._MAX_DIFFERENCE", -1)
    for suffix in (".onnx", ".npz"):
        output = tmp_path / f"me{suffix}"
        output.write_bytes(b"the older one")
        with pytest.raises(UserError, match="differs from torch"):
            write_adapted(done, output)
        assert output.read_bytes() == b"the older one"


def test_frames_for_validation_come_from_other_parts_than_those_for_training(
    call: tuple[list[Frame], list[Frame]], tmp_path: Path
) -> None:
    found = read_recordings([record(tmp_path / "call.mkv", call[1])])
    numbers = {split: {one.number // 10 for one in group} for split, group in found.items()}
    assert numbers == {"train": {0, 2}, "validation": {1, 3}}


def black(path: Path) -> Path:
    return record(path, [np.zeros((64, 96, 3), np.uint8)] * 40)


def empty_folder(path: Path) -> Path:
    path = path.with_suffix("")
    path.mkdir()
    return path


def short(path: Path) -> Path:
    return record(path, [np.full((64, 96, 3), 80 * n, np.uint8) for n in range(2)])


def corrupt(path: Path) -> Path:
    path.write_bytes(b"no video")
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (black, "only 2 frames differ"),
        (short, "only 2 frames differ"),
        (corrupt, "cannot be read as a video"),
        (lambda path: path, "there is no video"),
        (empty_folder, "call holds no videos (.mp4"),
    ],
)
def test_a_recording_that_teaches_nothing_is_told(make: Callable[[Path], Path], told: str, tmp_path: Path) -> None:
    done = run_command("adapt", str(make(tmp_path / "call.mkv")), "--output", str(tmp_path / "me.onnx"))
    assert done.returncode == 1
    assert told in done.stderr
    assert not (tmp_path / "me.onnx").exists()


def test_a_sharp_recording_needs_no_adaptation(photos: dict[str, Frame], tmp_path: Path) -> None:
    sharp = [np.ascontiguousarray(photos["coffee"][4 * n : 4 * n + 256, 60 : 60 + 384]) for n in range(30)]
    done = run_command("adapt", str(record(tmp_path / "call.mkv", sharp)), "--output", str(tmp_path / "me.onnx"))
    assert done.returncode == 1
    assert "sharp already" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--model", "fast", "--teacher", "fast"), "its own teacher"),
        (("--model", "fats"), "did you mean fast?"),
        (("--sharp", "--teacher", "quality"), "--sharp needs no --teacher"),
    ],
)
def test_a_wrong_model_is_told_before_anything_is_read(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = run_command("adapt", str(tmp_path / "none.mp4"), "--output", str(tmp_path / "me.onnx"), *options)
    assert done.returncode == 1
    assert told in done.stderr


def test_a_video_that_teaches_nothing_is_sharpened_all_the_same(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    arguments = ("sharpen", str(black(tmp_path / "call.mkv")), str(target), "--adapt", "--model", "fast")
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "not adapted: " in done.stderr
    assert target.is_file()
    again = run_command(*arguments)
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    assert "reading" not in again.stderr  # nothing is learnt for a result that cannot be written


def test_only_a_single_video_is_adapted_to(photos: dict[str, Frame], tmp_path: Path) -> None:
    Image.fromarray(photos["coffee"]).save(tmp_path / "in.png")
    for source, target in (("in.png", "out.png"), (".", "out")):
        done = run_command("sharpen", source, target, "--adapt")
        assert done.returncode == 1
        assert "--adapt takes a single video" in done.stderr


def test_a_full_disk_leaves_no_model(
    call: tuple[list[Frame], list[Frame]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("clearcall.training.loop.save_checkpoint", full)
    recording, output = record(tmp_path / "call.mkv", call[1]), tmp_path / "me.onnx"
    done = run_command("adapt", str(recording), "--output", str(output), "--steps", "20")
    assert done.returncode == 1
    assert "no space left on the disk" in done.stderr
    assert not output.exists()
