"""Training on a few tiny patches: schedule, sampler, determinism, resuming, early stopping, failures, MLflow."""

import copy
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from lightning_fabric import Fabric
from tests.make.networks import disturb
from torch import Tensor, nn

from clearcall.core.errors import UserError
from clearcall.core.files import read_csv, sha256_of
from clearcall.core.processes import end_with_parent, worker_pool
from clearcall.data.degrade.write import degrade_pairs
from clearcall.data.manifest import ImageRecord, Split
from clearcall.data.pairs import PairReader, PairRecord, read_pairs
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db, ssim
from clearcall.models.build import Kind, build_model
from clearcall.models.inference import restore
from clearcall.models.weights import load_shipped, load_weights, save_weights
from clearcall.params import DegradePairs, FeatureLayers, Model, Params, Paths, Pretrained, Training
from clearcall.tracking import runs as tracking
from clearcall.training import devices
from clearcall.training.batches import Batch, PatchSampler
from clearcall.training.checkpoint import checkpoint_key, load_checkpoint, save_checkpoint
from clearcall.training.curves import update_curve
from clearcall.training.loop import Fitted, Row, fit, learning_rate, make_fabric
from clearcall.training.losses import perceptual
from clearcall.training.losses.feature_projection import feature_projection_loss
from clearcall.training.losses.perceptual import Vgg19, perceptual_loss
from clearcall.training.losses.reconstruction import relative_mse_loss
from clearcall.training.task import RestorationTask, WithFeatures, answer, needs_teacher, without_teacher
from clearcall.training.teacher_outputs import TeacherOutputs, compute_teacher_outputs
from clearcall.training.train import Job, Trained, live_answers, make_task, train_network
from clearcall.training.validation import Quality, Validator

STUDENT = Model(name="luma_strided", arguments={"channels": 4, "body_layers": 0})
TEACHER = Model(name="unshuffle_resnet", arguments={"channels": 4, "blocks": 1, "unshuffle": 2})
Log = Callable[[list[Row]], None]


@pytest.fixture(scope="module")
def training(committed: Params) -> Training:
    """Twelve steps with a validation at every fourth."""
    changes = {
        "steps": 12,
        "batch_size": 2,
        "patch_size": 32,
        "clean_fraction": 0.1,
        "recolour": False,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "ema_decay": 0.5,
        "validate_every": 4,
        "patience": None,
        "precision": "fp32",
        "accelerator": "cpu",
        "devices": 1,
        "seed": 3,
    }
    return Training.model_validate(committed.distill_student.training.model_dump() | changes)


@pytest.fixture(scope="module")
def fabric(training: Training) -> Iterator[Fabric]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # such tiny networks only wait for a second one
    yield make_fabric(training)
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(threads)


def changed(training: Training, **changes: object) -> Training:
    return Training.model_validate(training.model_dump() | changes)


def new_network(kind: Kind = "students", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = STUDENT if kind == "students" else TEACHER
    return build_model(kind, model.name, model.arguments)


def new_teacher() -> nn.Module:
    """Return a teacher that changes images, as a loaded one would come: evaluating, without gradients."""
    return disturb(new_network("teachers"), 0.02)


def new_sampler(pairs: Path, training: Training, split: Split = "train", **changes: object) -> PatchSampler:
    arguments: dict[str, Any] = {
        "batch_size": training.batch_size,
        "patch_size": training.patch_size,
        "clean_fraction": training.clean_fraction,
        "recolour": training.recolour,
        "seed": training.seed,
    }
    arguments.update(changes)
    return PatchSampler(pairs, read_pairs(pairs, split), **arguments)


class Poisoned:
    """A task whose loss is not a number from a certain batch on."""

    def __init__(self, task: RestorationTask, good: int) -> None:
        self._task, self._good = task, good

    @property
    def model(self) -> nn.Module:
        return self._task.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._task.model = model

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self._good -= 1
        losses = self._task.losses(batch)
        return losses if self._good >= 0 else losses | {"total": losses["total"] * math.nan}


class Scripted(Validator):
    """A validator that gives the SSIM of a script, and keeps the weights that it was shown."""

    def __init__(self, script: Sequence[float]) -> None:
        self._script, self.seen = iter(script), list[dict[str, Tensor]]()

    def quality(self, model: nn.Module) -> Quality:
        self.seen.append(copy.deepcopy(model.state_dict()))
        return Quality(next(self._script), 20.0, 1.0)


class Killed(Exception):  # noqa: N818  # not an error of ours
    """Stands for a signal."""


@pytest.fixture(scope="module")
def run(tiny_pairs: Path, training: Training, fabric: Fabric) -> Callable[..., Fitted]:
    """Train a new tiny student; each argument has a working default."""

    def train(
        checkpoint: Path,
        *,
        poisoned_after: int | None = None,
        validator: Validator | None = None,
        log: Log = lambda _rows: None,
        teacher: nn.Module | None = None,
        weights: dict[str, float] | None = None,
        **changes: object,
    ) -> Fitted:
        setting = changed(training, **changes)
        answers = None if teacher is None else live_answers(teacher, fabric)
        task = RestorationTask(new_network(), weights or {"l1": 1.0}, answers)
        return fit(
            task if poisoned_after is None else Poisoned(task, poisoned_after),
            new_sampler(tiny_pairs, setting),
            validator or Validator(tiny_pairs, read_pairs(tiny_pairs, "validation")),
            setting,
            fabric,
            name="student",
            checkpoint=checkpoint,
            log=log,
        )

    return train


@pytest.fixture(scope="module")
def unbroken(run: Callable[..., Fitted], tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return run(tmp_path_factory.mktemp("unbroken") / "student.pt")


def assert_same(one: Fitted, other: Fitted) -> None:
    """Bit for bit, in weights, figures and curve."""
    assert one.state.keys() == other.state.keys()
    for name, tensor in one.state.items():
        assert torch.equal(tensor, other.state[name]), name
    assert (one.quality, one.best_step, one.steps) == (other.quality, other.best_step, other.steps)
    assert one.rows == other.rows


# The schedule


def test_the_learning_rate_by_hand(training: Training) -> None:
    """Peak 0.01 over 110 steps, of which ten warm up; then 0.0002 + 0.0098 (1 + cos(pi t)) / 2."""
    setting = changed(training, steps=110, warmup_steps=10, learning_rate=0.01)
    expected = {0: 0.001, 4: 0.005, 9: 0.01, 10: 0.01, 35: 0.0002 + 0.0098 * 0.8535534, 60: 0.0051, 110: 0.0002}
    assert {step: learning_rate(step, setting) for step in expected} == pytest.approx(expected)


@examples(max_examples=30)
@given(steps=st.integers(1, 300), warmup=st.integers(0, 400))
def test_the_learning_rate_rises_then_falls_and_never_leaves_its_range(steps: int, warmup: int) -> None:
    setting = Training.model_construct(steps=steps, warmup_steps=warmup, learning_rate=0.5)
    rates = [learning_rate(step, setting) for step in range(steps)]
    assert all(0 < rate <= 0.5 for rate in rates)
    peak = min(warmup, steps)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


# Batches


def equal_batches(one: Batch, other: Batch) -> bool:
    return torch.equal(one.degraded, other.degraded) and torch.equal(one.sharp, other.sharp)


def test_a_batch_depends_on_seed_step_and_rank_alone(tiny_pairs: Path, training: Training) -> None:
    sampler = new_sampler(tiny_pairs, training)
    wanted = sampler.batch(3, 0)
    assert wanted.degraded.shape == wanted.sharp.shape == (2, 3, 32, 32)
    assert wanted.degraded.dtype == torch.float32
    assert wanted.teacher_restored is None
    torch.manual_seed(99)
    for step in (5, 0):
        assert not equal_batches(sampler.batch(step, 0), wanted)
    assert equal_batches(sampler.batch(3, 0), wanted)
    assert equal_batches(new_sampler(tiny_pairs, training).batch(3, 0), wanted)
    assert not equal_batches(sampler.batch(3, 1), wanted)
    both = new_sampler(tiny_pairs, training, batch_size=4).batch(3, 0)
    assert torch.equal(both.degraded, torch.cat([sampler.batch(3, rank).degraded for rank in range(2)]))
    assert not equal_batches(new_sampler(tiny_pairs, training, seed=4).batch(3, 0), wanted)


@pytest.mark.parametrize(("fraction", "low", "high"), [(0.0, 0, 0), (0.25, 40, 90), (0.999999, 240, 240)])
def test_the_share_of_clean_patches(tiny_pairs: Path, training: Training, fraction: float, low: int, high: int) -> None:
    """240 draws: 60 are expected at a quarter, and 40 or 90 are more than three standard deviations (6.7) away."""
    sampler = new_sampler(tiny_pairs, training, clean_fraction=fraction, batch_size=24)
    clean = 0
    for step in range(10):
        batch = sampler.batch(step, 0)
        clean += int((batch.degraded == batch.sharp).flatten(1).all(dim=1).sum())
    assert low <= clean <= high


def test_a_batch_knows_how_far_off_whole_inputs_were(tiny_pairs: Path, training: Training) -> None:
    records, reader = read_pairs(tiny_pairs, "train"), PairReader(tiny_pairs)
    errors = [
        np.square((reader.sharp(record).astype(float) - reader.degraded(record)) / 255).mean() for record in records
    ]
    batch = new_sampler(tiny_pairs, training, clean_fraction=0.3, batch_size=24).batch(0, 0)
    clean = (batch.degraded == batch.sharp).flatten(1).all(dim=1)
    assert 0 < clean.sum() < 24
    for error, is_clean in zip(batch.input_mse.tolist(), clean.tolist(), strict=True):
        assert error == 0 if is_clean else min(abs(error / known - 1) for known in errors) < 1e-3


def test_recolouring_swaps_channels_and_takes_negatives_of_both_images_alike(
    tiny_pairs: Path, training: Training
) -> None:
    """Recoloured or not, a batch shows the same patches: each channel is one of the plain patch's, or its negative."""
    plain = new_sampler(tiny_pairs, training, "test", patch_size=64, batch_size=1, clean_fraction=0.0)
    image = symmetric(PairReader(tiny_pairs).sharp(read_pairs(tiny_pairs, "test")[0]), 64).astype(np.int16)
    sums = [int(image[..., channel].sum()) for channel in range(3)]
    assert [int(total) for total in (plain.batch(0, 0).sharp * 255).round().sum(dim=(0, 2, 3))] == sums
    recoloured = new_sampler(
        tiny_pairs, training, "test", patch_size=64, batch_size=40, clean_fraction=0.0, recolour=True
    )
    batch = recoloured.batch(0, 0)
    totals = (batch.sharp * 255).round().sum(dim=(2, 3)).long().tolist()
    negatives = [255 * 64 * 64 - total for total in sums]
    kinds = {sorted(total) == sorted(sums) for total in totals}
    assert all(sorted(total) in (sorted(sums), sorted(negatives)) for total in totals)
    assert kinds == {True, False}
    assert len({tuple(total) for total in totals}) > 6
    # A blurred image and its sharp one are near: nothing was done to one alone.
    assert float((batch.sharp - batch.degraded).abs().mean()) < 0.1


def symmetric(image: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    missing = [(0, max(0, side - length)) for length in image.shape[:2]]
    return np.pad(image, (*missing, (0, 0)), mode="symmetric")[:side, :side]


def test_a_patch_larger_than_the_photograph_is_its_mirror_image_in_all_eight_poses(
    tiny_pairs: Path, training: Training
) -> None:
    """d.png is 33 x 47 and the patch 64: there is one cut, seen in four quarter turns, mirrored or not."""
    records = read_pairs(tiny_pairs, "test")
    assert {(record.height, record.width) for record in records} == {(33, 47)}
    expected = symmetric(PairReader(tiny_pairs).sharp(records[0]), 64)
    poses = [np.rot90(flipped, turns) for flipped in (expected, expected[:, ::-1]) for turns in range(4)]
    sampler = new_sampler(tiny_pairs, training, "test", patch_size=64, batch_size=60, clean_fraction=0.0)
    batch = sampler.batch(0, 0)
    patches = (batch.sharp * 255).round().byte().movedim(1, -1).numpy()
    found = [[bool((patch == pose).all()) for pose in poses] for patch in patches]
    assert all(sum(matches) == 1 for matches in found)
    assert all(any(matches) for matches in zip(*found, strict=True))
    # The degraded patch of each is in the same pose.
    degraded = [symmetric(PairReader(tiny_pairs).degraded(record), 64) for record in records]
    for patch, matches in zip((batch.degraded * 255).round().byte().movedim(1, -1).numpy(), found, strict=True):
        turns, mirrored = matches.index(True) % 4, matches.index(True) >= 4
        own = [np.rot90(image[:, ::-1] if mirrored else image, turns) for image in degraded]
        assert any((patch == image).all() for image in own)


@pytest.fixture(scope="module")
def equal_pairs(
    tmp_path_factory: pytest.TempPathFactory, tiny_raw: tuple[Path, list[ImageRecord]], tiny_mix: DegradePairs
) -> Path:
    """Pairs whose degraded images are the sharp ones, each stored for itself."""
    pairs = tmp_path_factory.mktemp("equal") / "pairs"
    degrade_pairs(tiny_raw[0], pairs, tiny_raw[1], tiny_mix.model_copy(update={"mix": ("clean",)}))
    return pairs


def test_sharp_and_degraded_patches_are_of_the_same_place(
    equal_pairs: Path, tiny_pairs: Path, training: Training
) -> None:
    same, different = (
        new_sampler(pairs, training, clean_fraction=0.0, batch_size=32).batch(0, 0)
        for pairs in (equal_pairs, tiny_pairs)
    )
    assert torch.equal(same.degraded, same.sharp)
    assert not torch.equal(different.degraded, different.sharp)
    assert len({patch.numpy().tobytes() for patch in same.sharp}) > 16


def test_patches_begin_at_blocks_of_four_pixels(equal_pairs: Path, training: Training) -> None:
    batch = new_sampler(equal_pairs, training, clean_fraction=0.0, recolour=False, patch_size=16).batch(0, 0)
    images = [PairReader(equal_pairs).sharp(record) for record in read_pairs(equal_pairs, "train")]
    blocks = {
        np.rot90(patch[:, ::-1] if mirrored else patch, turns).tobytes()
        for image in images
        for top in range(0, image.shape[0] - 15, 4)
        for left in range(0, image.shape[1] - 15, 4)
        for patch in [image[top : top + 16, left : left + 16]]
        for mirrored in (False, True)
        for turns in range(4)
    }
    patches = (batch.sharp * 255).round().byte().movedim(1, -1).numpy()
    assert all(patch.tobytes() in blocks for patch in patches)


def test_the_teachers_patches_are_of_the_same_place_too(
    tiny_pairs: Path, training: Training, fabric: Fabric, tmp_path: Path
) -> None:
    """An untrained teacher returns its input: its stored answers are the degraded images, 257 = 65535 / 255."""
    records = read_pairs(tiny_pairs, "train")
    path = tmp_path / "outputs.bin"
    outputs = compute_teacher_outputs(path, new_network("teachers").eval(), tiny_pairs, records, fabric)
    reader = PairReader(tiny_pairs)
    assert outputs is not None
    for index, record in enumerate(records):
        assert (outputs.restored(index) == reader.degraded(record).astype(np.uint16) * 257).all()
    before = path.read_bytes()
    compute_teacher_outputs(path, new_teacher(), tiny_pairs, records, fabric)  # they are there: nothing is computed
    assert path.read_bytes() == before
    sampler = new_sampler(tiny_pairs, training, clean_fraction=0.5, batch_size=24, teacher_outputs=outputs)
    batch = sampler.batch(0, 0)
    assert batch.teacher_restored is not None
    # Where the patch is clean, the teacher's answer is the sharp patch, which is the degraded one as well.
    assert torch.allclose(batch.teacher_restored, batch.degraded, atol=1e-6)
    assert TeacherOutputs.PEAK == 65535


# The loop


def test_training_learns_to_brighten_what_was_darkened(
    equal_pairs: Path, training: Training, fabric: Fabric, tmp_path: Path
) -> None:
    """Every degraded image is 20 8-bit levels too dark, which one bias can mend: most of it in forty steps."""
    pairs = tmp_path / "pairs"
    shutil.copytree(equal_pairs, pairs)
    reader = PairReader(equal_pairs)
    for record in read_pairs(pairs):
        dark = np.clip(reader.sharp(record).astype(np.int16) - 20, 0, 255).astype(np.uint8)
        with (pairs / record.degraded_shard).open("r+b") as file:
            file.seek(record.degraded_offset)
            file.write(dark.tobytes())
    setting = changed(training, steps=40, learning_rate=1e-2, ema_decay=0.8, validate_every=20, clean_fraction=0.0)
    validator = Validator(pairs, read_pairs(pairs, "validation"))
    fitted = fit(
        RestorationTask(new_network(), {"l1": 1.0, "mse": 0.5}),
        new_sampler(pairs, setting),
        validator,
        setting,
        fabric,
        name="student",
        checkpoint=tmp_path / "student.pt",
        log=lambda _rows: None,
    )
    before = validator.degraded_quality()
    assert before.change == 0
    assert 20 * math.log10(255 / 20) - 0.1 < before.psnr_db < 20 * math.log10(255 / 15)  # a few pixels were black
    assert fitted.quality.psnr_db > before.psnr_db + 6  # the error is at most half of what it was
    assert fitted.quality.ssim > before.ssim
    assert 10 < fitted.quality.change < 30
    assert fitted.steps == 40
    assert not fitted.stopped_early
    losses = [row for row in fitted.rows if "loss_l1" in row]
    assert [row["step"] for row in losses] == [20, 40]
    assert losses[1]["loss_l1"] < losses[0]["loss_l1"] / 2
    assert [row["step"] for row in fitted.rows if "validation_ssim" in row] == [20, 40]
    for row in losses:
        assert row["loss_total"] == pytest.approx(row["loss_l1"] + 0.5 * row["loss_mse"], rel=1e-5)


def test_the_same_seed_gives_the_same_weights(run: Callable[..., Fitted], unbroken: Fitted, tmp_path: Path) -> None:
    torch.rand(10)
    assert_same(run(tmp_path / "again.pt"), unbroken)
    other = run(tmp_path / "other.pt", seed=4)
    assert any(not torch.equal(tensor, unbroken.state[name]) for name, tensor in other.state.items())


@pytest.mark.parametrize("survived", [1, 2])
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    run: Callable[..., Fitted], unbroken: Fitted, tmp_path: Path, survived: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log is told before the checkpoint is written, so a kill there loses all since the validation before."""
    checkpoint = tmp_path / "deep" / "student.pt"
    calls = []

    def log(rows: list[Row]) -> None:
        calls.append(len(rows))
        if len(calls) == survived + 1:
            raise Killed

    with pytest.raises(Killed):
        run(checkpoint, log=log)
    kept = load_checkpoint(checkpoint)
    assert kept is not None
    assert kept["step"] == 4 * survived
    capsys.readouterr()
    later: list[list[Row]] = []
    resumed = run(checkpoint, log=lambda rows: later.append(list(rows)))
    assert f"going on from step {4 * survived} of 12" in capsys.readouterr().out
    assert len(later) == 3 - survived
    assert later[-1] == unbroken.rows
    assert_same(resumed, unbroken)


def test_a_finished_checkpoint_needs_no_further_step(
    run: Callable[..., Fitted], unbroken: Fitted, tmp_path: Path
) -> None:
    """As when the machine went down between the last step and the writing of the weights."""
    run(tmp_path / "student.pt")
    assert_same(run(tmp_path / "student.pt", poisoned_after=0), unbroken)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_checkpoint_is_reported_and_training_starts_anew(
    run: Callable[..., Fitted], unbroken: Fitted, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "student.pt"
    save_checkpoint(checkpoint, {"step": 4, "rows": []})
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"hello" * 50, "empty": b""}[damage])
    fitted = run(checkpoint)
    assert "warning: the checkpoint" in capsys.readouterr().err
    assert_same(fitted, unbroken)


def test_a_checkpoint_is_kept_apart_by_each_part_of_its_key() -> None:
    keys = [checkpoint_key(), checkpoint_key("ab", "c"), checkpoint_key("a", "bc"), checkpoint_key("abc")]
    assert len(set(keys)) == 4
    assert checkpoint_key("ab", "c") == keys[1]


@pytest.mark.parametrize("good", [0, 6])
def test_a_loss_that_is_no_number_ends_training_and_keeps_the_checkpoint(
    run: Callable[..., Fitted], unbroken: Fitted, tmp_path: Path, good: int
) -> None:
    checkpoint = tmp_path / "student.pt"
    with pytest.raises(UserError, match=f"the loss became nan at step {good}") as caught:
        run(checkpoint, poisoned_after=good)
    assert "learning_rate" in str(caught.value)
    assert checkpoint.exists() == (good >= 4)
    assert (str(checkpoint) in str(caught.value)) == (good >= 4)
    assert_same(run(checkpoint), unbroken)


@pytest.mark.parametrize(("steps", "told_after"), [(12, 12), (130, 100)])
def test_a_network_that_returns_its_input_after_a_hundred_steps_has_died(
    run: Callable[..., Fitted], tmp_path: Path, steps: int, told_after: int
) -> None:
    with pytest.raises(UserError, match=f"its output equals its input after {told_after} steps") as caught:
        run(tmp_path / "student.pt", learning_rate=1e-12, steps=steps, validate_every=10)
    assert "learning_rate" in str(caught.value)
    assert "The checkpoint of the last validation is kept" in str(caught.value)


@pytest.mark.parametrize(
    ("script", "patience", "best", "steps"),
    [
        ([0.5, 0.6, 0.55, 0.58, 0.9], 2, 2, 8),
        ([0.5, 0.5, 0.5], 2, 1, 6),  # as good is not better
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], 2, 5, 12),  # the wait starts again with each better one
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], None, 1, 12),
    ],
)
def test_training_stops_after_some_validations_without_a_better_one(
    run: Callable[..., Fitted], tmp_path: Path, script: list[float], patience: int | None, best: int, steps: int
) -> None:
    validator = Scripted(script)
    fitted = run(tmp_path / "student.pt", validator=validator, validate_every=2, patience=patience)
    assert fitted.steps == steps
    assert fitted.stopped_early == (steps < 12)
    assert fitted.best_step == 2 * best
    assert fitted.quality.ssim == script[best - 1]
    assert len(validator.seen) == steps // 2
    for name, tensor in validator.seen[best - 1].items():
        assert torch.equal(fitted.state[name], tensor)


def test_a_training_that_has_stopped_early_does_not_go_on(run: Callable[..., Fitted], tmp_path: Path) -> None:
    first = run(tmp_path / "student.pt", validator=Scripted([0.5, 0.4]), validate_every=2, patience=1)
    again = run(tmp_path / "student.pt", validator=Scripted([]), validate_every=2, patience=1)
    assert_same(first, again)
    assert again.stopped_early


def test_the_teacher_keeps_evaluating_and_gets_no_gradient(run: Callable[..., Fitted], tmp_path: Path) -> None:
    teacher = new_teacher()
    before = copy.deepcopy(teacher.state_dict())
    modes: list[bool] = []
    for module in teacher.modules():
        module.register_forward_pre_hook(lambda module, _inputs: modes.append(module.training))
    # No answers lie ready: the teacher is asked in each step.
    run(tmp_path / "student.pt", teacher=teacher, weights={"l1": 1.0, "teacher_l1": 1.0}, steps=3)
    assert not any(module.training for module in teacher.modules())
    assert modes
    assert not any(modes)
    for name, parameter in teacher.named_parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert torch.equal(parameter, before[name])


def test_unknown_hardware_is_the_users_to_mend(training: Training) -> None:
    with pytest.raises(UserError, match="accelerator=abacus, devices=1"):
        make_fabric(changed(training, accelerator="abacus"))


# The task


def test_losses_are_named_weighted_and_summed(fabric: Fabric) -> None:
    network, teacher = new_network(), new_teacher()
    generator = torch.Generator().manual_seed(0)
    degraded, sharp, answer_ = (torch.rand(2, 3, 16, 16, generator=generator) for _ in range(3))
    input_mse = torch.tensor([0.01, 0.0])
    batch = Batch(degraded, sharp, input_mse, answer_)

    weights = {
        "l1": 1.0,
        "mse": 2.0,
        "relative_mse": 0.1,
        "luma_gain": 0.1,
        "perceptual": 0.125,
        "teacher_l1": 0.5,
        "teacher_mse": 0.25,
        "feature_projection": 16.0,
    }
    torch.manual_seed(5)
    wrapped = WithFeatures(network, ["body.1", "body"], [nn.Conv2d(4, 12, 1), nn.Conv2d(4, 4, 1)])
    asked = live_answers(teacher, fabric, ["head.0", "body.0"])  # 12 unshuffled planes, then 4 channels
    vgg = Vgg19()
    task = RestorationTask(
        wrapped,
        weights,
        asked,
        perceptual=lambda restored, target: perceptual_loss(restored, target, vgg),
        relative_floor=0.01,
    )
    losses = task.losses(batch)
    _, projected = wrapped(degraded)
    # Untrained, the student returns the degraded image.
    expected = {
        "l1": (degraded - sharp).abs().mean().item(),
        "mse": (degraded - sharp).square().mean().item(),
        "relative_mse": relative_mse_loss(degraded, sharp, input_mse, 0.01).item(),
        "luma_gain": 0,  # it gained nothing
        "teacher_l1": (degraded - answer_).abs().mean().item(),
        "teacher_mse": (degraded - answer_).square().mean().item(),
        "feature_projection": sum(
            feature_projection_loss(*pair).item() for pair in zip(projected, asked(degraded, []).layers, strict=True)
        )
        / 2,
        "perceptual": (vgg(degraded) - vgg(sharp)).square().mean().item(),
    }
    expected["total"] = sum(weights[name] * value for name, value in expected.items())
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected)
    assert losses["total"].requires_grad
    losses = task.losses(Batch(degraded, sharp, input_mse, None))
    assert losses["teacher_l1"].item() == pytest.approx((degraded - teacher(degraded)).abs().mean().item())


def test_a_conditioned_network_is_told_what_was_done_to_the_images(
    tiny_pairs: Path, training: Training, fabric: Fabric
) -> None:
    arguments: dict[str, Any] = {"degradations": ["bicubic_x1.5", "clean"], "channels": 4, "blocks": 1}
    network = build_model("teachers", "conditioned", arguments)
    told: list[list[str]] = []
    network.register_forward_pre_hook(lambda _network, inputs: told.append(list(inputs[1])))
    task = RestorationTask(WithFeatures(network), {"l1": 1.0, "teacher_l1": 1.0}, live_answers(network, fabric))
    records = read_pairs(tiny_pairs, "train")
    sampler = new_sampler(tiny_pairs, training, clean_fraction=0.3, untold_fraction=0.4, batch_size=100)
    batch = sampler.batch(0, 0)
    task.losses(batch)
    assert told == [list(batch.degradations)] * 2
    assert set(batch.degradations) == {"", *(record.degradation for record in records)}
    assert 40 < sum(not name for name in batch.degradations) < 75  # 30 clean ones, and 40 % of the others: 58


def test_the_floor_of_relative_losses_is_that_of_the_params(training: Training, fabric: Fabric) -> None:
    """What was right is 0.1 off: 0.1^2 / (0.01 + 0.04)."""
    black, network = torch.zeros(1, 3, 16, 16), new_network()
    torch.nn.init.constant_(network.get_parameter("tail.bias"), 0.1)  # added everywhere
    losses = {"relative_mse": 1.0, "luma_gain": 1.0}
    task = make_task(WithFeatures(network), losses, changed(training, relative_floor=0.04), fabric)
    found = task.losses(Batch(black, black, torch.tensor([0.01]), None))
    assert found["relative_mse"].item() == pytest.approx(0.2)
    assert found["luma_gain"].item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("feature_projection", "need a teacher"),
        ("teacher_l1", "need a teacher"),
        ("teacher_mse", "need a teacher"),
        ("perceptual", "perceptual needs its network"),
    ],
)
def test_a_loss_does_not_go_without_the_network_that_it_needs(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RestorationTask(new_network(), {name: 1.0})


# Layers by name


def test_the_maps_of_named_layers_come_in_the_order_of_the_names() -> None:
    network, image = new_teacher(), torch.rand(2, 3, 16, 12)
    restored, layers = answer(network, image, ["body", "head.1", "body"])
    shallow = network.head(image - 0.5)  # type: ignore[operator]  # nn.Module hides modules
    assert torch.equal(restored, network(image))
    assert torch.equal(layers[1], shallow)
    assert layers[2] is layers[0]
    assert answer(network, image).layers == ()
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["body.9", "bodies", ""])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(UserError, match=r"has no layer .*; it has head, head\.0, .*tail") as caught:
        answer(new_teacher(), torch.rand(1, 3, 8, 8), [name])
    assert repr(name) in str(caught.value)


def test_a_layer_without_feature_maps_is_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Flatten(), nn.Identity()

        def forward(self, image: Tensor) -> Tensor:
            self.used(image)
            return image

    for name in ("used", "unused"):
        with pytest.raises(UserError, match=f"the layer '{name}' gives no feature maps"):
            answer(Flat(), torch.rand(1, 3, 8, 8), [name])


# Validation


def test_validation_is_the_mean_over_pairs_of_rounded_answers(tiny_pairs: Path) -> None:
    records, reader = read_pairs(tiny_pairs, "validation"), PairReader(tiny_pairs)
    validator = Validator(tiny_pairs, records)
    teacher = new_teacher()
    answers = [(record, reader.sharp(record), restore(teacher, reader.degraded(record))) for record in records]
    quality = validator.quality(teacher)
    assert quality.ssim == pytest.approx(np.mean([ssim(sharp, answer) for _, sharp, answer in answers]))
    assert quality.psnr_db == pytest.approx(np.mean([psnr_db(sharp, answer) for _, sharp, answer in answers]))
    changes = [np.abs(answer.astype(float) - reader.degraded(record)).mean() for record, _, answer in answers]
    assert quality.change == pytest.approx(np.mean(changes))
    untrained = validator.quality(new_network())
    assert untrained == validator.degraded_quality()
    assert untrained.change == 0


def test_a_perfect_answer_counts_with_a_finite_psnr(equal_pairs: Path) -> None:
    quality = Validator(equal_pairs, read_pairs(equal_pairs, "validation")).degraded_quality()
    assert quality.ssim == pytest.approx(1)
    assert quality.psnr_db == 100


# From pairs to weights, without an MLflow server


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking.client.cache_clear()
    yield
    tracking.client.cache_clear()


@pytest.fixture
def paths(committed: Params, tmp_path: Path, tiny_pairs: Path) -> Paths:
    folders = {name: tmp_path / name for name in type(committed.paths).model_fields}
    return Paths(**(folders | {"pairs": tiny_pairs}))


@pytest.mark.usefixtures("no_server")
def test_a_server_that_is_away_costs_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state_file = tmp_path / "student.json"
    with tracking.TrainingRun("clearcall", "student", {"steps": 3}, state_file) as mlflow_run:
        mlflow_run.log([{"step": 20, "loss_l1": 0.1}])
        mlflow_run.log([{"step": 20, "loss_l1": 0.1}, {"step": 40, "loss_l1": 0.05}])
    written = capsys.readouterr().err
    assert mlflow_run.run_id is None
    assert not state_file.exists()
    assert written.count("warning:") == 1
    assert "http://127.0.0.1:9 cannot be used" in written
    assert "Training goes on" in written
    assert "Traceback" not in written


def test_a_student_is_distilled_from_pairs_to_weights(training: Training, fabric: Fabric, paths: Paths) -> None:
    save_weights(paths.weights / "teacher", "teachers", TEACHER, new_teacher().state_dict())
    weights = {"l1": 1.0, "teacher_l1": 0.5}
    job = Job("student", "students", STUDENT, weights, training)

    def train(name: str) -> Trained:
        return train_network(job, paths, fabric, folder=paths.weights / name)

    trained = train("one")
    assert trained.run_id is None
    summary = trained.summary
    assert summary["parameters"] == 36 * 4 + 4 + 16 + 4
    assert summary["steps"] == 12
    assert summary["best_step"] in (4, 8, 12)
    assert summary["losses"] == weights
    assert summary["precision"] == "32-true"
    network = load_weights(paths.weights / "one")
    validator = Validator(paths.pairs, read_pairs(paths.pairs, "validation"))
    quality = validator.quality(network)
    assert summary["validation"]["restored"] == vars(quality)
    assert summary["validation"]["degraded"] == vars(validator.degraded_quality())
    # Until the stage has written all it makes, a kill must find what training goes on from.
    assert {path.suffix for path in paths.checkpoints.iterdir()} == {".bin", ".lock", ".pt"}
    trained.remove_leftovers()
    assert not list(paths.checkpoints.iterdir())

    train("two")
    one, two = ((paths.weights / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.fixture
def local_vgg19(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file in the published form, with other weights."""
    path = tmp_path / "vgg19.pth"
    torch.save(Vgg19().state_dict() | {"classifier.6.bias": torch.ones(9)}, path)
    monkeypatch.setattr(perceptual, "VGG19_URL", str(path))
    monkeypatch.setattr(perceptual, "VGG19_SHA256", sha256_of(path))
    return path


@pytest.mark.usefixtures("local_vgg19")
def test_every_loss_trains_a_student_and_leaves_nothing_of_itself_in_it(
    training: Training, fabric: Fabric, paths: Paths
) -> None:
    save_weights(paths.weights / "teacher", "teachers", TEACHER, new_teacher().state_dict())
    losses = ["mse", "perceptual", "teacher_mse", "feature_projection"]
    model = Model(name="dncnn_student", arguments={"channels": 4, "convs": 4})
    setting = changed(training, steps=4)

    def train(name: str, layers: list[FeatureLayers]) -> Trained:
        job = Job(name, "students", model, dict.fromkeys(losses, 0.5), setting, feature_layers=layers)
        return train_network(job, paths, fabric, folder=paths.weights / name)

    trained = train(
        "one", [FeatureLayers(student="body.6", teacher="body"), FeatureLayers(student="body", teacher="head")]
    )
    (row,) = (row for row in trained.rows if "loss_total" in row)
    assert set(row) == {"step", "learning_rate", "loss_total", *(f"loss_{name}" for name in losses)}
    assert row["loss_total"] == pytest.approx(sum(row[f"loss_{name}"] for name in losses) / 2, rel=1e-4)
    assert all(row[f"loss_{name}"] > 0 for name in losses)
    state = load_weights(paths.weights / "one").state_dict()
    assert {name.split(".")[0] for name in state} == {"body", "tail"}
    assert state["body.5.running_mean"].abs().sum() > 0
    checkpoint = load_checkpoint(trained.leftovers[0])
    assert checkpoint is not None
    assert {name: tuple(tensor.shape) for name, tensor in checkpoint["projections"].items() if "weight" in name} == {
        "0.weight": (4, 4, 1, 1),
        "1.weight": (4, 4, 1, 1),
    }
    train("one", [FeatureLayers(student="body.6", teacher="body"), FeatureLayers(student="body", teacher="head")])
    with pytest.raises(UserError, match=r"has no layer 'body\.99'"):
        train("two", [FeatureLayers(student="body.99", teacher="body")])


def test_projections_learn_with_the_student_and_survive_a_kill(
    tiny_pairs: Path, training: Training, fabric: Fabric, tmp_path: Path
) -> None:
    teacher = live_answers(new_teacher(), fabric, ["body"])
    validator = Validator(tiny_pairs, read_pairs(tiny_pairs, "validation"))

    def train(checkpoint: Path, log: Log = lambda _rows: None) -> tuple[Fitted, nn.Module]:
        network = new_network()
        project = nn.Conv2d(4, 4, 1)
        nn.init.ones_(project.weight)
        weights = {"l1": 1.0, "feature_projection": 1.0}
        task = RestorationTask(WithFeatures(network, ["body"], [project]), weights, teacher)
        sampler = new_sampler(tiny_pairs, training)
        fitted = fit(task, sampler, validator, training, fabric, name="student", checkpoint=checkpoint, log=log)
        return fitted, project

    unbroken, project = train(tmp_path / "unbroken.pt")
    assert all(not torch.equal(value, torch.ones_like(value)) for value in project.parameters())
    assert unbroken.state.keys() == new_network().state_dict().keys()

    def kill(rows: list[Row]) -> None:
        if rows[-1]["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "killed.pt", kill)
    resumed, again = train(tmp_path / "killed.pt")
    assert_same(resumed, unbroken)
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), project.parameters(), strict=True))


def test_training_starts_from_published_weights(
    training: Training, fabric: Fabric, paths: Paths, tmp_path: Path
) -> None:
    """At a rate of next to nothing, what comes out is what went in."""
    published = new_teacher().state_dict()
    path = tmp_path / "published.pth"
    torch.save({"params": published}, path)

    setting = changed(training, steps=2, learning_rate=1e-12, weight_decay=0)
    start = Pretrained(source=str(path), sha256=sha256_of(path))

    def train(model: Model) -> None:
        job = Job("teacher", "teachers", model, {"l1": 1.0}, setting, pretrained=start)
        train_network(job, paths, fabric, folder=paths.weights / "teacher")

    train(TEACHER)
    state = load_weights(paths.weights / "teacher").state_dict()
    assert all(torch.allclose(tensor, published[name], atol=1e-6) for name, tensor in state.items())
    with pytest.raises(UserError, match=r"published\.pth does not hold the weights of unshuffle_resnet with .*8"):
        train(Model(name="unshuffle_resnet", arguments={"channels": 8, "blocks": 1, "unshuffle": 2}))


def test_a_start_that_training_does_not_improve_is_kept(
    tiny_pairs: Path, training: Training, fabric: Fabric, tmp_path: Path
) -> None:
    """At a rate that ruins a network, of which the first weights are the best."""
    network = new_network("teachers")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    validator = Validator(tiny_pairs, read_pairs(tiny_pairs, "validation"))
    setting, start = changed(training, learning_rate=1.0), Quality(ssim=1.0, psnr_db=50.0, change=1.0)
    sampler, checkpoint = new_sampler(tiny_pairs, setting), tmp_path / "teacher.pt"
    task = RestorationTask(network, {"l1": 1.0})
    fitted = fit(
        task,
        sampler,
        validator,
        setting,
        fabric,
        name="teacher",
        checkpoint=checkpoint,
        log=lambda _: None,
        start=start,
    )
    assert (fitted.best_step, fitted.quality) == (0, start)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fitted.state.items())


def test_the_shipped_teacher_is_a_start_for_that_network_alone(
    training: Training, fabric: Fabric, paths: Paths, committed: Params
) -> None:
    model = committed.train_teacher.model
    job = Job(
        "teacher", "teachers", model, {"l1": 1.0}, changed(training, steps=2, learning_rate=1e-12, weight_decay=0)
    )
    train_network(replace(job, pretrained="shipped"), paths, fabric, folder=paths.weights / "teacher")
    state, shipped = (one.state_dict() for one in (load_weights(paths.weights / "teacher"), load_shipped("teacher")))
    assert all(torch.allclose(tensor, shipped[name], atol=1e-6) for name, tensor in state.items())
    # Weights would fit degradations in another order too.
    names = list(reversed(model.arguments["degradations"]))
    other = Model(name=model.name, arguments={**model.arguments, "degradations": names})
    with pytest.raises(
        UserError, match=r"the shipped teacher is conditioned with .*set train_teacher\.pretrained to null"
    ):
        train_network(replace(job, model=other, pretrained="shipped"), paths, fabric)


def test_pairs_without_a_validation_split_are_refused(
    training: Training, fabric: Fabric, paths: Paths, tiny_raw: tuple[Path, list[ImageRecord]], tiny_mix: DegradePairs
) -> None:
    raw, records = tiny_raw
    pairs = paths.weights.parent / "few"
    degrade_pairs(raw, pairs, records[:2], tiny_mix)
    with pytest.raises(UserError, match="no pairs to train or validate on"):
        train_network(
            Job("student", "students", STUDENT, {"l1": 1.0}, training),
            paths.model_copy(update={"pairs": pairs}),
            fabric,
        )


def test_curves_are_one_table_for_all_networks(tmp_path: Path) -> None:
    rows: list[Row] = [{"step": 20, "loss_l1": 0.125}, {"step": 20, "validation_ssim": 0.91234567}]
    path = tmp_path / "curve.csv"
    for network, shown in (("student", rows[:1]), ("baseline", rows[:1]), ("student", rows)):
        update_curve(path, network, shown)
    assert path.read_text(encoding="utf-8").splitlines() == [
        "network,step,loss_l1,validation_ssim",
        "baseline,20,0.125,",
        "student,20,0.125,",
        "student,20,,0.9123457",
    ]
    assert list(tmp_path.iterdir()) == [path]


def add_rows(path: Path, network: str) -> None:
    for last in range(1, 21):
        update_curve(path, network, [{"step": step} for step in range(last)])


def test_curves_of_processes_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path, networks = tmp_path / "curve.csv", ["a", "b", "c"]
    with worker_pool(3, end_with_parent) as pool:
        list(pool.map(add_rows, [path] * 3, networks))
    steps = [(row["network"], int(row["step"])) for row in read_csv(path)]
    assert steps == [(network, step) for network in networks for step in range(20)]


def test_a_curve_grows_while_a_network_trains_and_is_whole_when_it_resumes(
    training: Training, fabric: Fabric, paths: Paths, tmp_path: Path
) -> None:
    """As DVC removes the file at the start of a stage, a resumed training writes all of it anew."""
    curve, seen, shown = tmp_path / "curve.csv", list[list[dict[str, str]]](), list[tuple[int, tuple[int, ...]]]()
    job = Job("student", "students", STUDENT, {"l1": 1.0}, changed(training, steps=12, validate_every=4))

    class Watching:
        run_id: str | None = None

        def log(self, rows: list[Row]) -> None:
            assert rows
            seen.append(read_csv(curve))
            if len(seen) == 2:
                raise Killed

        def show(self, image: Frame, step: int) -> None:
            shown.append((step, image.shape))

    with pytest.raises(Killed):
        train_network(job, paths, fabric, track=lambda *_: nullcontext(Watching()), curve=curve)
    assert [row["step"] for row in seen[0] if row["validation_ssim"]] == ["4"]
    assert [row["step"] for row in seen[1] if row["validation_ssim"]] == ["4", "8"]
    assert shown == [(4, (44, 3 * 52, 3))]  # input, answer and sharp image of the one validation photograph
    for _ in range(2):  # the second time it has nothing left to train
        curve.unlink()
        trained = train_network(job, paths, fabric, curve=curve)
        assert [row["step"] for row in read_csv(curve)] == [f"{row['step']:g}" for row in trained.rows]
    assert [row["step"] for row in read_csv(curve) if row["validation_ssim"]] == ["4", "8", "12"]


def test_records_used_here_cover_what_they_should(tiny_pairs: Path) -> None:
    """Some photographs are smaller than the 32 pixels of a patch, others are larger."""
    train: list[PairRecord] = read_pairs(tiny_pairs, "train")
    assert min(record.width for record in train) < 32 < max(record.width for record in train)


@examples(max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from(["l1", "ssim", "perceptual", "teacher_l1", "teacher_mse", "feature_projection"]),
        st.just(1.0),
    )
)
def test_the_baseline_never_needs_a_teacher(weights: dict[str, float]) -> None:
    against_sharp = {"l1", "ssim", "perceptual"}
    assert needs_teacher(weights) == bool(weights.keys() - against_sharp)
    assert without_teacher(weights).keys() == (weights.keys() & against_sharp or {"mse"})
    assert not needs_teacher(without_teacher(weights))


# Several processes

TRAIN = """
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import torch

from clearcall.core import errors
from clearcall.params import Model, Paths, Training
from clearcall.training.loop import make_fabric

written = set()

def note_files(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        written.add(os.path.abspath(os.fsdecode(arguments[0])) if not isinstance(arguments[0], int) else "")

def die_at(step):
    from clearcall.training.batches import PatchSampler
    batch = PatchSampler.batch
    def dying(self, at, rank):
        if at == step and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, at, rank)
    PatchSampler.batch = dying

def main():
    sys.addaudithook(note_files)
    die_at(int(os.environ.get("DIE_AT", -1)))
    torch.set_num_threads(1)
    training = Training.model_validate_json(Path("training.json").read_text())
    paths = Paths.model_validate_json(Path("paths.json").read_text())
    fabric = make_fabric(training)
    if "only" in sys.argv:
        return
    from clearcall.training.train import Job, train_network
    model = Model(name="luma_strided", arguments={"channels": 4, "body_layers": 0, "expansion": 8})
    job = Job("student", "students", model, {"l1": 1.0}, training)
    trained = train_network(job, paths, fabric, folder=paths.weights / "student")
    own = [path for path in written if path.startswith(os.getcwd())]
    Path(f"rank-{fabric.global_rank}.json").write_text(json.dumps({"rows": trained.rows, "written": own}))
    for connection in psutil.Process().net_connections():
        if connection.status == psutil.CONN_LISTEN:
            with open("listening", "a") as file:
                file.write(f"{fabric.global_rank} {connection.laddr.ip}\\n")
    fabric.barrier()

errors.run(main)
"""


@pytest.fixture
def trainer(tmp_path: Path, paths: Paths, training: Training) -> Callable[..., "subprocess.Popen[str]"]:
    """Start a training in a process of its own, with such environment variables and changed params.

    With `only` it ends as soon as all have joined. `within` is a command that runs it elsewhere.
    """

    def start(
        environment: dict[str, str] | None = None, *only: str, within: Sequence[str] = (), **changes: object
    ) -> "subprocess.Popen[str]":
        (tmp_path / "train.py").write_text(TRAIN)
        (tmp_path / "training.json").write_text(changed(training, **changes).model_dump_json())
        (tmp_path / "paths.json").write_text(paths.model_dump_json())
        # Nothing listens at port 9: these trainings log nowhere.
        own = {
            **os.environ,
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        command = [*within, sys.executable, "train.py", *only]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=own, stdout=pipe, stderr=pipe, text=True)

    return start


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Return the first line on standard error that holds a text."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return line
    raise AssertionError("".join(said))


@pytest.fixture
def alone(tmp_path: Path, paths: Paths, training: Training, fabric: Fabric) -> list[Row]:
    """Return the curve of a training in this process, on four samples a step."""
    model = Model(name=STUDENT.name, arguments=STUDENT.arguments | {"expansion": 8})
    job = Job("student", "students", model, {"l1": 1.0}, changed(training, batch_size=4))
    trained = train_network(job, paths.model_copy(update={"checkpoints": tmp_path / "alone"}), fabric)
    trained.remove_leftovers()
    return trained.rows


def assert_same_curve(rows: list[Row], expected: list[Row]) -> None:
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, abs=1e-4)


def test_two_devices_learn_as_one_and_listen_on_the_loopback_interface_alone(
    trainer: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, alone: list[Row]
) -> None:
    with trainer(devices=2) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert "Warning" not in said
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert_same_curve(first["rows"], alone)
    assert first["rows"] == second["rows"]
    assert any(path.endswith(".safetensors") for path in first["written"])
    assert second["written"] == []
    listening = (tmp_path / "listening").read_text().split("\n")
    # The first process serves the store, and gloo listens in each.
    assert sorted(filter(None, listening)) == ["0 127.0.0.1", "0 127.0.0.1", "1 127.0.0.1"]
    assert load_weights(tmp_path / "weights" / "student")


def test_a_device_whose_process_dies_stops_all_and_one_device_resumes(
    trainer: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, alone: list[Row]
) -> None:
    with trainer({"DIE_AT": "9"}, devices=2) as process:
        _, said = process.communicate()
    assert process.returncode == 143, said
    assert "error: training process 1 on this machine has ended with code -9, so that all were stopped. Run the" in said
    assert "Traceback" not in said
    with trainer(devices=1, batch_size=4) as process:
        told, said = process.communicate()
    assert process.returncode == 0, said
    assert "student: going on from step 8 of 12" in told
    assert_same_curve(json.loads((tmp_path / "rank-0.json").read_text())["rows"], alone)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def test_two_machines_wait_for_each_other_and_say_so(trainer: Callable[..., "subprocess.Popen[str]"]) -> None:
    at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    with trainer({**at, "NODE_RANK": "1"}, "only", nodes=2) as second:
        waiting = f"waiting at 127.0.0.1:{at['MASTER_PORT']} for training processes"
        line = wait_for(second, waiting)
        assert f"{waiting}: 0 of 2 have joined. Run the same command on all 2 machines" in line
        with trainer({**at, "NODE_RANK": "0"}, "only", nodes=2) as first:
            wait_for(first, "2 of 2 have joined")
            first.communicate()
        second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)


@pytest.fixture
def machines() -> Iterator[list[list[str]]]:
    """Yield the commands that run others on one of two machines: network namespaces, joined by a cable."""
    ip = shutil.which("ip") or pytest.skip("no command `ip` here")
    names = [f"clearcall{os.getpid()}{end}" for end in "ab"]
    cable = f"type veth peer name cable netns {names[1]}"
    steps = [f"link add cable netns {names[0]} {cable}"]
    for number, name in enumerate(names, 1):
        steps += [f"-n {name} addr add 10.77.0.{number}/24 dev cable", f"-n {name} link set cable up"]
        steps += [f"-n {name} link set lo up"]
    try:
        for step in [*(f"netns add {name}" for name in names), *steps]:
            try:
                subprocess.run([ip, *step.split()], check=True, capture_output=True)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
        yield [[ip, "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], check=False, capture_output=True)


def test_two_machines_learn_as_one_device_and_stop_if_one_fails(
    trainer: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, alone: list[Row], machines: list[list[str]]
) -> None:
    at = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "cable"}

    def both(**own: str) -> tuple["subprocess.Popen[str]", str, "subprocess.Popen[str]"]:
        with (
            trainer({**at, **own, "NODE_RANK": "0"}, within=machines[0], nodes=2) as first,
            trainer({**at, **own, "NODE_RANK": "1"}, within=machines[1], nodes=2) as second,
        ):
            said = first.communicate()[1]
            second.communicate()
        return first, said, second

    first, said, second = both(DIE_AT="9")
    assert (first.returncode, second.returncode) == (1, -9)
    assert "error: another training process has ended, see what it printed. Run the same command again" in said
    assert "Traceback" not in said
    first, said, second = both()
    assert (first.returncode, second.returncode) == (0, 0), said
    assert_same_curve(json.loads((tmp_path / "rank-0.json").read_text())["rows"], alone)


@pytest.mark.parametrize(("node", "joined"), [("0", 1), ("1", 0)])
def test_a_machine_that_nobody_joins_gives_up_in_time(
    training: Training, monkeypatch: pytest.MonkeyPatch, node: str, joined: int
) -> None:
    monkeypatch.setattr(devices, "JOIN_SECONDS", 0.5)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "NODE_RANK": node}
    with mock.patch.dict(os.environ, address), pytest.raises(UserError) as caught:
        make_fabric(changed(training, nodes=2))
    said = str(caught.value)
    place = f"127.0.0.1:{address['MASTER_PORT']}"
    assert said.startswith(f"after 0.5 s {joined} of 2 training processes have joined at {place}")
    assert "NODE_RANK" in said and "`nodes: 1`" in said


def test_a_waiting_machine_heeds_sigterm(trainer: Callable[..., "subprocess.Popen[str]"]) -> None:
    with trainer({"MASTER_PORT": free_port()}, "only", nodes=2) as process:
        wait_for(process, "1 of 2 have joined")
        process.terminate()
        assert process.wait(timeout=10) == 143


def test_a_taken_port_is_named(training: Training) -> None:
    with socket.create_server(("", 0)) as listener:
        port = str(listener.getsockname()[1])
        message = f"cannot listen at 127.0.0.1:{port}, choose another MASTER_PORT"
        with mock.patch.dict(os.environ, {"MASTER_PORT": port}), pytest.raises(UserError, match=message):
            make_fabric(changed(training, nodes=2))


def test_a_second_training_waits_for_the_first_and_goes_on_from_its_checkpoint(
    trainer: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    """As after a kill of DVC alone, whose next run starts the same training again."""
    # Within the warm-up no network is taken for dead.
    endless = {"steps": 10**6, "warmup_steps": 10**6, "validate_every": 2}
    with trainer(**endless) as first:
        while not list(tmp_path.glob("checkpoints/*.pt")):
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        with trainer(**endless) as second:
            line = wait_for(second, "waiting until process")
            assert f"waiting until process {first.pid} (trains on" in line and f"`kill {first.pid}`" in line
            first.kill()
            assert second.stdout is not None
            going_on = second.stdout.readline()
            second.kill()
    assert "student: going on from step" in going_on
