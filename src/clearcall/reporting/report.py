"""The report of one run: Markdown, image comparisons and charts, from the reports of the stages."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from clearcall.core.files import atomic_folder, read_csv, write_text
from clearcall.core.machine import processor_told
from clearcall.data.pairs import PairReader, PairRecord, read_pairs
from clearcall.evaluation.results import CONTENDERS, Results, frame_size, lead, read_results
from clearcall.imaging.frame import Contender, Frame
from clearcall.imaging.grid import ZOOM, draw_comparison
from clearcall.imaging.metrics import MAX_PSNR_DB
from clearcall.media.slider import slider_page
from clearcall.params import Gate, Params, TeacherLosses
from clearcall.reporting import tables
from clearcall.reporting.charts import draw_gains, draw_speed, draw_training
from clearcall.reporting.page import Page
from clearcall.reporting.played import play_calls
from clearcall.tracking.gate import judge

LOOK = "look.html"
# A lead in SSIM below this may turn round with another seed.
CHANCE_SSIM = 0.001


def write_report(params: Params, params_text: str, restorers: Mapping[str, Contender]) -> None:
    """Write report.md, look.html and the folder figures.

    `restorers`, the student among them, are shown beside the input; `params_text` is the text of params.yaml. Raises
    UserError if a stage left no results.
    """
    reports = params.paths.reports
    results = read_results(reports)
    by_degradation = results["evaluate"]["by_degradation"]
    hardest = min(by_degradation, key=lambda name: float(by_degradation[name]["degraded"]["ssim"]))
    curves = {stage: read_csv(reports / f"{stage}_curve.csv") for stage in ("train_teacher", "distill_student")}
    with atomic_folder(reports / "figures") as folder:
        pictures, pairs = _draw_pictures(folder, params, hardest, restorers)
        draw_gains(folder / "gains.png", results)
        draw_speed(folder / "speed.png", results, params.gate)
        draw_training(folder / "training.png", results, curves)
    videos = play_calls(lambda frame: restorers["student"](frame, ""), params.write_report.video_seconds)
    write_text(reports / LOOK, slider_page(CONTENDERS["student"], {**videos, **pairs}))
    evaluate = results["evaluate"]
    page = Page("What this run reached")
    page.add_list(*verdict(results, params.gate))
    page.add(tables.gate_table(results, params.gate))
    shown = ", ".join(CONTENDERS[name] for name in ("degraded", *restorers))
    page.add("## Pictures")
    page.add(
        f"The hardest degradation of the mix, `{hardest}`, on {len(pictures)} of {len(evaluate['by_image'])} test "
        f"photographs. The crop ({params.write_report.crop_side} pixels, upscaled {ZOOM} times) lies where the "
        f"degradation did most harm; the figures are of the full frame. [{LOOK}]({LOOK}), which `dvc repro` writes "
        "beside this page and git does not keep, has a slider between input and student, of these photographs and of "
        "two videos: a face and text in a call."
    )
    for picture in pictures:
        image = picture["image"]
        page.add(f"**{image}**", f"![{image}, {hardest}: full frame, sharp, {shown}](figures/{picture['file']})")
    _add_quality(page, results)
    _add_speed(page, results, params)
    _add_training(page, results, params)
    _add_data(page, results, reports)
    page.add("## Export", tables.export_table(results), "## How to get the same again")
    page.add(
        "`dvc repro` with these params and libraries, and with photographs whose test split has the SHA-256 "
        f"`{evaluate['test_manifest_sha256'][:16]}...`"
    )
    page.add(tables.version_table())
    page.add_code("params.yaml", params_text, "yaml")
    page.write(reports / "report.md")


def _add_quality(page: Page, results: Results) -> None:
    evaluate = results["evaluate"]
    page.add("## Quality")
    page.add(
        f"Means over {evaluate['pairs']} pairs of {len(evaluate['by_image'])} test photographs, full frames, 8 bits in "
        "and out. The unsharp mask was tuned on validation."
    )
    page.add(tables.quality_table(results))
    page.add(
        'SSIM is that of Wang et al. 2004 (Gaussian window); "SSIM uniform" is scikit-image\'s default, for comparison '
        "with reports that print it. MSE is in squared 8-bit levels. The last column is the PSNR at which an "
        f"undegraded image comes back, {MAX_PSNR_DB:g} dB if untouched: a sharpener should leave a sharp frame alone."
    )
    page.add("### By degradation", "SSIM, and behind it PSNR in dB.", tables.breakdown_table(results, "by_degradation"))
    page.add("![SSIM and PSNR over the degraded input, by degradation](figures/gains.png)")
    if routing := tables.routing_table(results):
        page.add("### Routing")
        page.add(
            f"The student is {len(results['distill_student']['student']['experts'])} experts and a router that picks "
            "one for each image, or none. On the validation images, the middles of which it restores by every expert:"
        )
        page.add(routing)
    page.add("### By photograph", tables.breakdown_table(results, "by_image"), "### On calls")
    page.add(
        "`clearcall bench calls` measures after real encoders, by codec and QP, with a filmstrip. Of the shipped "
        "network for calls: [calls.md](calls.md)."
    )


def _add_speed(page: Page, results: Results, params: Params) -> None:
    benchmark, plan = results["benchmark_fps"], params.benchmark_fps
    machine, tried = benchmark["machine"], benchmark["providers_tried_ms"]
    page.add("## Speed")
    page.add(
        f"One frame of {frame_size(results)} at a time, 8-bit RGB in and out, contenders in alternating blocks; those "
        f"slower than {plan.slow_ms:g} ms alone, on {plan.slow_frames} frames."
    )
    page.add(tables.speed_table(results))
    fastest = ", ".join(f"{name} {ms} ms" for name, ms in tried.items())
    page.add_list(
        f"{benchmark['throughput_fps']} fps with {benchmark['frames_in_flight']} frames in flight (student)",
        f"{benchmark['peak_memory_mib']} MiB peak memory of a process that does nothing else (student)",
        f"{benchmark['provider']} {benchmark['provider_version']}, {benchmark['threads']} threads"
        + (f"; the fastest of those tried for the student at the start: {fastest}" if tried else ""),
        f"{processor_told(machine)}, {machine['memory_gib']} GiB memory, {machine['system']}, "
        f"Python {machine['python']}",
    )
    page.add("![SSIM against fps](figures/speed.png)")


def _add_training(page: Page, results: Results, params: Params) -> None:
    page.add("## Training", tables.training_table(results))
    if params.budget < 1:
        page.add(f"Budget: {100 * params.budget:.2g} % of the steps of each training were run.")
    page.add(
        "Validation looks at the middles of the validation images only: its figures rank moments of one training and "
        "do not compare with the tables above. Networks with different losses compare in SSIM, not in loss."
    )
    page.add("![Loss and validation SSIM per step](figures/training.png)")


def _add_data(page: Page, results: Results, reports: Path) -> None:
    download = results["download_data"]
    checks = " and ".join(
        f"[{found['passed']} of {found['expectations']} on the {what}]({_link(found['data_docs'], reports)})"
        for what, found in (("photographs", results["check_data"]), ("pairs", results["check_pairs"]))
    )
    page.add("## Data")
    page.add(
        f"Source `{download['source']}`. Checks passed: {checks}. The linked pages list every expectation and what was "
        "observed; `dvc repro` writes them, they are not in git."
    )
    page.add(tables.data_table(results))
    page.add("Mean SSIM / PSNR in dB of the degraded images, at all scales (identical pairs have no PSNR):")
    page.add(tables.degraded_table(results), "Licences of the photographs:")
    page.add_list(*download["licences"])
    page.add("Converted, and how many:" if download["notes"] else "No photograph had to be converted.")
    page.add_list(*(f"{note}: {count}" for note, count in download["notes"].items()))
    page.add("Duplicates that were left out:" if download["duplicates"] else "No duplicates were found.")
    page.add_list(*download["duplicates"])


def _link(target: str, reports: Path) -> str:
    return quote(Path(os.path.relpath(target, reports)).as_posix())


def _draw_pictures(
    folder: Path, params: Params, degradation: str, restorers: Mapping[str, Contender]
) -> tuple[list[dict[str, str]], dict[str, tuple[Frame, Frame]]]:
    """Draw a comparison for each chosen photograph, and the README's image.

    Returns photographs and file names, and by name each degraded frame and what the student makes of it.
    """
    reader, side = PairReader(params.paths.pairs), params.write_report.crop_side
    drawn, pairs = [], {}
    test = read_pairs(params.paths.pairs, "test")
    for number, pair in enumerate(choose_pairs(test, degradation, params.write_report.examples), start=1):
        sharp, degraded = reader.sharp(pair), reader.degraded(pair)
        shown = {"sharp": sharp, "degraded": degraded}
        shown |= {name: restore(degraded, degradation) for name, restore in restorers.items()}
        file = f"picture_{number}.png"
        draw_comparison(sharp, shown, degradation, side, columns=3, titles=CONTENDERS).save(
            folder / file, optimize=True
        )
        if number == 1:
            both = {name: shown[name] for name in ("degraded", "student")}
            draw_comparison(sharp, both, degradation, side, columns=3, titles=CONTENDERS).save(
                folder / "before_after.png", optimize=True
            )
        drawn.append({"image": pair.image, "file": file})
        pairs[f"{pair.image}, {degradation}"] = shown["degraded"], shown["student"]
    return drawn, pairs


def verdict(results: Results, limits: Gate) -> list[str]:
    """Return the outcome as five findings in Markdown: quality and speed, baselines, distillation, teacher, gate."""
    return [
        _reached(results),
        _over_baselines(results, limits),
        _distillation(results),
        _below_teacher(results),
        _gate(results, limits),
    ]


def _reached(results: Results) -> str:
    evaluate, benchmark = results["evaluate"], results["benchmark_fps"]
    student, machine = evaluate["mean"]["student"], benchmark["machine"]
    return (
        f"The student reaches **SSIM {student['ssim']:.4f}** and **PSNR {student['psnr_db']:.2f} dB** on "
        f"{len(evaluate['by_image'])} test photographs ({evaluate['pairs']} degraded images), at "
        f"**{benchmark['latency']['student']['fps']:.1f} fps** in {frame_size(results)} on {machine['cpu']} with "
        f"{machine['cores']} cores."
    )


def _over_baselines(results: Results, limits: Gate) -> str:
    mean = results["evaluate"]["mean"]
    over_unsharp, input_ssim = lead(mean["student"], mean["unsharp"]), mean["degraded"]["ssim"]
    beaten = "" if min(over_unsharp) > 0 else " **So the network does not clearly beat the mask.**"
    already = "already has" if input_ssim >= limits.min_ssim else "has"
    return (
        f"That is {_words(lead(mean['student'], mean['degraded']))} over the degraded input and {_words(over_unsharp)} "
        f"over an unsharp mask tuned on validation.{beaten} An SSIM above {limits.min_ssim:.2f} alone proves little: "
        f"the degraded input {already} {input_ssim:.4f}."
    )


def _distillation(results: Results) -> str:
    mean, photographs = results["evaluate"]["mean"], results["evaluate"]["by_image"].values()
    if "baseline" not in mean:
        if results["distill_student"]["student"]["losses"].keys() <= TeacherLosses.model_fields.keys():
            return "Nothing was distilled: the student learned from sharp images alone."
        return "What distillation is worth is unknown: no student was trained without the teacher."
    over_baseline = lead(mean["student"], mean["baseline"])
    if min(over_baseline) > 0:
        finding = "Distillation helped"
    elif max(over_baseline) <= 0:
        finding = "**Distillation did not help**"
    else:
        finding = "Whether distillation helped is undecided"
    wins = sum(scores["student"]["ssim"] > scores["baseline"]["ssim"] for scores in photographs)
    chance = " Each was trained once, so this may be chance." if abs(over_baseline[0]) < CHANCE_SSIM else ""
    return (
        f"{finding}: {_words(over_baseline)} over the same student trained without a teacher, higher SSIM on {wins} of "
        f"{len(photographs)} photographs.{chance} Where there is no sharp image, as of a received call, a student "
        "can only learn from a teacher: [what that gains](../docs/adapt.md)."
    )


def _below_teacher(results: Results) -> str:
    mean, latency = results["evaluate"]["mean"], results["benchmark_fps"]["latency"]
    ahead, gain = lead(mean["teacher"], mean["student"]), lead(mean["teacher"], mean["degraded"])[0]
    times = latency["teacher"]["median_ms"] / latency["student"]["median_ms"]
    cost = f"takes {times:.1f} times as long"
    arguments = results["train_teacher"]["model"]["arguments"]
    told = ", which is told the degradation," if "degradations" in arguments else ""
    if min(ahead) <= 0 or gain <= 0:
        return f"**The teacher{told} is not clearly better than the student** ({_words(ahead)}) and {cost}."
    kept = lead(mean["student"], mean["degraded"])[0] / gain
    return (
        f"The teacher{told} is ahead by {_words(ahead)} and {cost}: the student reaches {kept:.0%} of its gain in SSIM."
    )


def _gate(results: Results, limits: Gate) -> str:
    failed = [check.name for check in judge(results, limits) if not check.passed]
    return f"**The gate is not passed: {', '.join(failed)}.**" if failed else "The gate is passed."


def _words(values: tuple[float, float]) -> str:
    return f"{values[0]:+.4f} SSIM and {values[1]:+.2f} dB"


def choose_pairs(records: Sequence[PairRecord], degradation: str, count: int) -> list[PairRecord]:
    """Return the pairs of at most `count` photographs, spread evenly over all of them, with one degradation."""
    candidates = sorted(
        (record for record in records if (record.degradation, record.variant) == (degradation, 0)),
        key=lambda record: record.image,
    )
    spread = np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round().astype(int)
    return [candidates[index] for index in spread]
