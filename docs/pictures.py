"""Make the README's pictures: run `clearcall compare`, `video` and `camera` on a photograph that scikit-image brings.

    python docs/pictures.py

The film is a call: the photograph moves a little, is sent at half its size through H.264 and shown at full size.
"""

import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage import data

from clearcall.data.codecs import pan_and_zoom, resized, send
from clearcall.metrics import Frame

QP, FRAMES, RATE = 27, 90, 30
HERE = Path(__file__).parent


def scaled(picture: Frame, factor: float) -> Frame:
    """Return a picture of so many times the height and width."""
    height, width = picture.shape[:2]
    return resized(picture, (int(width * factor), int(height * factor)))


def write_film(path: Path, frames: list[Frame]) -> None:
    """Write RGB frames as a film, nearly without loss."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"crf": "8", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            film.mux(stream.encode(picture))
        film.mux(stream.encode())


def frame_of(path: Path, number: int) -> Image.Image:
    """Return a frame of a film."""
    with av.open(str(path)) as film:
        for index, frame in enumerate(film.decode(video=0)):
            if index == number:
                return Image.fromarray(frame.to_ndarray(format="rgb24"))
    raise IndexError(f"{path} has no frame {number}")


def run(*arguments: object) -> None:
    """Run a command of clearcall's."""
    subprocess.run([Path(sys.executable).with_name("clearcall"), *map(str, arguments)], check=True)


def main() -> None:
    """Write image.png, video.png and camera.png beside this file."""
    photograph = np.asarray(data.coffee(), np.uint8)  # type: ignore[no-untyped-call]  # the library ships no types
    arrived = [
        scaled(frame, 2) for frame in send(pan_and_zoom(scaled(photograph, 0.5), FRAMES, (0.05, 0.02), 1), "h264", QP)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        blurred, film = folder / "blurred.png", folder / "call.mp4"
        Image.fromarray(scaled(scaled(photograph, 0.5), 2)).save(blurred)
        run("compare", blurred, HERE / "image.png", "--overwrite")
        write_film(film, arrived)
        run("video", film, folder / "split.mp4", "--model", "quality", "--split", "--crf", 8)
        frame_of(folder / "split.mp4", FRAMES - 1).save(HERE / "video.png", optimize=True)
        shown = ("--loop", "--seconds", 4, "--overlay", "--output", folder / "camera.mkv")
        run("camera", film, "--model", "quality", *shown)
        frame_of(folder / "camera.mkv", FRAMES).save(HERE / "camera.png", optimize=True)


if __name__ == "__main__":
    main()
