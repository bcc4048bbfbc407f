"""Measure the student, its baseline, the teacher, the unsharp mask and the input on the test split."""

from dataclasses import asdict
from pathlib import Path

from clearcall.core import errors
from clearcall.core.files import write_csv, write_json
from clearcall.core.machine import available_cores
from clearcall.core.processes import worker_pool
from clearcall.data.manifest import read_manifest, split_sha256
from clearcall.data.pairs import pairs_sha256, read_pairs, spread
from clearcall.evaluation.quality import (
    clean_psnr_db,
    least_gains_db,
    mean_scores,
    score_contenders,
    tune_unsharp_mask,
)
from clearcall.imaging.frame import Contender
from clearcall.models.inference import StoredNetwork
from clearcall.params import load_params


def main() -> None:
    """Tune on validation, measure on test, write a line per image and the means."""
    params = load_params()
    paths, stage = params.paths, params.evaluate
    test = spread(read_pairs(paths.pairs, "test"), stage.test_pairs)
    # At full resolution alone, as the test is, so that the mask is as strong as it can be.
    validation = read_pairs(paths.pairs, "validation")
    at_full = [pair for pair in validation if pair.scale == 1] or validation
    mask = tune_unsharp_mask(paths.pairs, at_full, stage.unsharp_radii, stage.unsharp_amounts)
    folders = ["students/student", *(["students/baseline"] if params.distill_student.baseline else []), "teacher"]
    networks = {Path(folder).name: StoredNetwork.find(paths.weights / folder) for folder in folders}
    restorers: dict[str, Contender] = {"unsharp": lambda frame, _: mask(frame), **networks}
    with worker_pool(available_cores(), threads=True) as pool:
        scores = score_contenders(paths.pairs, test, {"degraded": lambda frame, _: frame, **restorers}, pool)
        clean = clean_psnr_db(paths.pairs, test, restorers, pool)

    write_csv(paths.reports / "evaluate.csv", scores)
    write_json(
        paths.reports / "evaluate.json",
        {
            "test_manifest_sha256": split_sha256(read_manifest(paths.raw), "test"),
            "test_pairs_sha256": pairs_sha256(test),
            "student_weights_sha256": networks["student"].sha256,
            "teacher_weights_sha256": networks["teacher"].sha256,
            "pairs": len(test),
            "unsharp_mask": asdict(mask),
            "mean": mean_scores(scores),
            "least_gain_db": least_gains_db(scores),
            "by_degradation": {
                name: mean_scores(score for score in scores if score.degradation == name)
                for name in params.degrade_pairs.mix
            },
            "by_image": {
                name: mean_scores(score for score in scores if score.image == name)
                for name in sorted({score.image for score in scores})
            },
            "clean_psnr_db": clean,
        },
    )


if __name__ == "__main__":
    errors.run(main)
