"""Train one network: build it, load what it learns from, run the loop, save the weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from clearcall.core.errors import UserError
from clearcall.core.files import SHIPPED, TEACHER, read_json, sha256_of
from clearcall.core.locks import release_lock
from clearcall.data.pairs import INDEX, PAIRS_SHA256, PairRecord, read_pairs, spread
from clearcall.models.build import Kind, build_model
from clearcall.models.layers import parameter_count
from clearcall.models.weights import WEIGHTS, load_published, load_shipped, load_weights, save_weights
from clearcall.params import DistillStudent, Expert, FeatureLayers, Model, Paths, Pretrained, Training
from clearcall.training.batches import PatchSampler
from clearcall.training.checkpoint import checkpoint_key, lock_checkpoint, lock_path
from clearcall.training.curves import update_curve
from clearcall.training.devices import lost_process_told
from clearcall.training.loop import Row, Track, fit, make_fabric, untracked
from clearcall.training.losses.perceptual import load_vgg19, perceptual_loss
from clearcall.training.task import (
    TEACHER_LOSSES,
    Answer,
    ImageLoss,
    RestorationTask,
    Teacher,
    WithFeatures,
    answer,
    needs_teacher,
)
from clearcall.training.teacher_outputs import TeacherOutputs, compute_teacher_outputs
from clearcall.training.validation import Quality, Validator

# Of the image that tells how wide layers are.
_BLANK_SIDE_PX = 64


@dataclass(frozen=True)
class Job:
    """One training: network, losses (weights above 0, by name), schedule, data.

    `budget` is the share of the steps that is run. Training starts from the weights `pretrained`, if given. An `expert`
    learns from the pairs that it names, and for a share `neighbours` of its samples from the others. `feature_layers`
    are for the loss feature_projection. `pairs` replaces the training split.
    """

    name: str
    kind: Kind
    model: Model
    losses: Mapping[str, float]
    training: Training
    budget: float = 1.0
    pretrained: Pretrained | Literal["shipped"] | None = None
    expert: Expert | None = None
    neighbours: float = 0.0
    feature_layers: Sequence[FeatureLayers] = ()
    pairs: Sequence[PairRecord] | None = None


@dataclass(frozen=True)
class Trained:
    """The result of a training: weights, summary, MLflow run, curve.

    `leftovers` are the files from which a killed stage resumes; the stage removes them when all is written.
    """

    model: Model
    state: dict[str, Tensor]
    summary: dict[str, Any]
    run_id: str | None
    rows: list[Row]
    leftovers: list[Path]

    def remove_leftovers(self) -> None:
        """Remove the checkpoint and what belongs to it, its lock last."""
        for path in self.leftovers:
            if path.suffix != ".lock":
                path.unlink(missing_ok=True)
        self.release_locks()

    def release_locks(self) -> None:
        """Let other processes use the checkpoint, which stays."""
        for path in self.leftovers:
            if path.suffix == ".lock":
                release_lock(path)


def student_job(stage: DistillStudent, losses: Mapping[str, float], name: str, budget: float = 1.0) -> Job:
    """Return the training of a single student by the params of its stage."""
    return Job(name, "students", stage.model, losses, stage.training, budget, feature_layers=stage.feature_layers)


@lost_process_told()
def train_network(
    job: Job,
    paths: Paths,
    fabric: Fabric,
    *,
    track: Track = untracked,
    folder: Path | None = None,
    curve: Path | None = None,
    shown: bool = True,
) -> Trained:
    """Train one network; write its weights to `folder`, if given.

    `track` keeps the curve, and so does the CSV `curve`, at each validation; `shown`: with a progress bar. The teacher
    is loaded only if a loss needs one. A killed run resumes from its checkpoint if params, pairs and code are the same;
    the number of processes may change if that of the samples of a step does not. Raises UserError if another process of
    the training ends.
    """
    torch.manual_seed(job.training.seed)
    network = build_model(job.kind, job.model.name, job.model.arguments)
    if job.pretrained is not None:
        _load_pretrained(network, job.model, job.pretrained)
    train = read_pairs(paths.pairs, "train") if job.pairs is None else job.pairs
    validation = read_pairs(paths.pairs, "validation")
    if not train or not validation:
        raise UserError(f"{paths.pairs / INDEX} has no pairs to train or validate on: run `dvc repro degrade_pairs`")
    own = [pair for pair in train if job.expert is None or is_for(job.expert, pair)]
    validation = [pair for pair in validation if job.expert is None or is_for(job.expert, pair)]
    if not own or not validation:
        raise UserError(
            f"{job.name}: no training or no validation pair is of {job.expert}: change distill_student.experts"
        )
    training = scheduled(job.training, len(own), job.budget)

    data_key, teacher = sha256_of(paths.pairs / INDEX), None
    if job.pretrained == "shipped":
        data_key += sha256_of(SHIPPED / f"{TEACHER}.safetensors")
    if needs_teacher(job.losses):
        data_key += sha256_of(paths.weights / "teacher" / WEIGHTS)
        teacher = load_teacher(job.losses, training, paths, train, fabric, job.feature_layers)
    outputs = teacher.outputs if teacher else None
    weights = None if job.expert is None else _weights(train, job.expert, job.neighbours)
    sampler = make_sampler(paths.pairs, train, training, outputs, weights)
    validator = Validator(paths.pairs, spread(validation, training.validation_pairs))
    degraded = validator.degraded_quality()
    # Without the number of processes: a training resumes with another, if the batch of all of them is as large.
    key = checkpoint_key(str(replace(job, training=job.training.as_one_process())), data_key)
    checkpoint = paths.checkpoints / f"{job.name.replace('/', '-')}-{key}.pt"
    lock_checkpoint(checkpoint, fabric)

    values = {"model": job.model.name, **job.model.arguments, **training.model_dump(), "losses": dict(job.losses)}
    values[PAIRS_SHA256] = sha256_of(paths.pairs / INDEX)
    if job.pretrained is not None:
        values["pretrained"] = "shipped" if job.pretrained == "shipped" else job.pretrained.source
    with (track if fabric.is_global_zero else untracked)(job.name, values, checkpoint.with_suffix(".json")) as run:

        def log(rows: list[Row]) -> None:
            if curve is not None and fabric.is_global_zero:
                update_curve(curve, job.name, rows)
            run.log(rows)

        task = make_task(network, job.losses, training, fabric, teacher, job.feature_layers)
        fitted = fit(
            task,
            sampler,
            validator,
            training,
            fabric,
            name=job.name,
            checkpoint=checkpoint,
            log=log,
            show=run.show,
            start=None if job.pretrained is None else validator.quality(network.eval()),
            shown=shown,
        )
        log(fitted.rows)  # of a training that had ended before it was resumed
    if folder is not None and fabric.is_global_zero:
        save_weights(folder, job.kind, job.model, fitted.state)
    summary = {
        "model": job.model.model_dump(),
        "parameters": parameter_count(network),
        "losses": dict(job.losses),
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "stopped_early": fitted.stopped_early,
        "precision": fabric._precision.precision,  # noqa: SLF001  # Fabric has no public name for it
        "validation": {"degraded": asdict(degraded), "restored": asdict(fitted.quality)},
    }
    stored = [teacher.outputs_path] if teacher else []
    leftovers = [checkpoint, checkpoint.with_suffix(".json"), *stored, lock_path(checkpoint)]
    return Trained(job.model, fitted.state, summary, run.run_id, fitted.rows, leftovers)


def make_sampler(
    pairs: Path,
    records: Sequence[PairRecord],
    training: Training,
    outputs: TeacherOutputs | None = None,
    weights: Sequence[float] | None = None,
) -> PatchSampler:
    """Return the sampler of a training; `outputs` are the teacher's, `weights` say how often each pair is drawn."""
    return PatchSampler(
        pairs,
        records,
        batch_size=training.batch_size,
        patch_size=training.patch_size,
        clean_fraction=training.clean_fraction,
        recolour=training.recolour,
        seed=training.seed,
        untold_fraction=training.untold_fraction,
        teacher_outputs=outputs,
        weights=weights,
    )


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
    """Train a student on some pairs, without MLflow; return it and its validation quality."""
    job = replace(student_job(stage, stage.losses.weights(), name), pairs=records)
    trained = train_network(job, paths, make_fabric(stage.training), shown=False)
    # The teacher's outputs serve further trainings on these pairs.
    replace(trained, leftovers=[path for path in trained.leftovers if path.suffix != ".bin"]).remove_leftovers()
    network = build_model(job.kind, job.model.name, job.model.arguments)
    network.load_state_dict(trained.state)
    return network.eval(), Quality(**trained.summary["validation"]["restored"])


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher as a function, its stored outputs where these cost less, and their path."""

    answer: Teacher
    outputs: TeacherOutputs | None
    outputs_path: Path


def load_teacher(
    losses: Mapping[str, float],
    training: Training,
    paths: Paths,
    records: Sequence[PairRecord],
    fabric: Fabric,
    feature_layers: Sequence[FeatureLayers] = (),
) -> LoadedTeacher:
    """Load the teacher; compute its outputs if that costs less than running it on every patch."""
    folder = paths.weights / "teacher"
    teacher = load_weights(folder).to(fabric.device)
    offsets = str([record.degraded_offset for record in records])
    key = checkpoint_key(sha256_of(paths.pairs / INDEX) + sha256_of(folder / WEIGHTS) + offsets)
    path = paths.checkpoints / f"teacher-outputs-{key}.bin"
    outputs = None
    patches = training.steps * training.as_one_process().batch_size * training.patch_size**2
    cheaper = path.exists() or sum(pair.height * pair.width for pair in records) <= patches
    if TEACHER_LOSSES.keys() & losses.keys() and cheaper:
        outputs = compute_teacher_outputs(path, teacher, paths.pairs, records, fabric)
    return LoadedTeacher(live_answers(teacher, fabric, [layer.teacher for layer in feature_layers]), outputs, path)


def _load_pretrained(network: nn.Module, model: Model, pretrained: Pretrained | Literal["shipped"]) -> None:
    if pretrained == "shipped":
        # By what it is made of: weights of degradations in another order would fit as well.
        if (shipped := read_json(SHIPPED / f"{TEACHER}.json")["model"]) != model.model_dump():
            raise UserError(
                f"the shipped teacher is {shipped['name']} with {shipped['arguments']}, not {model.name} with "
                f"{model.arguments}: set train_teacher.pretrained to null, or train_teacher.model to that"
            )
        network.load_state_dict(load_shipped(TEACHER).state_dict())
        return
    try:
        network.load_state_dict(load_published(pretrained.source, pretrained.sha256))
    except RuntimeError as error:
        raise UserError(
            f"{pretrained.source} does not hold the weights of {model.name} with {model.arguments}: {error}"
        ) from None


def make_task(
    network: nn.Module,
    losses: Mapping[str, float],
    training: Training,
    fabric: Fabric,
    teacher: LoadedTeacher | None = None,
    layers: Sequence[FeatureLayers] = (),
) -> RestorationTask:
    """Return what is trained, with the networks that its losses need on the device."""
    perceptual: ImageLoss | None = None
    if "perceptual" in losses:
        perceptual = partial(perceptual_loss, network=load_vgg19().to(fabric.device))
    if teacher is not None and "feature_projection" in losses:
        network = _with_projections(network, [layer.student for layer in layers], teacher.answer, fabric)
    live = teacher.answer if teacher else None
    return RestorationTask(network, losses, live, perceptual=perceptual, relative_floor=training.relative_floor)


def _with_projections(network: nn.Module, layers: Sequence[str], teacher: Teacher, fabric: Fabric) -> WithFeatures:
    """Return a student with a 1x1 layer from each named layer to the teacher's width."""
    blank = torch.zeros(1, 3, _BLANK_SIDE_PX, _BLANK_SIDE_PX)
    with torch.no_grad():
        own = answer(network.eval(), blank, layers).layers
    wanted = teacher(blank.to(fabric.device), ()).layers
    projections = [nn.Conv2d(one.shape[1], other.shape[1], 1) for one, other in zip(own, wanted, strict=True)]
    return WithFeatures(network, layers, projections)


def live_answers(teacher: nn.Module, fabric: Fabric, layers: Sequence[str] = ()) -> Teacher:
    """Return the teacher as a function: no gradients, no submodule."""

    def ask(degraded: Tensor, degradations: Sequence[str]) -> Answer:
        with torch.no_grad(), fabric.autocast():
            return answer(teacher, degraded, layers, degradations)

    return ask


def scheduled(training: Training, pairs: int, budget: float) -> Training:
    """Return the training with epochs and budget resolved to steps.

    An epoch has a patch of each of the training `pairs`. `budget`, above 0 and at most 1, is the share of all three
    that is run, so that a shorter training has as many validations and the same schedule in small.
    """
    epoch = math.ceil(pairs / training.as_one_process().batch_size)
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
