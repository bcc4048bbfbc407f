"""The report's tables as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from clearcall.data.manifest import SPLITS
from clearcall.evaluation.results import CONTENDERS, Results, lead, measured
from clearcall.params import Gate
from clearcall.tracking.gate import judge

LIBRARIES = (
    "torch",
    "onnxruntime",
    "numpy",
    "opencv-python-headless",
    "albumentations",
    "scikit-image",
    "mlflow",
    "dvc",
    "great-expectations",
)


def gate_table(results: Results, limits: Gate) -> str:
    """Return what the gate will say."""
    rows = [
        [check.name, f"{check.value:.4g}", f"{check.limit:g}", "passed" if check.passed else "**failed**"]
        for check in judge(results, limits)
    ]
    return markdown_table(["gate", "value", "at least", ""], rows)


def quality_table(results: Results) -> str:
    """Return every metric of every contender, its lead over the input, and the PSNR of undegraded images."""
    mean, clean = results["evaluate"]["mean"], results["evaluate"]["clean_psnr_db"]
    least = results["evaluate"]["least_gain_db"]
    mask = results["evaluate"]["unsharp_mask"]
    titles = {
        **CONTENDERS,
        "unsharp": f"unsharp mask (radius {mask['radius']:g}, amount {mask['amount']:g})",
        "student_vs_teacher": "student, against the teacher's output",
    }
    rows = []
    for name in [*measured(results), "student_vs_teacher"]:
        scores, over_input = mean[name], lead(mean[name], mean["degraded"])
        row = [titles[name], f"{scores['ssim']:.4f}", f"{scores['psnr_db']:.2f}"]
        row += [f"{scores['ssim_uniform']:.4f}", f"{scores['mse']:.1f}"]
        # The input, and student against teacher, have neither a lead nor a clean PSNR.
        if name in clean:
            row += [f"{over_input[0]:+.4f}", f"{over_input[1]:+.2f}", f"{least[name]:+.2f}", f"{clean[name]:.2f}"]
        rows.append(row + [""] * (9 - len(row)))
    headers = ["contender", "SSIM", "PSNR dB", "SSIM uniform", "MSE", "SSIM over input", "dB over input"]
    return markdown_table([*headers, "worst image, dB over input", "clean PSNR dB"], rows)


def routing_table(results: Results) -> str:
    """Return how the student's router fares on validation, a row for each degradation; "" for a single network."""
    routing = results["distill_student"]["student"].get("routing", {})
    rows = [
        [label, scores["frames"], f"{scores['best_share']:.0%}"]
        + [f"{scores[name]:.2f}" for name in ("mean_loss_db", "largest_loss_db")]
        + [f"{scores[name]:+.2f}" for name in ("gain_db", "least_gain_db")]
        for label, scores in routing.items()
    ]
    headers = ["degradation", "frames", "routed to the best", "mean loss to it, dB", "largest", "gain over input, dB"]
    return markdown_table([*headers, "least"], rows) if rows else ""


def breakdown_table(results: Results, key: str, names: Sequence[str] = ()) -> str:
    """Return SSIM and PSNR in dB of contenders, all or `names`, a row for each of `by_degradation` or `by_image`."""
    names = names or measured(results)
    rows = [[row, *(_scores(scores[name]) for name in names)] for row, scores in results["evaluate"][key].items()]
    return markdown_table([key.removeprefix("by_"), *(CONTENDERS[name] for name in names)], rows)


def speed_table(results: Results) -> str:
    """Return latency in ms and fps of each timed contender."""
    rows = [
        [
            CONTENDERS[name],
            *(f"{timed[figure]:.2f}" for figure in ("median_ms", "p95_ms", "fps")),
            "{:.2f} to {:.2f}".format(*timed["block_median_ms_range"]),
            timed["frames"],
        ]
        for name, timed in results["benchmark_fps"]["latency"].items()
    ]
    return markdown_table(["contender", "median ms", "p95 ms", "fps", "medians of the blocks, ms", "frames"], rows)


def training_table(results: Results) -> str:
    """Return how each network was trained, a network a column."""
    networks = {"teacher": results["train_teacher"], **results["distill_student"]}
    columns = [
        {
            "": CONTENDERS[name],
            "architecture": network["model"]["name"],
            "arguments": arguments_of(network["model"]),
            "parameters": f"{network['parameters']:,}",
            "losses and weights": _named(network["losses"]),
            "steps": network["steps"],
            "best step": network["best_step"],
            "stopped early": "yes" if network["stopped_early"] else "no",
            "precision": network["precision"],
            "validation, input": _scores(network["validation"]["degraded"]),
            "validation, restored": _scores(network["validation"]["restored"]),
        }
        for name, network in networks.items()
    ]
    headers, *rows = [[label, *(column[label] for column in columns)] for label in columns[0]]
    return markdown_table(headers, rows)


def data_table(results: Results) -> str:
    """Return photographs, megapixels and pairs of each split."""
    download, pairs = results["download_data"], results["degrade_pairs"]["pairs"]
    rows = [
        [split, download["images"][split], f"{download['pixels'][split] / 1e6:.2f}", pairs[split]] for split in SPLITS
    ]
    return markdown_table(["split", "photographs", "megapixels", "pairs"], rows)


def degraded_table(results: Results) -> str:
    """Return mean SSIM and PSNR in dB of the degraded images by degradation and split."""
    mean, mix = results["check_pairs"]["mean"], results["degrade_pairs"]["degradations"]
    return markdown_table(
        ["degradation", *SPLITS], [[name, *(_scores(mean[split].get(name)) for split in SPLITS)] for name in mix]
    )


def export_table(results: Results) -> str:
    """Return size of each exported network and how far it is from torch."""
    rows = [
        [
            CONTENDERS[name],
            f"{model['parameters']:,}",
            f"{model['bytes'] / 1024:.0f}",
            model["max_difference"],
            ", ".join(f"{width} x {height}" for height, width in model["sizes"]),
        ]
        for name, model in results["export_onnx"].items()
    ]
    return markdown_table(
        ["ONNX model", "parameters", "KiB", "largest difference from torch, 8-bit levels", "compared at"], rows
    )


def version_table() -> str:
    """Return the versions of the libraries that the numbers rest on."""
    rows = []
    for library in LIBRARIES:
        try:
            rows.append([library, version(library)])
        except PackageNotFoundError:
            rows.append([library, "not installed"])
    return markdown_table(["library", "version"], rows)


def _scores(scores: Mapping[str, float | None] | None) -> str:
    if scores is None:
        return ""
    psnr_db = scores["psnr_db"]
    return f"{scores['ssim']:.4f} / " + ("-" if psnr_db is None else f"{psnr_db:.2f}")


def arguments_of(model: Mapping[str, Any]) -> str:
    """Return an architecture's arguments in words; of experts, each shape once with how many have it."""
    if "experts" not in model["arguments"]:
        return _named(model["arguments"])
    shapes = Counter(_named(arguments) for arguments in model["arguments"]["experts"].values())
    return "; ".join(f"{count} experts of {shape}" for shape, count in shapes.items())


def _named(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table, the first column to the left, the others to the right."""
    from tabulate import tabulate  # noqa: PLC0415

    # "pipe" is GitHub's syntax too; tabulate's "github" leaves the alignment out.
    alignment = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(rows, headers, tablefmt="pipe", colalign=alignment, disable_numparse=True)
