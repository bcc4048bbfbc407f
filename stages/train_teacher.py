"""Train the teacher, from which the student is distilled."""

from functools import partial

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.params import load_params
from clearcall.tracking.runs import TrainingRun
from clearcall.training.loop import make_fabric
from clearcall.training.train import Job, train_network


def main() -> None:
    """Train, then write the summary and the run's id."""
    params = load_params()
    stage = params.train_teacher
    folder, curve = params.paths.weights / "teacher", params.paths.reports / "train_teacher_curve.csv"
    curve.unlink(missing_ok=True)  # networks of an earlier run
    fabric = make_fabric(stage.training)
    losses = stage.losses.weights()
    job = Job("teacher", "teachers", stage.model, losses, stage.training, params.budget, stage.pretrained)
    track = partial(TrainingRun, params.publish.experiment)
    teacher = train_network(job, params.paths, fabric, track=track, folder=folder, curve=curve)
    if fabric.is_global_zero:
        write_json(params.paths.runs / "train_teacher.json", {"teacher": teacher.run_id})
        write_json(params.paths.reports / "train_teacher.json", teacher.summary)
        teacher.remove_leftovers()


if __name__ == "__main__":
    errors.run(main)
