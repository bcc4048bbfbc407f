"""Before and after in one image: what stands where, read from the file again."""

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from tests.make.images import grey_of, huge_png
from tests.make.videos import STEP, rgb_at, write_video

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size
from clearcall.media.compare import draw_before_after, most_detailed, write_before_after
from clearcall.runtime.sharpener import Sharpener

GAP, CAPTION = 8, 28


@pytest.fixture(scope="module")
def rgb(photos: dict[str, Frame]) -> Frame:
    return np.ascontiguousarray(photos["astronaut"][60:120, 150:240])


def halves(path: Path, width: int, height: int) -> tuple[Frame, Frame]:
    """Return input and output as drawn."""
    drawn = np.asarray(Image.open(path))
    left, right = (drawn[CAPTION : CAPTION + height, x : x + width] for x in (GAP, width + 2 * GAP))
    return left, right


def test_the_most_detailed_part_is_found() -> None:
    frame = np.full((40, 60, 3), 120, np.uint8)
    frame[20:30:2, 30:50:2] = 255
    assert most_detailed(frame, 13, 23) == (18, 28)  # the dots and the two pixels around that a blur reaches


@settings(max_examples=30)
@given(
    height=st.integers(1, 30), width=st.integers(1, 30), rows=st.integers(1, 30), columns=st.integers(1, 30),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_part_lies_within_the_image_and_no_other_has_more(
    height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    rows, columns = min(rows, height), min(columns, width)
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    top, left = most_detailed(frame, rows, columns)
    detail = np.abs(frame.astype(int) - cv2.blur(frame, (5, 5))).sum(axis=2)
    sums = np.lib.stride_tricks.sliding_window_view(detail, (rows, columns)).sum(axis=(2, 3))
    assert sums[top, left] == sums.max()


def test_both_images_are_drawn_and_the_same_part_of_them(rgb: Frame) -> None:
    after = 255 - rgb
    drawn = np.asarray(draw_before_after(rgb, after))
    height, width = rgb.shape[:2]
    assert drawn.shape == (CAPTION + 2 * height + 2 * GAP, 2 * width + 3 * GAP, 3)
    top, left = most_detailed(rgb, height // 3, width // 3)
    for x, image in ((GAP, rgb), (width + 2 * GAP, after)):
        np.testing.assert_array_equal(drawn[CAPTION : CAPTION + height, x : x + width], image)
        crop = image[top : top + height // 3, left : left + width // 3]
        enlarged = crop.repeat(3, axis=0).repeat(3, axis=1)
        np.testing.assert_array_equal(drawn[CAPTION + height + GAP : -GAP, x : x + width], enlarged)
    assert (drawn[:CAPTION] < 128).any()  # the captions


def test_a_page_with_a_slider_holds_both_images_and_asks_for_nothing(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path
) -> None:
    source = tmp_path / "in & <b>.png"
    Image.fromarray(rgb).save(source)
    page = write_before_after(sharpener, source, tmp_path / "look.html").read_text(encoding="utf-8")
    assert "in &amp; &lt;b&gt;.png" in page and "<b>" not in page
    images = [
        Image.open(io.BytesIO(base64.b64decode(one)))
        for one in re.findall(r'src="data:image/webp;base64,([^"]+)', page)
    ]
    before, after = (np.asarray(image) for image in images)
    np.testing.assert_array_equal(before, rgb)
    np.testing.assert_array_equal(after, sharpener(rgb))
    assert f'width="{rgb.shape[1]}" height="{rgb.shape[0]}"' in page
    (script,) = re.findall(r"<script>(.*)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page  # what a browser allows
    assert not re.search(r"https?://", page)


@pytest.mark.parametrize(
    ("name", "orientation", "turns"), [("in.png", 6, -1), ("in.tif", 1, 0), ("Ümlaut 图片.webp", 1, 0)]
)
def test_an_image_is_compared_upright_with_what_becomes_of_it(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, name: str, orientation: int, turns: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    source = tmp_path / name
    Image.fromarray(rgb).save(source, lossless=True, exif=exif.tobytes())  # WebP alone heeds the former
    path = write_before_after(sharpener, source, None)
    assert path == source.with_name(f"{source.stem}_compare.png")
    upright = np.ascontiguousarray(np.rot90(rgb, turns))
    before, after = halves(path, *upright.shape[1::-1])
    np.testing.assert_array_equal(before, upright)
    np.testing.assert_array_equal(after, sharpener(upright))


@pytest.mark.parametrize("rotation", [0, 90])
def test_of_a_video_the_frame_in_the_middle_is_shown_upright(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, rotation: int
) -> None:
    """Of ten frames the sixth begins the second half."""
    source = write_video(tmp_path / "in.mp4", rgb, size=(88, 60), rotation=rotation, options={"crf": "0", "bf": "0"})
    path = write_before_after(sharpener, source, tmp_path / "new" / "out.png")
    before, after = halves(path, *((60, 88) if rotation else (88, 60)))
    expected = np.rot90(rgb_at(rgb, 5, 88, 60), rotation // 90).astype(int)
    assert np.abs(before - expected).mean() < 3  # 4:2:0
    # The luma is sharpened, R, G and B grow alike; where a colour is clipped or rounded, nearly so.
    added = np.median(after.astype(int) - before, axis=2)
    luma = grey_of(np.ascontiguousarray(before))
    ours = sharpener(np.ascontiguousarray(np.rot90(luma, -rotation // 90)), "gray")
    assert np.corrcoef(added.ravel(), (np.rot90(ours, rotation // 90).astype(int) - luma).ravel())[0, 1] > 0.9


def test_of_a_video_chroma_is_shown_restored_too(rgb: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", rgb, [0], size=(88, 60), options={"qp": "32"})
    sharpener = Sharpener("quality", "onnxruntime", 1, expert="call_smaller_coarse")
    before, after = halves(write_before_after(sharpener, source, None), 88, 60)
    sent, restored = (np.asarray(cv2.cvtColor(half, cv2.COLOR_RGB2YCrCb), float)[..., 1:] for half in (before, after))
    assert np.abs(sent - restored).mean() > 0.5


def played(page: Path) -> list[Frame]:
    """The frames of the video that a page holds; sound there is none."""
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'data-src="data:video/mp4;base64,([^"]+)', text)
    with av.open(io.BytesIO(base64.b64decode(data)), "r") as video:
        assert [stream.type for stream in video.streams] == ["video"]
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in video.decode(video=0)]


@pytest.mark.parametrize(("size", "rotation"), [((88, 60), 0), ((88, 60), 90), ((63, 45), 0)])
def test_a_page_plays_the_middle_of_a_video_with_input_left_and_output_right(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, size: Size, rotation: int
) -> None:
    lossless: dict[str, Any] = {"codec": "libx264" if rotation else "ffv1", "options": {"crf": "0"} if rotation else {}}
    source = tmp_path / ("in.mp4" if rotation else "in.mkv")
    write_video(source, rgb, range(0, 175 * STEP, STEP), size=size, rotation=rotation, sound=True, **lossless)
    page = write_before_after(sharpener, source, tmp_path / "look.html")
    width, height = size[:: -1 if rotation else 1]
    text = page.read_text(encoding="utf-8")
    assert f'width="{width}" height="{height}"' in text and 'step="0.04"' in text and "5.0 s" in text
    assert "media-src data:" in text and not re.search(r"https?://", text)
    frames = played(page)
    assert len(frames) == 125  # of 175, without the first 25
    for number in (0, 60, 124):
        input_half, output_half = np.hsplit(frames[number], 2)
        expected = np.rot90(rgb_at(rgb, 25 + number, *size), rotation // 90).astype(int)
        before, after = (half[:height, :width].astype(int) for half in (input_half, output_half))
        assert np.abs(before - expected).mean() < 4  # 4:2:0 and H.264
        luma = grey_of(np.ascontiguousarray(before, np.uint8))
        added = (sharpener(luma, "gray").astype(int) - luma).ravel()
        assert np.corrcoef(np.median(after - before, axis=2).ravel(), added)[0, 1] > 0.8


def test_a_short_video_is_played_as_a_whole(sharpener: Sharpener, rgb: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", rgb)
    assert len(played(write_before_after(sharpener, source, tmp_path / "look.html"))) == 10


def test_a_video_without_the_middle_that_it_announces_is_told(sharpener: Sharpener, rgb: Frame, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", rgb, range(0, 500 * STEP, STEP), codec="ffv1", options={})
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 4])
    with pytest.raises(UserError, match=r"in.mkv ends before 7.5 s.*it is truncated; name a PNG"):
        write_before_after(sharpener, source, tmp_path / "look.html")
    assert not (tmp_path / "look.html").exists()
    assert write_before_after(sharpener, source, tmp_path / "look.png").is_file()


def test_of_hdr_sdr_is_shown(sharpener: Sharpener, tmp_path: Path) -> None:
    """In PQ, a white of 203 cd/m2 is at 58 % of the range: shown as it is, it would be grey."""
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9, "color_range": 1}
    white = np.full((64, 96, 3), round(0.58 * 255), np.uint8)
    source = write_video(tmp_path / "in.mp4", white, [0], pixel_format="yuv420p10le", options={"crf": "0"}, tags=tags)
    for half in halves(write_before_after(sharpener, source, None), 96, 64):
        assert half.mean() > 245
    (frame,) = played(write_before_after(sharpener, source, tmp_path / "look.html"))
    assert frame.mean() > 245


def test_nothing_is_replaced_in_silence(sharpener: Sharpener, rgb: Frame, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(rgb).save(source)
    (tmp_path / "in_compare.png").write_bytes(b"mine")
    (tmp_path / "text.png").write_bytes(b"text")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "huge.png").write_bytes(huge_png(60_000))
    for given_source, target, message in (
        (source, None, "in_compare.png exists: name another file for the result, or --overwrite"),
        (source, source, "is the input itself"),
        (source, tmp_path / "in_compare.png", "in_compare.png exists"),
        (source, tmp_path / "out.jpg", "must end in .png"),
        (source, tmp_path / "folder.png", "is a folder: name a file"),
        (tmp_path / "none.png", None, "there is no image"),
        (tmp_path / "text.png", None, "text.png cannot be used"),
        (tmp_path / "huge.png", None, "huge.png cannot be used: 60000 x 60000 pixels"),
        (tmp_path / "none.mp4", None, "there is no video"),
    ):
        with pytest.raises(UserError, match=message):
            write_before_after(sharpener, given_source, target)
    assert (tmp_path / "in_compare.png").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("folder.png", "huge.png", "in.png", "in_compare.png", "text.png")
    ]
    assert write_before_after(sharpener, source, None, overwrite=True).read_bytes() != b"mine"
