"""benchmark.md: every system's speed on one machine, and its quality where images were given; JSON and a chart."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearcall.core.files import atomic_path, write_json
from clearcall.evaluation.comparison import SINGLE_MS, SLOW_FRAMES, SLOW_MS
from clearcall.reporting.charts import mark_real_time, new_figure, save_figure
from clearcall.reporting.page import Page, number
from clearcall.reporting.tables import markdown_table

# Not under figures: that folder is made anew whenever the pipeline writes its report.
FIGURE = "benchmark_quality_fps.png"
HEADERS = ["system", "runtime", "median ms", "p95 ms", "fps", "frames", "GMAC", "parameters", "PSNR dB"]
_MARKERS = {"onnxruntime": "o", "openvino": "D", "ncnn": "^", "OpenCV": "s", "FFmpeg": "s", "NumPy": "s"}
_MARKER_LABELS = {"o": "onnxruntime", "D": "openvino", "^": "ncnn", "s": "OpenCV, FFmpeg, NumPy"}
# Okabe and Ito's colours, which colour-blind people can tell apart, then shades, then Kelly's.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F3C8D", "#777777", "#A5AA99",
    "#5D4037", "#882255", "#BE0032", "#F3C300", "#008856", "#604E97", "#8DB600", "#C2B280",
)  # fmt: skip

_NOTES = (
    "An 8-bit RGB frame goes in, an 8-bit RGB frame comes out, one at a time; all work in between counts.",
    f"Systems faster than {SLOW_MS:g} ms a frame take turns in blocks, so that a machine that slows down slows all.",
    f"The others run alone, on {SLOW_FRAMES} frames after one to warm up; above {SINGLE_MS / 1000:g} s on one alone.",
    "Published networks are rebuilt from their descriptions; unless their weights are named below, they are random.",
    "Networks for x2 get a frame of half height and width; the others get it upscaled already, which is not counted.",
    "GMAC: multiply-accumulates of the convolutions for one frame.",
)

Document = Mapping[str, Any]
_Row = list[str]


def write_comparison(document: dict[str, Any], folder: Path) -> Path:
    """Write benchmark.json, benchmark.md and, if quality was measured, the chart; return the path of the Markdown."""
    write_json(folder / "benchmark.json", document)
    if document["quality"]:
        with atomic_path(folder / FIGURE) as temporary:
            draw_quality(temporary, document)
    page = Page("Benchmark: every system on one machine, in one run")
    page.made_by(document["command"], document["versions"], on=document["machine"], date=document["date"])
    if document["quality"]:
        page.add("![PSNR against fps at {}x{}]({})".format(*document["reference_size"], FIGURE))
    page.add_list(*_NOTES, *_quality_notes(document))
    if document["quality"]:
        page.add("## Quality and time", _quality_table(document))
        page.add_list(*_settings(document))
    for width, height in dict.fromkeys((one["width"], one["height"]) for one in document["measurements"]):
        for count in sorted({one["threads"] for one in document["measurements"]}, reverse=True):
            rows = _rows(document, width, height, count)
            page.add(f"## {width}x{height}, {_threads(count)}", markdown_table(HEADERS, rows))
    page.add("## The systems", _systems_table(document))
    return page.write(folder / "benchmark.md")


def draw_quality(path: Path, document: Document) -> None:
    """Draw PSNR against fps at the reference size on all threads; systems without a PSNR stand at the bottom."""
    from matplotlib.lines import Line2D  # noqa: PLC0415

    figure = new_figure(10, 6.5)
    axis = figure.subplots()
    width, height = document["reference_size"]
    threads = max(one["threads"] for one in document["measurements"])
    timed = [one for one in _at(document, width, height, threads) if one["fps"] is not None]
    colours = dict(zip(document["contenders"], _COLOURS * len(document["contenders"]), strict=False))
    for one in timed:
        contender, marker = document["contenders"][one["contender"]], _MARKERS[one["provider"]]
        colour, known = colours[one["contender"]], contender["psnr_db"] is not None
        axis.plot(
            one["fps"],
            contender["psnr_db"] if known else 0.03,
            marker,
            color=colour,
            markerfacecolor=colour if known else "none",
            markersize=9,
            linestyle="none",
            clip_on=False,
            transform=axis.transData if known else axis.get_xaxis_transform(),
        )
    mark_real_time(axis)
    axis.set(xscale="log", xlabel=f"fps at {width}x{height}, {_threads(threads)}", ylabel="PSNR in dB, bicubic x2")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.margins(0.1)
    axis.grid(alpha=0.3, which="both")
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colours[name], label=document["contenders"][name]["title"])
        for name in dict.fromkeys(one["contender"] for one in timed)
    ]
    handles += [
        Line2D([], [], marker=marker, linestyle="none", color="#777777", label=label)
        for marker, label in _MARKER_LABELS.items()
    ]
    handles.append(
        Line2D([], [], marker="o", linestyle="none", color="#777777", markerfacecolor="none", label="PSNR not known")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)


def _at(document: Document, width: int, height: int, threads: int) -> list[dict[str, Any]]:
    return [
        one
        for one in document["measurements"]
        if (one["width"], one["height"], one["threads"]) == (width, height, threads)
    ]


def _rows(document: Document, width: int, height: int, threads: int) -> list[_Row]:
    rows = []
    for one in _at(document, width, height, threads):
        contender = document["contenders"][one["contender"]]
        rows.append(
            [
                contender["title"],
                one["provider"],
                one["note"] or number(one["median_ms"], ".1f"),
                number(one["p95_ms"], ".1f") if one["frames"] > 1 else "",
                _fps(one["fps"]),
                number(one["frames"] or None, ""),
                number(one["macs"] and one["macs"] / 1e9, ".3g"),
                number(contender["parameters"], ","),
                number(contender["psnr_db"], ".2f"),
            ]
        )
    return rows


def _quality_notes(document: Document) -> list[str]:
    """Return what is to be said of the quality figures."""
    quality = document["quality"]
    if quality:
        skipped = f", {quality['skipped']} skipped" if quality["skipped"] else ""
        images = f"{quality['images']} images of `{quality['folder']}`{skipped}"
        notes = [
            f"PSNR: RGB, {quality['degradations'][0]}, mean over {images}. Blank: the weights were not given.",
            f"Filters have the settings with the highest SSIM, for each degradation: {quality['split']}.",
            "Quality is that of onnxruntime or ncnn; the time is that of the fastest runtime.",
        ]
    else:
        notes = ["PSNR: not measured; `--images FOLDER` measures it, `--peers` that of published networks too."]
    notes += [
        f"{one['title']}: published weights, SHA-256 `{one['weights_sha256']}`."
        for one in document["contenders"].values()
        if one["weights_sha256"]
    ]
    return notes + ([f"Not compared: {document['missing']}."] if document["missing"] else [])


def _quality_table(document: Document) -> str:
    """Return every measured contender under every degradation, and its time on the fastest runtime."""
    quality, size = document["quality"], document["reference_size"]
    headers = ["system", "gets", "ms at {}x{}".format(*size)]
    for degradation in quality["degradations"]:
        headers += [f"{degradation}: SSIM", "RGB dB", "luma dB"]
    rows = []
    for name, contender in document["contenders"].items():
        if not (scores := quality["scores"].get(name)):
            continue
        row = [contender["title"], "half size" if contender["scale"] > 1 else "full size", _fastest(document, name)]
        for degradation in quality["degradations"]:
            figures = scores[degradation]
            row += [f"{figures['ssim']:.4f}", f"{figures['psnr_db']:.2f}", f"{figures['luma_psnr_db']:.2f}"]
        rows.append(row)
    return markdown_table(headers, rows)


def _fastest(document: Document, name: str) -> str:
    """Return a contender's least median time at the reference size on all threads with its runtime, or why none."""
    threads = max(one["threads"] for one in document["measurements"])
    width, height = document["reference_size"]
    runs = [one for one in _at(document, width, height, threads) if one["contender"] == name]
    timed = [one for one in runs if one["median_ms"] is not None]
    if not timed:
        return runs[0]["note"] if runs else ""
    best = min(timed, key=lambda one: float(one["median_ms"]))
    return f"{best['median_ms']:.1f} ({best['provider']})"


def _settings(document: Document) -> list[str]:
    """Return the settings of each tuned filter."""
    return [
        f"{document['contenders'][name]['title']}: "
        + "; ".join(f"{degradation}: {figures['setting']}" for degradation, figures in scores.items())
        for name, scores in document["quality"]["scores"].items()
        if "setting" in next(iter(scores.values()))
    ]


def _systems_table(document: Document) -> str:
    rows = [
        [
            contender["title"],
            contender["kind"],
            "half size, x2" if contender["scale"] > 1 else "full size",
            number(contender["parameters"], ","),
            contender["published_parameters"],
            contender["source"],
            number(contender["ssim"], ".4f"),
            number(contender["psnr_db"], ".2f"),
        ]
        for contender in document["contenders"].values()
    ]
    headers = ["system", "kind", "takes", "parameters", "as published", "described by", "SSIM", "PSNR dB"]
    return markdown_table(headers, rows)


def _fps(fps: float | None) -> str:
    """Return frames a second with three digits or more."""
    return "" if fps is None else f"{fps:.{max(0, 2 - math.floor(math.log10(fps)))}f}"


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count > 1 else "")
