"""The report: where crops lie, what the words and tables say, and the whole of it from hand-made results."""

import csv
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from clearcall.core.errors import UserError
from clearcall.core.files import write_json
from clearcall.data.pairs import INDEX, PairRecord
from clearcall.evaluation.results import CONTENDERS, Results, read_results
from clearcall.imaging.frame import Frame
from clearcall.imaging.grid import choose_crop, draw_comparison
from clearcall.params import Params, load_params, parse_params
from clearcall.reporting import tables
from clearcall.reporting.report import choose_pairs, verdict, write_report
from clearcall.reporting.terminal import print_summary

ROOT = Path(__file__).parents[2]
GATE = load_params(ROOT / "params.yaml").gate.model_copy(update={"min_ssim": 0.90, "min_fps": 30.0})
HEIGHT, WIDTH = 40, 60


def scores(ssim: float, psnr_db: float) -> dict[str, float]:
    return {"ssim": ssim, "psnr_db": psnr_db, "ssim_uniform": ssim - 0.01, "mse": 20.0}


MEAN = {
    "degraded": scores(0.9051, 31.0),
    "unsharp": scores(0.9201, 31.6),
    "baseline": scores(0.9301, 32.1),
    "student": scores(0.9321, 32.3),
    "teacher": scores(0.9411, 33.0),
    "student_vs_teacher": scores(0.97, 38.0),
}


def timed(ms: float) -> dict[str, Any]:
    fps = round(1000 / ms, 2)
    return {"median_ms": ms, "p95_ms": ms + 1, "fps": fps, "block_median_ms_range": [ms, ms], "frames": 9, "blocks": 3}


def trained(name: str) -> dict[str, Any]:
    quality = {"ssim": 0.91, "psnr_db": 30.0, "change": 0.0}
    return {
        "model": {"name": name, "arguments": {"channels": 16}},
        "parameters": 12345,
        "losses": {"l1": 1.0},
        "steps": 40,
        "best_step": 20,
        "stopped_early": False,
        "precision": "32-true",
        "validation": {"degraded": quality, "restored": quality},
    }


def made_results() -> Results:
    splits = {"train": 4, "validation": 2, "test": 2}
    checked = {"expectations": 14, "passed": 14, "rows": 3, "per_split": splits, "data_docs": "docs/a check/index.html"}
    model = {"max_difference": 1, "sizes": [[270, 480]], "parameters": 12345, "bytes": 51200, "sha256": "0"}
    machine = {"id": "0", "cpu": "Abacus 1", "cores": 2, "memory_gib": 8.0, "instructions": ["avx2"]}
    return deepcopy(
        {
            "download_data": {
                "source": "folder",
                "images": splits,
                "total": 8,
                "pixels": dict.fromkeys(splits, 1_500_000),
                "licences": ["CC0 1.0"],
                "notes": {"grey to RGB": 2},
                "duplicates": ["b.png (train) shows the same pixels as a.png and was left out"],
                "test_manifest_sha256": "0",
            },
            "check_data": checked,
            "degrade_pairs": {"pairs": splits, "megapixels": 1.0, "degradations": ["blur", "clean"]},
            "check_pairs": {
                **checked,
                "mean": {
                    split: {"blur": {"ssim": 0.88, "psnr_db": 29.5}, "clean": {"ssim": 1.0, "psnr_db": None}}
                    for split in splits
                },
            },
            "train_teacher": trained("deep"),
            "distill_student": {"student": trained("flat"), "baseline": trained("flat")},
            "evaluate": {
                "test_manifest_sha256": "0",
                "pairs": 4,
                "unsharp_mask": {"radius": 1.5, "amount": 2.0, "validation_ssim": 0.9, "validation_psnr_db": 30.0},
                "mean": MEAN,
                "by_degradation": {"blur": MEAN, "clean": {name: scores(0.99, 40.0) for name in MEAN}},
                "by_image": {"test/a.png": MEAN, "test/b.png": MEAN},
                "least_gain_db": {"unsharp": -1.0, "baseline": 0.5, "student": -0.25, "teacher": 0.75},
                "clean_psnr_db": {"unsharp": 30.0, "baseline": 44.0, "student": 45.67, "teacher": 46.0},
            },
            "export_onnx": {"student": model, "teacher": model},
            "benchmark_fps": {
                "width": 1920,
                "height": 1080,
                "latency": {"student": timed(20.0), "unsharp": timed(10.0), "teacher": timed(500.0)},
                "throughput_fps": 77.7,
                "frames_in_flight": 2,
                "peak_memory_mib": 123.4,
                "provider": "onnxruntime",
                "threads": 2,
                "provider_version": "1.0",
                "providers_tried_ms": {"onnxruntime, 2 threads": 20.0, "openvino, 2 threads": 25.0},
                "student_sha256": "0",
                "machine": {**machine, "system": "Linux x86_64", "python": "3.11.0"},
            },
        }
    )


def without_baseline(results: Results) -> Results:
    del results["distill_student"]["baseline"], results["evaluate"]["clean_psnr_db"]["baseline"]
    evaluate = results["evaluate"]
    for mean in [evaluate["mean"], *evaluate["by_degradation"].values(), *evaluate["by_image"].values()]:
        mean.pop("baseline", None)
    return results


def pair(image: str, degradation: str = "blur", offset: int = 0, variant: int = 0) -> PairRecord:
    values: dict[str, Any] = {**dict.fromkeys(PairRecord.__dataclass_fields__, ""), "enlarged": 1.0}
    values |= {"image": image, "split": "test", "degradation": degradation, "variant": variant, "scale": 1.0}
    values |= {"height": HEIGHT, "width": WIDTH, "degraded_height": HEIGHT, "degraded_width": WIDTH}
    values |= {"sharp_shard": "test-000.bin", "degraded_shard": "test-000.bin", "psnr_db": 30.0, "ssim": 0.9}
    return PairRecord(**{**values, "sharp_offset": offset, "degraded_offset": offset + HEIGHT * WIDTH * 3})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's top with pairs and results, as after `benchmark_fps`."""
    monkeypatch.chdir(tmp_path)
    for stage, document in made_results().items():
        write_json(tmp_path / "reports" / f"{stage}.json", document)
    for stage, networks in {"train_teacher": ["teacher"], "distill_student": ["student", "baseline"]}.items():
        lines = ["network,step,learning_rate,loss_total,validation_ssim,validation_psnr_db"]
        for name in networks:
            lines += [
                f"{name},20,0.001,0.02,,",
                f"{name},20,,,0.91,30",
                f"{name},40,0.001,0.01,,",
                f"{name},40,,,0.92,31",
            ]
        (tmp_path / "reports" / f"{stage}_curve.csv").write_text("\n".join(lines) + "\n")
    pairs = tmp_path / "data" / "pairs"
    pairs.mkdir(parents=True)
    size = HEIGHT * WIDTH * 3
    np.random.default_rng(1).integers(0, 256, 4 * size, np.uint8).tofile(pairs / "test-000.bin")
    rows = [asdict(pair("test/a.png")), asdict(pair("test/b.png", offset=2 * size))]
    with (pairs / INDEX).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def small_params() -> Params:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["write_report"] = {"crop_side": 24, "examples": 5, "video_seconds": 0.1}
    document["paths"] |= {"pairs": "data/pairs", "reports": "reports"}
    return parse_params(document)


def test_the_crop_lies_where_the_error_is_largest() -> None:
    sharp = np.full((50, 70, 3), 100, np.uint8)
    degraded = sharp.copy()
    degraded[30:38, 40:48] += 9
    degraded[2, 2] += 30  # the largest error of one pixel, but less over a crop
    assert choose_crop(sharp, degraded, 8) == (30, 40)


def test_the_crop_is_found_in_8_bits_without_overflow_and_fits_a_small_picture() -> None:
    sharp, degraded = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)
    degraded[10:, 20:] = 255
    assert choose_crop(sharp, degraded, 8) == (10, 20)
    assert choose_crop(sharp, degraded, 25) == (0, 5)
    assert choose_crop(sharp, degraded, 99) == (0, 0)
    assert choose_crop(sharp, sharp, 8) == (0, 0)


def test_pictures_are_spread_over_the_photographs() -> None:
    records = [
        pair(f"{letter}.png", name, variant=v) for letter in "edcba" for name in ("blur", "jpeg") for v in (0, 1)
    ]
    assert [record.image for record in choose_pairs(records, "blur", 3)] == ["a.png", "c.png", "e.png"]
    assert [record.image for record in choose_pairs(records, "jpeg", 9)] == [f"{letter}.png" for letter in "abcde"]
    assert {(r.degradation, r.variant) for r in choose_pairs(records, "jpeg", 9)} == {("jpeg", 0)}


def test_a_comparison_shows_crops_enlarged_without_smoothing() -> None:
    sharp = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    degraded = sharp.copy()
    degraded[30:110, 50:130] //= 2
    image = draw_comparison(sharp, {"degraded": degraded}, "blur", 80, columns=2, titles=CONTENDERS)
    cell = np.asarray(image)[8 : 8 + 240, 8 + 240 + 8 : 8 + 240 + 8 + 240]
    np.testing.assert_array_equal(cell[::3, ::3], degraded[30:110, 50:130])
    np.testing.assert_array_equal(cell[::3, ::3], cell[1::3, 2::3])


def test_a_tiny_crop_of_a_large_photograph_can_be_framed() -> None:
    sharp = np.zeros((100, 3000, 3), np.uint8)
    image = draw_comparison(sharp, {"degraded": sharp + np.uint8(1)}, "blur", 16, columns=2, titles=CONTENDERS)
    assert image.size == (8 + 2 * 248, 8 + 240 + 46 + 8)


def test_the_verdict_gives_the_numbers_and_the_leads() -> None:
    reached, baselines, distillation, teacher, gate = verdict(made_results(), GATE)
    assert "SSIM 0.9321" in reached
    assert "32.30 dB" in reached
    assert "50.0 fps** in 1080p on Abacus 1" in reached
    assert "+0.0270 SSIM and +1.30 dB over the degraded input and +0.0120 SSIM and +0.70 dB" in baselines
    assert "already has 0.9051" in baselines
    assert distillation.startswith("Distillation helped: +0.0020 SSIM and +0.20 dB")
    assert "+0.0090 SSIM and +0.70 dB and takes 25.0 times as long: the student reaches 75%" in teacher
    assert gate == "The gate is passed."


@pytest.mark.parametrize(
    ("ssim", "psnr_db", "words"),
    [
        (0.9321, 32.3, "**Distillation did not help**: +0.0000 SSIM and +0.00 dB"),
        (0.9351, 32.5, "**Distillation did not help**: -0.0030 SSIM and -0.20 dB"),
        (0.9311, 32.5, "Whether distillation helped is undecided: +0.0010 SSIM and -0.20 dB"),
        (
            0.9318,
            32.2,
            "helped: +0.0003 SSIM and +0.10 dB over the same student trained without a teacher, higher SSIM",
        ),
        (0.9318, 32.2, "may be chance"),
    ],
)
def test_the_verdict_is_honest_about_distillation(ssim: float, psnr_db: float, words: str) -> None:
    results = made_results()
    results["evaluate"]["mean"]["baseline"] = scores(ssim, psnr_db)
    assert words in verdict(results, GATE)[2]


def test_the_verdict_is_honest_about_a_useless_student_and_teacher() -> None:
    results = without_baseline(made_results())
    results["evaluate"]["mean"] |= {"student": scores(0.8901, 31.5), "teacher": scores(0.88, 31.4)}
    results["distill_student"]["student"]["losses"] = {"mse": 1.0, "teacher_mse": 0.1}
    _, baselines, distillation, teacher, gate = verdict(results, GATE)
    assert "does not clearly beat the mask" in baselines
    assert "no student was trained without" in distillation
    results["distill_student"]["student"]["losses"] = {"relative_mse": 0.01}
    assert verdict(results, GATE)[2] == "Nothing was distilled: the student learned from sharp images alone."
    assert "The teacher is not clearly better" in teacher
    assert gate.startswith("**The gate is not passed: SSIM, SSIM over the tuned unsharp mask, PSNR")


def test_the_quality_table_holds_every_metric_and_lead() -> None:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in tables.quality_table(made_results()).split("\n")
    ]
    named = {row[0]: row[1:] for row in rows}
    assert named["unsharp mask (radius 1.5, amount 2)"][:2] == ["0.9201", "31.60"]
    assert named["student"] == ["0.9321", "32.30", "0.9221", "20.0", "+0.0270", "+1.30", "-0.25", "45.67"]
    assert named["degraded input"][4:] == ["", "", "", ""]
    assert named["student, against the teacher's output"][:2] == ["0.9700", "38.00"]


@pytest.mark.parametrize("change", [lambda results: results, without_baseline], ids=["baseline", "no baseline"])
def test_the_report_is_whole_and_the_same_each_time(project: Path, change: Callable[[Results], Results]) -> None:
    reports = project / "reports"
    for stage, document in change(made_results()).items():
        write_json(reports / f"{stage}.json", document)

    def restore(frame: Frame, _degradation: str) -> Frame:
        return frame.copy()

    restorers = {"unsharp": restore, "student": restore, "teacher": restore}
    write_report(small_params(), "some: params\n", restorers)
    text = (reports / "report.md").read_text()
    for expected in (
        "0.9321",
        "77.7 fps",
        "123.4 MiB",
        "0.8800 / 29.50",
        "1.0000 / -",
        "grey to RGB: 2",
        "b.png (train)",
    ):
        assert expected in text
    assert "some: params" in text
    assert "12,345" in text
    assert ("student without teacher" in text) == ("baseline" in change(made_results())["evaluate"]["mean"])
    assert str(project) not in text
    assert "[14 of 14 on the photographs](../docs/a%20check/index.html)" in text
    assert "\n\n\n" not in text
    figures = {path.name: path.read_bytes() for path in (reports / "figures").iterdir()}
    linked = set(re.findall(r"\(figures/(\S+)\)", text))
    assert linked | {"before_after.png"} == set(figures)
    assert len([name for name in figures if name.startswith("picture_")]) == 2
    look = (reports / "look.html").read_text()
    assert look.count('class="after"') == look.count("data:video/mp4;base64,") == 2
    assert re.findall("<h2>(.*)</h2>", look) == [
        "Face in a call",
        "Text in a call",
        "test/a.png, blur",
        "test/b.png, blur",
    ]
    assert "[look.html](look.html)" in text and "two videos: a face and text in a call" in text
    for name in figures:
        with Image.open(reports / "figures" / name) as image:
            assert image.format == "PNG"
            image.load()

    write_report(small_params(), "some: params\n", restorers)
    assert (reports / "report.md").read_text() == text
    assert {path.name: path.read_bytes() for path in (reports / "figures").iterdir()} == figures


def test_a_missing_result_is_named(project: Path) -> None:
    (project / "reports" / "export_onnx.json").unlink()
    with pytest.raises(UserError, match=r"export_onnx\.json is missing: run `dvc repro` first"):
        read_results(project / "reports")


def test_the_summary_prints_the_table_and_where_the_report_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "reports" / "report.md").write_text("# Report\n")
    print_summary(Path("reports"))
    out = capsys.readouterr().out
    assert "fps at 1080p" in out
    assert re.search(r"student +0\.9321 +32\.30 +50\.0", out)
    assert re.search(r"student without teacher +\S+ +\S+ +50\.0", out)  # the same network
    assert re.search(r"degraded input +0\.9051 +31\.00 +-", out)
    assert "reports/report.md" in out


def test_the_summary_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `dvc repro` first"):
        print_summary(tmp_path)
