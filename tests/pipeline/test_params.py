"""params.yaml: the committed one is right, and each mistake is refused with its key, its value and what is allowed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from clearcall.core.errors import UserError
from clearcall.params import Params, StudentLosses, TeacherLosses, load_params, parse_params

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(project: Path) -> Document:
    parsed: Document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    return parsed


def changed(document: Document, key: str, value: object) -> Document:
    """Return a copy with one value set; `key` is dotted."""
    result = copy.deepcopy(document)
    *folders, last = key.split(".")
    inner = result
    for folder in folders:
        inner = inner[folder]
    inner[last] = value
    return result


def refusal(document: Document) -> str:
    with pytest.raises(UserError) as caught:
        parse_params(document)
    return str(caught.value)


def test_the_committed_params_say_what_the_file_says(committed: Params, document: Document) -> None:
    assert committed.paths.raw == Path(document["paths"]["raw"])
    assert committed.download_data.max_pixels == 60_000_000
    assert committed.check_data.min_images.train == document["check_data"]["min_images"]["train"]
    assert list(committed.degrade_pairs.mix) == document["degrade_pairs"]["mix"]
    assert committed.train_teacher.training.learning_rate == pytest.approx(1e-4)
    assert set(type(committed).model_fields) == set(document)


def test_params_cannot_be_changed_after_reading(committed: Params) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        committed.gate.min_fps = 1


@pytest.mark.parametrize(
    "key",
    [
        "surprise",
        "paths.surprise",
        "train_teacher.training.surprise",
        "distill_student.losses.l3",
        "check_data.min_images.holdout",
    ],
)
def test_unknown_keys_are_named(document: Document, key: str) -> None:
    message = refusal(changed(document, key, 1))
    assert f"{key}: unknown key" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("key", ["gate", "gate.min_ssim", "distill_student.training.patience", "degrade_pairs.workers"])
def test_missing_keys_are_named_for_there_are_no_defaults(document: Document, key: str) -> None:
    without = copy.deepcopy(document)
    *folders, last = key.split(".")
    inner = without
    for folder in folders:
        inner = inner[folder]
    del inner[last]
    assert f"{key}: missing" in refusal(without)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("gate.min_ssim", 1.5, "less than or equal to 1"),
        ("train_teacher.training.learning_rate", 0, "greater than 0"),
        ("train_teacher.training.patch_size", 30, "multiple of 4"),
        ("distill_student.training.ema_decay", 1.0, "less than 1"),
        ("distill_student.losses.l1", -0.5, "greater than or equal to 0"),
        ("export_onnx.opset", 12, "greater than or equal to 18"),
        ("benchmark_fps.threads", 0, "greater than or equal to 1"),
        ("degrade_pairs.seed", -1, "greater than or equal to 0"),
        ("train_teacher.training.steps", "many", "valid integer"),
        ("train_teacher.training.steps", 10.5, "valid integer"),
        ("download_data.source", "web", "'bundled', 'folder', "),
        ("train_teacher.training.precision", "fp16", "'auto', 'fp32' or 'bf16'"),
        ("train_teacher.model.name", "../evil", "pattern"),
        ("distill_student.baseline", "perhaps", "valid boolean"),
        ("degrade_pairs.mix", [], "at least 1 item"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(
    document: Document, key: str, value: object, allowed: str
) -> None:
    message = refusal(changed(document, key, value))
    assert f"  {key}: " in message
    assert f"(given: {value!r})" in message
    assert allowed in message


def test_all_mistakes_are_named_at_once(document: Document) -> None:
    message = refusal(changed(changed(document, "gate.min_ssim", 2), "paths.extra", "x"))
    assert "gate.min_ssim" in message
    assert "paths.extra" in message


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "0.0001"])
def test_a_number_that_yaml_reads_as_a_string_is_a_number(document: Document, tmp_path: Path, written: str) -> None:
    text = yaml.safe_dump(changed(document, "train_teacher.training.learning_rate", "HERE"))
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("HERE", written), encoding="utf-8")
    assert load_params(path).train_teacher.training.learning_rate == 0.0001


def test_a_file_that_is_not_yaml_is_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("gate:\n  min_ssim: [0.9\nother: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"params\.yaml is not valid YAML") as caught:
        load_params(path)
    assert "line 3" in str(caught.value)


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml is not in") as caught:
        load_params()
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="valid dictionary"):
        load_params(path)


def test_what_is_not_in_use_need_not_be_named(document: Document) -> None:
    document = copy.deepcopy(document)
    del document["train_teacher"]["pretrained"]
    params = parse_params(document)
    assert params.train_teacher.pretrained is None
    assert params.distill_student.feature_layers == ()


@pytest.mark.parametrize("sha256", ["", "0" * 63, "G" * 64, None])
def test_published_weights_need_their_hash(document: Document, sha256: str | None) -> None:
    message = refusal(changed(document, "train_teacher.pretrained", {"source": "net.pth", "sha256": sha256}))
    assert "train_teacher.pretrained.Pretrained.sha256" in message


def test_projected_features_need_layers(document: Document) -> None:
    weighted = changed(document, "distill_student.losses.feature_projection", 0.1)
    assert "distill_student: the loss feature_projection compares layers by name" in refusal(weighted)
    layers = [{"student": "body.1", "teacher": "body"}]
    (layer,) = parse_params(changed(weighted, "distill_student.feature_layers", layers)).distill_student.feature_layers
    assert (layer.student, layer.teacher) == ("body.1", "body")
    assert "feature_layers.0.teacher: missing" in refusal(
        changed(weighted, "distill_student.feature_layers", [{"student": "body.1"}])
    )


def test_a_mix_of_unknown_degradations_is_refused_with_the_known(document: Document) -> None:
    message = refusal(changed(document, "degrade_pairs.mix", ["jpeg", "fog", "snow"]))
    assert "unknown degradations ['fog', 'snow']" in message
    assert "'bicubic_x1.5'" in message


def test_a_degradation_named_twice_is_refused(document: Document) -> None:
    assert "twice" in refusal(changed(document, "degrade_pairs.mix", ["jpeg", "jpeg"]))


DOWN: Document = {"op": "downscale", "factor": 2.0, "filter": "bicubic"}
UP: Document = {"op": "upscale", "filter": "bicubic"}
NOISE: Document = {"op": "noise", "sigma_range": [1, 2]}


@pytest.mark.parametrize("steps", [[DOWN], [DOWN, NOISE], [DOWN, UP, DOWN], [NOISE, DOWN]])
def test_a_degradation_that_would_leave_another_size_is_refused(document: Document, steps: list[Document]) -> None:
    degradations = document["degrade_pairs"]["degradations"] | {"shrunk": steps}
    message = refusal(changed(document, "degrade_pairs.degradations", degradations))
    assert "shrunk must end with an upscale" in message


@pytest.mark.parametrize("steps", [[], [NOISE], [DOWN, UP], [DOWN, NOISE, UP, NOISE], [DOWN, DOWN, UP]])
def test_a_degradation_that_keeps_the_size_is_accepted(document: Document, steps: list[Document]) -> None:
    degradations = document["degrade_pairs"]["degradations"] | {"kept": steps}
    read = parse_params(changed(document, "degrade_pairs.degradations", degradations))
    assert len(read.degrade_pairs.degradations["kept"]) == len(steps)


@pytest.mark.parametrize(
    ("step", "part"),
    [
        ({"op": "fog"}, "'fog'"),
        ({"op": "noise", "sigma_range": [8, 2]}, "[low, high]"),
        ({"op": "gaussian_blur", "sigma_range": [0, 2]}, "greater than 0"),
        ({"op": "motion_blur", "length_range": [4, 9]}, "an odd number"),
        ({"op": "jpeg", "quality_range": [0, 50]}, "greater than or equal to 1"),
        ({"op": "jpeg", "quality_range": [50]}, "missing"),
        ({"op": "jpeg", "quality": 50}, "unknown key"),
        (DOWN | {"factor": 0.5}, "greater than or equal to 1"),
        (UP | {"filter": "nearest"}, "'bicubic', 'bilinear' or 'lanczos'"),
    ],
)
def test_a_wrong_degradation_step_is_refused_at_its_place(document: Document, step: Document, part: str) -> None:
    message = refusal(changed(document, "degrade_pairs.degradations.webcam", [NOISE, step]))
    assert "degrade_pairs.degradations.webcam.1" in message
    assert part in message


def test_ranges_whose_ends_are_swapped_are_refused(document: Document) -> None:
    """A range that no pair can be in would fail every pair with a message about the pairs."""
    for key, low_high in {
        "check_data.side_range": [12_000, 64],
        "check_pairs.psnr_db_range": [60.0, 15.0],
        "check_pairs.ssim_range": [0.9999, 0.3],
    }.items():
        assert f"{key}: must be [low, high]" in refusal(changed(document, key, low_high))


def test_parity_sizes_below_one_pixel_are_refused(document: Document) -> None:
    assert "parity_sizes" in refusal(changed(document, "export_onnx.parity_sizes", [[0, 480]]))


def test_at_least_one_loss_is_needed() -> None:
    with pytest.raises(ValidationError, match="at least one loss"):
        TeacherLosses(l1=0)
    with pytest.raises(ValidationError, match="teacher_mse"):
        StudentLosses()


def test_weights_are_those_above_zero() -> None:
    assert TeacherLosses(l1=0, mse=2, charbonnier=0.5).weights() == {"mse": 2, "charbonnier": 0.5}
