"""Distil the student from the teacher, and train its twin, which never sees the teacher, for comparison."""

from clearcall import errors
from clearcall.files import write_json
from clearcall.params import load_params
from clearcall.training.loop import make_fabric
from clearcall.training.task import needs_teacher, without_teacher
from clearcall.training.train import train_network, write_curves


def main() -> None:
    """Train the student and, if wanted, the twin with the same seed and steps; write the summaries and run ids."""
    params = load_params()
    stage = params.distill_student
    fabric = make_fabric(stage.training)
    losses_of = {"student": stage.losses.weights()}
    if stage.twin:
        losses_of["twin"] = without_teacher(losses_of["student"])
    trained = {
        name: train_network(
            "students",
            stage.model,
            losses,
            stage.training,
            params.paths,
            fabric,
            name=name,
            budget=params.budget,
            experiment=params.publish.experiment,
            folder=params.paths.weights / "students" / name,
            teacher_folder=params.paths.weights / "teacher" if needs_teacher(losses) else None,
            round_teacher=stage.round_teacher,
            feature_layers=stage.feature_layers,
            dead_zone=stage.dead_zone,
        )
        for name, losses in losses_of.items()
    }
    if fabric.is_global_zero:
        run_ids = {name: network.run_id for name, network in trained.items()}
        write_curves(params.paths.reports / "distill_student_curve.csv", trained)
        write_json(params.paths.runs / "distill_student.json", run_ids)
        write_json(
            params.paths.reports / "distill_student.json", {name: network.summary for name, network in trained.items()}
        )
        # Only now: a stage that is killed while the twin trains goes on with the student done.
        for network in trained.values():
            network.remove_leftovers()


if __name__ == "__main__":
    errors.run(main)
