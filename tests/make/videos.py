"""Videos written and decoded again: a moving photograph by default, with whatever traits a test asks for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame

from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size
from clearcall.media.video.read import METADATA, planar, plane_of

WIDTH, HEIGHT = 96, 64
FINE = Fraction(1, 12800)  # s, the unit of the times of `write_video`
STEP = 512  # of these units: a frame at 25 fps
QUARTER = {
    90: (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30),
    180: (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
    270: (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30),
}


def rgb_at(scene: Frame, number: int, width: int = WIDTH, height: int = HEIGHT) -> Frame:
    """Return frame `number` of a camera that pans over a scene."""
    return np.ascontiguousarray(np.roll(scene, (number, 3 * number), (0, 1))[:height, :width])


def write_video(
    path: Path,
    scene: Frame,
    times: Iterable[int] = range(0, 10 * STEP, STEP),
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    size: Size = (WIDTH, HEIGHT),
    sound: bool | int = False,
    sound_codec: str | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    kind: str | None = None,
    tags: dict[str, Any] | None = None,
    metadata: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write a video of a moving photograph, its colour tags and other traits as given, `sound` of 20 packets."""
    with av.open(str(path), "w", format=kind, options=muxer or {}, **METADATA) as out:
        stream = out.add_stream(codec, 25, options or {}, width=size[0], height=size[1])
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = FINE
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_matrix(QUARTER[rotation])
        out.metadata.update({"title": "A call"} | (metadata or {}))
        usual = "libopus" if codec.startswith("libvpx") else "aac"
        audio = out.add_stream(sound_codec or usual, 48000) if sound else None
        times = list(times)
        stream.codec_context.flags |= Flags.frame_duration
        for number, (pts, following) in enumerate(zip(times, [*times[1:], times[-1] + STEP], strict=True)):
            rgb = VideoFrame.from_ndarray(rgb_at(scene, number, *size), format="rgb24")
            frame = rgb.reformat(format=pixel_format, dst_color_range=(tags or {}).get("color_range"))
            frame.pts, frame.time_base, frame.duration = pts, FINE, following - pts
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if isinstance(audio, av.AudioStream):
            noise = np.random.default_rng(0)
            for number in range(20 if sound is True else sound):
                samples = (0.1 * noise.standard_normal((2, 1024))).astype(np.float32)
                heard = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
                heard.sample_rate, heard.pts, heard.time_base = 48000, 1024 * number, Fraction(1, 48000)
                out.mux(audio.encode(heard))
            out.mux(audio.encode(None))
    return path


def write_pieces(path: Path, scene: Frame, *sizes: Size, **traits: Any) -> Path:
    """Write a raw H.264 stream of ten frames of each size, one after the other."""
    parts = []
    for number, size in enumerate(sizes):
        part = path.with_name(f"{number}.h264")
        parts.append(write_video(part, scene, kind="h264", size=size, options={"bf": "0"}, **traits).read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def copy_packets(video: InputContainer, out: OutputContainer, streams: Mapping[int, av.stream.Stream]) -> None:
    """Copy packets of the streams with these numbers into a new file."""
    for packet in video.demux():
        if packet.size and packet.stream_index in streams:
            packet.stream = streams[packet.stream_index]
            out.mux(packet)


def remux(source: Path, path: Path, **container_options: str) -> Path:
    """Copy all streams into another container."""
    with av.open(str(source)) as video, av.open(str(path), "w", container_options=container_options) as out:
        streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in video.streams}
        for stream in streams.values():
            if isinstance(stream, av.VideoStream):
                stream.codec_context.framerate = Fraction(25)
        copy_packets(video, out, streams)
    return path


@dataclass(frozen=True)
class Shown:
    """A decoded frame: its planes, when it is shown, and what is said of its colours."""

    planes: tuple[Frame, Frame, Frame]
    time: Fraction
    colours: tuple[int, int, int, int]
    rotation: int


def frames_of(path: Path) -> list[VideoFrame]:
    """Decode a video."""
    with av.open(str(path)) as video:
        return list(video.decode(video=0))


def shown(path: Path, size: Size | None = None) -> list[Shown]:
    """Decode a video as 8 bits 4:2:0, each frame scaled to a size if one is given."""
    frames = []
    for frame in frames_of(path):
        flat = planar(frame, *(size or (frame.width, frame.height)))
        colours = (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc)
        y, u, v = (plane_of(flat, index).copy() for index in range(3))
        time = (frame.pts or 0) * (frame.time_base or Fraction(0))
        frames.append(Shown((y, u, v), time, colours, frame.rotation))
    return frames


def times_of(path: Path) -> list[Fraction]:
    """Return when each frame of a video is shown, in s."""
    return [(frame.pts or 0) * (frame.time_base or Fraction(0)) for frame in frames_of(path)]


def i420_of(path: Path) -> list[Frame]:
    """Decode a 4:2:0 video as I420 arrays."""
    return [np.asarray(frame.to_ndarray(), np.uint8) for frame in frames_of(path)]


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """Return every packet of the streams of a kind, and its time in s."""
    with av.open(str(path)) as video:
        return [
            (bytes(packet), (packet.pts or 0) * packet.time_base)
            for packet in video.demux()
            if packet.size and packet.stream.type == kind
        ]
