"""Studies: what they hold, the same each time, and what is refused."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.make.commands import run_command
from tests.make.videos import STEP, write_video
from tests.opinion.conftest import MakeStudy

from clearcall.core.errors import UserError
from clearcall.data.degrade.codecs import Transmission, transmit_clip
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import resized
from clearcall.imaging.unsharp import unsharp_luma
from clearcall.opinion.server import order_for
from clearcall.opinion.stimuli import Stimulus, Study, create_study, load_study
from clearcall.runtime.sharpener import Sharpener
from clearcall.temporal.filter import TemporalFilter


def pixels(study: Study, stimulus: Stimulus) -> "np.typing.NDArray[np.uint8]":
    return np.asarray(Image.open(study.folder / "stimuli" / f"{stimulus.id}.png"))


def test_all_systems_get_the_same_crop_and_a_reference_is_hidden(make_study: MakeStudy) -> None:
    study = make_study(systems=["input", "unsharp", "fast"], conditions=["bicubic_x2", "h264_x2_qp32"])
    rated = {(one.image, one.condition, one.system): one for one in study.stimuli.values() if not one.training}
    assert len(rated) == len(study.rated) == 2 * (1 + 2 * 3)
    sharp = pixels(study, rated["coffee.png", "", "reference"])
    assert sharp.shape == (96, 128, 3)
    degraded = pixels(study, rated["coffee.png", "bicubic_x2", "input"])
    assert (degraded == resized(resized(sharp, (64, 48)), (128, 96))).all()
    mask = unsharp_luma(degraded, 1.0, 0.8)
    assert (pixels(study, rated["coffee.png", "bicubic_x2", "unsharp"]) == mask).all()
    sent = pixels(study, rated["coffee.png", "h264_x2_qp32", "input"])
    assert 0 < np.abs(sent.astype(int) - sharp).mean() < 30 and (sent != degraded).any()
    assert (pixels(study, rated["coffee.png", "h264_x2_qp32", "fast"]) != sent).any()
    assert len([item for item in study.items.values() if item.training]) == 3


def test_a_video_becomes_clips_without_loss(tmp_path: Path, photos: dict[str, Frame]) -> None:
    folder = tmp_path / "sharp"
    folder.mkdir()
    times = range(0, 30 * STEP, STEP)
    write_video(folder / "call.mp4", photos["astronaut"], times, size=(320, 240), options={"crf": "1", "bf": "0"})
    Image.fromarray(photos["coffee"]).save(folder / "coffee.png")
    given = {"systems": ["input", "fast"], "conditions": ["h264_x2_qp27"], "crop": (128, 96)}
    study = create_study(folder, tmp_path / "study", seconds=0.4, **given)  # type: ignore[arg-type]  # options
    rated = {(one.image, one.system): one for one in study.stimuli.values() if not one.training}
    assert rated["coffee.png", "fast"].suffix == ".png" and len(study.rated) == 2 * 3

    def frames(system: str) -> list[Frame]:
        with Image.open(study.folder / "stimuli" / f"{rated['call.mp4', system].id}.webp") as clip:
            assert clip.n_frames == 10  # type: ignore[attr-defined]  # of animations
            found = []
            for index in range(10):
                clip.seek(index)
                found.append(np.asarray(clip.convert("RGB")))
                assert clip.info["duration"] == 40
            return found

    sharp, arrived, restored = map(frames, ("reference", "input", "fast"))
    assert sharp[0].shape == (96, 128, 3)
    sent = transmit_clip(sharp, Transmission("h264", 2, 27, pan=(0, 0), zoom=1, loss_rate=0, seed=0))
    sharpener, temporal = Sharpener("fast", "onnxruntime", 1, video=True, coded=True), TemporalFilter()
    for index, frame in enumerate(sent):
        np.testing.assert_array_equal(arrived[index], frame)
        np.testing.assert_array_equal(restored[index], sharpener(temporal.rgb(frame)))


def test_pairs_are_all_of_one_image_and_condition(make_study: MakeStudy) -> None:
    study = make_study("pairs", conditions=["bicubic_x2", "bicubic_x3"])
    compared = Counter()  # type: ignore[var-annotated]
    for item in study.rated:
        first, second = (study.stimuli[one] for one in item.stimuli)
        assert first.image == second.image and first.condition in {second.condition, ""}
        compared[second.condition, first.system, second.system] += 1
    assert len(compared) == 6 and set(compared.values()) == {2}
    assert len([item for item in study.items.values() if item.training]) == 2
    assert list(study.scales) == ["preference"]


def test_the_same_seed_writes_the_same_bytes(make_study: MakeStudy) -> None:
    def written(seed: int) -> dict[str, bytes]:
        folder = make_study(conditions=["h264_x2_qp40"], seed=seed, overwrite=True).folder
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = written(1)
    assert written(1) == first
    assert not set(written(2)) & set(first) - {"study.json"}
    assert not any(word in name for name in first for word in ("input", "unsharp", "reference", "coffee"))


def test_each_rater_has_an_order_and_no_image_twice_in_a_row(make_study: MakeStudy) -> None:
    study = make_study(conditions=["bicubic_x2", "bicubic_x3"])
    orders = [order_for(study, f"rater{index}") for index in range(20)]
    assert order_for(study, "rater0") == orders[0]
    assert len({tuple(one.item.id for one in order) for order in orders}) == 20
    for order in orders:
        assert [one.item.training for one in order] == [True] * 3 + [False] * 10
        assert {one.item.id for one in order} == set(study.items)
        images = [study.stimuli[one.item.stimuli[0]].image for one in order[3:]]
        assert all(one != other for one, other in pairwise(images))


def test_pairs_are_swapped_for_about_half(make_study: MakeStudy) -> None:
    study = make_study("pairs")
    swapped = [one.swapped for index in range(50) for one in order_for(study, str(index))]
    assert 0.4 < sum(swapped) / len(swapped) < 0.6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--system", "other"], "unknown system other: choose from input, unsharp, best, fast, quality"),
        (["--condition", "vhs"], "unknown condition vhs: give bicubic_x2"),
        (["--condition", "h264_x2_qp99"], "a QP from 0 to 51"),
        (["--crop", "2048x2048"], "at least 2048x2048"),
        (["--crop", "big"], "size 'big'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, sharp_folder: Path, options: list[str], said: str) -> None:
    done = run_command("opinion", "create", str(sharp_folder), "--output", str(tmp_path / "study"), *options)
    assert done.returncode == 1 and said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "study").exists()


def test_a_folder_without_usable_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "corrupt.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="holds no image"):
        create_study(tmp_path, tmp_path / "study")
    with pytest.raises(UserError, match="there is no folder"):
        create_study(tmp_path / "nowhere", tmp_path / "study")


def test_an_existing_output_needs_overwrite_and_votes_are_never_replaced(make_study: MakeStudy) -> None:
    study = make_study()
    with pytest.raises(UserError, match="--overwrite"):
        make_study()
    assert make_study(overwrite=True) == study
    (study.folder / "votes.db").touch()
    with pytest.raises(UserError, match="holds votes"):
        make_study(overwrite=True)
    (study.folder / "votes.db").unlink()
    (study.folder / "study.json").unlink()
    with pytest.raises(UserError, match="is no study"):
        make_study(overwrite=True)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 9}', "[]", '{"format": 1, "stimuli": [3]}'])
def test_a_corrupt_study_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"holds no study\.json"):
        load_study(tmp_path)
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match=r"study\.json cannot be used"):
        load_study(tmp_path)
