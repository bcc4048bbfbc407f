"""Train the teacher, from which the student is distilled."""

from functools import partial

from clearcall.core import errors
from clearcall.core.files import write_json
from clearcall.params import load_params
from clearcall.tracking.runs import TrainingRun
from clearcall.training.loop import make_fabric
from clearcall.training.train import Job, train_network, write_curves


def main() -> None:
    """Train, then write the summary and the run's id."""
    params = load_params()
    stage = params.train_teacher
    fabric = make_fabric(stage.training)
    losses = stage.losses.weights()
    job = Job("teacher", "teachers", stage.model, losses, stage.training, params.budget, stage.pretrained)
    track = partial(TrainingRun, params.publish.experiment)
    teacher = train_network(job, params.paths, fabric, track=track, folder=params.paths.weights / "teacher")
    if fabric.is_global_zero:
        write_curves(params.paths.reports / "train_teacher_curve.csv", {"teacher": teacher})
        write_json(params.paths.runs / "train_teacher.json", {"teacher": teacher.run_id})
        write_json(params.paths.reports / "train_teacher.json", teacher.summary)
        teacher.remove_leftovers()


if __name__ == "__main__":
    errors.run(main)
