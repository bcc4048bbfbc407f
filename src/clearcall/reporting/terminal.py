"""Tables on the terminal: the last run, a comparison, the gate's checks, and the experiments of a project."""

from collections.abc import Iterable
from pathlib import Path

from clearcall.core.console import print_table
from clearcall.evaluation.results import CONTENDERS, frame_size, measured, read_results, timed_as
from clearcall.experiments.definition import list_experiments
from clearcall.reporting.benchmark import HEADERS, Document, _rows, _threads
from clearcall.reporting.report import LOOK
from clearcall.tracking.gate import Check


def print_summary(reports: Path) -> None:
    """Print SSIM, PSNR in dB and fps of each contender and where the report is; raise UserError if there was no run."""
    results = read_results(reports, ("evaluate", "benchmark_fps"))
    mean, latency = results["evaluate"]["mean"], results["benchmark_fps"]["latency"]
    rows = [
        (
            CONTENDERS[name],
            f"{mean[name]['ssim']:.4f}",
            f"{mean[name]['psnr_db']:.2f}",
            f"{latency[timed_as(name)]['fps']:.1f}" if timed_as(name) in latency else "-",
        )
        for name in measured(results)
    ]
    headers = ("contender", "SSIM", "PSNR dB", f"fps at {frame_size(results)}")
    print_table(f"{results['evaluate']['pairs']} test pairs", headers, rows)
    report = reports / "report.md"
    print(f"The report: {report}" if report.is_file() else f"There is no {report} yet: run `dvc repro`")
    if (look := reports / LOOK).is_file():
        print(f"Before and after, with a slider: {look}")


def print_comparison(document: Document) -> None:
    """Print the table of the reference size on the largest number of threads."""
    width, height = document["reference_size"]
    threads = max(measured["threads"] for measured in document["measurements"])
    title = f"{width}x{height}, {_threads(threads)}, {document['machine']['cpu']}, {document['date']}"
    print_table(title, HEADERS, _rows(document, width, height, threads), left=2)


def print_checks(checks: Iterable[Check]) -> None:
    """Print each check of the gate with its value and its limit."""
    verdicts = {True: "[green]passed[/]", False: "[red]FAILED[/]"}
    rows = [(check.name, f"{check.value:.6g}", f"{check.limit:g}", verdicts[check.passed]) for check in checks]
    print_table("", ("check", "value", "at least", ""), rows)


def print_experiments() -> None:
    """Print name, kind and purpose of each experiment of this project."""
    rows = []
    for found in list_experiments():
        kind = "study" if found.study else "published recipe" if found.published else "recipe"
        rows.append((found.name, kind, found.about))
    print_table("", ("name", "kind", "about"), rows, left=3)
