"""What the input is decides: an image, a video, or a folder of both."""

from pathlib import Path

import av
import pytest
from PIL import Image
from tests.make.videos import STEP, frames_of, write_video

from clearcall.core.errors import UserError
from clearcall.core.files import read_json
from clearcall.imaging.frame import Frame
from clearcall.media import folder as folders
from clearcall.media.folder import RECORD, sharpen_folder
from clearcall.media.images import is_image
from clearcall.media.options import SharpenerOptions, VideoOptions
from clearcall.media.sharpen import sharpen
from clearcall.media.video.run import VideoSummary

OPTIONS = SharpenerOptions("fast", "onnxruntime", 1)


TIMES = range(0, 3 * STEP, STEP)


@pytest.fixture
def source(photos: dict[str, Frame], tmp_path: Path) -> Path:
    """Videos in three containers, one corrupt, and an image."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "a.mp4", photos["coffee"], TIMES)
    write_video(folder / "b.mts", photos["coffee"], TIMES)
    (folder / "c.mkv").write_bytes(b"no video")
    Image.fromarray(photos["coffee"][:64, :96]).save(folder / "d.png")
    return folder


def test_a_folders_videos_are_sharpened_too_and_skipped_when_up_to_date(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"

    def run(video: VideoOptions) -> tuple[int, int, int]:
        summary = sharpen_folder(OPTIONS, source, target, video)
        return summary.done, summary.skipped, summary.failed

    assert run(VideoOptions()) == (3, 0, 1)
    assert "failed: " in capsys.readouterr().err
    assert sorted(path.name for path in target.iterdir()) == [RECORD, "a.mp4", "b.mkv", "d.png"]
    assert len(frames_of(target / "a.mp4")) == len(frames_of(target / "b.mkv")) == 3
    assert run(VideoOptions()) == (0, 3, 1)
    for size, width in ((48, 32), 48), (1.5, 144):
        assert run(VideoOptions(size=size)) == (3, 0, 1)
        assert run(VideoOptions(size=size)) == (0, 3, 1)
        with av.open(str(target / "a.mp4")) as video, Image.open(target / "d.png") as image:
            assert video.streams.video[0].width == image.width == width
    assert run(VideoOptions(size=1.5, crf=30)) == (2, 1, 1)


def test_two_videos_never_share_a_result(photos: dict[str, Frame], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.avi", "a.mkv"):
        write_video(tmp_path / "in" / name, photos["coffee"], TIMES)
    summary = sharpen_folder(OPTIONS, tmp_path / "in", tmp_path / "out")
    assert (summary.done, summary.failed) == (1, 1)
    assert [*read_json(tmp_path / "out" / RECORD)] == ["a.mkv"]  # whose name the result has


def test_an_interrupted_video_is_not_taken_for_a_result(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object, __: Path, output: Path, **___: object) -> VideoSummary:
        output.write_bytes(b"the first half")
        return VideoSummary(1, 1.0, 1.0, interrupted=True)

    monkeypatch.setattr(folders, "sharpen_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sharpen_folder(OPTIONS, source, tmp_path / "out")
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [RECORD, "d.png"]
    summary = sharpen_folder(OPTIONS, source, tmp_path / "out")
    assert (summary.done, summary.skipped) == (2, 1)


def test_the_kind_of_a_file_is_told_by_its_suffix_or_else_its_content(source: Path, tmp_path: Path) -> None:
    for name, of in (("photo", "d.png"), ("photo.jfif", "d.png"), ("call", "a.mp4"), ("call.dat", "a.mp4")):
        (tmp_path / name).write_bytes((source / of).read_bytes())
        assert is_image(tmp_path / name) == (of == "d.png")
    assert is_image(tmp_path / "none.png") and not is_image(tmp_path / "none")
    done = sharpen(tmp_path / "call", tmp_path / "out.mp4", OPTIONS, VideoOptions(view="split"))
    assert done.text.startswith(f"{tmp_path / 'out.mp4'}: 3 frames, decode + sharpen ")
    assert sharpen(tmp_path / "photo", tmp_path / "out.png", OPTIONS, VideoOptions()).text.endswith("1 thread)")


def test_an_image_that_cannot_be_read_is_not_taken_for_a_video(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "in.tga")
    (tmp_path / "empty.gif").touch()
    for name in ("in.tga", "empty.gif"):
        with pytest.raises(UserError, match=rf"{name} is no image that can be read \(PNG, .* save it as PNG first"):
            sharpen(tmp_path / name, tmp_path / "out.png", OPTIONS, VideoOptions())
    (tmp_path / "in.mp4").touch()
    with pytest.raises(UserError, match=r"out\.png must end in one of \.mp4"):
        sharpen(tmp_path / "in.mp4", tmp_path / "out.png", OPTIONS, VideoOptions())
