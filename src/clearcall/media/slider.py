"""A page in HTML with a slider between input and output, of images or of a video."""

import base64
import hashlib
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from string import Template

from PIL import Image

from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size

_PAGE = Path(__file__).with_name("slider.html")
# Moves the border, sets the size, and draws both halves of a video's frames into one; the page needs nothing else.
_SCRIPT = """
const [at, zoom] = ["at", "zoom"].map(id => document.getElementById(id)), pairs = document.querySelectorAll(".pair");
at.addEventListener("input", () => pairs.forEach(pair => pair.style.setProperty("--at", at.value + "%")));
zoom.addEventListener("change", () => pairs.forEach(pair => {
  pair.classList.toggle("fit", zoom.value === "0");
  pair.style.setProperty("--zoom", zoom.value);
}));
for (const player of document.querySelectorAll(".video")) {
  const [video, canvas, button, position, trouble] =
    ["video", "canvas", "button", "input", ".trouble"].map(one => player.querySelector(one));
  const context = canvas.getContext("2d"), { width, height } = canvas;
  const draw = () => {
    const x = Math.round(width * at.value / 100), output = video.videoWidth / 2;
    context.drawImage(video, 0, 0, width, height, 0, 0, width, height);
    if (x < width) context.drawImage(video, output + x, 0, width - x, height, x, 0, width - x, height);
  };
  const show = (_, { mediaTime }) => {
    draw();
    position.value = mediaTime;
    video.requestVideoFrameCallback(show);
  };
  at.addEventListener("input", draw);
  video.addEventListener("loadeddata", () => {
    position.max = video.duration - position.step;
    show(0, { mediaTime: 0 });
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play();
  });
  video.addEventListener("error", () => { trouble.hidden = false; });
  position.addEventListener("input", () => { video.currentTime = Number(position.value) + position.step / 2; });
  button.addEventListener("click", () => video.paused ? video.play() : video.pause());
  for (const kind of ["play", "pause"]) {
    video.addEventListener(kind, () => { button.textContent = video.paused ? "Play" : "Pause"; });
  }
  video.src = video.dataset.src;
}
"""
_VIEW = 'tabindex="0" role="group" aria-label="Before and after; scrolls when zoomed in"'
_PAIR = Template("""<div class="view" $view><div class="pair fit" style="--width: $width; --height: $height">
<img alt="$name, the input" width="$width" height="$height" src="$before">
<img alt="$name, the output of clearcall" class="after" width="$width" height="$height" src="$after">
</div></div>""")
_VIDEO = Template("""<div class="video" role="group" aria-label="$name">
<div class="view" $view><div class="pair fit" style="--width: $width; --height: $height">
<canvas role="img" aria-label="$name, the input left, the output of clearcall right" width="$width" height="$height">
</canvas>
</div></div>
<video data-src="$video" muted loop playsinline hidden></video>
<p class="player"><button type="button">Play</button>
<label>Position <input type="range" min="0" max="0" step="$step" value="0"></label></p>
<p class="trouble" role="alert" hidden>This browser cannot play H.264.</p>
<p>$seconds s, encoded again as H.264 with little loss. $note</p>
</div>""")
_MOST_WEBP_PX = 16_383


@dataclass(frozen=True)
class SplitVideo:
    """An H.264 video (MP4) with the input in its left half and the output in its right one.

    `size` is that of the input, in pixels: a half may have one more column or row. `rate` is in frames a second. `note`
    is shown below the video.
    """

    mp4: bytes
    size: Size
    rate: Fraction
    seconds: float
    note: str


def slider_page(title: str, shown: Mapping[str, tuple[Frame, Frame] | SplitVideo]) -> str:
    """Return an HTML page that shows pairs of RGB images of one size, or videos, by name, with a slider for all.

    It holds the images without loss and asks for nothing else, from anywhere.
    """
    parts = []
    for name, one in shown.items():
        parts += [f"<h2>{_escaped(name)}</h2>"] if len(shown) > 1 else []
        parts.append(_video(name, one) if isinstance(one, SplitVideo) else _pair(name, *one))
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=_escaped(title),
        shown="\n".join(parts),
        script=_SCRIPT,
        script_hash=base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode(),
    )


def _pair(name: str, before: Frame, after: Frame) -> str:
    height, width = before.shape[:2]
    images = {"before": _image_url(before), "after": _image_url(after)}
    return _PAIR.substitute(view=_VIEW, name=_escaped(name), width=width, height=height, **images)


def _video(name: str, video: SplitVideo) -> str:
    width, height = video.size
    return _VIDEO.substitute(
        view=_VIEW,
        name=_escaped(name),
        width=width,
        height=height,
        video=_data_url("video/mp4", video.mp4),
        step=float(1 / video.rate),
        seconds=f"{video.seconds:.1f}",
        note=_escaped(video.note),
    )


def _escaped(name: str) -> str:
    return html.escape(name.encode(errors="replace").decode())  # a name may be no UTF-8


def _image_url(frame: Frame) -> str:
    kind = "webp" if max(frame.shape) <= _MOST_WEBP_PX else "png"
    file = io.BytesIO()
    Image.fromarray(frame).save(file, kind, **({"lossless": True} if kind == "webp" else {}))
    return _data_url(f"image/{kind}", file.getvalue())


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
