"""The training loop: schedule, EMA, validation, early stopping, checkpoints."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from clearcall.core.console import ProgressBar
from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.params import Training
from clearcall.training.batches import PatchSampler
from clearcall.training.checkpoint import load_checkpoint, save_checkpoint
from clearcall.training.devices import JoinedProcesses
from clearcall.training.task import Task, WithFeatures
from clearcall.training.validation import DEAD_LEVELS, Quality, Validator

_LEAST_STEPS = 100  # before which a network that does next to nothing may yet come to do something
LOG_EVERY = 20  # steps; the losses of a row are means over as many
# A shorter memory of squared gradients than usual: short trainings gained 0.05 dB by it.
BETAS = (0.9, 0.99)
# A cosine schedule ends at this share of the highest rate.
FINAL_RATE = 0.02

Row = dict[str, float]


class RunLog(Protocol):
    """The log of one training, such as an MLflow run; `run_id` is None without a server."""

    run_id: str | None

    def log(self, rows: list[Row]) -> None:
        """Keep those of all rows so far that are new."""
        ...

    def show(self, image: Frame, step: int) -> None:
        """Keep an image of a step."""
        ...


# Opens the log of a training by its name, its params, and the file that tells a resumed training of it.
Track = Callable[[str, Mapping[str, Any], Path], AbstractContextManager[RunLog]]


class _Untracked:
    run_id: str | None = None

    def log(self, rows: list[Row]) -> None:
        pass

    def show(self, image: Frame, step: int) -> None:
        pass


@contextmanager
def untracked(_name: str, _params: Mapping[str, Any], _state_file: Path) -> Iterator[RunLog]:
    """Keep nothing."""
    yield _Untracked()


@dataclass(frozen=True)
class Fitted:
    """The best weights by validation SSIM (of the moving average) and how they came about."""

    state: dict[str, Tensor]
    quality: Quality
    best_step: int
    steps: int
    stopped_early: bool
    rows: list[Row]


def make_fabric(training: Training) -> Fabric:
    """Start Lightning Fabric for the devices of the params; deterministic on a CPU.

    Raises UserError if there is no such hardware, or if processes on other machines do not join in time.
    """
    several = training.devices * training.nodes > 1 and training.accelerator != "tpu"  # which knows XLA alone
    try:
        fabric = Fabric(
            accelerator=training.accelerator,
            devices=training.devices,
            num_nodes=training.nodes,
            strategy=JoinedProcesses() if several else "auto",
            precision=_precision(training),
        )
    except (RuntimeError, ValueError, ModuleNotFoundError, MisconfigurationException) as error:
        raise UserError(
            f"training cannot run on accelerator={training.accelerator}, devices={training.devices}: {error}"
        ) from None
    torch.use_deterministic_algorithms(fabric.device.type == "cpu")
    # Deterministic mode also fills uninitialised memory, which is never read here and takes 6 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # its stubs lack it
    fabric.launch()
    return fabric


def _precision(training: Training) -> Literal["bf16-mixed", "32-true"]:
    """Return Fabric's precision; `auto` is bf16 where the hardware supports it."""
    bf16 = training.precision == "bf16"
    if training.precision == "auto":
        if training.accelerator == "cpu" or not torch.cuda.is_available():
            capabilities = torch.cpu.get_capabilities()
            bf16 = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        else:
            bf16 = torch.cuda.is_bf16_supported()
    return "bf16-mixed" if bf16 else "32-true"


def fit(  # noqa: C901, PLR0915  # one loop, to be read from top to bottom
    task: Task,
    sampler: PatchSampler,
    validator: Validator,
    training: Training,
    fabric: Fabric,
    *,
    name: str,
    checkpoint: Path,
    log: Callable[[list[Row]], None],
    show: Callable[[Frame, int], None] | None = None,
    start: Quality | None = None,
    shown: bool = True,
) -> Fitted:
    """Train a task's network and return its best weights.

    `start` is the quality of the initial weights, which are returned if no later ones are better.

    A checkpoint is written at each validation; if the file `checkpoint` exists, training resumes there and ends
    with the same weights as if it had never stopped. At each validation `log` receives all rows so far, and `show` a
    sample and the step; `shown`: with a progress bar. Raises UserError if the loss is no longer finite or the network
    has died (its output equals its input); the checkpoint of the last validation stays.
    """
    wrapped = task.model if isinstance(task.model, WithFeatures) else WithFeatures(task.model)
    network = wrapped.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    average = copy.deepcopy(network).to(fabric.device).requires_grad_(requires_grad=False).eval()
    optimizer = _optimizer(wrapped, training)
    task.model, fabric_optimizer = fabric.setup(wrapped, optimizer)

    step, best, best_step, best_state, waited = 0, start or Quality(-1.0, 0.0, 0.0), 0, _cpu_state(average), 0
    rows: list[Row] = []
    sums: Row = {}
    if (resumed := load_checkpoint(checkpoint)) is not None:
        network.load_state_dict(resumed["network"])
        wrapped.projections.load_state_dict(resumed["projections"])
        average.load_state_dict(resumed["average"])
        optimizer.load_state_dict(resumed["optimizer"])
        step, waited, rows, sums = resumed["step"], resumed["waited"], resumed["rows"], resumed["sums"]
        best, best_step, best_state = Quality(**resumed["best"]), resumed["best_step"], resumed["best_state"]
        fabric.print(f"{name}: going on from step {step} of {training.steps} ({checkpoint})")

    def stopped() -> bool:
        return training.patience is not None and waited >= training.patience

    with ProgressBar(name, training.steps, step, shown=shown and fabric.is_global_zero) as bar:
        while step < training.steps and not stopped():
            rate = learning_rate(step, training)
            for group in optimizer.param_groups:
                group["lr"] = rate
            network.train()
            losses = task.losses(sampler.batch(step, fabric.global_rank).to(fabric.device))
            total = losses["total"]
            fabric_optimizer.zero_grad()
            fabric.backward(total)
            # The norm of the gradients is the same on all processes: if one fails, all do, and none waits for another.
            norm = fabric.clip_gradients(
                task.model, fabric_optimizer, max_norm=training.gradient_clip, error_if_nonfinite=False
            )
            if norm is None or not torch.isfinite(norm):
                raise _diverged(f"{name}: the loss became {total.item()} at step {step}, or its gradient", checkpoint)
            fabric_optimizer.step()
            step += 1
            _update_average(average, network, training.ema_decay, step)
            for key, value in losses.items():
                sums[key] = sums.get(key, 0.0) + value.item()
            validates = step % training.validate_every == 0 or step == training.steps
            if fabric.world_size > 1 and (validates or step % LOG_EVERY == 0):
                sums = {key: float(value) for key, value in cast(dict[str, Tensor], fabric.all_reduce(sums)).items()}
            if step % LOG_EVERY == 0 or step == training.steps:
                count = step % LOG_EVERY or LOG_EVERY
                means = {f"loss_{key}": value / count for key, value in sums.items()}
                rows.append({"step": step, "learning_rate": rate, **means})
                sums = {}
            bar.advance()
            if validates:
                quality = validator.quality(average)
                tried = step > training.warmup_steps and step >= min(_LEAST_STEPS, training.steps)
                if tried and quality.change < DEAD_LEVELS:
                    raise _diverged(
                        f"{name}: the network has died, its output equals its input after {step} steps "
                        f"(mean difference {quality.change:.4f} grey levels)",
                        checkpoint,
                    )
                rows.append({"step": step, "validation_ssim": quality.ssim, "validation_psnr_db": quality.psnr_db})
                waited += 1
                if quality.ssim > best.ssim:
                    best, best_step, best_state, waited = quality, step, _cpu_state(average), 0
                bar.note(f"SSIM {quality.ssim:.4f} (best {best.ssim:.4f} at {best_step})")
                log(rows)
                if fabric.is_global_zero:
                    if show is not None:
                        show(validator.sample(average), step)
                    save_checkpoint(
                        checkpoint,
                        {
                            "network": network.state_dict(),
                            "projections": wrapped.projections.state_dict(),
                            "average": average.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "step": step,
                            "waited": waited,
                            "rows": rows,
                            "sums": sums,
                            "best": asdict(best),
                            "best_step": best_step,
                            "best_state": best_state,
                        },
                    )
    return Fitted(best_state, best, best_step, step, step < training.steps, rows)


def _diverged(what: str, checkpoint: Path) -> UserError:
    kept = (
        f"The checkpoint of the last validation is kept: {checkpoint}"
        if checkpoint.exists()
        else "There was no checkpoint yet"
    )
    return UserError(
        f"{what}. Lower training.learning_rate or training.gradient_clip, or lengthen warmup_steps. {kept}"
    )


def learning_rate(step: int, training: Training) -> float:
    """Return the rate of a step (from 0): linear warm-up, then a cosine to 2 % of the highest."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    progress = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return training.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def _optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(network.parameters(), lr=training.learning_rate, betas=BETAS, weight_decay=training.weight_decay)


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    # A young average follows closely, or it would remember the untrained network for long.
    decay = min(decay, step / (step + 10))
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for mean_buffer, buffer in zip(average.buffers(), network.buffers(), strict=True):
        mean_buffer.copy_(buffer)


def _cpu_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
