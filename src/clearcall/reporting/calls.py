"""calls.md, calls.csv and the filmstrip."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from clearcall.core.files import atomic_path, write_csv
from clearcall.evaluation.calls import ALONE, CRISP, INPUT, MASK, MASK_RADIUS, NATURAL, WORSE_DB, Filmstrip, Score
from clearcall.imaging.frame import Frame
from clearcall.imaging.grid import ZOOM, choose_crop, draw_cells, enlarge
from clearcall.imaging.looks import CRISP_AMOUNT
from clearcall.imaging.metrics import MAX_PSNR_DB
from clearcall.params import PhotoMotion
from clearcall.reporting.page import Page
from clearcall.reporting.tables import markdown_table

_SETTING = ["codec", "factor", "qp"]
_CONTENDERS = (NATURAL, CRISP, ALONE, MASK)
# Field of a score: header and digits.
_SIGNAL = {
    "psnr_db": ("PSNR dB", 2),
    "luma_psnr_db": ("luma PSNR dB", 2),
    "chroma_psnr_db": ("chroma PSNR dB", 2),
    "ssim": ("SSIM", 4),
}
_PERCEIVED = {"flicker": ("flicker", 2), "vmaf": ("VMAF", 1), "vmaf_neg": ("VMAF NEG", 1)}
_OF_SUMMARY = ("luma_psnr_db", "chroma_psnr_db", "ssim", "vmaf_neg")
_ABOUT_VMAF = (
    "VMAF (0 to 100) rewards contrast even where it takes a frame further from the original: see the unsharp mask's. "
    "NEG, its variant without enhancement gain, does so less."
)
_PHOTOGRAPHS: dict[PhotoMotion, str] = {
    "pan": "Photographs become clips by a camera that pans over them, and zooms a little (`--motion bend`: they bend).",
    "bend": "Photographs become clips that bend as faces do before a camera that stands still, with a camera's noise.",
}
_WITHOUT_VMAF = "VMAF was not computed: no FFmpeg with libvmaf is at hand (`pip install imageio-ffmpeg` brings one)."
_NOTHING_DB = 0.005  # prints as 0.00
_SHOWN_FRAMES = 3
_SIDE, _LEAST_FACE = 80, 40  # pixels


def write_calls(
    scores: Sequence[Score],
    strips: Sequence[Filmstrip],
    model: str,
    command: str,
    reports: Path,
    motion: PhotoMotion = "pan",
) -> str:
    """Write reports/calls.md, which names the command, .csv and .png; return the tables, the summary last.

    `motion` is that of photographs, of which the report tells.
    """
    write_csv(reports / "calls.csv", scores)
    with atomic_path(reports / "calls.png") as temporary:
        draw_filmstrips(strips).save(temporary, optimize=True)
    summary, (signal, perceived) = summary_table(scores), calls_tables(scores)
    clips = {score.clip: score.frames for score in scores}
    sent, shown = strips[0].setting, " and ".join(strip.clip for strip in strips)
    about_vmaf = _WITHOUT_VMAF if any(score.vmaf is None for score in scores) else _ABOUT_VMAF
    page = Page("Clips as a call delivers them")
    page.made_by(command)
    page.add("Mean gain over what arrives, of all clips and settings:", summary)
    page.add(
        f"{len(clips)} clips, {sum(clips.values())} frames. Each is encoded at a fixed quantization parameter (QP, on "
        "H.264's scale; codecs differ in what they make of it) with low delay, decoded, and sharpened by "
        f"`{model}` as `clearcall sharpen` does it: through the temporal filter, in the looks {NATURAL} and {CRISP} "
        f"(an unsharp mask of {CRISP_AMOUNT:g} behind the network), or without that filter ({ALONE}, {NATURAL}). No "
        f"later frame is used. {_PHOTOGRAPHS[motion]} At half resolution, frames are downscaled by 2 before they are "
        "encoded and upscaled afterwards. Every clip stands in [calls.csv](calls.csv)."
    )
    page.add(
        "Beside each figure of what arrives stands the gain of each contender. PSNR and SSIM are of RGB, so that the "
        "colour lost to 4:2:0 counts; luma PSNR is what codecs are compared by, and chroma PSNR is of Cb and Cr at "
        "half resolution, without clips that are grey. "
        f"The unsharp mask (sigma {MASK_RADIUS:g}) has the amount with the highest SSIM for the first "
        "frame of each clip at each setting, which in a call nobody could know. A frame is worse if its PSNR falls by "
        f"more than {WORSE_DB:g} dB."
    )
    page.add(signal, f"The look {NATURAL}: {verdict(scores)}")
    page.add(
        "Flicker is the mean absolute difference between the errors of consecutive frames, in 8-bit levels: less is "
        f"better. {about_vmaf}"
    )
    page.add(perceived)
    page.add(
        f"{shown}, {sent.codec} at QP {sent.qp}, downscaled by {sent.factor}; a few frames, at {ZOOM}x: a face if one "
        "is found, or else where sending did most harm."
    )
    page.add("![Filmstrip](calls.png)")
    page.write(reports / "calls.md")
    return f"{signal}\n\n{perceived}\n\n{summary}"


def _table_of(scores: Sequence[Score]) -> pd.DataFrame:
    """Return the scores as a table, without chroma where it arrives without an error, as that of a grey page does.

    Its PSNR has no end, and a trace of colour would outweigh all else in a mean.
    """
    table = pd.DataFrame(map(asdict, scores))
    arrived = table[table["contender"] == INPUT].set_index(["clip", *_SETTING])["chroma_psnr_db"]
    whole = arrived.index[arrived >= MAX_PSNR_DB]
    table.loc[table.set_index(["clip", *_SETTING]).index.isin(whole), "chroma_psnr_db"] = np.nan
    return table


def calls_tables(scores: Sequence[Score]) -> tuple[str, str]:
    """Return a table of PSNR and SSIM and one of flicker and VMAF, a line for each codec, size and QP.

    They hold means over clips: of what arrives, and the contenders' gains over it.
    """
    table = _table_of(scores)
    table["codec"] = pd.Categorical(table["codec"], table["codec"].unique())  # keeps their order
    by_setting = table.drop(columns="clip").groupby(["contender", *_SETTING], observed=True)
    means, sums = by_setting.mean(), by_setting.sum()
    signal, natural = _lines(means, _SIGNAL), sums.loc[NATURAL]
    for line, worse, frames in zip(signal, natural["worse_frames"], natural["frames"], strict=True):
        line.append(f"{worse} of {frames}")
    there = {field: named for field, named in _PERCEIVED.items() if means[field].notna().all()}
    return (
        markdown_table([*_headers(_SIGNAL), "frames worse"], signal),
        markdown_table(_headers(there), _lines(means, there)),
    )


def summary_table(scores: Sequence[Score]) -> str:
    """Return a table of each contender's mean gain over the input, of VMAF NEG if it was computed."""
    fields = {name: named for name, named in (_SIGNAL | _PERCEIVED).items() if name in _OF_SUMMARY}
    means = _table_of(scores).groupby("contender")[list(fields)].mean()
    there = {field: named for field, named in fields.items() if means[field].notna().all()}
    gains = (means - means.loc[INPUT]).to_dict("index")
    rows = [
        [name, *(f"{gains[name][field]:+.{digits}f}" for field, (_, digits) in there.items())] for name in _CONTENDERS
    ]
    return markdown_table(["contender", *(header for header, _ in there.values())], rows)


def _headers(fields: Mapping[str, tuple[str, int]]) -> list[str]:
    return ["codec", "size", "QP", *(header for name, _ in fields.values() for header in (name, *_CONTENDERS))]


def _lines(means: pd.DataFrame, fields: Mapping[str, tuple[str, int]]) -> list[list[str]]:
    """Return a line for each setting: the input's means, and the contenders' gains over them."""
    arrived = means.loc[INPUT]
    gains = [means.loc[name] - arrived for name in _CONTENDERS]
    lines = []
    for setting in arrived.index:
        codec, factor, qp = setting
        line = [codec, "half" if factor > 1 else "full", str(qp)]
        for field, (_, digits) in fields.items():
            line += [f"{arrived.loc[setting, field]:.{digits}f}"]
            line += [f"{gain.loc[setting, field]:+.{digits}f}" for gain in gains]
        lines.append(line)
    return lines


def verdict(scores: Sequence[Score]) -> str:
    """Return in two sentences how many frames and clips the look natural left worse, and the worst of each."""
    ours = [score for score in scores if score.contender == NATURAL]
    arrived = {_place(score): score.psnr_db for score in scores if score.contender == INPUT}
    gains = {_place(score): score.psnr_db - arrived[_place(score)] for score in ours}
    worse, frames = sum(score.worse_frames for score in ours), sum(score.frames for score in ours)
    below = sum(gain < -_NOTHING_DB for gain in gains.values())
    frame = min(ours, key=lambda score: score.worst_db)
    clip = min(gains, key=gains.__getitem__)
    return (
        f"{worse} of {frames} frames are worse than they arrived; the least gain of a frame is {frame.worst_db:+.2f} "
        f"dB in {_place(frame)}. Of {len(gains)} means over a clip, {below} are below what arrived by more than "
        f"{_NOTHING_DB:g} dB; the least gain is {gains[clip]:+.2f} dB in {clip}."
    )


def _place(score: Score) -> str:
    return f"{score.clip} ({score.codec}, QP {score.qp}, {'half' if score.factor > 1 else 'full'})"


def draw_filmstrips(strips: Sequence[Filmstrip]) -> Image.Image:
    """Draw a row for each contender, of a few frames of each clip: a face, or else where sending did most harm."""
    shown = list[tuple[Filmstrip, int, int, int]]()  # a column each: the strip, the frame, and top and left of the crop
    for strip in strips:
        count, sent = len(strip.rows[INPUT]), strip.rows["as sent"][-1]
        top, left = find_face(sent, _SIDE) or choose_crop(sent, strip.rows[INPUT][-1], _SIDE)
        chosen = np.unique(np.linspace(0, count - 1, min(_SHOWN_FRAMES, count)).round().astype(int))
        shown += [(strip, index, top, left) for index in chosen]
    cells = [
        (enlarge(strip.rows[name][index][top : top + _SIDE, left : left + _SIDE]), name, f"frame {index + 1}")
        for name in strips[0].rows
        for strip, index, top, left in shown
    ]
    return draw_cells(cells, _SIDE * ZOOM, columns=len(shown))


def find_face(frame: Frame, side: int) -> tuple[int, int] | None:
    """Return top and left of the square of `side` pixels in the middle of the largest face, None if there is none."""
    from skimage.data import lbp_frontal_face_cascade_filename  # noqa: PLC0415  # needed for one figure
    from skimage.feature import Cascade  # noqa: PLC0415

    height, width = frame.shape[:2]
    if min(height, width) < max(side, _LEAST_FACE):
        return None
    cascade = Cascade(lbp_frontal_face_cascade_filename())  # type: ignore[no-untyped-call]  # scikit-image's lacks them
    found = cascade.detect_multi_scale(frame, 1.2, 1.5, min_size=(_LEAST_FACE, _LEAST_FACE), max_size=(height, width))
    if not found:
        return None
    face = max(found, key=lambda one: int(one["width"]))
    top, left = (int(face[start] + face[extent] / 2 - side / 2) for start, extent in (("r", "height"), ("c", "width")))
    return min(max(0, top), height - side), min(max(0, left), width - side)
