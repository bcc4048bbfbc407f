"""Studies: values by dotted name, and short trainings that are not repeated."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from clearcall.core.errors import UserError
from clearcall.experiments.study import Row, load_study, run_study
from clearcall.params import Params, with_overrides
from clearcall.reporting.studies import study_table, write_study


@pytest.fixture
def workplace(project: Path, tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the committed params, tiny pairs and a study of two points with three steps each."""
    document = yaml.safe_load((project / "params.yaml").read_text())
    document["degrade_pairs"]["mix"] = ["bicubic_x2.0", "webcam"]
    document["paths"] |= {"pairs": str(tiny_pairs), "checkpoints": str(tmp_path / ".checkpoints")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    common = {
        "distill_student.model.arguments.channels": 4,
        "distill_student.model.arguments.body_layers": 0,
        "distill_student.losses.teacher_mse": 0.0,
        "distill_student.training.steps": 3,
        "distill_student.training.patch_size": 16,
        "distill_student.training.batch_size": 2,
    }
    points = {"plain": {}, "longer": {"distill_student.training.steps": 5}}
    study = {"question": "Do more steps help?", "seeds": [1], "common": common, "points": points}
    (tmp_path / "steps.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_overrides_change_a_value_and_nothing_else(project: Path, committed: Params) -> None:
    document = yaml.safe_load((project / "params.yaml").read_text())
    before = yaml.safe_dump(document)
    changed = with_overrides(document, {"distill_student.training.steps": 7})
    assert changed.distill_student.training.steps == 7
    assert yaml.safe_dump(document) == before
    assert changed.train_teacher == committed.train_teacher


@pytest.mark.parametrize("name", ["distill_student.training.stepz", "distil.training.steps", "nonsense"])
def test_an_override_of_an_unknown_name_is_refused_by_name(project: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name.split('.', maxsplit=1)[0]}.*unknown key"):
        with_overrides(yaml.safe_load((project / "params.yaml").read_text()), {name: 3})


def test_the_committed_studies_fit_the_committed_params(project: Path) -> None:
    document = yaml.safe_load((project / "params.yaml").read_text())
    for path in sorted((project / "studies").glob("*.yaml")):
        study = load_study(path)
        for point in study.points.values():
            with_overrides(document, {**study.common, **point})


def test_a_missing_study_names_those_there_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match=r"no study studies/none\.yaml; known here: studies/ablation\.yaml"):
        load_study(Path("studies/none.yaml"))


@pytest.mark.parametrize("text", ["question: 1", "{", "question: x\nseeds: []\ncommon: {}\npoints: {a: {}}"])
def test_a_study_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml is not a study"):
        load_study(tmp_path / "bad.yaml")


def test_a_study_trains_what_its_table_lacks_and_nothing_twice(workplace: Path) -> None:
    study, reports = workplace / "steps.yaml", workplace / "reports"
    rows = run_study(study, reports, jobs=1)
    assert [(row.point, row.seed, row.steps) for row in rows] == [("plain", 1, 3), ("longer", 1, 5)]
    assert all(0 < row.test_ssim < 1 and row.parameters == 6 * 6 * 4 + 4 + 4 * 4 + 4 for row in rows)
    assert not list((workplace / ".checkpoints").glob("*"))
    table = reports / "steps.csv"
    written = table.read_bytes()
    assert run_study(study, reports, jobs=1) == rows
    assert table.read_bytes() == written

    # A study that was stopped after its first point.
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:2]))
    again = run_study(study, reports, jobs=1)
    assert again[0] == rows[0]
    assert (again[1].test_ssim, again[1].test_psnr_db) == (rows[1].test_ssim, rows[1].test_psnr_db)

    printed = write_study("steps", load_study(study), again, reports)
    assert printed in (reports / "steps.md").read_text()
    assert "Do more steps help?" in (reports / "steps.md").read_text()
    with table.open(newline="") as file:
        assert "-S ++distill_student.training.steps=5" in list(csv.DictReader(file))[1]["overrides"]


def test_a_point_that_needs_a_teacher_says_so_before_it_trains(workplace: Path) -> None:
    text = (workplace / "steps.yaml").read_text().replace("teacher_mse: 0.0", "teacher_mse: 0.5")
    (workplace / "steps.yaml").write_text(text)
    with pytest.raises(UserError, match=r"model\.safetensors is missing: run `dvc repro train_teacher`"):
        run_study(workplace / "steps.yaml", workplace / "reports", jobs=1)


def test_pairs_of_another_mix_are_refused_with_the_command_that_makes_them(workplace: Path) -> None:
    document = yaml.safe_load((workplace / "steps.yaml").read_text())
    document["common"]["degrade_pairs.mix"] = ["webcam"]
    (workplace / "steps.yaml").write_text(yaml.safe_dump(document))
    command = r"dvc exp run -S '\+\+degrade_pairs\.mix=\[\"webcam\"\]' check_pairs$"
    with pytest.raises(UserError, match=f"holds bicubic_x2.0, webcam, and the study asks for webcam: .*: {command}"):
        run_study(workplace / "steps.yaml", workplace / "reports", jobs=1)


def test_a_report_of_the_same_name_is_not_overwritten(workplace: Path) -> None:
    (workplace / "reports").mkdir()
    report = workplace / "reports" / "steps.csv"
    report.write_text("clip,codec\nfilm.mp4,h264\n")
    with pytest.raises(UserError, match=r"steps\.csv is not the table of a study"):
        run_study(workplace / "steps.yaml", workplace / "reports", jobs=1)
    assert report.read_text() == "clip,codec\nfilm.mp4,h264\n"


def test_trainings_end_with_a_study_that_is_killed(workplace: Path) -> None:
    import psutil

    text = (workplace / "steps.yaml").read_text().replace("training.steps: 3", "training.steps: 1000000")
    (workplace / "steps.yaml").write_text(text)
    program = [
        sys.executable,
        "-c",
        "from clearcall.cli import main; main()",
        "experiment",
        "study",
        "steps",
        "--jobs",
        "1",
    ]
    with subprocess.Popen(program) as study:
        workers: list[psutil.Process] = []
        # A worker at work has used the processor for a while; multiprocessing's resource tracker never does.
        while not any(worker.cpu_times().user > 3 for worker in workers):
            assert study.poll() is None
            time.sleep(0.2)
            workers = psutil.Process(study.pid).children()
        study.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def test_the_table_by_hand() -> None:
    def row(point: str, seed: int, psnr_db: float) -> Row:
        return Row(point, seed, "x", 1234, 10, 0.9, 30.0, 0.95, psnr_db, 0.9, 31.0, 45.0, 12.4, "", "k")

    lines = study_table([row("a", 1, 32.0), row("a", 2, 33.0), row("b", 1, 32.5)]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == [
        "a",
        "2",
        "1,234",
        "10",
        "0.9500",
        "32.500",
        "32.000 to 33.000",
        "+1.500",
        "+0.000",
        "",
        "45.0",
        "12",
    ]
    # Only seed 1 of `a` has a partner: 32.5 - 32.0.
    assert cells[3][7:10] == ["+1.500", "+0.500", "1 of 1"]


def test_a_timed_study_shows_quality_beside_speed(workplace: Path) -> None:
    from clearcall.experiments.study import time_study

    document = yaml.safe_load((workplace / "params.yaml").read_text())
    document["benchmark_fps"] |= {"width": 64, "height": 48, "blocks": 2, "warmup_frames": 1}
    (workplace / "params.yaml").write_text(yaml.safe_dump(document))
    study, reports = load_study(workplace / "steps.yaml"), workplace / "reports"
    rows = run_study(workplace / "steps.yaml", reports, jobs=1)
    time_study("steps", study, reports)
    write_study("steps", study, rows, reports)
    written = (reports / "steps.md").read_text()
    assert "clearcall experiment study steps --time" in written
    assert "onnxruntime, ms / fps" in written
    assert (reports / "steps.png").stat().st_size > 1000
