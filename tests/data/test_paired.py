"""Sources that bring pairs: from folders blur and sharp through the raw folder to pairs, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image, ImageFilter
from tests.make.photographs import download_params

from clearcall.core.errors import UserError
from clearcall.data.checks import check_images
from clearcall.data.degrade.write import degrade_pairs
from clearcall.data.ingest.download import download
from clearcall.data.manifest import MANIFEST, ImageRecord, read_manifest, write_manifest
from clearcall.data.pairs import PairReader, read_pairs
from clearcall.params import CheckData, CountPerSplit, DegradePairs, Params, parse_params

Frame = npt.NDArray[np.uint8]
SCENES = ("train/one", "train/two", "train/three", "test/four")
FRAMES = ("000001.png", "000002.png")
LIMITS = CheckData(min_images=CountPerSplit(train=1, validation=1, test=1), side_range=(16, 64))


def add_pair(folder: Path, sharp: str, seed: int) -> None:
    """Write noise as `sharp` and the same blurred under the same name in `blur`."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    blur = folder / sharp.replace("sharp", "blur")
    for path, image in (
        (folder / sharp, Image.fromarray(pixels)),
        (blur, Image.fromarray(pixels).filter(ImageFilter.BLUR)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Four scenes of two pairs each, laid out as GoPro is; one of the scenes is a test scene."""
    folder = tmp_path / "pairs_of_mine"
    for seed, (scene, frame) in enumerate((scene, frame) for scene in SCENES for frame in FRAMES):
        add_pair(folder, f"{scene}/sharp/{frame}", seed)
    return folder


settings = partial(download_params, source="paired_folder")


def pixels(path: Path) -> Frame:
    with Image.open(path) as image:
        return np.asarray(image)


def test_each_photograph_keeps_its_partner_and_scenes_stay_together(scenes: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    records = download(settings(scenes), raw).records
    assert read_manifest(raw) == records
    assert len(records) == 8
    assert {record.group for record in records} == {"one", "two", "three", "four"}
    assert len({(record.group, record.split) for record in records}) == 4
    assert {record.split for record in records if record.group == "four"} == {"test"}
    assert [record.split for record in records].count("validation") == 2  # one scene of the three in train
    for record in records:
        original = scenes / record.source.removeprefix("paired_folder: ")
        assert (pixels(raw / record.path) == pixels(original)).all()
        partner = Path(str(original).replace("sharp", "blur"))
        assert (raw / record.degraded).read_bytes() == partner.read_bytes()
    assert check_images(raw, LIMITS, tmp_path / "docs")["rows"] == 8


@pytest.mark.parametrize("layout", ["{split}/sharp/1.png", "{split}/sharp/{split}-clip/1.png"])
def test_scenes_may_be_missing_or_lie_inside(tmp_path: Path, layout: str) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        add_pair(tmp_path / "mine", layout.format(split=split), seed)
    records = download(settings(tmp_path / "mine"), tmp_path / "raw").records
    assert [record.split for record in records] == ["test", "train", "validation"]


def test_a_scene_in_two_splits_is_refused(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        add_pair(tmp_path, f"{split}/clip/sharp/{seed}.png", seed)
    with pytest.raises(UserError, match=r"the folder clip lies in both .*: keep it in one of them or rename one$"):
        download(settings(tmp_path), tmp_path.parent / f"{tmp_path.name}_raw")


def test_the_pairs_are_those_that_were_given(committed: Params, scenes: Path, tmp_path: Path) -> None:
    """As they are at full size; scaled alike in training; and where the mix says so, degraded further or anew."""
    from clearcall.data.degrade.degradations import build_degradation

    raw = tmp_path / "raw"
    records = download(settings(scenes), raw).records
    known = committed.degrade_pairs.model_dump()
    known["degradations"]["as_given_x2"] = [{"op": "as_given"}, *known["degradations"]["bicubic_x2.0"]]
    mix = ("as_given", "as_given_x2", "bicubic_x2.0")
    params = DegradePairs.model_validate(known | {"mix": mix, "scales": (1.0, 0.5), "workers": 1})
    degrade_pairs(raw, tmp_path / "pairs", records, params)
    by_path, reader = {record.path: record for record in records}, PairReader(tmp_path / "pairs")
    pairs = read_pairs(tmp_path / "pairs")
    assert len(pairs) == 3 * (2 + 2 * 6)  # in all three ways: two test pairs at one scale, six others at two
    for pair in pairs:
        size = pair.width, pair.height
        sharp, given = (
            np.asarray(
                Image.open(raw / name).resize(size, Image.Resampling.LANCZOS)
                if pair.scale < 1
                else Image.open(raw / name)
            )
            for name in (pair.image, by_path[pair.image].degraded)
        )
        halved = build_degradation(params.degradations["bicubic_x2.0"], *size, 1)
        expected = {"as_given": given, "as_given_x2": halved(given), "bicubic_x2.0": halved(sharp)}
        assert (reader.sharp(pair) == sharp).all()
        assert (reader.degraded(pair) == expected[pair.degradation]).all()


def lose_partner(scenes: Path) -> None:
    (scenes / "train/two/blur/000002.png").unlink()


def lose_photograph(scenes: Path) -> None:
    (scenes / "train/two/sharp/000002.png").unlink()


def shrink_partner(scenes: Path) -> None:
    Image.new("RGB", (48, 39)).save(scenes / "train/two/blur/000002.png")


def break_partner(scenes: Path) -> None:
    (scenes / "train/two/blur/000002.png").write_text("no picture")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lose_partner, "1 images in .* have no partner .*: add or remove train/two/sharp/000002.png"),
        (lose_photograph, "1 images in .* have no partner .*: add or remove train/two/blur/000002.png"),
        (shrink_partner, "train/two/sharp/000002.png: 48 x 40 pixels, but its partner .*000002.png has 48 x 39"),
        (break_partner, "the partner .*blur/000002.png of train/two/sharp/000002.png: its content is not PNG"),
    ],
)
def test_a_missing_or_unequal_partner_is_named(
    scenes: Path, tmp_path: Path, fault: Callable[[Path], None], message: str
) -> None:
    fault(scenes)
    with pytest.raises(UserError, match=message):
        download(settings(scenes), tmp_path / "raw")
    assert list(tmp_path.iterdir()) == [scenes]


def test_what_lies_elsewhere_is_left_out_with_a_warning(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GoPro holds the blurred images in a second version, in folders blur_gamma."""
    (scenes / "train/one/blur_gamma").mkdir()
    Image.new("RGB", (48, 40)).save(scenes / "train/one/blur_gamma/000001.png")
    assert len(download(settings(scenes), tmp_path / "raw").records) == 8
    assert "1 images" in (errors := capsys.readouterr().err) and "train/one/blur_gamma/000001.png" in errors


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (48, 40)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="holds no pairs: it must have folders blur and sharp"):
        download(settings(tmp_path), tmp_path.parent / f"{tmp_path.name}_raw")


def test_gopro_is_found_one_folder_down(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    scenes.rename(tmp_path / "unpacked" / "GOPRO_Large")
    records = download(settings(tmp_path / "unpacked", source="gopro"), tmp_path / "raw").records
    assert len(records) == 8
    assert records[0].source.startswith("gopro: ")


def test_without_gopro_the_message_says_where_it_is_described(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"described at https://.*/gopro and unpack it.*sha256: \.\.\., size"):
        download(settings(tmp_path / "nowhere", source="gopro"), tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_check_data_names_a_partner_that_has_changed(scenes: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    record = download(settings(scenes), raw).records[0]
    Image.new("RGB", (48, 41)).save(raw / record.degraded)
    with pytest.raises(UserError) as caught:
        check_images(raw, LIMITS, tmp_path / "docs")
    lines = str(caught.value).splitlines()
    assert "breaks 2 of" in lines[0]
    for line, words in zip(
        lines[1:3], ("as high as its photograph", "the SHA-256 that the manifest gives"), strict=True
    ):
        assert words in line and record.path in line


def test_a_manifest_without_pairs_has_no_columns_about_them(tmp_path: Path) -> None:
    record = ImageRecord("a.png", "0" * 64, 48, 40, "RGB", "made", "CC0", "a", "train")
    write_manifest(tmp_path, [record])
    assert "degraded" not in (tmp_path / MANIFEST).read_text(encoding="utf-8")
    assert read_manifest(tmp_path) == [record]
    paired = replace(record, path="b.png", degraded="degraded/b.png", degraded_sha256="1" * 64)
    write_manifest(tmp_path, [record, paired])
    assert read_manifest(tmp_path) == [record, paired]


def test_a_photograph_without_partner_cannot_be_degraded_as_given(
    committed: Params, tiny_raw: tuple[Path, list[ImageRecord]], tmp_path: Path
) -> None:
    raw, records = tiny_raw
    params = committed.degrade_pairs.model_copy(update={"mix": ("as_given",), "workers": 1})
    with pytest.raises(UserError, match=r"a\.png has no blurred partner"):
        degrade_pairs(raw, tmp_path / "pairs", records, params)


@pytest.mark.parametrize(
    ("source", "mix", "message"),
    [
        ("gopro", ["jpeg"], "download_data.source gopro brings blurred images, but degrade_pairs.mix uses none"),
        ("bundled", ["as_given", "jpeg"], "names as_given, but download_data.source bundled brings no blurred"),
    ],
)
def test_source_and_mix_must_fit(project: Path, source: str, mix: list[str], message: str) -> None:
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["download_data"]["source"], document["degrade_pairs"]["mix"] = source, mix
    with pytest.raises(UserError, match=message):
        parse_params(document)
    document["download_data"]["source"], document["degrade_pairs"]["mix"] = "gopro", ["as_given", "jpeg"]
    parse_params(document)


def test_as_given_comes_first(project: Path) -> None:
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["degrade_pairs"]["degradations"]["late"] = [{"op": "jpeg", "quality_range": [40, 80]}, {"op": "as_given"}]
    with pytest.raises(UserError, match="late must begin with as_given"):
        parse_params(document)
