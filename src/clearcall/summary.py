"""The result of the last run in one small table on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from clearcall.report.results import CONTENDERS, frame_size, measured, read_results


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
