"""Studies: short trainings that are not repeated, and the page that they end on."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml

from clearcall.core.errors import UserError
from clearcall.experiments import study as study_module
from clearcall.experiments.definition import Study, load_experiment
from clearcall.experiments.results import Row, read_rows
from clearcall.experiments.study import run_study, time_study
from clearcall.reporting.experiments import over_first, results_table, write_study

REPORTS = Path("reports")


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
    study = {"about": "Do more steps help?", "values": common, "study": {"seeds": [1], "points": points}}
    (tmp_path / "steps.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_steps() -> list[Row]:
    study = load_experiment("steps.yaml")
    return run_study(study, REPORTS, 1, partial(write_study, study, REPORTS))


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in a thread: a worker process imports torch for seconds."""
    monkeypatch.setattr(study_module, "worker_pool", ThreadPoolExecutor)


def change(old: str, new: str) -> None:
    Path("steps.yaml").write_text(Path("steps.yaml").read_text().replace(old, new))


@pytest.mark.usefixtures("workplace", "_in_this_process")
def test_a_study_trains_what_its_table_lacks_and_nothing_twice() -> None:
    rows = run_steps()
    assert [(row.point, row.seed, row.steps) for row in rows] == [("plain", 1, 3), ("longer", 1, 5)]
    assert all(0 < row.test_ssim < 1 and row.parameters == 6 * 6 * 4 + 4 + 4 * 4 + 4 for row in rows)
    assert not list(Path(".checkpoints").glob("*"))
    table = REPORTS / "steps.csv"
    written = table.read_bytes()
    assert run_steps() == rows
    assert table.read_bytes() == written

    # A study that was killed after its first point.
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:2]))
    again = run_steps()
    assert again[0] == rows[0]
    assert (again[1].test_ssim, again[1].test_psnr_db) == (rows[1].test_ssim, rows[1].test_psnr_db)
    page = (REPORTS / "steps.md").read_text()
    assert page.startswith("# Do more steps help?\n")
    study = load_experiment("steps.yaml").require_study()
    assert results_table(again, over_first(study, again)) in page
    assert "-S ++distill_student.training.steps=5" in read_rows(table)[1].overrides


@pytest.mark.usefixtures("workplace", "_in_this_process")
def test_a_point_that_fails_leaves_the_rows_of_the_others() -> None:
    change("steps: 5", "steps: 5\n      distill_student.model.arguments.channels: -1")
    with pytest.raises(UserError, match="longer, seed 1 failed"):
        run_steps()
    assert [row.point for row in read_rows(REPORTS / "steps.csv")] == ["plain"]
    assert "| plain" in (REPORTS / "steps.md").read_text()


@pytest.mark.usefixtures("workplace")
def test_a_point_that_needs_a_teacher_says_so_before_it_trains() -> None:
    change("teacher_mse: 0.0", "teacher_mse: 0.5")
    with pytest.raises(UserError, match=r"model\.safetensors is missing: run `dvc repro train_teacher`"):
        run_steps()


@pytest.mark.usefixtures("workplace")
def test_pairs_of_another_mix_are_refused_with_the_command_that_makes_them() -> None:
    change("values:\n", "values:\n  degrade_pairs.mix: [webcam]\n")
    command = r"dvc exp run -S '\+\+degrade_pairs\.mix=\[\"webcam\"\]' check_pairs$"
    with pytest.raises(UserError, match=f"holds bicubic_x2.0, webcam, and the study asks for webcam: .*: {command}"):
        run_steps()


@pytest.mark.usefixtures("workplace")
def test_a_report_of_the_same_name_is_not_overwritten() -> None:
    REPORTS.mkdir()
    report = REPORTS / "steps.csv"
    report.write_text("clip,codec\nvideo.mp4,h264\n")
    with pytest.raises(UserError, match=r"steps\.csv is not a results table"):
        run_steps()
    assert report.read_text() == "clip,codec\nvideo.mp4,h264\n"


@pytest.mark.usefixtures("workplace")
def test_a_recipe_is_not_run_as_a_study() -> None:
    Path("recipe.yaml").write_text("about: x\nvalues: {}\n")
    with pytest.raises(UserError, match="recipe is a recipe: run it by `clearcall experiment recipe recipe`"):
        run_study(load_experiment("recipe.yaml"), REPORTS, 1, print)


@pytest.mark.usefixtures("workplace")
def test_trainings_end_with_a_study_that_is_killed() -> None:
    import psutil

    change("training.steps: 3", "training.steps: 1000000")
    program = f"from pathlib import Path\nfrom {load_experiment.__module__} import load_experiment\n"
    program += f"from {run_study.__module__} import run_study\n"
    program += "if __name__ == '__main__': run_study(load_experiment('steps.yaml'), Path('reports'), 1, print)\n"
    with subprocess.Popen([sys.executable, "-c", program]) as study:
        workers: list[psutil.Process] = []
        # A worker at work has used the processor for a while; multiprocessing's resource tracker never does.
        while not any(worker.cpu_times().user > 1 for worker in workers):
            assert study.poll() is None
            time.sleep(0.2)
            workers = psutil.Process(study.pid).children()
        study.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def test_the_table_by_hand() -> None:
    def row(point: str, seed: int, psnr_db: float) -> Row:
        return Row(point, seed, "x", 1234, 10, 0.9, 30.0, 0.95, psnr_db, 0.9, 31.0, 45.0, 12.4, "", "k")

    rows = [row("a", 1, 32.0), row("a", 2, 33.0), row("b", 1, 32.5)]
    study = Study(seeds=(1, 2), points={"a": {}, "b": {}})
    lines = results_table(rows, over_first(study, rows)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2][:6] == ["a", "2", "1,234", "10", "0.9500", "32.500"]
    assert cells[2][6:] == ["32.000 to 33.000", "+1.500", "+0.000", "", "45.0", "0.2"]
    # Only seed 1 of `a` has a partner: 32.5 - 32.0.
    assert cells[3][7:10] == ["+1.500", "+0.500", "1 of 1"]


@pytest.mark.usefixtures("workplace", "_in_this_process")
def test_under_settings_each_point_is_compared_with_the_first_of_the_same_setting() -> None:
    more = "{seeds: [7], values: {distill_student.training.batch_size: 3}}"
    settings = f"  settings: {{few: {{train_photographs: 1}}, more: {more}}}\n"
    change("study:\n", f"study:\n{settings}")
    study, rows = load_experiment("steps.yaml").require_study(), run_steps()
    assert [row.point for row in rows] == ["plain, few", "longer, few", "plain, more", "longer, more"]
    assert [(row.seed, row.steps) for row in rows] == [(1, 3), (1, 5), (7, 3), (7, 5)]
    assert len({row.key for row in rows}) == 4
    assert "batch_size=3" in rows[2].overrides
    # Each `longer` against the `plain` of its own setting.
    gains = over_first(study, rows)["over the first, dB"]
    for plain, longer in (rows[:2], rows[2:]):
        assert gains[longer.point] == f"{longer.test_psnr_db - plain.test_psnr_db:+.3f}"
    assert "under the same setting" in (REPORTS / "steps.md").read_text()
    assert run_steps() == rows


def test_the_committed_tables_are_read(project: Path) -> None:
    for name in ("ablation", "shapes", "call_shapes"):
        assert read_rows(project / f"reports/{name}.csv")


@pytest.mark.usefixtures("workplace", "_in_this_process")
def test_a_timed_study_shows_quality_beside_speed() -> None:
    document = yaml.safe_load(Path("params.yaml").read_text())
    document["benchmark_fps"] |= {"width": 64, "height": 48, "blocks": 2, "warmup_frames": 1}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    time_study(load_experiment("steps.yaml"), REPORTS)
    run_steps()
    written = (REPORTS / "steps.md").read_text()
    assert "clearcall experiment study steps --time" in written
    assert "onnxruntime, ms / fps" in written
    assert (REPORTS / "steps.png").stat().st_size > 1000
