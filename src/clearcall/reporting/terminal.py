"""The result of the last run in one small table on the terminal."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clearcall.evaluation.results import CONTENDERS, frame_size, measured, read_results
from clearcall.reporting.benchmark import HEADERS, Document, _rows, _threads

_WIDE = 160


def print_summary(reports: Path) -> None:
    """Print SSIM, PSNR in dB and fps of each contender and where the report is; raise UserError if there was no run."""
    results = read_results(reports, ("evaluate", "benchmark_fps"))
    mean, latency = results["evaluate"]["mean"], results["benchmark_fps"]["latency"]
    table = Table("contender", title=f"{results['evaluate']['pairs']} test pairs", title_justify="left")
    for header in ("SSIM", "PSNR dB", f"fps at {frame_size(results)}"):
        table.add_column(header, justify="right")
    for name in measured(results):
        fps = f"{latency[name]['fps']:.1f}" if name in latency else "-"
        table.add_row(CONTENDERS[name], f"{mean[name]['ssim']:.4f}", f"{mean[name]['psnr_db']:.2f}", fps)
    Console().print(table)
    report = reports / "report.md"
    print(f"The report: {report}" if report.is_file() else f"There is no {report} yet: run `dvc repro`")


def print_comparison(document: Document) -> None:
    """Print the table of the reference size on all the threads that were asked for."""
    from rich.box import SIMPLE  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    width, height = document["reference_size"]
    threads = max(measured["threads"] for measured in document["measurements"])
    title = f"{width}x{height}, {_threads(threads)}, {document['machine']['cpu']}, {document['date']}"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for index, header in enumerate(HEADERS):
        table.add_column(header, justify="left" if index < 2 else "right")  # noqa: PLR2004  # system and runtime
    for row in _rows(document, width, height, threads):
        table.add_row(*row)
    # A terminal wraps at its own width; a file or pipe takes any.
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)
