"""A page in HTML with a slider between pairs of images."""

import base64
import hashlib
import html
import io
from collections.abc import Mapping
from pathlib import Path
from string import Template

from PIL import Image

from clearcall.imaging.frame import Frame

_PAGE = Path(__file__).with_name("slider.html")
# Moves the border between the images, and sets their size; the page needs nothing else.
_SCRIPT = """
const [at, zoom] = ["at", "zoom"].map(id => document.getElementById(id)), pairs = document.querySelectorAll(".pair");
at.addEventListener("input", () => pairs.forEach(pair => pair.style.setProperty("--at", at.value + "%")));
zoom.addEventListener("change", () => pairs.forEach(pair => {
  pair.classList.toggle("fit", zoom.value === "0");
  pair.style.setProperty("--zoom", zoom.value);
}));
"""
_PAIR = Template("""<div class="view"><div class="pair fit" style="--width: $width">
<img alt="$name, the input" width="$width" height="$height" src="$before">
<img alt="$name, the output of clearcall" class="after" width="$width" height="$height" src="$after">
</div></div>""")
_MOST_WEBP_PX = 16_383


def slider_page(title: str, pairs: Mapping[str, tuple[Frame, Frame]]) -> str:
    """Return an HTML page that shows pairs of RGB images of one size, by name, with a slider between both of each.

    It holds the images without loss and asks for nothing else, from anywhere.
    """
    shown = []
    for name, (before, after) in pairs.items():
        height, width = before.shape[:2]
        images = {"before": _data_url(before), "after": _data_url(after), "width": width, "height": height}
        shown += [f"<h2>{_escaped(name)}</h2>"] if len(pairs) > 1 else []
        shown.append(_PAIR.substitute(name=_escaped(name), **images))
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=_escaped(title),
        pairs="\n".join(shown),
        script=_SCRIPT,
        script_hash=base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode(),
    )


def _escaped(name: str) -> str:
    return html.escape(name.encode(errors="replace").decode())  # a name may be no UTF-8


def _data_url(frame: Frame) -> str:
    kind = "webp" if max(frame.shape) <= _MOST_WEBP_PX else "png"
    file = io.BytesIO()
    Image.fromarray(frame).save(file, kind, **({"lossless": True} if kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
