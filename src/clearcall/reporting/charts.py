"""The report's charts; Matplotlib is imported only when one is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clearcall.evaluation.results import CONTENDERS, Results, frame_size, measured, timed_as
from clearcall.params import Gate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = {
    "degraded": "#777777",
    "unsharp": "#E69F00",
    "baseline": "#CC79A7",
    "student": "#0072B2",
    "teacher": "#009E73",
}
MARKERS = {"unsharp": "s", "baseline": "D", "student": "o", "teacher": "^"}


def draw_gains(path: Path, results: Results) -> None:
    """Draw how much each contender adds to the input's SSIM and PSNR, degradation by degradation."""
    by_degradation = results["evaluate"]["by_degradation"]
    names = [name for name in measured(results) if name != "degraded"]
    figure = new_figure(9, 1.4 + 0.22 * len(names) * len(by_degradation))
    axes = figure.subplots(1, 2, sharey=True)
    thickness = 0.8 / len(names)
    for axis, metric, label in zip(axes, ("ssim", "psnr_db"), ("SSIM", "PSNR in dB"), strict=True):
        for index, name in enumerate(names):
            gains = [scores[name][metric] - scores["degraded"][metric] for scores in by_degradation.values()]
            places = [row + (index - (len(names) - 1) / 2) * thickness for row in range(len(gains))]
            axis.barh(places, gains, thickness * 0.9, color=COLOURS[name], label=CONTENDERS[name])
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_xlabel(f"{label} over the degraded input")
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(by_degradation)), list(by_degradation))
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names), frameon=False)
    save_figure(figure, path)


def draw_training(path: Path, results: Results, curves: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Draw loss and validation SSIM per step, the teacher above the students.

    `curves` has the rows of `train_teacher` and `distill_student`; losses of the two do not compare.
    """
    figure = new_figure(9, 5.2)
    axes = figure.subplots(2, 2)
    for (loss_axis, ssim_axis), (stage, rows) in zip(axes, curves.items(), strict=True):
        _draw_curves(loss_axis, rows, "loss_total")
        _draw_curves(ssim_axis, rows, "validation_ssim")
        network = results[stage] if stage == "train_teacher" else results[stage]["student"]
        degraded = network["validation"]["degraded"]["ssim"]
        ssim_axis.axhline(degraded, linestyle=":", color=COLOURS["degraded"], label=CONTENDERS["degraded"])
        ssim_axis.legend(frameon=False)
        loss_axis.set_ylabel("loss, all terms together")
        ssim_axis.set_ylabel("SSIM on validation")
    for axis in axes[1]:
        axis.set_xlabel("step")
    save_figure(figure, path)


def _draw_curves(axis: "Axes", rows: Sequence[Mapping[str, str]], column: str) -> None:
    """Draw one column of the trainings' rows per step, a line for each network; the few validations as points."""
    networks = {row["network"] for row in rows}
    for name in (name for name in CONTENDERS if name in networks):
        filled = [row for row in rows if row["network"] == name and row[column]]
        axis.plot(
            [int(row["step"]) for row in filled],
            [float(row[column]) for row in filled],
            marker="." if column == "validation_ssim" else "",
            linestyle="--" if name == "baseline" else "-",  # it may lie exactly on the student's
            color=COLOURS[name],
            label=CONTENDERS[name],
        )
    axis.grid(alpha=0.3, which="both")


def draw_speed(path: Path, results: Results, limits: Gate) -> None:
    """Draw SSIM against fps, with the gate's limits and the input's SSIM as lines."""
    mean, latency = results["evaluate"]["mean"], results["benchmark_fps"]["latency"]
    figure = new_figure(9, 4.8)
    axis = figure.subplots()
    for name in [name for name in measured(results) if name != "degraded"]:
        fps = latency[timed_as(name)]["fps"]
        label = f"{CONTENDERS[name]}: {mean[name]['ssim']:.4f} at {fps:.1f} fps"
        # Hollow: the baseline may lie on the student.
        face = "none" if name == "baseline" else COLOURS[name]
        axis.plot(fps, mean[name]["ssim"], MARKERS[name], c=COLOURS[name], mfc=face, mew=2, ms=11, label=label)
    degraded = mean["degraded"]["ssim"]
    axis.axhline(degraded, color=COLOURS["degraded"], linestyle=":", label=f"degraded input: {degraded:.4f}")
    axis.axhline(limits.min_ssim, color="black", linestyle="--", linewidth=1)
    axis.axvline(
        limits.min_fps,
        color="black",
        linestyle="--",
        linewidth=1,
        label=f"gate: SSIM {limits.min_ssim:g}, {limits.min_fps:g} fps",
    )
    axis.set(xscale="log", xlabel=f"fps at {frame_size(results)}", ylabel="SSIM on the test pairs")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.margins(0.12)
    axis.grid(alpha=0.3, which="both")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches."""
    # Not pyplot: it would keep global state and look for a screen.
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure((width, height), layout="constrained")


def mark_real_time(axis: "Axes") -> None:
    """Mark 30 and 60 fps on the x axis."""
    for fps, side in {30: "right", 60: "left"}.items():
        axis.axvline(fps, color="black", linestyle="--", linewidth=1)
        axis.annotate(f" {fps} fps ", (fps, 1), xycoords=("data", "axes fraction"), ha=side, va="bottom")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, without Matplotlib's version in the file."""
    figure.savefig(path, dpi=110, metadata={"Software": None})
