"""Adapt a student to recordings of one's own calls, by a teacher, or of one's own camera, by what was sent.

There is never a sharp original of a received call: a teacher restores some frames, and the experts learn from that. Its
answers are as good a target as one, and safer than few frames of truth, which a student would learn by heart. The idea
of adapting a small network to one stream by a large one is that of JITNet (Mullapudi et al., ICCV 2019).
"""

import copy
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clearcall.core.console import ProgressBar
from clearcall.core.errors import NothingToLearnError, UserError
from clearcall.core.files import SHIPPED, atomic_path, cache_folder
from clearcall.core.locks import release_lock
from clearcall.data.manifest import Split
from clearcall.data.pairs import middle, read_pairs
from clearcall.data.recordings import RecordedFrame, read_recordings, sent, write_recorded_pairs
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db
from clearcall.models.export import check_parity, expert_weights
from clearcall.models.inference import output, restore, to_tensor
from clearcall.models.students.routed import IDENTITY, Routed
from clearcall.models.weights import load_shipped
from clearcall.params import Training
from clearcall.runtime.graph import PERSONAL, with_weights, write_personal
from clearcall.runtime.sharpener import shipped_models
from clearcall.runtime.video_routing import scores_of_coded
from clearcall.training.checkpoint import checkpoint_key, lock_checkpoint, lock_path
from clearcall.training.loop import Row, fit, make_fabric
from clearcall.training.task import RestorationTask
from clearcall.training.train import make_sampler, scheduled
from clearcall.training.validation import Validator

STEPS = 800
_TRAINING = Training(
    steps=STEPS,
    batch_size=16,
    patch_size=64,
    clean_fraction=0.0,
    recolour=False,
    optimizer="adamw",
    learning_rate=5e-4,
    weight_decay=0.0,
    warmup_steps=50,
    gradient_clip=1.0,
    relative_floor=1e-5,  # 50 dB: what a teacher adds to a call is little
    ema_decay=0.995,
    validate_every=200,
    patience=None,
    precision="auto",
    accelerator="cpu",
    devices=1,
    nodes=1,
    seed=1,
)
_LEAST_SHARE = 1 / 4  # of the training frames: an expert with fewer stays as it is
_LEAST_GAIN_DB = 0.02  # nearer to its aim on the held-back frames
_SEEDS = 10  # of each frame, for what happens to it on the way
_MAX_DIFFERENCE = 2  # 8-bit levels between torch and the file
_PARITY_SIDE_PX = 256


@dataclass(frozen=True)
class AdaptedExpert:
    """How an expert fared: PSNR in dB of RGB on the held-back frames, against the teacher or what was sent.

    `received_db` is that of the frames as they were received. `kept`: the adapted weights replace the general ones.
    """

    name: str
    frames: int
    received_db: float
    general_db: float
    adapted_db: float
    kept: bool


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation leaves: the adapted student beside the general one and the teacher, and how experts fared.

    `curves` are the rows of each training by expert, `held_back` the frames that it was judged on. Without a teacher
    it learnt from the sharp frames that were sent.
    """

    model: str  # the shipped network that was adapted
    student: Routed
    general: Routed
    teacher: nn.Module | None
    experts: list[AdaptedExpert]
    curves: Mapping[str, list[Row]]
    held_back: Mapping[str, Sequence[RecordedFrame]]

    def examples(self) -> Iterator[tuple[str, Frame, dict[str, Frame]]]:
        """Yield each expert's name, a held-back frame, what general and adapted make of it, and their aim.

        That is `teacher`, its answer, or else `sharp`, what was sent.
        """
        networks: dict[str, nn.Module] = {"general": self.general, "adapted": self.student}
        if self.teacher is not None:
            networks["teacher"] = self.teacher
        for name, (one, *_) in self.held_back.items():
            made = {title: restore(_Alone(network, name), one.frame) for title, network in networks.items()}
            yield name, one.frame, made if one.sharp is None else {**made, "sharp": one.sharp}


def load_student(name: str) -> Routed:
    """Return a shipped student with its weights, in evaluation mode; raise UserError if there is none of that name."""
    network = load_shipped(name)
    if not isinstance(network, Routed):
        raise UserError(f"{name} is no student that could be adapted: give one of {', '.join(shipped_models())}")
    return network


def adapt(recordings: Sequence[Path], model: str, teacher: str, steps: int = STEPS) -> Adaptation:
    """Adapt a shipped model to recordings, by another as its teacher.

    A killed run resumes from its checkpoints in the cache folder. An expert that is no better on the held-back frames
    stays as it was. Raises UserError if the recordings cannot be used or need no sharpening.
    """
    if teacher == model:
        raise UserError(f"the model {model} cannot be its own teacher: give another --teacher or another --model")
    networks = load_student(model), load_shipped(teacher)
    return adapt_to_frames(read_recordings(recordings), model, *networks, steps)


def adapt_to_camera(recordings: Sequence[Path], model: str, steps: int = STEPS) -> Adaptation:
    """Adapt a shipped model to sharp recordings of one's own camera, for those who receive it in a call.

    Real encoders degrade the frames, which are what it learns to restore. Otherwise like `adapt`.
    """
    return adapt_to_sharp(read_recordings(recordings, with_before=True), model, load_student(model), steps)


def adapt_to_sharp(
    sharp: Mapping[Split, Sequence[RecordedFrame]], model: str, general: Routed, steps: int = STEPS
) -> Adaptation:
    """Adapt the shipped network `general`, called `model`, to sharp frames; see `adapt_to_camera`."""
    total = sum(map(len, sharp.values()))
    received: dict[Split, list[RecordedFrame]] = {split: [] for split in sharp}
    with ProgressBar("sending through encoders", total) as bar:
        for split, group in sharp.items():
            for one in group:
                received[split] += sent(one, seed=_SEEDS * one.number)
                bar.advance()
    return adapt_to_frames(received, model, general, None, steps)


def adapt_to_frames(
    frames: Mapping[Split, Sequence[RecordedFrame]],
    model: str,
    general: Routed,
    teaching: nn.Module | None,
    steps: int = STEPS,
    *,
    folder: Path | None = None,
    shown: bool = True,
) -> Adaptation:
    """Adapt the shipped network `general`, called `model`, to recorded frames; see `adapt`.

    Without a teacher the frames must have their sharp ones. Pairs and checkpoints are written to `folder`, in the cache
    if not given, and removed at the end. `shown`: with progress bars.
    """
    by_expert = _by_expert(general, frames)
    student = copy.deepcopy(general)
    received = (hashlib.sha256(one.frame.tobytes()).hexdigest() for group in frames.values() for one in group)
    key = checkpoint_key(_digest(general), _digest(teaching or nn.Identity()), str(steps), *received)
    results, curves = list[AdaptedExpert](), dict[str, list[Row]]()
    for name, own in by_expert.items():
        expert = student.experts[student.names.index(name) - 1]
        work = (folder or cache_folder() / "adaptations") / f"{key}-{name}"
        write_recorded_pairs(work, name, own, partial(restore, _Alone(teaching or general, name)))
        result, curves[name] = _train(expert, name, work, steps, shown=shown)
        results.append(result)
        shutil.rmtree(work)
    held_back = {name: own["validation"] for name, own in by_expert.items()}
    return Adaptation(model, student, general, teaching, results, curves, held_back)


def write_adapted(adaptation: Adaptation, output: Path) -> None:
    """Write the adapted student as ONNX, or as a personal model, by the suffix of `output`.

    Raises UserError, and writes nothing, if no expert is better than before.
    """
    kept = [result.name for result in adaptation.experts if result.kept]
    if not kept:
        best = max(result.adapted_db - result.general_db for result in adaptation.experts)
        aim = "the sharp ones" if adaptation.teacher is None else "its teacher"
        raise NothingToLearnError(
            f"{output} was not written: on the held-back frames the adapted student is no nearer to {aim} than the "
            f"general one ({best:+.2f} dB): use that"
        )
    frames = [middle(group[0].frame, _PARITY_SIDE_PX) for group in adaptation.held_back.values()]
    weights = expert_weights(adaptation.student, kept)
    with atomic_path(output) as temporary:
        if output.suffix == PERSONAL:
            write_personal(temporary, adaptation.model, weights)
        else:
            temporary.write_bytes(with_weights((SHIPPED / f"{adaptation.model}.onnx").read_bytes(), weights))
        check_parity(adaptation.student, temporary, frames, _MAX_DIFFERENCE)


def gain_over_general_db(adaptation: Adaptation, one: RecordedFrame) -> float:
    """Return how much nearer the adapted student is to the teacher's answer to a frame than the general one, in dB."""
    name = _preferred(adaptation.general, one)[0]
    if name == IDENTITY or adaptation.teacher is None:
        return 0.0
    aim, adapted, general = (
        restore(_Alone(network, name), one.frame)
        for network in (adaptation.teacher, adaptation.student, adaptation.general)
    )
    gain_db = psnr_db(aim, adapted) - psnr_db(aim, general)
    return gain_db if np.isfinite(gain_db) else 0.0


def _digest(network: nn.Module) -> str:
    tensors = (tensor.numpy().tobytes() for tensor in network.state_dict().values())
    return hashlib.sha256(b"".join(tensors)).hexdigest()


def _by_expert(
    student: Routed, frames: Mapping[Split, Sequence[RecordedFrame]]
) -> dict[str, dict[Split, list[RecordedFrame]]]:
    """Return the frames by expert, each for the two that the router prefers, of experts that get enough.

    Two, since the second may be the first a second later: similar experts are hardly told apart, and one that has not
    been adapted would undo the gain.
    """
    found: dict[str, dict[Split, list[RecordedFrame]]] = {
        name: {"train": [], "validation": []} for name in student.names
    }
    for split, group in frames.items():
        for one in group:
            for name in _preferred(student, one):
                found[name][split].append(one)
    least = _LEAST_SHARE * len(frames["train"])
    enough = {
        name: own
        for name, own in found.items()
        if name != IDENTITY and len(own["train"]) >= least and own["validation"]
    }
    if not enough:
        untouched = sum(map(len, found[IDENTITY].values()))
        raise NothingToLearnError(
            f"{untouched} of {sum(map(len, frames.values()))} frames are sharp already, and no expert gets enough of "
            "the others: there is nothing to adapt to"
        )
    return enough


def _preferred(student: Routed, one: RecordedFrame) -> list[str]:
    """Return the two experts that the runtime would rather choose for a frame, or the identity alone if it is best."""
    with torch.inference_mode():
        scores = student.scores(to_tensor(one.frame)[None])[0].numpy()
    if one.coded:
        scores = scores_of_coded(scores, student.names, student.coded)
    best, *others = (student.names[number] for number in np.argsort(-scores) if np.isfinite(scores[number]))
    return [best] if best == IDENTITY else [best, *(name for name in others if name != IDENTITY)][:2]


class _Alone(nn.Module):
    """A network that restores every frame by one expert, or, without experts, is told that expert's degradation.

    An expert has the name of its degradation; those for heads, `heads_*`, learn from the degradation `call_*`.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self._name = network, name

    def forward(self, image: Tensor) -> Tensor:
        network, name = self.network, self._name
        if isinstance(network, Routed) and name in network.names:
            return network.restore_by(network.names.index(name), image)
        return output(network, image, [name.replace("heads_", "call_")] * len(image))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: patches are small, so that a second one would mostly wait, and a call wants its core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(expert: nn.Module, name: str, pairs: Path, steps: int, *, shown: bool) -> tuple[AdaptedExpert, list[Row]]:
    """Train an expert in place on pairs of received frames and the teacher's answers; undo it if that is no better."""
    training = scheduled(_TRAINING, 1, steps / STEPS)
    fabric = make_fabric(training)
    checkpoint = pairs.with_name(f"{pairs.name}.pt")  # a name may hold a dot
    lock_checkpoint(checkpoint, fabric)
    train, validation = read_pairs(pairs, "train"), read_pairs(pairs, "validation")
    sampler = make_sampler(pairs, train, training)
    validator = Validator(pairs, validation)
    before, received = validator.quality(expert), validator.degraded_quality()
    task = RestorationTask(
        copy.deepcopy(expert).requires_grad_(), {"relative_mse": 1.0}, relative_floor=training.relative_floor
    )
    with _one_thread():
        fitted = fit(
            task,
            sampler,
            validator,
            training,
            fabric,
            name=name,
            checkpoint=checkpoint,
            log=lambda _rows: None,
            shown=shown,
        )
    kept = fitted.quality.psnr_db >= before.psnr_db + _LEAST_GAIN_DB
    if kept:
        expert.load_state_dict(fitted.state)
    checkpoint.unlink(missing_ok=True)
    release_lock(lock_path(checkpoint))
    result = AdaptedExpert(name, len(train), received.psnr_db, before.psnr_db, fitted.quality.psnr_db, kept)
    return result, fitted.rows
