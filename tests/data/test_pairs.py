"""The pairs: the same bytes for any number of workers and any order, and read back as they were written."""

import csv
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import count, islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.core.files import sha256_of, write_csv
from clearcall.core.processes import map_in_order
from clearcall.data.degrade.write import _softened, degrade_pairs, pair_seed
from clearcall.data.manifest import CLIP_FRAMES, ImageRecord, Split, read_manifest, split_sha256, write_manifest
from clearcall.data.pairs import INDEX, PairReader, PairRecord, middle, read_pairs
from clearcall.imaging.metrics import psnr_db, ssim
from clearcall.params import DegradePairs, Params

Frame = npt.NDArray[np.uint8]
Raw = tuple[Path, list[ImageRecord]]


def content(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}


def images(pairs: Path) -> dict[tuple[str, float, str, int], tuple[bytes, bytes]]:
    reader = PairReader(pairs)
    return {
        (record.image, record.scale, record.degradation, record.variant): (
            reader.sharp(record).tobytes(),
            reader.degraded(record).tobytes(),
        )
        for record in read_pairs(pairs)
    }


def test_neither_workers_nor_order_nor_other_photographs_change_an_image(
    tiny_raw: Raw, tiny_mix: DegradePairs, tiny_pairs: Path, tmp_path: Path
) -> None:
    raw, records = tiny_raw
    degrade_pairs(raw, tmp_path / "two", records, tiny_mix.model_copy(update={"workers": 2}))
    assert content(tmp_path / "two") == content(tiny_pairs)
    assert INDEX in content(tiny_pairs)
    degrade_pairs(raw, tmp_path / "some", records[:0:-1], tiny_mix)
    of_the_others = {key: pair for key, pair in images(tiny_pairs).items() if key[0] != "a.png"}
    assert images(tmp_path / "some") == of_the_others


def test_another_seed_changes_the_random_degradation_alone(
    tiny_raw: Raw, tiny_mix: DegradePairs, tiny_pairs: Path, tmp_path: Path
) -> None:
    raw, records = tiny_raw
    degrade_pairs(raw, tmp_path / "pairs", records, tiny_mix.model_copy(update={"seed": 2}))
    before, after = images(tiny_pairs), images(tmp_path / "pairs")
    assert before.keys() == after.keys()
    for key in before:
        assert (before[key] == after[key]) == (key[2] == "bicubic_x2.0")


def test_variants_differ_where_values_are_drawn(tiny_raw: Raw, tiny_mix: DegradePairs, tmp_path: Path) -> None:
    raw, records = tiny_raw
    params = tiny_mix.model_copy(update={"variants": 2, "mix": ("webcam",), "scales": (1.0,)})
    degrade_pairs(raw, tmp_path / "pairs", records[:1], params)
    first, second = images(tmp_path / "pairs").values()
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_what_is_read_is_the_photograph_and_its_quality(
    tiny_raw: Raw, tiny_mix: DegradePairs, tiny_pairs: Path
) -> None:
    from clearcall.data.degrade.degradations import build_degradation

    raw, _ = tiny_raw
    reader = PairReader(tiny_pairs)
    full_size = [record for record in read_pairs(tiny_pairs) if record.scale == 1]
    assert len(full_size) == 4 * 2
    for record in full_size:
        with Image.open(raw / record.image) as image:
            sharp = np.asarray(image)
        steps = tiny_mix.degradations[record.degradation]
        degraded = build_degradation(steps, record.width, record.height, pair_seed(1, record))(sharp)
        assert (reader.sharp(record) == sharp).all()
        assert (reader.degraded(record) == degraded).all()
        assert record.psnr_db == psnr_db(sharp, degraded)
        assert record.ssim == ssim(sharp, degraded)
        assert (record.degraded_height, record.degraded_width) == degraded.shape[:2]


def test_smaller_sizes_enter_for_learning_and_never_for_the_test(tiny_raw: Raw, tiny_pairs: Path) -> None:
    raw, _ = tiny_raw
    reader = PairReader(tiny_pairs)
    scales = {(record.split, record.scale) for record in read_pairs(tiny_pairs)}
    assert ("train", 0.5) in scales
    assert {scale for split, scale in scales if split == "test"} == {1.0}
    (small, *_) = [record for record in read_pairs(tiny_pairs) if (record.image, record.scale) == ("b.png", 0.5)]
    assert (small.height, small.width) == (30, 20)  # of 61 x 40; Python rounds 30.5 to the even 30
    with Image.open(raw / "b.png") as image:
        expected = np.asarray(image.resize((20, 30), Image.Resampling.LANCZOS))
    assert (reader.sharp(small) == expected).all()


def test_softened_photographs_are_moved_a_little_and_never_those_of_the_test(
    tiny_raw: Raw, tiny_mix: DegradePairs, tiny_pairs: Path, tmp_path: Path
) -> None:
    """Some stay as crisp as they were, the others lose detail, most where they were enlarged; that one is degraded."""
    raw, records = tiny_raw
    degrade_pairs(raw, tmp_path / "pairs", records, tiny_mix.model_copy(update={"soft_fraction": 0.5}))
    crisp, soft = PairReader(tiny_pairs), PairReader(tmp_path / "pairs")
    same, factors = {"train": set[bool](), "validation": set[bool](), "test": set[bool]()}, set[float]()
    for before, after in zip(read_pairs(tiny_pairs), read_pairs(tmp_path / "pairs"), strict=True):
        photograph, softened = crisp.sharp(before).astype(np.float64), soft.sharp(after).astype(np.float64)
        same[after.split].add((photograph == softened).all())
        if (photograph != softened).any():
            inner = np.s_[4:-4, 4:-4]
            assert np.diff(softened[inner], axis=1).std() < np.diff(photograph[inner], axis=1).std()
            assert psnr_db(soft.sharp(after), soft.degraded(after)) == after.psnr_db
        else:
            assert after.enlarged == 1
        factors.add(after.enlarged)
    assert 1 in factors
    assert {1.2 <= factor <= 2.5 for factor in factors - {1}} == {True}
    assert same["train"] | same["validation"] == {True, False}
    assert same["test"] == {True}


def test_some_photographs_make_way_for_pages_of_text_and_never_those_of_the_test(
    tiny_raw: Raw, tiny_mix: DegradePairs, tiny_pairs: Path, tmp_path: Path
) -> None:
    """All degradations of one scale share the page; it is in grey, and degraded as the photograph would have been."""
    raw, records = tiny_raw
    degrade_pairs(raw, tmp_path / "pairs", records, tiny_mix.model_copy(update={"page_fraction": 0.5}))
    before, after = PairReader(tiny_pairs), PairReader(tmp_path / "pairs")
    pages = {"train": set[bool](), "validation": set[bool](), "test": set[bool]()}
    for photograph, pair in zip(read_pairs(tiny_pairs), read_pairs(tmp_path / "pairs"), strict=True):
        sharp = after.sharp(pair)
        page = bool((sharp != before.sharp(photograph)).any())
        pages[pair.split].add(page)
        if page:
            assert (sharp == sharp[..., :1]).all()
            assert psnr_db(sharp, after.degraded(pair)) == pair.psnr_db
    assert pages["train"] | pages["validation"] == {True, False}
    assert pages["test"] == {False}


def test_a_soft_photograph_is_the_end_of_a_clip_that_is_as_soft_as_it(
    photos: dict[str, Frame], committed: Params
) -> None:
    """If the frames before were softer, a network would learn to sharpen whatever comes."""
    photo = photos["astronaut"][:200, 100:300]
    always = committed.degrade_pairs.model_copy(update={"soft_fraction": 1.0})
    detail, factors = list[list[float]](), set[float]()
    for image in range(40):
        pair = PairRecord(str(image), "", "", "train", 1.0, "x", 0, 200, 200, 200, 200, "", 0, "", 0, 0.0, 0.0, 1.0)
        clip, factor = _softened(photo, always, pair)
        factors.add(factor)
        detail.append([np.diff(frame[20:-20, 20:-20].astype(np.float64), axis=1).std() for frame in clip])
    assert len(clip) == CLIP_FRAMES
    assert {factor > 1 for factor in factors} == {True, False}
    of_each = np.mean(detail, axis=0)
    np.testing.assert_allclose(of_each, of_each[-1], rtol=0.05)


def test_images_do_not_overlap_and_fill_the_shards(tiny_pairs: Path) -> None:
    taken: dict[str, list[tuple[int, int]]] = {}
    for record in read_pairs(tiny_pairs):
        size = record.height * record.width * 3
        taken.setdefault(record.degraded_shard, []).append((record.degraded_offset, record.degraded_offset + size))
        sharp = (record.sharp_offset, record.sharp_offset + size)
        if sharp not in taken.setdefault(record.sharp_shard, []):
            taken[record.sharp_shard].append(sharp)
        assert record.sharp_shard.startswith(record.split)
        assert record.degraded_shard.startswith(record.split)
    for shard, places in taken.items():
        places.sort()
        assert places[0][0] == 0
        assert all(end == start for (_, end), (start, _) in pairwise(places))
        assert places[-1][1] == (tiny_pairs / shard).stat().st_size


def test_a_full_shard_is_followed_by_another(
    tiny_raw: Raw, tiny_mix: DegradePairs, tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearcall.data.degrade.write.SHARD_BYTES", 20_000)
    raw, records = tiny_raw
    degrade_pairs(raw, tmp_path / "pairs", records, tiny_mix)
    shards = [path for path in (tmp_path / "pairs").iterdir() if path.suffix == ".bin"]
    assert len([path for path in shards if path.name.startswith("train")]) > 1
    assert all(path.stat().st_size <= 20_000 for path in shards)
    assert images(tmp_path / "pairs") == images(tiny_pairs)


def test_the_index_comes_back_with_its_types(tiny_raw: Raw, tiny_mix: DegradePairs, tmp_path: Path) -> None:
    raw, records = tiny_raw
    params = tiny_mix.model_copy(update={"mix": ("clean", "bicubic_x2.0")})
    degrade_pairs(raw, tmp_path / "pairs", records, params)
    read = read_pairs(tmp_path / "pairs")
    for record in read:
        assert all(type(getattr(record, field.name)) is field.type for field in fields(record) if field.name != "split")
    write_csv(tmp_path / INDEX, read)
    assert (tmp_path / INDEX).read_bytes() == (tmp_path / "pairs" / INDEX).read_bytes()
    clean = [record for record in read if record.degradation == "clean"]
    assert {(record.psnr_db, record.ssim) for record in clean} == {(float("inf"), 1.0)}
    splits: list[Split] = ["train", "validation", "test"]
    by_split: Sequence[PairRecord] = [record for split in splits for record in read_pairs(tmp_path / "pairs", split)]
    assert sorted(by_split, key=repr) == sorted(read, key=repr)


def test_memory_does_not_grow_with_the_pairs(
    tiny_raw: Raw, tiny_mix: DegradePairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def degrade_nothing(*arguments: object) -> object:
        return arguments[-1]

    monkeypatch.setattr("clearcall.data.degrade.write._degrade_image", degrade_nothing)
    raw, records = tiny_raw
    many = [replace(record, path=f"{number}-{record.path}") for number in range(1000) for record in records]
    tracemalloc.start()
    try:
        degrade_pairs(raw, tmp_path / "pairs", many, tiny_mix)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    read = read_pairs(tmp_path / "pairs")
    assert peak < 100 * len(read)  # bytes; a pair has more than that
    assert read[0].image is read[1].image  # one object for equal cells


def test_results_come_in_order_before_all_work_is_planned() -> None:
    with ThreadPoolExecutor(2) as pool:
        endless = map_in_order(pool, divmod, ((number, 2) for number in count()))
        assert list(islice(endless, 3)) == [(0, 0), (0, 1), (1, 0)]


def test_a_failure_leaves_the_previous_pairs(tiny_raw: Raw, tiny_mix: DegradePairs, tmp_path: Path) -> None:
    raw, records = tiny_raw
    pairs = tmp_path / "pairs"
    degrade_pairs(raw, pairs, records[:1], tiny_mix)
    before = content(pairs)
    with pytest.raises(UserError, match=r"gone\.png cannot be read: .*No such file"):
        degrade_pairs(raw, pairs, [*records, replace(records[0], path="gone.png")], tiny_mix)
    assert content(pairs) == before
    assert list(tmp_path.iterdir()) == [pairs]


def test_a_photograph_of_another_size_than_the_manifest_says_is_refused(
    tiny_raw: Raw, tiny_mix: DegradePairs, tmp_path: Path
) -> None:
    raw, records = tiny_raw
    wrong = replace(records[3], width=records[3].width + 1)
    with pytest.raises(UserError, match=r"d.png is 33x47 RGB, not the 33x48 RGB of the manifest"):
        degrade_pairs(raw, tmp_path / "pairs", [wrong], tiny_mix)


def test_a_missing_index_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pairs.csv is missing: run `dvc repro degrade_pairs` first"):
        read_pairs(tmp_path)


def test_an_index_of_another_version_is_refused(tiny_pairs: Path, tmp_path: Path) -> None:
    """Before `scale` was a column, say: a message, not a KeyError."""
    with (tiny_pairs / INDEX).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "scale"]
    with (tmp_path / INDEX).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(UserError, match="degrade_pairs"):
        read_pairs(tmp_path)


def test_views_cannot_be_written_to(tiny_pairs: Path) -> None:
    (record, *_) = read_pairs(tiny_pairs)
    view = PairReader(tiny_pairs).sharp(record)
    assert view.base is not None
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1


def test_the_seed_of_a_pair_depends_on_all_that_it_is(tiny_pairs: Path) -> None:
    (record, *_) = read_pairs(tiny_pairs)
    others = [
        pair_seed(2, record),
        *(
            pair_seed(1, other)
            for other in [
                replace(record, image="other.png"),
                replace(record, scale=0.25),
                replace(record, degradation="jpeg"),
                replace(record, variant=1),
            ]
        ),
    ]
    assert len({pair_seed(1, record), *others}) == 6
    assert pair_seed(1, replace(record, sharp_offset=999, psnr_db=1.0, split="test")) == pair_seed(1, record)
    assert 0 <= pair_seed(1, record) < 2**32


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_the_middle_is_in_the_middle_but_for_blocks_of_four(height: int, width: int, side: int) -> None:
    row, column = np.mgrid[:height, :width]
    image = np.stack([row, column, row], axis=-1).astype(np.uint8)
    cut = middle(image, side)
    assert cut.shape[:2] == (min(height, side), min(width, side))
    above, below = cut[0, 0, 0], height - 1 - cut[-1, -1, 0]
    left, right = cut[0, 0, 1], width - 1 - cut[-1, -1, 1]
    assert above % 4 == left % 4 == 0
    assert 0 <= below - above < 8
    assert 0 <= right - left < 8


def test_the_manifest_comes_back_sorted(tiny_raw: Raw, tmp_path: Path) -> None:
    _, records = tiny_raw
    write_manifest(tmp_path, records[::-1])
    assert read_manifest(tmp_path) == records


def test_a_missing_or_foreign_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest.csv is missing: run `dvc repro download_data`"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text("path,colour\na.png,red\n", encoding="utf-8")
    with pytest.raises(UserError, match="colour"):
        read_manifest(tmp_path)


def test_the_hash_of_a_split_is_of_its_photographs_alone(tiny_raw: Raw) -> None:
    _, records = tiny_raw
    test = split_sha256(records, "test")
    assert split_sha256(records[::-1], "test") == test
    assert split_sha256(records[1:], "test") == test
    assert split_sha256(records, "train") != test
    assert split_sha256([replace(record, path=f"x{record.path}") for record in records], "test") == test
    assert split_sha256([replace(record, sha256="0" * 64) for record in records], "test") != test


def test_workers_end_with_a_stage_that_is_killed(tiny_raw: Raw, tiny_mix: DegradePairs, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom clearcall.data.degrade.write import degrade_pairs\n"
        "from clearcall.data.manifest import read_manifest\nfrom clearcall.params import DegradePairs\n"
        "if __name__ == '__main__':\n"
        "    raw = Path(sys.argv[1])\n"
        "    params = DegradePairs.model_validate_json(Path('mix.json').read_text())\n"
        "    degrade_pairs(raw, Path('pairs'), read_manifest(raw), params)\n"
    )
    (tmp_path / "program.py").write_text(program)
    much = tiny_mix.model_dump() | {"workers": 2, "variants": 100}
    (tmp_path / "mix.json").write_text(DegradePairs.model_validate(much).model_dump_json())
    with subprocess.Popen([sys.executable, "program.py", str(tiny_raw[0])], cwd=tmp_path) as stage:
        workers: list[psutil.Process] = []
        # Both at work, beside multiprocessing's resource tracker, which never uses the processor much.
        while sum(worker.cpu_times().user > 0.3 for worker in workers) < 2:
            assert stage.poll() is None
            time.sleep(0.05)
            workers = psutil.Process(stage.pid).children()
        stage.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
