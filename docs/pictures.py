"""Make the pictures of README and docs: run clearcall's commands on photographs that scikit-image brings.

    make browser && python docs/pictures.py

The page is drawn by Chromium. The video is a call: a face that moves as if it talked, sent at half its resolution
through H.264 and upscaled again.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage import data

from clearcall.data.degrade.codecs import send
from clearcall.data.synthetic import MAX_BEND, bent
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import resized

QP, FRAMES, RATE = 27, 90, 30
HERE = Path(__file__).parent


def scaled(picture: Frame, factor: float) -> Frame:
    """Return a picture of so many times the height and width."""
    height, width = picture.shape[:2]
    return resized(picture, (int(width * factor), int(height * factor)))


def write_video(path: Path, frames: list[Frame]) -> None:
    """Write RGB frames as a video whose luma loses nothing: a second encoder would hide the first from the router."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=RATE, options={"qp": "0", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            video.mux(stream.encode(picture))
        video.mux(stream.encode())


def frame_of(path: Path, number: int) -> Image.Image:
    """Return a frame of a video."""
    with av.open(str(path)) as video:
        for index, frame in enumerate(video.decode(video=0)):
            if index == number:
                return Image.fromarray(frame.to_ndarray(format="rgb24"))
    raise IndexError(f"{path} has no frame {number}")


def run(*arguments: object, folder: Path = HERE) -> None:
    """Run a command of clearcall's in a folder."""
    subprocess.run([Path(sys.executable).with_name("clearcall"), *map(str, arguments)], check=True, cwd=folder)


def draw_page(picture: Path, output: Path) -> None:
    """Write what `clearcall web` shows of a picture, in Chromium."""
    from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415  # `make browser` installs it

    command = [str(Path(sys.executable).with_name("clearcall")), "web", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as tools:
        try:
            address = next(word for word in str(server.stdout and server.stdout.readline()).split() if "http" in word)
            browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 900, "height": 740}, color_scheme="dark")
            page.goto(address)
            page.set_input_files("#file", picture)
            status = expect(page.locator("#status"))
            status.to_contain_text("is sharpened", timeout=60_000)
            page.select_option("#look", "crisp")
            status.to_contain_text("is sharpened")
            page.get_by_label("Call").check()  # once more: the time of the first is that of loading the network too
            status.to_contain_text("is sharpened")
            page.screenshot(path=output)
        finally:
            server.send_signal(signal.SIGINT)


def main() -> None:
    """Write image.png, text.png, video.png, camera.png, adapt.png and web.png beside this file."""
    portrait = np.asarray(data.astronaut()[:288], np.uint8)  # type: ignore[no-untyped-call]  # the library ships no types
    page = np.asarray(data.page(), np.uint8)  # type: ignore[no-untyped-call]  # likewise
    talking = bent([scaled(portrait, 0.5)] * FRAMES, MAX_BEND, np.random.default_rng(1))
    arrived = [scaled(frame, 2) for frame in send(talking, "h264", QP)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        blurred, video = folder / "blurred.png", folder / "call.mp4"
        for name, picture in (("image.png", portrait[:192, 120:376]), ("text.png", np.stack([page] * 3, axis=-1))):
            Image.fromarray(scaled(scaled(picture, 0.5), 2)).save(blurred)
            run("compare", blurred, "--output", HERE / name, "--overwrite")
        face = folder / "face.png"
        Image.fromarray(scaled(scaled(portrait, 0.5), 2)).save(face)
        draw_page(face, HERE / "web.png")
        write_video(video, arrived)
        run("sharpen", video, folder / "split.mp4", "--model", "quality", "--split", "--crf", 8)
        frame_of(folder / "split.mp4", FRAMES - 1).save(HERE / "video.png", optimize=True)
        shown = ("--loop", "--seconds", 4, "--overlay", "--output", folder / "camera.mkv")
        run("camera", video, "--model", "quality", *shown)
        frame_of(folder / "camera.mkv", FRAMES).save(HERE / "camera.png", optimize=True)
        run("adapt", video, "--output", "me.onnx", folder=folder)
        shutil.copy(folder / "me.png", HERE / "adapt.png")


if __name__ == "__main__":
    main()
