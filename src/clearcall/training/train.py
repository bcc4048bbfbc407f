"""Train one named network on the pairs of one folder, and leave its weights and its curve behind."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from clearcall.core.errors import UserError
from clearcall.core.files import atomic_path, sha256_of
from clearcall.core.locks import release_lock
from clearcall.data.pairs import INDEX, PairRecord, read_pairs, spread
from clearcall.models.build import Kind, build_model
from clearcall.models.layers import parameter_count
from clearcall.models.weights import WEIGHTS, load_published, load_weights, save_weights
from clearcall.params import DistillStudent, Expert, FeatureLayers, Model, Paths, Pretrained, Training
from clearcall.training.batches import PatchSampler
from clearcall.training.checkpoint import checkpoint_key, lock_checkpoint, lock_path
from clearcall.training.loop import Row, Track, fit, make_fabric, untracked
from clearcall.training.losses.perceptual import load_vgg19, perceptual_loss
from clearcall.training.task import (
    ANSWER_LOSSES,
    Answer,
    PictureLoss,
    RestorationTask,
    Teacher,
    WithFeatures,
    answer,
    needs_teacher,
)
from clearcall.training.teacher_outputs import TeacherOutputs, compute_teacher_outputs
from clearcall.training.validation import Quality, Validator

# Of the picture that tells how wide layers are.
_BLANK_SIDE = 64


@dataclass(frozen=True)
class Trained:
    """What training leaves: the weights, a summary for the report, the MLflow run's id, and the curve of each network.

    `leftovers` are the files from which a killed stage resumes; the stage removes them when all is written.
    """

    model: Model
    state: dict[str, Tensor]
    summary: dict[str, Any]
    run_id: str | None
    curves: dict[str, list[Row]]
    leftovers: list[Path]

    def remove_leftovers(self) -> None:
        """Remove the checkpoint and what belongs to it, its lock last."""
        for path in self.leftovers:
            if path.suffix == ".lock":
                release_lock(path)
            else:
                path.unlink(missing_ok=True)


def train_network(
    kind: Kind,
    model: Model,
    loss_weights: Mapping[str, float],
    training: Training,
    paths: Paths,
    fabric: Fabric,
    *,
    name: str,
    track: Track = untracked,
    folder: Path | None = None,
    budget: float = 1.0,
    expert: Expert | None = None,
    neighbours: float = 0.0,
    pretrained: Pretrained | None = None,
    teacher_folder: Path | None = None,
    round_teacher: bool = False,
    feature_layers: Sequence[FeatureLayers] = (),
) -> Trained:
    """Train one network; write its weights to `folder`, if given.

    `loss_weights` are those above 0 by name; `track` keeps the curve. `budget` is the share of the steps that is run.
    An `expert` learns from the pairs that it names, and for a share `neighbours` of its samples from the others, and is
    not tracked. Training starts from the weights `pretrained`, if given. A teacher is loaded from `teacher_folder` only
    if a loss needs one; `round_teacher` rounds its answers to whole grey levels; `feature_layers` are for the loss
    feature_projection. A killed run resumes from its checkpoint if params, pairs and code are the same.
    """
    torch.manual_seed(training.seed)
    network = build_model(kind, model.name, model.arguments)
    if pretrained is not None:
        _load_pretrained(network, model, pretrained)
    train, validation = read_pairs(paths.pairs, "train"), read_pairs(paths.pairs, "validation")
    if not train or not validation:
        raise UserError(f"{paths.pairs / INDEX} has no pairs to train or validate on: run `dvc repro degrade_pairs`")
    own = [pair for pair in train if expert is None or is_for(expert, pair)]
    validation = [pair for pair in validation if expert is None or is_for(expert, pair)]
    if not own or not validation:
        raise UserError(f"{name}: no training or no validation pair is of {expert}: change distill_student.experts")
    training = scheduled(training, len(own), budget)

    data_key = sha256_of(paths.pairs / INDEX)
    loaded = None
    if teacher_folder is not None:
        data_key += sha256_of(teacher_folder / WEIGHTS)
        loaded = load_teacher(loss_weights, training, paths, train, fabric, teacher_folder, feature_layers)
    weights = None if expert is None else _weights(train, expert, neighbours)
    sampler = _sampler(paths, train, training, loaded, weights)
    validator = Validator(paths.pairs, spread(validation, training.validation_pairs))
    degraded = validator.degraded_quality()
    what = str((dict(loss_weights), pretrained, round_teacher, feature_layers, expert, neighbours))
    key = checkpoint_key(name, model.model_dump_json(), what, training.model_dump_json(), data_key)
    checkpoint = paths.checkpoints / f"{name.replace('/', '-')}-{key}.pt"
    lock_checkpoint(checkpoint, fabric)

    values = {"model": model.name, **model.arguments, **training.model_dump(), "losses": dict(loss_weights)}
    if pretrained is not None:
        values["pretrained"] = pretrained.source
    logged = fabric.is_global_zero and expert is None
    with (track if logged else untracked)(name, values, checkpoint.with_suffix(".json")) as run:
        task = _task(
            network, loss_weights, training, loaded, fabric, round_teacher=round_teacher, layers=feature_layers
        )
        fitted = fit(task, sampler, validator, training, fabric, name=name, checkpoint=checkpoint, log=run.log)
    if folder is not None and fabric.is_global_zero:
        save_weights(folder, kind, model, fitted.state)
    summary = {
        "model": model.model_dump(),
        "parameters": parameter_count(network),
        "losses": dict(loss_weights),
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "stopped_early": fitted.stopped_early,
        "precision": fabric._precision.precision,  # noqa: SLF001  # Fabric has no public name for it
        "validation": {"degraded": asdict(degraded), "restored": asdict(fitted.quality)},
    }
    leftovers = [checkpoint, checkpoint.with_suffix(".json"), *([loaded.path] if loaded else []), lock_path(checkpoint)]
    return Trained(model, fitted.state, summary, run.run_id, {name: fitted.rows}, leftovers)


def is_for(expert: Expert, pair: PairRecord) -> bool:
    """Return whether a pair is one that an expert learns from."""
    return pair.degradation in expert.degradations and fnmatchcase(pair.image, expert.images)


def _weights(pairs: Sequence[PairRecord], expert: Expert, neighbours: float) -> list[float]:
    """Return how often each pair is drawn, relative to others, for one expert."""
    own = [is_for(expert, pair) for pair in pairs]
    others = len(own) - sum(own)
    share = neighbours if others else 0.0
    return [(1 - share) / sum(own) if one else share / others for one in own]


def train_student(
    stage: DistillStudent, paths: Paths, records: Sequence[PairRecord], name: str
) -> tuple[nn.Module, Quality]:
    """Train a student on some of the pairs, on one device and without MLflow; return it and its validation quality."""
    weights, training = stage.losses.weights(), scheduled(stage.training, len(records), 1)
    fabric = make_fabric(training)
    torch.manual_seed(training.seed)
    network = build_model("students", stage.model.name, stage.model.arguments)
    layers = stage.feature_layers
    loaded = (
        load_teacher(weights, training, paths, records, fabric, feature_layers=layers)
        if needs_teacher(weights)
        else None
    )
    sampler = _sampler(paths, records, training, loaded)
    task = _task(network, weights, training, loaded, fabric, round_teacher=stage.round_teacher, layers=layers)
    validation = read_pairs(paths.pairs, "validation")
    validator = Validator(paths.pairs, spread(validation, training.validation_pairs))
    checkpoint = paths.checkpoints / f"{name}.pt"
    lock_checkpoint(checkpoint, fabric)
    fitted = fit(
        task, sampler, validator, training, fabric, name=name, checkpoint=checkpoint, log=lambda _: None, shown=False
    )
    checkpoint.unlink(missing_ok=True)
    release_lock(lock_path(checkpoint))
    network = build_model("students", stage.model.name, stage.model.arguments)
    network.load_state_dict(fitted.state)
    return network.eval(), fitted.quality


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher that answers live, its kept answers where that is less work, and the file they would be in."""

    answer: Teacher
    outputs: TeacherOutputs | None
    path: Path


def load_teacher(
    loss_weights: Mapping[str, float],
    training: Training,
    paths: Paths,
    records: Sequence[PairRecord],
    fabric: Fabric,
    folder: Path | None = None,
    feature_layers: Sequence[FeatureLayers] = (),
) -> LoadedTeacher:
    """Load the teacher, and work out its answers to all records if that is less work than answering every patch."""
    folder = folder or paths.weights / "teacher"
    teacher = load_weights(folder).to(fabric.device)
    data_key = (
        sha256_of(paths.pairs / INDEX)
        + sha256_of(folder / WEIGHTS)
        + str([record.degraded_offset for record in records])
    )
    path = paths.checkpoints / f"teacher-outputs-{checkpoint_key(data_key)}.bin"
    outputs = None
    patches = training.steps * training.batch_size * training.patch_size**2
    cheaper = path.exists() or sum(pair.height * pair.width for pair in records) <= patches
    if ANSWER_LOSSES & loss_weights.keys() and cheaper:
        outputs = compute_teacher_outputs(path, teacher, paths.pairs, records, fabric)
    return LoadedTeacher(_answers(teacher, fabric, [layer.teacher for layer in feature_layers]), outputs, path)


def _load_pretrained(network: nn.Module, model: Model, pretrained: Pretrained) -> None:
    try:
        network.load_state_dict(load_published(pretrained.source, pretrained.sha256))
    except RuntimeError as error:
        raise UserError(
            f"{pretrained.source} does not hold the weights of {model.name} with {model.arguments}: {error}"
        ) from None


def _task(
    network: nn.Module,
    weights: Mapping[str, float],
    training: Training,
    teacher: LoadedTeacher | None,
    fabric: Fabric,
    *,
    round_teacher: bool,
    layers: Sequence[FeatureLayers],
) -> RestorationTask:
    """Return what is trained, with the networks that its losses need on the device."""
    perceptual: PictureLoss | None = None
    if "perceptual" in weights:
        perceptual = partial(perceptual_loss, network=load_vgg19().to(fabric.device))
    if teacher is not None and "feature_projection" in weights:
        network = _with_projections(network, [layer.student for layer in layers], teacher.answer, fabric)
    return RestorationTask(
        network,
        weights,
        teacher.answer if teacher else None,
        round_teacher=round_teacher,
        perceptual=perceptual,
        relative_floor=training.relative_floor,
    )


def _with_projections(network: nn.Module, layers: Sequence[str], teacher: Teacher, fabric: Fabric) -> WithFeatures:
    """Return a student with a 1x1 layer from each named layer's width to that of the teacher's layer beside it."""
    blank = torch.zeros(1, 3, _BLANK_SIDE, _BLANK_SIDE)
    with torch.no_grad():
        own = answer(network.eval(), blank, layers).layers
    wanted = teacher(blank.to(fabric.device)).layers
    projections = [nn.Conv2d(one.shape[1], other.shape[1], 1) for one, other in zip(own, wanted, strict=True)]
    return WithFeatures(network, layers, projections)


def _sampler(
    paths: Paths,
    records: Sequence[PairRecord],
    training: Training,
    teacher: LoadedTeacher | None,
    weights: Sequence[float] | None = None,
) -> PatchSampler:
    return PatchSampler(
        paths.pairs,
        records,
        batch_size=training.batch_size,
        patch_size=training.patch_size,
        clean_fraction=training.clean_fraction,
        recolour=training.recolour,
        seed=training.seed,
        teacher_outputs=teacher.outputs if teacher else None,
        weights=weights,
    )


def _answers(teacher: nn.Module, fabric: Fabric, layers: Sequence[str] = ()) -> Teacher:
    """Return the teacher as a function that neither learns nor is seen by anything that walks over modules."""

    def ask(degraded: Tensor) -> Answer:
        with torch.no_grad(), fabric.autocast():
            return answer(teacher, degraded, layers)

    return ask


def write_curves(path: Path, trained: Mapping[str, Trained]) -> None:
    """Write the curves of one stage's networks as one CSV: a line for each mean of losses and each validation."""
    curves = {name: rows for network in trained.values() for name, rows in network.curves.items()}
    names = list(dict.fromkeys(name for rows in curves.values() for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["network", *names], restval="", lineterminator="\n")
        writer.writeheader()
        for network, rows in curves.items():
            for row in rows:
                writer.writerow({"network": network, **{name: f"{value:.7g}" for name, value in row.items()}})


def scheduled(training: Training, pairs: int, budget: float) -> Training:
    """Return the training with `steps`, `validate_every` and `warmup_steps` as they will be run.

    An epoch has a patch of each of the training `pairs`. `budget`, above 0 and at most 1, is the share of all three
    that is run, so that a shorter training has as many validations and the same schedule in small.
    """
    epoch = math.ceil(pairs / (training.batch_size * training.devices * training.nodes))
    steps, every = training.steps, training.validate_every
    if training.epochs is not None:
        steps, every = training.epochs * epoch, epoch
    return training.model_copy(
        update={
            "steps": math.ceil(steps * budget),
            "validate_every": math.ceil(every * budget),
            "warmup_steps": math.ceil(training.warmup_steps * budget),
        }
    )
