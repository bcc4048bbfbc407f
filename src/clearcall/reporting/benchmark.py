"""What a comparison leaves: JSON, Markdown, a chart of quality against speed, and a table on the terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clearcall.core.files import atomic_path, write_json, write_text
from clearcall.core.machine import processor_told
from clearcall.evaluation.comparison import SINGLE_MS, SKIP_MS, SLOW_FRAMES, SLOW_MS
from clearcall.reporting.tables import markdown_table

# Not under figures: that folder is made anew whenever the pipeline writes its report.
FIGURE = "benchmark_quality_fps.png"
HEADERS = ["system", "runtime", "median ms", "p95 ms", "fps", "frames", "GMAC", "parameters", "MiB", "GEMM", "PSNR dB"]
NOT_RERUN = "not rerun"
_REAL_TIME_FPS = {30: "right", 60: "left"}  # and on which side of the line it is written
_MARKERS = {"onnxruntime": "o", "openvino": "D", "ncnn": "^", "OpenCV": "s", "FFmpeg": "s", "NumPy": "s"}
_MARKER_LABELS = {"o": "onnxruntime", "D": "openvino", "^": "ncnn", "s": "OpenCV, FFmpeg, NumPy"}
# Okabe and Ito's colours, which colour-blind people can tell apart, then shades, then Kelly's.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F3C8D", "#777777", "#A5AA99",
    "#5D4037", "#882255", "#BE0032", "#F3C300", "#008856", "#604E97", "#8DB600", "#C2B280",
)  # fmt: skip

Document = Mapping[str, Any]
_Row = list[str]


def write_comparison(document: dict[str, Any], folder: Path) -> Path:
    """Write benchmark.json, benchmark.md and the chart to `folder`; return the path of the Markdown."""
    write_json(folder / "benchmark.json", document)
    with atomic_path(folder / FIGURE) as temporary:
        draw_quality(temporary, document)
    path = folder / "benchmark.md"
    write_text(path, comparison_markdown(document))
    return path


def comparison_markdown(document: Document) -> str:
    """Return the whole comparison as Markdown."""
    here, measurements = document["machine"], document["measurements"]
    sizes = list(dict.fromkeys((one["width"], one["height"]) for one in measurements))
    threads = sorted({one["threads"] for one in measurements})
    gemm = ", ".join(
        f"{gflops:g} GFLOP/s on {_threads(int(count))}" for count, gflops in document["gemm_gflops"].items()
    )
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    reference = "{}x{}".format(*document["reference_size"])
    parts = [
        f"""# Benchmark: every system on one machine, in one run

{document["date"]}, on {processor_told(here)}, {here["memory_gib"]:g} GiB,
{here["system"]}, Python {here["python"]}, {versions}:

```
{document["command"]}
```

![PSNR against fps at {reference}]({FIGURE})

- An 8-bit RGB frame goes in, an 8-bit RGB frame comes out, one at a time, everything in between counted.
- Systems faster than {SLOW_MS:g} ms a frame take turns in blocks, so that a machine that slows down slows all. The
  others run alone, on {SLOW_FRAMES} frames after one to warm up or, above {SINGLE_MS / 1000:g} s, on a single one:
  an upper bound. What would take more than {SKIP_MS / 1000:g} s a frame is skipped.
- Published networks are rebuilt from their descriptions, with random weights unless theirs are named below: the speed
  is theirs. Those for x2 get a frame of half height and width; the others get it upscaled already, which is not
  counted.
- GMAC: multiply-accumulates of the convolutions for one frame. MiB: peak memory of a process of its own at
  {reference}, Python and the runtime included.
- GEMM: share of what a float32 matrix product reaches: {gemm}.
  A runtime that computes in bfloat16 or with fewer multiplications may exceed it.
{_quality_notes(document)}"""
    ]
    if document["quality"]:
        parts.append(f"## Quality and time\n\n{_quality_table(document)}\n\n{_settings(document)}\n")
    for width, height in sizes:
        for count in reversed(threads):
            rows = _rows(document, width, height, count)
            parts.append(f"## {width}x{height}, {_threads(count)}\n\n{markdown_table(HEADERS, rows)}\n")
    growth = _growth_table(document, sizes, threads[-1])
    parts += [
        f"## How cost grows with pixels (ms a megapixel, {_threads(threads[-1])})\n\n{growth}\n",
        _speedup_part(document, sizes, threads),
        f"## The systems\n\n{_systems_table(document)}\n",
    ]
    return "\n".join(part for part in parts if part)


def draw_quality(path: Path, document: Document) -> None:
    """Draw PSNR against fps at the reference size on all threads; systems without a PSNR stand at the bottom."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.lines import Line2D  # noqa: PLC0415

    figure = Figure((10, 6.5), layout="constrained")
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
    for fps, side in _REAL_TIME_FPS.items():
        axis.axvline(fps, color="black", linestyle="--", linewidth=1)
        axis.annotate(f" {fps} fps ", (fps, 1), xycoords=("data", "axes fraction"), ha=side, va="bottom")
    axis.set(
        xscale="log",
        xlabel=f"fps at {width}x{height}, {_threads(threads)}",
        ylabel="PSNR in dB, bicubic x2" + ("" if document["quality"] else " (of others: quoted)"),
    )
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
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _at(document: Document, width: int, height: int, threads: int) -> list[dict[str, Any]]:
    return [
        one
        for one in document["measurements"]
        if (one["width"], one["height"], one["threads"]) == (width, height, threads)
    ]


def _rows(document: Document, width: int, height: int, threads: int) -> list[_Row]:
    # Memory was measured at one size on all threads, and stands there alone.
    most = max(one["threads"] for one in document["measurements"])
    here = [width, height] == list(document["reference_size"]) and threads == most
    rows = []
    for one in _at(document, width, height, threads):
        contender = document["contenders"][one["contender"]]
        memory = document["peak_memory_mib"].get(one["contender"], {}).get(one["provider"]) if here else None
        rows.append(
            [
                contender["title"],
                one["provider"],
                one["note"] or _number(one["median_ms"], ".1f"),
                _number(one["p95_ms"], ".1f") if one["frames"] > 1 else "",
                _fps(one["fps"]),
                _number(one["frames"] or None, ""),
                _number(one["macs"] and one["macs"] / 1e9, ".3g"),
                _number(contender["parameters"], ","),
                _number(memory, ",.0f"),
                _number(one["gemm_share"], ".0%"),
                _psnr(contender),
            ]
        )
    return rows


def _quality_notes(document: Document) -> str:
    """Return what is to be said of the quality figures, as items of a list."""
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
        origin = "measured once, with the published weights, on 41 test photographs, and quoted"
        caveat = "It compares with ours as far as those were measured on the same photographs"
        notes = [f'PSNR: RGB, bicubic x2. "{NOT_RERUN}": {origin}. {caveat}. Blank: not known.']
    notes += [
        f"{one['title']}: published weights, SHA-256 `{one['weights_sha256']}`."
        for one in document["contenders"].values()
        if one["weights_sha256"]
    ]
    notes += [f"Not compared: {document['missing']}."] if document["missing"] else []
    return "".join(f"- {note}\n" for note in notes)


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


def _settings(document: Document) -> str:
    """Return the settings of tuned filters as items of a list."""
    return "\n".join(
        f"- {document['contenders'][name]['title']}: "
        + "; ".join(f"{degradation}: {figures['setting']}" for degradation, figures in scores.items())
        for name, scores in document["quality"]["scores"].items()
        if "setting" in next(iter(scores.values()))
    )


def _growth_table(document: Document, sizes: Sequence[tuple[int, int]], threads: int) -> str:
    rows = []
    for name, provider in _runs(document):
        line = [document["contenders"][name]["title"], provider]
        for width, height in sizes:
            median_ms = _median_ms(document, name, provider, (width, height), threads)
            line.append(_number(median_ms and median_ms / (width * height / 1e6), ".1f"))
        rows.append(line)
    return markdown_table(["system", "runtime", *(f"{width}x{height}" for width, height in sizes)], rows)


def _speedup_part(document: Document, sizes: Sequence[tuple[int, int]], threads: Sequence[int]) -> str:
    """Return how many times faster all threads are than the fewest, or nothing if only one number was measured."""
    fewest, most = threads[0], threads[-1]
    if fewest == most:
        return ""
    rows = []
    for name, provider in _runs(document):
        line = [document["contenders"][name]["title"], provider]
        for size in sizes:
            few, many = (_median_ms(document, name, provider, size, count) for count in (fewest, most))
            line.append(f"{few / many:.2f}" if few and many else "")
        rows.append(line)
    table = markdown_table(["system", "runtime", *(f"{width}x{height}" for width, height in sizes)], rows)
    return f"## How much threads help (times faster, {fewest} -> {most})\n\n{table}\n"


def _systems_table(document: Document) -> str:
    rows = [
        [
            contender["title"],
            contender["kind"],
            "half size, x2" if contender["scale"] > 1 else "full size",
            _number(contender["parameters"], ","),
            contender["published_parameters"],
            contender["source"],
            _number(contender["ssim"], ".4f"),
            _psnr(contender),
        ]
        for contender in document["contenders"].values()
    ]
    headers = ["system", "kind", "takes", "parameters", "as published", "described by", "SSIM", "PSNR dB"]
    return markdown_table(headers, rows)


def _runs(document: Document) -> Iterable[tuple[str, str]]:
    return dict.fromkeys((one["contender"], one["provider"]) for one in document["measurements"])


def _median_ms(document: Document, name: str, provider: str, size: tuple[int, int], threads: int) -> float | None:
    for one in _at(document, *size, threads):
        if (one["contender"], one["provider"]) == (name, provider):
            median_ms: float | None = one["median_ms"]
            return median_ms
    return None


def _fps(fps: float | None) -> str:
    """Return frames a second with three digits or more."""
    return "" if fps is None else f"{fps:.{max(0, 2 - math.floor(math.log10(fps)))}f}"


def _psnr(contender: Mapping[str, Any]) -> str:
    if contender["psnr_db"] is None:
        return ""
    return f"{contender['psnr_db']:.2f}" + ("" if contender["rerun"] else f" ({NOT_RERUN})")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count > 1 else "")
