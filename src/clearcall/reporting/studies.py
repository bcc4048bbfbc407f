"""A study's rows as Markdown: means over the seeds, spread, and the gain over the first point."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clearcall.core.files import atomic_path, read_json, write_text
from clearcall.experiments.study import Row, Study, read_speed
from clearcall.reporting.tables import markdown_table

_FEW_FPS = 10
_QUALITY = (("test_ssim", ".4f"), ("test_psnr_db", ".2f"))
HEADERS = ["point", "seeds", "parameters", "steps", "SSIM", "PSNR dB", "PSNR, least to most", "over the input, dB"]


def study_table(rows: Sequence[Row]) -> str:
    """Return one line for each point: means over its seeds on the test split, and its distance from the first point."""
    points = {row.point: [other for other in rows if other.point == row.point] for row in rows}
    first = next(iter(points.values()), [])
    lines = []
    for point, found in points.items():
        psnr_db = [row.test_psnr_db for row in found]
        # Against the first point with the same seeds: half-finished studies compare like with like.
        seeds = {row.seed: row.test_psnr_db for row in first}
        gains = [row.test_psnr_db - seeds[row.seed] for row in found if row.seed in seeds]
        lines.append(
            [
                point,
                len(found),
                f"{found[0].parameters:,}",
                found[0].steps,
                f"{np.mean([row.test_ssim for row in found]):.4f}",
                f"{np.mean(psnr_db):.3f}",
                f"{min(psnr_db):.3f} to {max(psnr_db):.3f}",
                f"{np.mean([row.test_psnr_db - row.input_psnr_db for row in found]):+.3f}",
                f"{np.mean(gains):+.3f}" if gains else "",
                f"{sum(gain > 0 for gain in gains)} of {len(gains)}" if gains and found is not first else "",
                f"{np.mean([row.clean_psnr_db for row in found]):.1f}",
                f"{np.mean([row.seconds for row in found]):.0f}",
            ]
        )
    return markdown_table([*HEADERS, "over the first point, dB", "seeds better", "clean PSNR dB", "seconds"], lines)


def speed_table(rows: Sequence[Row], speed: Mapping[str, Mapping[str, Any]]) -> str:
    """Return quality beside latency for each point that was timed, fastest first."""
    providers = list(dict.fromkeys(provider for timed in speed.values() for provider in timed))
    points = {row.point: [other for other in rows if other.point == row.point] for row in rows if speed.get(row.point)}
    lines = [
        (
            best := max(speed[point][provider]["fps"] for provider in providers),
            [
                point,
                *(f"{np.mean([getattr(row, key) for row in found]):{form}}" for key, form in _QUALITY),
                *(
                    f"{speed[point][provider]['median_ms']:.1f} / {_fps(speed[point][provider]['fps'])}"
                    for provider in providers
                ),
                _fps(best),
            ],
        )
        for point, found in points.items()
    ]
    lines.sort(key=lambda line: -line[0])
    headers = ["point", "SSIM", "PSNR dB", *(f"{provider}, ms / fps" for provider in providers), "best fps"]
    return markdown_table(headers, [line for _, line in lines])


def _fps(fps: float) -> str:
    return f"{fps:.0f}" if fps >= _FEW_FPS else f"{fps:.1f}"


def draw_speed(path: Path, rows: Sequence[Row], speed: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw PSNR against fps, one line of points for each runtime, with the marks of 30 and 60 fps."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # takes a second to import

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for provider in dict.fromkeys(provider for timed in speed.values() for provider in timed):
        found = [(speed[row.point][provider]["fps"], row.test_psnr_db) for row in rows if speed.get(row.point)]
        axes.scatter(*zip(*found, strict=True), label=provider)
    for row in rows:
        if timed := speed.get(row.point):
            # Once, beside the faster runtime's dot: those of the others are nearby.
            at = max(latency["fps"] for latency in timed.values()), row.test_psnr_db
            axes.annotate(row.point, at, fontsize=6, xytext=(4, 4), textcoords="offset points")
    for mark in (30, 60):
        axes.axvline(mark, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="fps at 1080p, one frame at a time", ylabel="PSNR on the test photographs, dB")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def write_study(name: str, study: Study, rows: Sequence[Row], reports: Path) -> str:
    """Write reports/<name>.md, with speed and its figure where the study was timed; return its table."""
    table, speed = study_table(rows), read_speed(name, study.points, reports)
    finding = f"\n{study.finding}\n" if study.finding else ""
    timed = ""
    if speed:
        draw_speed(reports / f"{name}.png", rows, speed)
        on = read_json(reports / f"{name}_speed.json")["machine"]
        timed = (
            "\n## Quality against speed at 1080p\n\n"
            "8-bit RGB frame in and out, one at a time, all in one interleaved run, on "
            f"{on['cpu']}, {on['cores']} cores.\n\n"
            f"{speed_table(rows, speed)}\n\n![PSNR against fps]({name}.png)\n"
        )
    write_text(
        reports / f"{name}.md",
        f"# {study.question}\n\n"
        f"Made by `clearcall experiment study {name}{' --time' if speed else ''}`: each line is the mean of as many "
        f"short trainings as it has seeds, measured on {study.test_pairs or 'all'} test pairs, whole pictures. Every "
        f"training stands in [{name}.csv]({name}.csv) with the params that differ from params.yaml, as "
        "`dvc exp run` takes them.\n\n"
        f"{table}\n\n"
        f"Input: SSIM {rows[0].input_ssim:.4f}, PSNR {rows[0].input_psnr_db:.2f} dB. "
        "Seeds better: than the first point, trained with the same seed. Clean PSNR: undegraded test pictures, before "
        f"and after. Seconds: of training on one thread.\n{finding}{timed}",
    )
    return table
