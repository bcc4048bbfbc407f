"""Real images: how blurred they are, the report, and what is refused; and data sets of Kaggle."""

import csv
import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

from clearcall.cli import app
from clearcall.core.errors import UserError
from clearcall.data.ingest.archives import LOW_RESOLUTION_PHOTOGRAPHS, UNSPLASH_SR, fetch_dataset
from clearcall.data.ingest.download import download
from clearcall.imaging.frame import Frame
from clearcall.imaging.unsharp import unsharp_mask
from clearcall.media.options import SharpenerOptions
from clearcall.params import Params
from clearcall.reporting.real_images import blur, compare_folder

OPTIONS = SharpenerOptions("fast", "onnxruntime", 1, look="crisp")


def mask(frame: Frame) -> Frame:
    return unsharp_mask(frame, 1.0, 1.0)


def test_blur_of_a_step() -> None:
    """Of a step of 1 the central difference is 1/2 in two columns, and 1/11 once it is spread over 11 columns.

    What the spreading takes away is 2 * (1/2 - 1/11) = 9/11 of a sum of 1: there remain 2/11. Rows are alike.
    """
    quadrant = np.zeros((64, 64, 3), np.uint8)
    quadrant[32:, 32:] = 200
    assert blur(quadrant) == pytest.approx(2 / 11)
    assert blur(np.zeros((64, 64, 3), np.uint8)) == 1


def test_blur_grows_with_blurring_and_falls_with_sharpening(photos: dict[str, Frame]) -> None:
    photo = photos["chelsea"][80:240, 100:260]
    blurred = np.asarray(cv2.GaussianBlur(photo, (0, 0), 1.5), np.uint8)
    assert blur(photo) < blur(mask(blurred)) < blur(blurred)


def test_the_report_tells_of_each_image(photos: dict[str, Frame], tmp_path: Path) -> None:
    for name, photo in photos.items():
        small = Image.fromarray(photo[100:180, 100:196])
        (tmp_path / "mine" / name).mkdir(parents=True)
        small = small.resize((48, 40)).resize((96, 80))
        small.convert("L" if name == "coffee" else "RGB").save(tmp_path / "mine" / name / "a.png")
    reports = tmp_path / "reports"
    page = reports / "real_images.md"
    told = compare_folder(str(tmp_path / "mine"), reports, OPTIONS, shown=2, side=48)
    assert told == f"3 of 3 have less blur; written: {page}"
    with (reports / "real_images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["astronaut/a.png", "chelsea/a.png", "coffee/a.png"]
    assert {(row["width"], row["height"]) for row in rows} == {("96", "80")}
    assert all(float(row["blur_after"]) < float(row["blur_before"]) for row in rows)
    text = page.read_text(encoding="utf-8")
    assert f"{np.mean([float(row['blur_after']) for row in rows]):.3f}" in text
    assert "3 of 3 images have less blur" in text
    for number in (1, 2):
        assert f"real_images/{number}.png" in text
        with Image.open(reports / "real_images" / f"{number}.png") as drawn:
            assert drawn.width > 3 * 48 * 3
    assert len(list((reports / "real_images").iterdir())) == 2


@pytest.mark.parametrize("fault", ["missing", "empty", "broken", "small"])
def test_what_cannot_be_looked_at_is_named_and_nothing_written(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "mine"
    if fault != "missing":
        folder.mkdir()
    if fault == "broken":
        (folder / "a.png").write_text("no picture")
    if fault == "small":
        Image.new("RGB", (11, 40)).save(folder / "a.png")
    message = {
        "missing": "there is no folder .*, or the data set low_resolution_photographs",
        "empty": "holds no image",
        "broken": r"a\.png cannot be used",
        "small": "a side is below min_side 12",
    }[fault]
    with pytest.raises(UserError, match=message):
        compare_folder(str(folder), tmp_path / "reports", OPTIONS, shown=1, side=48)
    assert not list((tmp_path / "reports").glob("*"))


def test_the_command_sharpens_a_folder(photos: dict[str, npt.NDArray[np.uint8]], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    Image.fromarray(photos["astronaut"][:64, :80]).save(tmp_path / "mine" / "a.jpg")
    page = tmp_path / "out" / "real_images.md"
    arguments = ["compare", str(tmp_path / "mine"), "--output", str(page.parent), "--provider", "onnxruntime"]
    done = CliRunner().invoke(app, [*arguments, "--threads", "1", "--crop", "32"], catch_exceptions=False)
    assert f"of 1 have less blur; written: {page}" in done.output
    assert "sharpened by `best`" in page.read_text(encoding="utf-8")
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, UserError) and f"{page} exists" in str(refused.exception)


# Kaggle


def without_kaggle(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Log out of Kaggle, should its client be installed."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


def test_the_message_says_where_a_data_set_is_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_kaggle(monkeypatch, tmp_path)
    with pytest.raises(UserError) as caught:
        fetch_dataset(LOW_RESOLUTION_PHOTOGRAPHS, tmp_path / "cache", "give this command its folder")
    message = str(caught.value)
    assert "download https://www.kaggle.com/datasets/noobyogi0100/low-resolution-photographs by hand" in message
    assert "give this command its folder" in message
    assert ("install Kaggle's client" in message) == (importlib.util.find_spec("kaggle") is None)


def test_a_data_set_in_the_cache_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "image-super-resolution-from-unsplash.zip").write_bytes(b"here")
    assert fetch_dataset(UNSPLASH_SR, tmp_path, "").read_bytes() == b"here"


def test_of_the_unsplash_set_the_sharp_half_is_taken(committed: Params, tmp_path: Path) -> None:
    folder = tmp_path / "Image Super Resolution - Unsplash"
    for kind, sizes in {"high res": (96, 64), "low res": (48, 32)}.items():
        (folder / kind).mkdir(parents=True)
        for seed in range(4):
            noise = np.random.default_rng(seed).integers(0, 256, (sizes[1], sizes[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / kind / f"{seed}.jpg")
    params = committed.download_data.model_copy(update={"source": "unsplash_sr", "folder": tmp_path})
    records = download(params, tmp_path.parent / f"{tmp_path.name}_raw").records
    assert len(records) == 4
    assert {(record.width, record.height) for record in records} == {(96, 64)}
    assert {record.licence for record in records} == {f"as stated at https://www.kaggle.com/datasets/{UNSPLASH_SR}"}


def test_without_the_unsplash_set_the_message_says_where_it_is(
    committed: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_kaggle(monkeypatch, tmp_path)
    params = committed.download_data.model_copy(update={"source": "unsplash_sr", "folder": tmp_path / "none"})
    with pytest.raises(UserError, match=r"kaggle\.com/datasets/quadeer15sh.* set download_data\.folder"):
        download(params, tmp_path / "raw", cache=tmp_path / "cache")
    assert not (tmp_path / "raw").exists()
