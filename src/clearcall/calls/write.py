"""calls.md, calls.csv and the filmstrip."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from clearcall.calls.measure import INPUT, MASK, MASK_RADIUS, WORSE_DB, Filmstrip, Score
from clearcall.files import atomic_path, write_text
from clearcall.metrics import Frame
from clearcall.report.pictures import ZOOM, choose_crop, draw_cells, enlarge
from clearcall.report.tables import markdown_table

_SHOWN_FRAMES = 3
_SIDE, _LEAST_FACE = 80, 40  # pixels


def write_calls(scores: Sequence[Score], strip: Filmstrip, model: str, clips_name: str, reports: Path) -> str:
    """Write reports/calls.md, .csv and .png; return the table of means over clips by codec, size and quantizer."""
    with atomic_path(reports / "calls.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(scores[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, scores))
    with atomic_path(reports / "calls.png") as temporary:
        draw_filmstrip(strip).save(temporary, optimize=True)
    table = calls_table(scores, model)
    clips = {score.clip: score.frames for score in scores}
    sent = strip.setting
    write_text(
        reports / "calls.md",
        "# Clips as a call delivers them\n\n"
        f"Made by `clearcall calls {clips_name} --model {model}`: {len(clips)} clips, {sum(clips.values())} frames. "
        "Each is encoded at a fixed quantizer (QP, on H.264's scale; codecs differ in what they make of it) with low "
        "delay, decoded, and sharpened frame by frame: the model sees no other frame, and none that is still to "
        "come. At half size, frames are made smaller by 2 before they are encoded and larger afterwards.\n\n"
        "PSNR and SSIM are of RGB, so that the colour lost to 4:2:0 counts. Under the names of contenders stand their "
        f"gains over what arrives. The unsharp mask (sigma {MASK_RADIUS:g}) has the amount that is best by SSIM for "
        "the first frame of each clip at each setting, which in a call nobody could know. Flicker is the mean absolute "
        "difference between the errors of consecutive frames, in grey levels. A frame is worse if its PSNR falls by "
        f"more than {WORSE_DB:g} dB. Every clip stands in [calls.csv](calls.csv).\n\n"
        f"{table}\n\n{verdict(scores, model)}\n\n"
        f"{strip.clip}, {sent.codec} at QP {sent.qp}, made smaller by {sent.factor}; every few frames, at {ZOOM}x: to "
        "the left where sending did most harm, to the right a face, if one is found.\n\n"
        "![Filmstrip](calls.png)\n",
    )
    return table


def calls_table(scores: Sequence[Score], model: str) -> str:
    """Return one line for each codec, size and quantizer: means over clips, and the gains over what arrives."""
    lines = []
    codecs = [score.codec for score in scores]
    keys = {(score.codec, score.factor, score.qp) for score in scores}
    for key in sorted(keys, key=lambda key: (codecs.index(key[0]), *key[1:])):
        found = {
            name: [s for s in scores if (s.codec, s.factor, s.qp, s.contender) == (*key, name)]
            for name in (INPUT, model, MASK)
        }
        mean = {
            name: {
                field: float(np.mean([getattr(score, field) for score in group]))
                for field in ("psnr_db", "ssim", "flicker")
            }
            for name, group in found.items()
        }
        lines.append(
            [
                key[0],
                "half" if key[1] > 1 else "whole",
                key[2],
                f"{mean[INPUT]['psnr_db']:.2f}",
                *(f"{mean[name]['psnr_db'] - mean[INPUT]['psnr_db']:+.2f}" for name in (model, MASK)),
                f"{mean[INPUT]['ssim']:.4f}",
                *(f"{mean[name]['ssim'] - mean[INPUT]['ssim']:+.4f}" for name in (model, MASK)),
                *(f"{mean[name]['flicker']:.2f}" for name in (INPUT, model, MASK)),
                f"{sum(score.worse_frames for score in found[model])} of {sum(score.frames for score in found[model])}",
            ]
        )
    headers = [
        "codec",
        "size",
        "QP",
        "PSNR dB",
        model,
        MASK,
        "SSIM",
        model,
        MASK,
        "flicker",
        model,
        MASK,
        "frames worse",
    ]
    return markdown_table(headers, lines)


def verdict(scores: Sequence[Score], model: str) -> str:
    """Return in one sentence how many frames the model left worse, and the worst of them."""
    ours = [score for score in scores if score.contender == model]
    worse, frames = sum(score.worse_frames for score in ours), sum(score.frames for score in ours)
    worst = min(ours, key=lambda score: score.worst_db)
    where = f"{worst.worst_db:+.2f} dB in {worst.clip} ({worst.codec}, QP {worst.qp}, smaller by {worst.factor})"
    return f"{worse} of {frames} frames are worse than they arrived; the least gain of a frame is {where}."


def draw_filmstrip(strip: Filmstrip) -> Image.Image:
    """Draw a row for each contender, of a few frames: where sending did most harm, and a face if there is one."""
    count, last = len(strip.rows[INPUT]), strip.rows["as sent"][-1]
    chosen = np.unique(np.linspace(0, count - 1, min(_SHOWN_FRAMES, count)).round().astype(int))
    crops = [choose_crop(last, strip.rows[INPUT][-1], _SIDE)]
    if (face := find_face(last, _SIDE)) is not None:
        crops.append(face)
    cells = [
        (enlarge(frames[index][top : top + _SIDE, left : left + _SIDE]), name, f"frame {index + 1}")
        for name, frames in strip.rows.items()
        for top, left in crops
        for index in chosen
    ]
    return draw_cells(cells, _SIDE * ZOOM, columns=len(crops) * len(chosen))


def find_face(frame: Frame, side: int) -> tuple[int, int] | None:
    """Return top and left of the square of `side` pixels in the middle of the largest face, None if there is none."""
    from skimage.data import lbp_frontal_face_cascade_filename  # noqa: PLC0415  # needed for one picture
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
