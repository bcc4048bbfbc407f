"""Options of sharpening: network, runtime, strength, and the frames of a video."""

from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Literal

from clearcall.imaging.looks import DEFAULT_LOOK, Look
from clearcall.imaging.sizes import NewSize
from clearcall.media.video.canvas import View
from clearcall.media.video.part import Part
from clearcall.media.video.write import VideoCodec
from clearcall.runtime.engines import Provider
from clearcall.runtime.family import CAMERA_HEADROOM, SharpenerFor, sharpener_for
from clearcall.runtime.sharpener import AUTO, Sharpener, best_first, find_model


@dataclass(frozen=True)
class SharpenerOptions:
    """The arguments of a `Sharpener`; the model `auto` is the best for images, and for videos chosen by their rate."""

    model: str = AUTO
    provider: Provider | Literal["auto"] = "auto"
    threads: int | None = None
    strength: float = 1.0
    look: Look = DEFAULT_LOOK

    def for_images(self) -> Sharpener:
        """Return a Sharpener whose runtime is chosen once, at the first image, on 720p frames."""
        return self._make(self.model, measured_at=(1280, 720))

    def for_videos(self) -> Sharpener | SharpenerFor:
        """Return a Sharpener, or of `auto` what chooses one for the size and rate of a video."""
        return sharpener_for(self.model, self._make, "video")

    def for_camera(self) -> Sharpener | SharpenerFor:
        """Return a Sharpener, or of `auto` what chooses one for the size and rate of a camera."""
        return sharpener_for(self.model, partial(self._make, video=True), "camera", CAMERA_HEADROOM)

    def recorded(self, *, video: bool) -> dict[str, object]:
        """Return what decides a result, for a record in JSON: the network by its SHA-256, strength and look."""
        models = best_first() if video and self.model == AUTO else [self.model]
        digest = sha256(b"".join(find_model(model).read_bytes() for model in models))
        return {"model": digest.hexdigest(), "strength": self.strength, "look": self.look}

    @property
    def _make(self) -> "partial[Sharpener]":
        return partial(Sharpener, provider=self.provider, threads=self.threads, strength=self.strength, look=self.look)


@dataclass(frozen=True)
class VideoOptions:
    """Options for videos, `size` for images too; see `clearcall.media.video.run.sharpen_video`."""

    view: View = "plain"
    size: NewSize | None = None
    codec: VideoCodec | None = None
    crf: int | None = None
    past_frames: bool = True
    part: Part = Part()  # noqa: RUF009  # frozen

    def given(self) -> list[str]:
        """Return the names of the command's options for videos alone that differ from their defaults."""
        differs = {
            f"--{self.view}": self.view != "plain",
            "--codec": self.codec is not None,
            "--crf": self.crf is not None,
            "--no-past-frames": not self.past_frames,
            "--start": self.part.start_s > 0,
            "--duration": self.part.duration_s is not None,
        }
        return [name for name, given in differs.items() if given]

    def recorded(self) -> dict[str, object]:
        """Return all of them for a record in JSON."""
        recorded: dict[str, object] = {"view": self.view, "crf": self.crf, "past_frames": self.past_frames}
        if self.codec is not None:  # these only if they were given: results of before they existed stay up to date
            recorded["codec"] = self.codec
        if not self.part.whole:
            recorded["part_s"] = [str(self.part.start_s), str(self.part.duration_s)]
        return recorded

    def recorded_size(self) -> dict[str, object]:
        """Return the size of images and videos for a record in JSON."""
        return {"size": list(self.size) if isinstance(self.size, tuple) else self.size}
