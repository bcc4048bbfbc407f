"""What the numbers mean, in a few sentences that they bear out."""

from clearcall.gate import judge
from clearcall.params import Gate, TeacherLosses
from clearcall.report.results import Results, frame_size, lead

# A lead in SSIM below this may turn round with another seed.
CHANCE_SSIM = 0.001


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
        f"{len(evaluate['by_image'])} test photographs ({evaluate['pairs']} degraded pictures), at "
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
    if "twin" not in mean:
        if results["distill_student"]["student"]["losses"].keys() <= TeacherLosses.model_fields.keys():
            return "Nothing was distilled: the student learned from sharp pictures alone."
        return "What distillation is worth is unknown: no student was trained without the teacher."
    over_twin = lead(mean["student"], mean["twin"])
    if min(over_twin) > 0:
        finding = "Distillation helped"
    elif max(over_twin) <= 0:
        finding = "**Distillation did not help**"
    else:
        finding = "Whether distillation helped is undecided"
    wins = sum(scores["student"]["ssim"] > scores["twin"]["ssim"] for scores in photographs)
    chance = " Each was trained once, so this may be chance." if abs(over_twin[0]) < CHANCE_SSIM else ""
    return (
        f"{finding}: {_words(over_twin)} over the same student trained without a teacher, higher SSIM on {wins} of "
        f"{len(photographs)} photographs.{chance}"
    )


def _below_teacher(results: Results) -> str:
    mean, latency = results["evaluate"]["mean"], results["benchmark_fps"]["latency"]
    ahead, gain = lead(mean["teacher"], mean["student"]), lead(mean["teacher"], mean["degraded"])[0]
    times = latency["teacher"]["median_ms"] / latency["student"]["median_ms"]
    cost = f"takes {times:.1f} times as long"
    if min(ahead) <= 0 or gain <= 0:
        return f"**The teacher is not clearly better than the student** ({_words(ahead)}) and {cost}."
    kept = lead(mean["student"], mean["degraded"])[0] / gain
    return f"The teacher is ahead by {_words(ahead)} and {cost}: the student reaches {kept:.0%} of its gain in SSIM."


def _gate(results: Results, limits: Gate) -> str:
    failed = [check.name for check in judge(results, limits) if not check.passed]
    return f"**The gate is not passed: {', '.join(failed)}.**" if failed else "The gate is passed."


def _words(values: tuple[float, float]) -> str:
    return f"{values[0]:+.4f} SSIM and {values[1]:+.2f} dB"
