"""The raw folder: sources, splits, conversions, and what is refused."""

import struct
import subprocess
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from tests.make.commands import run_stage
from tests.make.photographs import download_params

from clearcall.core.errors import UserError
from clearcall.data.ingest.download import Downloaded, download, summary
from clearcall.data.ingest.sources import draw_splits
from clearcall.data.manifest import SPLITS, Split, read_manifest
from clearcall.imaging.decode import read_picture, read_rgb

PROJECT = Path(__file__).parents[2]
SIDE = 16


def noise_image(seed: int, mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE + 8)) -> Image.Image:
    """Return noise of width x height `size`, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six different photographs, without a split."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        noise_image(seed).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "data" / "raw"


def refused(photos: Path, raw: Path, **changes: Any) -> str:
    """Return the message, having checked that nothing is left behind."""
    with pytest.raises(UserError) as caught:
        download(download_params(photos, **changes), raw)
    assert not raw.exists()
    assert not [path for path in raw.parent.iterdir() if path != photos] if raw.parent.exists() else True
    return str(caught.value)


def note_and_pixels(path: Path) -> tuple[str, np.ndarray]:
    read = read_picture(path, 8, 10**6)
    assert read.pixels.mode == "RGB"
    return "; ".join(read.changes), np.asarray(read.pixels)


# Sources and splits


def test_bundled_photographs_are_split_as_listed(tmp_path: Path, raw: Path) -> None:
    downloaded = download(download_params(tmp_path, source="bundled"), raw)
    names = {split: {Path(r.path).stem for r in downloaded.records if r.split == split} for split in SPLITS}
    assert names == {
        "train": {"motorcycle_left", "motorcycle_right", "hubble_deep_field", "ihc", "retina", "china"},
        "validation": {"rocket", "flower"},
        "test": {"astronaut", "chelsea", "coffee"},
    }
    assert [r.group for r in downloaded.records].count("motorcycle") == 2
    assert len({r.group for r in downloaded.records}) == 10
    assert all(r.licence for r in downloaded.records)
    assert read_manifest(raw) == downloaded.records


def test_manifest_describes_the_files(photos: Path, raw: Path) -> None:
    downloaded = download(download_params(photos, licence="CC0"), raw)
    assert read_manifest(raw) == downloaded.records
    assert {path.name for path in raw.iterdir()} == {"manifest.csv", *SPLITS}
    for record in downloaded.records:
        with Image.open(raw / record.path) as image:
            assert (image.size, image.mode) == ((record.width, record.height), "RGB")
        assert (raw / record.path).read_bytes() == (photos / Path(record.path).name).read_bytes()
    report = summary(downloaded, "folder")
    assert report["total"] == 6
    assert report["images"] == {"train": 4, "validation": 1, "test": 1}
    assert report["pixels"]["test"] == SIDE * (SIDE + 8)
    assert report["licences"] == ["CC0"]
    assert report["notes"] == {} and report["duplicates"] == []


def test_folders_named_after_splits_are_the_split(tmp_path: Path, raw: Path) -> None:
    folder = tmp_path / "photos"
    for seed, name in enumerate(["train/a.png", "Train/sub/b.JPG", "val/c.webp", "test/d.bmp", "test/e.tiff"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(seed).save(folder / name)
    records = download(download_params(folder), raw).records
    stored = ["test/d.bmp", "test/e.tif", "train/a.png", "train/b.jpg", "validation/c.webp"]
    assert [record.path for record in records] == stored


def test_without_validation_folder_some_of_train_is_drawn(tmp_path: Path, raw: Path) -> None:
    for seed in range(12):
        path = tmp_path / "photos" / ("test" if seed < 2 else "train") / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_image(seed).save(path)
    records = download(download_params(tmp_path / "photos", validation_fraction=0.3), raw).records
    assert {Path(r.path).name for r in records if r.split == "test"} == {"0.png", "1.png"}
    assert sum(r.split == "validation" for r in records) == 3


def test_images_outside_of_the_split_folders_are_refused(photos: Path, raw: Path) -> None:
    (photos / "train").mkdir()
    noise_image(7).save(photos / "train" / "7.png")
    assert "6 images lie outside" in refused(photos, raw)


GROUPS = st.dictionaries(st.text(max_size=8), st.sampled_from(["train", "train", "validation", "test"]), min_size=3)


@examples(max_examples=30)
@given(GROUPS, st.floats(0, 0.99), st.floats(0, 0.99), st.integers(0, 99), st.randoms())
def test_draw_keeps_what_is_given_whatever_the_order(
    groups: dict[str, Split], test_fraction: float, validation_fraction: float, seed: int, random: Any
) -> None:
    try:
        splits = draw_splits(groups, test_fraction, validation_fraction, seed)
    except UserError:
        assert list(groups.values()).count("train") < 3
        return
    assert set(splits.values()) == set(SPLITS)
    assert all(splits[group] == split for group, split in groups.items() if split != "train")
    shuffled = list(groups.items())
    random.shuffle(shuffled)
    assert draw_splits(dict(shuffled), test_fraction, validation_fraction, seed) == splits


def test_fractions_are_of_the_groups(photos: Path) -> None:
    splits = list(draw_splits(dict.fromkeys(map(str, range(100)), "train"), 0.2, 0.1, 1).values())
    assert [splits.count(split) for split in SPLITS] == [72, 8, 20]


def test_seed_changes_the_draw() -> None:
    groups: dict[str, Split] = dict.fromkeys(map(str, range(50)), "train")
    assert draw_splits(groups, 0.2, 0.2, 1) != draw_splits(groups, 0.2, 0.2, 2)


@examples(max_examples=8)
@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_groups_never_straddle(tmp_path_factory: pytest.TempPathFactory, seed: int, fraction: float) -> None:
    folder = _clips(tmp_path_factory)
    raw = tmp_path_factory.mktemp("out") / "raw"
    params = download_params(folder, group_by="folder", seed=seed, test_fraction=fraction, validation_fraction=fraction)
    records = download(params, raw).records
    assert len({(r.group, r.split) for r in records}) == len({r.group for r in records}) == 4


def _clips(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "clips"
    if not folder.exists():
        for seed in range(8):
            path = folder / f"clip {seed % 4}" / "frames" / f"{seed // 4}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise_image(seed).save(path)
    return folder


def test_a_group_in_two_split_folders_is_refused(tmp_path: Path, raw: Path) -> None:
    for seed, name in enumerate(["train/clip/1.png", "train/other/1.png", "test/clip/2.png"]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        noise_image(seed).save(tmp_path / "photos" / name)
    message = refused(tmp_path / "photos", raw, group_by="folder")
    assert "folder clip lies in both" in message and "group_by: file" in message
    assert len(download(download_params(tmp_path / "photos", group_by="file"), raw).records) == 3


# Names


def test_names_are_plain_unique_and_the_same_each_time(tmp_path: Path, raw: Path) -> None:
    folder = tmp_path / "photos"
    names = ["train/x/a b.png", "train/y/a_b.png", "train/y/A_B.png", "train/a b.jpg", "train/é.png", "test/a b.png"]
    for seed, name in enumerate([*names, "val/v.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(seed).save(folder / name)
    first = download(download_params(folder), raw)
    assert [record.path for record in first.records] == [
        "test/a_b.png", "train/A_B-3.png", "train/a_b-2.png", "train/a_b-4.png", "train/a_b.jpg", "train/image.png",
        "validation/v.png",
    ]  # fmt: skip
    assert download(download_params(folder), raw) == first


def test_a_name_that_is_not_utf8(photos: Path, raw: Path) -> None:
    noise_image(9).save(photos / "9.png")
    try:
        (photos / "9.png").rename(photos / "\udce99.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert any("\\xe9" in record.group for record in download(download_params(photos), raw).records)


def test_other_files_are_counted_and_hidden_ones_are_not(
    photos: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ["README", "notes.txt", "list.csv", ".hidden.png", ".git/a.png", "sound.wav", "sub/raw.cr2"]:
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text("x")
    assert len(download(download_params(photos), raw).records) == 6
    assert "2 files" in (errors := capsys.readouterr().err) and "sound.wav, sub/raw.cr2" in errors


def test_linked_folders_are_followed_once(tmp_path: Path, photos: Path, raw: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "here").symlink_to(photos)
    (photos / "loop").symlink_to(tmp_path / "links")
    assert len(download(download_params(tmp_path / "links"), raw).records) == 6


# Conversions


def test_rgb_is_copied_byte_for_byte_in_its_own_format(photos: Path, raw: Path) -> None:
    noise_image(9).save(photos / "9.webp", lossless=True)
    noise_image(10).save(photos / "10.jpg")
    records = {r.source: r for r in download(download_params(photos), raw).records}
    for name in ("9.webp", "10.jpg"):
        record = records[f"folder: {name}"]
        assert (raw / record.path).read_bytes() == (photos / name).read_bytes()
        assert record.note == ""


def test_converted_images_are_stored_as_png(photos: Path, raw: Path) -> None:
    noise_image(9, "L").save(photos / "9.jpg")
    downloaded = download(download_params(photos), raw)
    (record,) = (r for r in downloaded.records if r.note)
    assert (record.mode, record.note, Path(record.path).name) == ("L", "grey to RGB", "9.png")
    with Image.open(raw / record.path) as stored, Image.open(photos / "9.jpg") as original:
        assert (stored.format, stored.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(original.convert("RGB")))
    assert summary(downloaded, "folder")["notes"] == {"grey to RGB": 1}


@pytest.mark.parametrize(
    ("mode", "name", "note"),
    [
        ("L", "a.png", "grey to RGB"),
        ("1", "a.png", "grey to RGB"),
        ("P", "a.png", "palette to RGB"),
        ("CMYK", "a.jpg", "CMYK converted to RGB as (1 - C)(1 - K), it has no colour profile"),
        ("CMYK", "a.tif", "CMYK converted to RGB as (1 - C)(1 - K), it has no colour profile"),
    ],
)
def test_modes(tmp_path: Path, mode: str, name: str, note: str) -> None:
    noise_image(1, mode).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(image.convert("RGB"))
    found, pixels = note_and_pixels(tmp_path / name)
    assert found == note
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_is_converted_with_its_profile(cmyk_profile: bytes, tmp_path: Path, name: str) -> None:
    Image.new("CMYK", (SIDE, SIDE), (255, 0, 0, 0)).save(tmp_path / name, icc_profile=cmyk_profile)
    note, pixels = note_and_pixels(tmp_path / name)
    assert note == "CMYK converted to sRGB by its colour profile"
    np.testing.assert_allclose(pixels, np.full_like(pixels, 119), atol=3)


def test_alpha_is_put_onto_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (SIDE, SIDE), (200, 0, 100, 255))
    image.paste((200, 0, 100, 0), (0, 0, 8, SIDE))
    image.save(tmp_path / "a.png")
    note, pixels = note_and_pixels(tmp_path / "a.png")
    assert note == "alpha onto white"
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[0, 8].tolist() == [200, 0, 100]


def test_grey_with_alpha_and_transparent_palette(tmp_path: Path) -> None:
    Image.new("LA", (SIDE, SIDE), (0, 0)).save(tmp_path / "a.png")
    Image.new("P", (SIDE, SIDE), 0).save(tmp_path / "b.png", transparency=0)
    for name, expected in (("a.png", "grey to RGB; alpha onto white"), ("b.png", "palette to RGB; alpha onto white")):
        note, pixels = note_and_pixels(tmp_path / name)
        assert note == expected
        assert (pixels == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_rounded_to_the_nearest_level(tmp_path: Path, name: str) -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    values[0, :4] = [128, 129, 65535, 255]
    Image.fromarray(values).save(tmp_path / name)
    note, pixels = note_and_pixels(tmp_path / name)
    assert note == "grey to RGB; 16 to 8 bit"
    assert pixels[0, :4, 0].tolist() == [0, 1, 255, 1]
    np.testing.assert_array_equal(pixels[:, :, 1], np.rint(values / 257).astype(np.uint8))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def test_16_bit_rgb_is_not_mistaken_for_8_bit(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHH", 0, 0x8080, 0xFFFF) * SIDE
    (tmp_path / "a.png").write_bytes(_png(SIDE, SIDE, 16, 2, row * SIDE))
    note, pixels = note_and_pixels(tmp_path / "a.png")
    assert note == "16 to 8 bit"
    assert pixels[3, 3].tolist() == [0, 0x80, 255]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_orientation_6_is_turned_clockwise(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (32, 16), "black")
    image.paste((255, 255, 255), (0, 0, 16, 16))  # the left half, which is at the top once turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / name, exif=exif)
    note, pixels = note_and_pixels(tmp_path / name)
    assert note == "rotated upright by EXIF"
    assert pixels.shape == (32, 16, 3)
    assert (pixels[:14] > 250).all() and (pixels[18:] < 5).all()


def test_turned_image_is_stored_without_orientation(photos: Path, raw: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_image(9).save(photos / "9.jpg", exif=exif)
    (record,) = (r for r in download(download_params(photos), raw).records if r.note)
    assert (record.width, record.height) == (SIDE + 8, SIDE)
    with Image.open(raw / record.path) as image:
        assert image.size == (SIDE + 8, SIDE) and not image.getexif()


@pytest.mark.parametrize("name", ["a.webp", "a.tif", "a.png"])
def test_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    noise_image(1).save(tmp_path / name, save_all=True, append_images=[noise_image(2)], **options)
    note, pixels = note_and_pixels(tmp_path / name)
    assert note == "first of 2 frames"
    np.testing.assert_array_equal(pixels, np.asarray(noise_image(1)))


def test_first_image_of_a_phone_jpeg_with_several(tmp_path: Path) -> None:
    noise_image(1).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[noise_image(2)])
    read = read_picture(tmp_path / "a.jpg", 8, 10**6)
    assert (read.format, read.changes) == ("JPEG", ["first of 2 frames"])


def test_a_heic_is_stored_as_png(photos: Path, raw: Path) -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install 'clearcall[heif]'")
    noise_image(9).save(photos / "IMG_1.HEIC")
    (record,) = (r for r in download(download_params(photos), raw).records if r.note)
    assert (record.note, Path(record.path).name) == ("decoded from HEIC", "IMG_1.png")
    with Image.open(raw / record.path) as stored, Image.open(photos / "IMG_1.HEIC") as original:
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(original))


def test_png_named_jpg_is_noted_and_renamed(photos: Path, raw: Path) -> None:
    noise_image(9).save(photos / "9.jpg", format="PNG")
    (record,) = (r for r in download(download_params(photos), raw).records if r.note)
    assert (record.note, Path(record.path).name) == ("PNG named .jpg", "9.png")
    assert (raw / record.path).read_bytes() == (photos / "9.jpg").read_bytes()


# Duplicates


def test_equal_pixels_are_kept_once_and_not_in_train(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    for name, seed in {"train/a.png": 0, "train/b.bmp": 1, "val/c.tif": 2, "train/d.png": 2, "test/e.png": 1}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(seed).save(folder / name)
    downloaded = download(download_params(folder), raw)
    assert [r.path for r in downloaded.records] == ["test/e.png", "train/a.png", "validation/c.tif"]
    assert len(downloaded.duplicates) == 2
    errors = capsys.readouterr().err
    assert "warning: train/b.bmp (train) shows the same pixels as test/e.png" in errors
    assert "warning: train/d.png (train) shows the same pixels as val/c.tif" in errors


def test_a_split_of_duplicates_only_is_refused(tmp_path: Path, raw: Path) -> None:
    for split in SPLITS:
        (tmp_path / "photos" / split).mkdir(parents=True)
        noise_image(1).save(tmp_path / "photos" / split / "a.png")
    assert "no photograph is left for train" in refused(tmp_path / "photos", raw)


# Bad input


def _save_cut(path: Path) -> None:
    noise_image(8).save(path, lossless=True)  # for WebP; the other formats take no notice
    path.write_bytes(path.read_bytes()[:-200])


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text.png": (lambda path: path.write_text("not a picture"), "content is not PNG"),
    "empty.jpg": (lambda path: path.touch(), "content is not PNG"),
    "gif.png": (lambda path: noise_image(8).save(path, format="GIF"), "content is not PNG"),
    "cut.png": (_save_cut, ""),
    "cut.jpg": (_save_cut, ""),
    "cut.webp": (_save_cut, ""),
    "cut.tif": (_save_cut, ""),
    "cut.bmp": (_save_cut, ""),
    "dot.png": (lambda path: noise_image(8, size=(1, 1)).save(path), "1 x 1 pixels, a side is below min_side 8"),
    "thin.png": (lambda path: noise_image(8, size=(99, 7)).save(path), "99 x 7 pixels"),
    "bomb.png": (lambda path: path.write_bytes(_png(2**31 - 1, 2**31 - 1, 8, 2, b"")), "more than 60000000"),
    "large.png": (lambda path: path.write_bytes(_png(10_000, 10_000, 8, 2, b"")), "more than 60000000"),
    "float.tif": (lambda path: Image.new("F", (SIDE, SIDE)).save(path), "mode F"),
    "link.png": (lambda path: path.symlink_to("nowhere"), "No such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_named(photos: Path, raw: Path, name: str) -> None:
    make, reason = BAD_FILES[name]
    make(photos / name)
    message = refused(photos, raw)
    assert message.startswith("1 of 7 photographs cannot be used; mend, replace or remove")
    assert f"\n  {name}: " in message and reason in message


def test_all_bad_files_are_reported_at_once(photos: Path, raw: Path) -> None:
    for number in range(23):
        (photos / f"bad{number:02}.png").write_text("x")
    message = refused(photos, raw)
    assert message.startswith("23 of 29 photographs")
    assert message.count(": its content") == 20 and message.endswith("and 3 more")


def test_pillow_limit_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("x")
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match="its content is not PNG"):
        read_picture(tmp_path / "a.png", 8, 100)
    assert limit and limit == Image.MAX_IMAGE_PIXELS


def test_threads_that_decode_put_pillow_limit_and_warnings_back(tmp_path: Path) -> None:
    noise_image(1, size=(256, 256)).save(tmp_path / "a.png")
    limit, show = Image.MAX_IMAGE_PIXELS, warnings.showwarning
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_rgb(tmp_path / "a.png", 8), range(100)))
    assert (limit, show) == (Image.MAX_IMAGE_PIXELS, warnings.showwarning)


def test_missing_and_empty_folders(tmp_path: Path, raw: Path) -> None:
    assert "is missing" in refused(tmp_path / "nowhere", raw)
    (tmp_path / "photos").mkdir()
    assert "holds no image or video" in refused(tmp_path / "photos", raw)


def test_too_few(tmp_path: Path, raw: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        noise_image(seed).save(folder / f"{seed}.png")
    assert "too few photographs" in refused(folder, raw)
    for seed in range(2, 5):
        noise_image(seed).save(folder / f"{seed}.png")
    assert "from 1 group(s)" in refused(folder, raw, group_by="folder")


@pytest.mark.parametrize("where", ["photos", "photos/raw", "."])
def test_the_raw_folder_may_not_overlap_the_photographs(photos: Path, where: str) -> None:
    with pytest.raises(UserError, match="overlap"):
        download(download_params(photos), photos.parent / where)
    assert len(list(photos.iterdir())) == 6


def test_failure_leaves_the_former_raw_folder(photos: Path, raw: Path) -> None:
    former = download(download_params(photos), raw)
    (photos / "bad.png").write_text("x")
    with pytest.raises(UserError):
        download(download_params(photos), raw)
    assert Downloaded(read_manifest(raw), []) == former
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


# The stage


def run_download(project: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    document = yaml.safe_load((PROJECT / "params.yaml").read_text())
    document["download_data"] |= changes
    (project / "params.yaml").write_text(yaml.safe_dump(document))
    return run_stage(project, "download_data")


def test_stage_writes_its_report(tmp_path: Path) -> None:
    done = run_download(tmp_path)
    assert done.returncode == 0, done.stderr
    report = yaml.safe_load((tmp_path / "reports" / "download_data.json").read_text())
    assert report["images"] == {"train": 6, "validation": 2, "test": 3}
    assert len(report["test_manifest_sha256"]) == 64
    assert "11 photographs in data/raw" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "folder", "folder": "nowhere"}, "the folder nowhere is missing"),
        ({"source": "flickr"}, "download_data.source"),
    ],
)
def test_stage_fails_with_one_message(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    done = run_download(tmp_path, **changes)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "reports").exists()
