"""Distil the student from the teacher, and train its baseline, which never sees the teacher, for comparison."""

from functools import partial

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.params import load_params
from clearcall.tracking.runs import TrainingRun
from clearcall.training.experts import train_experts
from clearcall.training.loop import make_fabric
from clearcall.training.task import without_teacher
from clearcall.training.train import student_job, train_network


def main() -> None:
    """Train the student and, if wanted, the baseline with the same seed and steps; write the summaries and run ids."""
    params = load_params()
    stage, paths = params.distill_student, params.paths
    students, curve = paths.weights / "students", paths.reports / "distill_student_curve.csv"
    curve.unlink(missing_ok=True)  # networks of an earlier run
    track = partial(TrainingRun, params.publish.experiment)
    losses_of = {"student": stage.losses.weights()}
    if stage.baseline:
        losses_of["baseline"] = without_teacher(losses_of["student"])
    if stage.experts is not None:
        trained = {
            name: train_experts(params, losses, name, students / name, track, curve)
            for name, losses in losses_of.items()
        }
    else:
        fabric = make_fabric(stage.training)
        trained = {
            name: train_network(
                student_job(stage, losses, name, params.budget),
                paths,
                fabric,
                track=track,
                folder=students / name,
                curve=curve,
            )
            for name, losses in losses_of.items()
        }
        if not fabric.is_global_zero:
            return
    write_json(paths.runs / "distill_student.json", {name: network.run_id for name, network in trained.items()})
    write_json(paths.reports / "distill_student.json", {name: network.summary for name, network in trained.items()})
    # Only now: a stage that is killed while the baseline trains resumes with the student done.
    for network in trained.values():
        network.remove_leftovers()


if __name__ == "__main__":
    errors.run(main)
