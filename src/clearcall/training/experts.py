"""Train the experts of a student in parallel, then the router that chooses between them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from clearcall.core.console import ProgressBar
from clearcall.core.files import sha256_of
from clearcall.core.machine import available_cores
from clearcall.core.processes import worker_pool
from clearcall.data.pairs import INDEX, PAIRS_SHA256, read_pairs, spread
from clearcall.models.build import build_model
from clearcall.models.layers import collapsed, parameter_count
from clearcall.models.students.luma_strided import LumaStrided
from clearcall.models.students.routed import Routed
from clearcall.models.weights import save_weights
from clearcall.params import Expert, Model, Params
from clearcall.training.checkpoint import checkpoint_key
from clearcall.training.curves import update_curve
from clearcall.training.loop import Row, Track, make_fabric, untracked
from clearcall.training.router import cost_table, fit_router, routing_summary
from clearcall.training.task import needs_teacher
from clearcall.training.train import Trained, load_teacher, student_job, train_network
from clearcall.training.validation import Validator

# Pairs that the router is fitted on, at most: what each choice costs is measured on all of them.
_ROUTER_PAIRS = 3300


def train_experts(
    params: Params,
    losses: Mapping[str, float],
    name: str,
    folder: Path,
    track: Track = untracked,
    curve: Path | None = None,
) -> Trained:
    """Train all experts of the student `name` and its router, and write their weights to `folder`.

    `track` keeps the mean of their curves; the CSV `curve` also has their own, at each validation. A killed run resumes
    with the experts that are not done.
    """
    stage, paths, seed = params.distill_student, params.paths, params.distill_student.training.seed
    experts = stage.named_experts(params.degrade_pairs.mix)
    train, validation = read_pairs(paths.pairs, "train"), read_pairs(paths.pairs, "validation")
    if needs_teacher(losses):
        # Once, before several processes would do it at the same time.
        load_teacher(losses, stage.training, paths, train, make_fabric(stage.training))
    done: dict[str, Trained] = {}
    key = checkpoint_key(name, stage.model_dump_json(), str(dict(losses)), sha256_of(paths.pairs / INDEX))
    state_file = paths.checkpoints / f"{name}-{key}.json"
    values = {"model": stage.model.name, **stage.model.arguments, "experts": len(experts), "losses": dict(losses)}
    values[PAIRS_SHA256] = sha256_of(paths.pairs / INDEX)
    with track(name, values, state_file) as run:
        with worker_pool(min(len(experts), available_cores())) as pool:
            waiting = {
                pool.submit(_train, params, dict(losses), f"{name}/{label}", expert, curve): label
                for label, expert in experts.items()
            }
            with ProgressBar(f"{name}: experts", len(experts)) as bar:
                for future in as_completed(waiting):
                    done[waiting[future]] = future.result()
                    bar.advance()
            ordered = {label: done[label] for label in experts}
            coded = [label for label, one in experts.items() if params.degrade_pairs.has_codec(one.degradations)]
            model, student = _assembled(ordered, coded)
            table, held_out = (
                cost_table(student, paths.pairs, spread(pairs, _ROUTER_PAIRS), pool) for pairs in (train, validation)
            )
            fit_router(student, table, held_out, seed)
        mean = _mean_curve([one.rows for one in ordered.values()])
        if curve is not None:
            update_curve(curve, name, mean)
        run.log(mean)
        run.show(Validator(paths.pairs, validation).sample(student.eval()), int(mean[-1]["step"]))
    save_weights(folder, "students", model, student.state_dict())
    summary = _summary(model, ordered, parameter_count(student), routing_summary(student, held_out))
    leftovers = [state_file, *(path for one in ordered.values() for path in one.leftovers)]
    return Trained(model, student.state_dict(), summary, run.run_id, mean, leftovers)


def _assembled(experts: Mapping[str, Trained], coded: Sequence[str]) -> tuple[Model, Routed]:
    """Return trained experts as one student, its router not fitted; `coded` learnt from encoders.

    They were trained wide and are kept collapsed: a fifth of the size, and all that follows is faster.
    """
    built = {label: build_model("students", one.model.name, one.model.arguments) for label, one in experts.items()}
    for label, network in built.items():
        network.load_state_dict(experts[label].state)
    student = collapsed(Routed({label: cast(LumaStrided, network) for label, network in built.items()}, coded))
    arguments = {label: one.model.arguments | {"expansion": 0} for label, one in experts.items()}
    return Model(name="routed", arguments={"experts": arguments, "coded": list(coded)}), cast(Routed, student)


def _train(params: Params, losses: dict[str, float], name: str, expert: Expert, curve: Path | None) -> Trained:
    """Train one expert in a process of its own."""
    stage = params.distill_student
    model = stage.model.model_copy(update={"arguments": {**stage.model.arguments, **expert.arguments}})
    own = {"steps": expert.steps, "recolour": expert.recolour}
    training = stage.training.model_copy(update={key: value for key, value in own.items() if value is not None})
    job = replace(
        student_job(stage, losses, name, params.budget),
        model=model,
        training=training,
        expert=expert,
        neighbours=stage.neighbours,
    )
    trained = train_network(job, params.paths, make_fabric(training), curve=curve)
    # This process trains on, and only it can free its lock; the checkpoint stays until all experts are one student.
    trained.release_locks()
    return trained


def _mean_curve(curves: list[list[Row]]) -> list[Row]:
    """Return the mean of several curves at the steps that they have in common."""
    by_place: dict[tuple[float, str], list[float]] = {}
    for rows in curves:
        for row in rows:
            for key, value in row.items():
                by_place.setdefault((row["step"], key), []).append(value)
    merged: dict[float, Row] = {}
    for (step, key), values in sorted(by_place.items()):
        if len(values) == len(curves):
            merged.setdefault(step, {"step": step})[key] = sum(values) / len(values)
    return list(merged.values())


def _summary(
    model: Model, experts: Mapping[str, Trained], parameters: int, routing: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    summaries = [one.summary for one in experts.values()]
    validation = {
        kind: {
            metric: sum(summary["validation"][kind][metric] for summary in summaries) / len(summaries)
            for metric in ("ssim", "psnr_db", "change")
        }
        for kind in ("degraded", "restored")
    }
    return {
        **summaries[0],
        "model": model.model_dump(),
        "parameters": parameters,
        "best_step": min(summary["best_step"] for summary in summaries),
        "stopped_early": any(summary["stopped_early"] for summary in summaries),
        "validation": validation,
        "experts": {label: one.summary for label, one in experts.items()},
        "routing": routing,
    }
