"""The checks of photographs and pairs, against real files and the real Great Expectations."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clearcall.data.checks import OFFENDERS_SHOWN, check_images, check_pairs
from clearcall.data.manifest import ImageRecord, Split, write_manifest
from clearcall.data.pairs import PairRecord
from clearcall.errors import UserError
from clearcall.files import sha256_of
from clearcall.params import CheckData, CheckPairs, CountPerSplit, DegradePairs

ROOT = Path(__file__).parents[1]
ONE_EACH = CountPerSplit(train=1, validation=1, test=1)
DATA_LIMITS = CheckData(min_images=ONE_EACH, side_range=(32, 128))
PAIR_LIMITS = CheckPairs(psnr_db_range=(15, 60), ssim_range=(0.3, 0.9999), min_pairs=ONE_EACH)
DEGRADE = DegradePairs.model_validate(
    {
        "mix": ["jpeg", "clean"],
        "variants": 1,
        "scales": [1.0],
        "workers": 1,
        "seed": 1,
        "degradations": {"jpeg": [{"op": "jpeg", "quality_range": [40, 80]}], "clean": []},
    }
)
Records = dict[str, ImageRecord]


def add_image(raw: Path, name: str, split: Split, side: int = 64, mode: str = "RGB") -> ImageRecord:
    """Write noise as a PNG and return its record."""
    generator = np.random.default_rng(sum(name.encode()))
    Image.fromarray(generator.integers(0, 256, (side, side, 3), np.uint8)).convert(mode).save(raw / name)
    return ImageRecord(name, sha256_of(raw / name), side, side, "RGB", "made", "CC0-1.0", name, split)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def records(raw: Path) -> Records:
    """Four good photographs by name, their files in `raw`."""
    splits: dict[str, Split] = {"a.png": "train", "b.png": "train", "c.png": "validation", "d.png": "test"}
    return {name: add_image(raw, name, split) for name, split in splits.items()}


def refusal(raw: Path, records: Records, limits: CheckData = DATA_LIMITS) -> list[str]:
    """Return the lines of the error that checking the records must raise."""
    write_manifest(raw, records.values())
    with pytest.raises(UserError) as caught:
        check_images(raw, limits, raw.parent / "docs")
    return str(caught.value).splitlines()


def test_good_photographs_pass_and_the_data_docs_are_fresh(
    raw: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = raw.parent / "docs"
    write_manifest(raw, records.values())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # what is above Pillow's own limit is no worse for it
    summary = check_images(raw, DATA_LIMITS, docs)
    (docs / "stale.html").touch()
    again = check_images(raw, DATA_LIMITS, docs)
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert summary == again
    assert summary["rows"] == 4
    assert summary["passed"] == summary["expectations"] > 10
    assert summary["per_split"] == {"train": 2, "validation": 1, "test": 1}
    assert summary["data_docs"] == (docs / "index.html").as_posix()
    pages = {page.relative_to(docs).as_posix(): page.read_text(encoding="utf-8") for page in docs.rglob("*.html")}
    (of_run,) = (page for page in pages if page.startswith("validations/"))
    assert set(pages) == {"index.html", "expectations/docs.html", of_run}
    assert of_run in pages["index.html"]
    assert "every file is there and decodes to its end" in pages[of_run]
    assert not any("dataContextId" in text for text in pages.values())


def truncate(raw: Path, records: Records) -> None:
    path = raw / "b.png"
    path.write_bytes(path.read_bytes()[:-3000])
    records["b.png"] = replace(records["b.png"], sha256=sha256_of(path))


def remove(raw: Path, records: Records) -> None:
    (raw / "b.png").unlink()


def change_hash(raw: Path, records: Records) -> None:
    records["b.png"] = replace(records["b.png"], sha256="0" * 64)


def change_size(raw: Path, records: Records) -> None:
    records["b.png"] = replace(records["b.png"], width=65)


def duplicate(raw: Path, records: Records) -> None:
    shutil.copy(raw / "a.png", raw / "b.png")
    records["b.png"] = replace(records["b.png"], sha256=records["a.png"].sha256)


def share_group(raw: Path, records: Records) -> None:
    records["b.png"] = replace(records["b.png"], group="c.png")


def shrink(raw: Path, records: Records) -> None:
    records["b.png"] = add_image(raw, "b.png", "train", side=20)


def make_grey(raw: Path, records: Records) -> None:
    records["b.png"] = add_image(raw, "b.png", "train", mode="L")


def misname_split(raw: Path, records: Records) -> None:
    records["b.png"] = replace(records["b.png"], split="holdout")  # type: ignore[arg-type]  # that is the fault


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncate, "decodes to its end (column: readable, value_set: [True]): b.png"),
        (remove, "decodes to its end (column: readable, value_set: [True]): b.png"),
        (change_hash, "the hash that the manifest gives (column_A: file_sha256, column_B: sha256): b.png"),
        (
            change_size,
            "that the manifest gives (column_A: file_width, column_B: width): b.png (file_width 64",
        ),
        (duplicate, "no two files are the same (column: file_sha256): a.png, b.png"),
        (share_group, "no group is in two splits (column: splits_of_group, value_set: [1]): b.png"),
        (shrink, "neither too narrow nor too wide (column: file_width, min_value: 32, max_value: 128): b.png"),
        (make_grey, "three channels of 8 bits (column: file_mode, value_set: ['RGB']): b.png"),
        (misname_split, "every split is known (column: split, value_set: ['train', 'validation', 'test']): b.png"),
    ],
)
def test_a_bad_photograph_is_named(
    raw: Path, records: Records, harm: Callable[[Path, Records], None], words: str
) -> None:
    harm(raw, records)
    lines = refusal(raw, records)
    assert any(words in line for line in lines), lines
    assert len(lines) <= 6  # nothing else is blamed but what follows from it
    assert (raw.parent / "docs" / "index.html").is_file()


def test_too_few_photographs_and_leaks_are_named(raw: Path, records: Records) -> None:
    shutil.copy(raw / "a.png", raw / "d.png")
    records["d.png"] = replace(records["d.png"], sha256=records["a.png"].sha256)
    limits = CheckData(min_images=CountPerSplit(train=3, validation=1, test=1), side_range=(32, 128))
    text = "\n".join(refusal(raw, records, limits))
    assert "enough photographs (min_value: 3, split: train): there are 2" in text
    assert "no file is in two splits (column: splits_of_file, value_set: [1]): a.png" in text


def test_files_that_are_all_gone_are_named_once(raw: Path, records: Records) -> None:
    for name in records:
        (raw / name).unlink()
    assert len([line for line in refusal(raw, records) if "a.png" in line]) == 1


def test_long_lists_are_cut(raw: Path, records: Records) -> None:
    many = {f"{n:02}.png": replace(records["a.png"], path=f"{n:02}.png") for n in range(OFFENDERS_SHOWN + 3)}
    line = next(line for line in refusal(raw, many) if "readable" in line)
    assert line.endswith("08.png, 09.png ... and 3 more")


@pytest.mark.parametrize("text", ["", "path,sha256\n1,2\n", "path,sha256,width,height\n\0"])
def test_a_garbled_manifest_is_refused(raw: Path, text: str) -> None:
    (raw / "manifest.csv").write_text(text)
    with pytest.raises(UserError, match="download_data"):
        check_images(raw, DATA_LIMITS, raw.parent / "docs")


def test_a_manifest_with_a_bad_number_is_refused(raw: Path, records: Records) -> None:
    write_manifest(raw, records.values())
    manifest = raw / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",64,", ",wide,"))
    with pytest.raises(UserError, match="wide"):
        check_images(raw, DATA_LIMITS, raw.parent / "docs")


def good_pairs() -> list[dict[str, Any]]:
    """Return the lines of two pairs for each split, the clean one with infinite PSNR."""
    # A group called NA is a name like any other.
    groups: dict[Split, str] = {"train": "NA", "validation": "b", "test": "c"}
    places = ("sharp.bin", 0, "degraded.bin", 0)
    return [
        asdict(PairRecord(f"{s}.png", s * 3, group, s, 1.0, name, 0, 64, 48, 64, 48, *places, psnr_db, ssim))
        for s, group in groups.items()
        for name, psnr_db, ssim in (("jpeg", 30.0, 0.9), ("clean", math.inf, 1.0))
    ]


def write_pairs(parent: Path, rows: list[dict[str, Any]]) -> Path:
    folder = parent / "pairs"
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "pairs.csv", index=False, na_rep="nan")
    return folder


def test_good_pairs_pass_and_clean_ones_are_exempt(tmp_path: Path) -> None:
    summary = check_pairs(write_pairs(tmp_path, good_pairs()), PAIR_LIMITS, DEGRADE, tmp_path / "docs")
    assert summary["rows"] == 6
    assert summary["per_split"] == {"train": 2, "validation": 2, "test": 2}
    assert summary["mean"]["test"] == {
        "clean": {"psnr_db": None, "ssim": 1.0},
        "jpeg": {"psnr_db": 30.0, "ssim": 0.9},
    }
    json.dumps(summary, allow_nan=False)


def test_no_clean_pairs_are_needed(tmp_path: Path) -> None:
    rows = [row for row in good_pairs() if row["degradation"] == "jpeg"]
    degrade = DegradePairs.model_validate({**DEGRADE.model_dump(), "mix": ["jpeg"]})
    assert check_pairs(write_pairs(tmp_path, rows), PAIR_LIMITS, degrade, tmp_path / "docs")["rows"] == 3


PAIR = "train.png [x1, jpeg, variant 0]"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"degraded_height": 63}, f"equally high (column_A: degraded_height, column_B: height): {PAIR} ("),
        ({"psnr_db": 9.5}, f"(column: psnr_db, min_value: 15.0, max_value: 60.0, clean: False): {PAIR} (psnr_db 9.5)"),
        ({"psnr_db": math.inf}, f"max_value: 60.0, clean: False): {PAIR} (psnr_db inf)"),
        ({"psnr_db": math.nan}, f"every pair has a PSNR (column: psnr_db): {PAIR}"),
        ({"ssim": 0.1}, f"(column: ssim, min_value: 0.3, max_value: 0.9999, clean: False): {PAIR} (ssim 0.1)"),
        (
            {"degradation": "clean"},
            "twice (column_list: ['image', 'scale', 'degradation', 'variant']): train.png",
        ),
        ({"degradation": "other"}, "value_set: ['jpeg', 'clean'], split: train): jpeg is missing"),
        ({"group": "c"}, f"no group is in two splits (column: splits_of_group, value_set: [1]): {PAIR}"),
        (
            {"image_sha256": "test" * 3},
            f"no photograph is in two splits (column: splits_of_image, value_set: [1]): {PAIR}",
        ),
        ({"split": "test"}, "enough pairs (min_value: 2, split: train): there are 1"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    rows = good_pairs()
    rows[0] |= changes
    limits = PAIR_LIMITS.model_copy(update={"min_pairs": CountPerSplit(train=2, validation=2, test=2)})
    with pytest.raises(UserError) as caught:
        check_pairs(write_pairs(tmp_path, rows), limits, DEGRADE, tmp_path / "docs")
    assert words in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "image,split\na,train\n", "header", "cut", "word"])
def test_missing_or_garbled_pairs_are_refused(tmp_path: Path, text: str | None) -> None:
    folder = write_pairs(tmp_path, good_pairs())
    index = folder / "pairs.csv"
    if text is None:
        index.unlink()
    elif text == "header":
        index.write_text(index.read_text().splitlines()[0] + "\n")
    elif text == "cut":
        index.write_text(index.read_text()[:-20])
    elif text == "word":
        index.write_text(index.read_text().replace(",64,", ",high,"))
    else:
        index.write_text(text)
    with pytest.raises(UserError, match="degrade_pairs"):
        check_pairs(folder, PAIR_LIMITS, DEGRADE, tmp_path / "docs")


def run_stage(project: Path, stage: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "stages" / f"{stage}.py"], cwd=project, capture_output=True, text=True, check=False
    )


def test_the_stages_end_with_a_summary_or_a_message(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    splits: list[Split] = ["train", "train", "train", "train", "validation", "test"]
    records = [add_image(raw, f"{n}.png", split) for n, split in enumerate(splits)]
    write_manifest(raw, records)
    before = set(tmp_path.iterdir())

    good = run_stage(tmp_path, "check_data")
    assert good.returncode == 0, good.stderr
    assert good.stdout == ""
    assert len(good.stderr.splitlines()) <= 1  # the progress; nothing of Great Expectations
    report = tmp_path / "reports" / "check_data.json"
    assert json.loads(report.read_text())["data_docs"] == "data/data_docs/check_data/index.html"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "reports"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"raw", "data_docs"}

    write_manifest(raw, records[1:])
    bad = run_stage(tmp_path, "check_data")
    assert bad.returncode == 1
    assert "enough photographs (min_value: 4, split: train): there are 3" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert not report.exists()

    unread = run_stage(tmp_path, "check_pairs")
    assert unread.returncode == 1
    assert "dvc repro degrade_pairs" in unread.stderr
    assert "Traceback" not in unread.stderr
