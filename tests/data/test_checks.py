"""The checks of photographs and pairs, against real files and the real Great Expectations."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.make.commands import run_stage

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of
from clearcall.data.checks import (
    FAILING_LISTED,
    OFFENDERS_SHOWN,
    Finding,
    Rule,
    before_rules,
    check_images,
    check_pairs,
    image_rules,
    pair_rules,
    partner_rules,
    write_page,
)
from clearcall.data.manifest import ImageRecord, Split, write_manifest
from clearcall.data.pairs import PairRecord
from clearcall.params import CheckData, CheckPairs, CountPerSplit, DegradePairs

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


class Page(HTMLParser):
    """The page of a check as a browser takes it: its elements, text by element, rows of the table and list items."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in ("meta", "link"):
            return
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts[tag][-1] += data
        if "td" in self._open:
            self.rows[-1][-1] += data

    def assert_self_contained(self) -> None:
        """Assert that nothing is loaded from elsewhere, and that each link leads somewhere."""
        assert not self._open
        assert self.texts.keys().isdisjoint({"script", "img", "iframe", "object", "form", "svg", "base"})
        assert not any(word in style for style in self.texts["style"] for word in ("url(", "@import", "src"))
        ids = {value for _, name, value in self.attributes if name == "id"}
        for tag, name, value in self.attributes:
            assert not name.startswith("on") and name != "style"
            parts = urlsplit(value or "")
            assert parts.netloc == "" and parts.scheme in {"", "data"}, (tag, name, value)
            if name == "href" and not parts.scheme:
                assert (self.path.parent / parts.path).exists() if parts.path else parts.fragment in ids, value


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


def test_good_photographs_pass(raw: Path, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page needs nothing else, older pages are removed, and Pillow's own limit stays as it was."""
    docs = raw.parent / "docs"
    docs.mkdir()
    (docs / "stale.html").touch()
    write_manifest(raw, records.values())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    summary = check_images(raw, DATA_LIMITS, docs)
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert summary["rows"] == 4
    assert summary["passed"] == summary["expectations"] > 10
    assert summary["per_split"] == {"train": 2, "validation": 1, "test": 1}
    assert summary["data_docs"] == (docs / "index.html").as_posix()
    pages = {page.relative_to(docs).as_posix(): page.read_text(encoding="utf-8") for page in docs.rglob("*.html")}
    own = {f"great_expectations/{name}" for name in ("index.html", "expectations/docs.html")}
    (of_run,) = pages.keys() - own - {"index.html"}
    assert pages.keys() > own
    assert of_run.removeprefix("great_expectations/") in pages["great_expectations/index.html"]
    assert "Every photograph can be read to its end" in pages[of_run]
    assert not any("dataContextId" in text for text in pages.values())

    page = Page(docs / "index.html")
    page.assert_self_contained()
    header, *rows = page.rows
    assert header == []
    assert page.texts["th"] == ["Result", "Expectation", "Observed"]
    assert {result for result, _, _ in rows} == {"Passed"}
    observed = {words: observed for _, words, observed in rows}
    assert list(observed) == [rule.words for rule in image_rules(DATA_LIMITS)]
    assert observed["Every photograph is 32 to 128 px wide"] == "4 of 4 photographs pass; values: 64 px"
    assert observed["Every photograph can be read to its end"] == "4 of 4 photographs pass"
    assert observed["The train split has at least 1 photograph"] == "2 photographs"
    assert page.texts["title"] == ["Passed: check of the photographs"]
    assert f"Passed: all {summary['passed']} expectations hold." in page.texts["p"]
    assert f"{raw.as_posix()}/manifest.csv lists 4 photographs: 2 train, 1 validation, 1 test." in page.texts["p"]
    assert "section" not in page.texts


def test_the_page_of_a_failed_check_names_hostile_files_harmlessly(raw: Path, records: Records) -> None:
    names = ["<img src=x onerror=alert(1)>&amp;\"'.png", "snow\u202egnp.exe\n\x1b[2J.png", "{{ 7 * 7 }}.png"]
    for name in names:
        records[name] = add_image(raw, name, "train", side=20)
    records["b.png"] = replace(records["b.png"], split="<b>holdout</b>")  # type: ignore[arg-type]  # that is the fault
    text = "\n".join(refusal(raw, records))
    shown = [names[0], "snow\\u202egnp.exe\\n\\x1b[2J.png", names[2]]
    page = Page(raw.parent / "docs" / "index.html")
    page.assert_self_contained()
    for name in shown:
        assert f"{name} (20 px)" in page.texts["li"] and f"{name} (20 px)" in text
    assert "b.png (<b>holdout</b>)" in page.texts["li"]
    assert page.texts["title"] == ["Failed: check of the photographs"]
    failed = [words for result, words, _ in page.rows[1:] if result == "Failed"]
    assert page.texts["h3"] == failed
    assert "Every photograph is 32 to 128 px wide" in failed
    assert "Observed: 4 of 7 photographs pass; values: 20 to 64 px" in page.texts["p"]
    assert any("check_data" in advice and "params.yaml" in advice for advice in page.texts["p"])
    assert "`" not in "".join(page.texts["p"])


@pytest.mark.parametrize(("failing", "listed"), [(3, 3), (FAILING_LISTED + 1234, FAILING_LISTED)])
def test_the_page_lists_a_bounded_number_of_files(tmp_path: Path, failing: int, listed: int) -> None:
    names = [f"{number}.png" for number in range(failing)]
    found = [Finding("Every photograph is sharp", passed=False, observed="none", failing=names)]
    write_page(tmp_path / "index.html", Path("list.csv"), "photographs", {"train": failing}, found, "", "index.html")
    page = Page(tmp_path / "index.html")
    page.assert_self_contained()
    assert page.texts["li"] == names[:listed]
    hidden = [text for text in page.texts["p"] if "not listed" in text]
    assert hidden == (["... and 1,234 that are not listed here"] if listed < failing else [])


@pytest.mark.parametrize(
    "rules",
    [[*image_rules(DATA_LIMITS), *partner_rules(), *before_rules()], pair_rules(PAIR_LIMITS, DEGRADE.mix)],
    ids=["images", "pairs"],
)
def test_no_two_rules_have_the_same_words(rules: list[Rule]) -> None:
    assert len({rule.words for rule in rules}) == len(rules)


def unreadable(raw: Path, records: Records) -> None:
    """Truncate one file, remove another."""
    (raw / "a.png").unlink()
    path = raw / "b.png"
    path.write_bytes(path.read_bytes()[:-3000])
    records["b.png"] = replace(records["b.png"], sha256=sha256_of(path))


def changed(raw: Path, records: Records) -> None:
    records["b.png"] = replace(records["b.png"], sha256="0" * 64, width=65)


def small_and_grey(raw: Path, records: Records) -> None:
    records["b.png"] = add_image(raw, "b.png", "train", side=20, mode="L")


def in_two_splits(raw: Path, records: Records) -> None:
    records["b.png"] = replace(records["b.png"], group="c.png")


def in_no_split(raw: Path, records: Records) -> None:
    records["b.png"] = replace(records["b.png"], split="holdout")  # type: ignore[arg-type]  # that is the fault


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (unreadable, ["can be read to its end; observed: 2 of 4 photographs pass. Failing: a.png, b.png"]),
        (
            changed,
            [
                "the SHA-256 that the manifest gives; observed: 3 of 4 photographs pass. Failing: b.png",
                "as wide as the manifest says; observed: 3 of 4 photographs pass. Failing: b.png (64 px, not 65 px)",
            ],
        ),
        (
            small_and_grey,
            [
                "32 to 128 px wide; observed: 3 of 4 photographs pass; values: 20 to 64 px. Failing: b.png (20 px)",
                "32 to 128 px high; observed: 3 of 4 photographs pass; values: 20 to 64 px. Failing: b.png (20 px)",
                "8 bits (RGB); observed: 3 of 4 photographs pass. Failing: b.png (Pillow mode L)",
            ],
        ),
        (in_two_splits, ["Failing: b.png (train split, group c.png), c.png (validation split, group c.png)"]),
        (
            in_no_split,
            ["belongs to train, validation or test; observed: 3 of 4 photographs pass. Failing: b.png (holdout)"],
        ),
    ],
)
def test_a_bad_photograph_is_named(
    raw: Path, records: Records, harm: Callable[[Path, Records], None], found: list[str]
) -> None:
    """Nothing else is reported; three more lines are the headline, the advice and the page."""
    harm(raw, records)
    lines = refusal(raw, records)
    for words in found:
        assert any(words in line for line in lines), lines
    assert len(lines) == len(found) + 3
    assert (raw.parent / "docs" / "index.html").is_file()


def test_too_few_photographs_and_leaks_are_named(raw: Path, records: Records) -> None:
    shutil.copy(raw / "a.png", raw / "d.png")
    records["d.png"] = replace(records["d.png"], sha256=records["a.png"].sha256)
    limits = CheckData(min_images=CountPerSplit(train=3, validation=1, test=1), side_range=(32, 128))
    text = "\n".join(refusal(raw, records, limits))
    assert "The train split has at least 3 photographs; observed: 2 photographs" in text
    assert "the same file; observed: 2 of 4 photographs pass. Failing: a.png (train split, SHA-256 " in text
    assert "in more than one split; observed: 2 of 4 photographs pass. Failing: a.png (train split, SHA-256 " in text


def test_many_missing_files_are_named_once_in_a_short_list(raw: Path, records: Records) -> None:
    many = {f"{n:02}.png": replace(records["a.png"], path=f"{n:02}.png") for n in range(OFFENDERS_SHOWN + 3)}
    (line,) = (line for line in refusal(raw, many) if "00.png" in line)
    assert "can be read" in line and line.endswith("08.png, 09.png ... and 3 more")


BAD_NUMBER = """path,sha256,width,height,mode,source,licence,group,split,note
a.png,0,wide,64,RGB,made,CC0,a.png,train,
"""


@pytest.mark.parametrize("text", ["", "path,sha256\n1,2\n", "path,sha256,width,height\n\0", BAD_NUMBER])
def test_a_garbled_manifest_is_refused(raw: Path, text: str) -> None:
    (raw / "manifest.csv").write_text(text)
    with pytest.raises(UserError, match="download_data"):
        check_images(raw, DATA_LIMITS, raw.parent / "docs")


def good_pairs() -> list[dict[str, Any]]:
    """Return the lines of two pairs for each split, the clean one with infinite PSNR."""
    # A group called NA is a name like any other.
    groups: dict[Split, str] = {"train": "NA", "validation": "b", "test": "c"}
    places = ("sharp.bin", 0, "degraded.bin", 0)
    return [
        asdict(PairRecord(f"{s}.png", s * 3, group, s, 1.0, name, 0, 64, 48, 64, 48, *places, psnr_db, ssim, 1.0))
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
    ("changes", "found"),
    [
        (
            {"degraded_height": 63, "psnr_db": 9.5, "ssim": 0.1},
            [
                f"equally high; observed: 5 of 6 pairs pass. Failing: {PAIR} (degraded 63 px, sharp 64 px)",
                f"pair is 15 to 60 dB; observed: 2 of 3 pairs pass; values: 9.5 to 30 dB. Failing: {PAIR} (9.5 dB)",
                f"pair is 0.3 to 0.9999; observed: 2 of 3 pairs pass; values: 0.1 to 0.9. Failing: {PAIR} (0.1)",
            ],
        ),
        (
            {"psnr_db": math.inf, "group": "c", "image_sha256": "test" * 3},
            [
                f"values: 30 to inf dB. Failing: {PAIR} (inf dB)",
                f"in more than one split; observed: 3 of 6 pairs pass. Failing: {PAIR} (train split, group c)",
                f"No photograph is in more than one split; observed: 3 of 6 pairs pass. Failing: {PAIR} (train split)",
            ],
        ),
        (
            {"degradation": "other", "psnr_db": math.nan},
            [
                "every degradation of the mix; observed: 1 of 2 degradations. Failing: jpeg is missing",
                "Every pair has a PSNR; observed: 5 of 6 pairs pass. Failing: train.png [x1, other, variant 0]",
            ],
        ),
        (
            {"degradation": "clean"},
            ["twice; observed: 4 of 6 pairs pass. Failing: train.png [x1, clean, variant 0] (line 2), train.png "],
        ),
        ({"split": "test"}, ["The train split has at least 2 pairs; observed: 1 pair"]),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, changes: dict[str, Any], found: list[str]) -> None:
    rows = good_pairs()
    rows[0] |= changes
    limits = PAIR_LIMITS.model_copy(update={"min_pairs": CountPerSplit(train=2, validation=2, test=2)})
    with pytest.raises(UserError) as caught:
        check_pairs(write_pairs(tmp_path, rows), limits, DEGRADE, tmp_path / "docs")
    for words in found:
        assert words in str(caught.value)


GARBLED: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "other columns": lambda _: "image,split\na,train\n",
    "a column less": lambda text: "\n".join(line.rpartition(",")[0] for line in text.splitlines()),
    "header alone": lambda text: text.splitlines()[0] + "\n",
    "truncated": lambda text: text[:-20],
    "no number": lambda text: text.replace(",64,", ",high,"),
}


@pytest.mark.parametrize("fault", ["missing", *GARBLED])
def test_missing_or_garbled_pairs_are_refused(tmp_path: Path, fault: str) -> None:
    folder = write_pairs(tmp_path, good_pairs())
    index = folder / "pairs.csv"
    text = index.read_text()
    index.unlink()
    if fault in GARBLED:
        index.write_text(GARBLED[fault](text))
    with pytest.raises(UserError, match="degrade_pairs"):
        check_pairs(folder, PAIR_LIMITS, DEGRADE, tmp_path / "docs")


def test_the_stages_end_with_a_summary_or_a_message(
    tmp_path: Path, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(project / "params.yaml", tmp_path)
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
    assert capfd.readouterr() == ("", "")
    report = tmp_path / "reports" / "check_data.json"
    assert json.loads(report.read_text())["data_docs"] == "data/data_docs/check_data/index.html"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "reports"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"raw", "data_docs"}

    write_manifest(raw, records[1:])
    bad = run_stage(tmp_path, "check_data")
    assert bad.returncode == 1
    assert "The train split has at least 4 photographs; observed: 3 photographs" in bad.stderr
    assert not report.exists()
    page = tmp_path / "data" / "data_docs" / "check_data" / "index.html"
    assert bad.stderr.endswith(f"All results on one page: {page.relative_to(tmp_path)}\n")
    assert "3 photographs" in Page(page).texts["td"]

    (raw / "manifest.csv").unlink()
    assert run_stage(tmp_path, "check_data").returncode == 1
    assert not page.exists()  # it would be taken for the result of this run

    unread = run_stage(tmp_path, "check_pairs")
    assert unread.returncode == 1
    assert "dvc repro degrade_pairs" in unread.stderr
