"""Videos whose streams are not what they seem: edit lists that hide parts, moving images, mutated files."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from PIL import ExifTags, Image
from tests.make.videos import packets

from clearcall.core.errors import UserError
from clearcall.media.compare import write_before_after
from clearcall.media.folder import sharpen_folder
from clearcall.media.images import sharpen_file
from clearcall.media.options import SharpenerOptions
from clearcall.media.video.read import plane_of
from clearcall.media.video.run import sharpen_video
from clearcall.runtime.sharpener import Sharpener

RATE, FPS, SECONDS = 48000, 25, 3
# Levels of luma, and tones in Hz, of what must stay hidden and of a moment that is seen and heard at once.
DARK, FLASH, HIDDEN = 30, 120, 220
FLASH_HZ, HIDDEN_HZ = 1000, 6000
FLASH_AT = 0.8, 0.9  # s
DEPTHS: dict[str, tuple[int, type]] = {
    "flt": (1, np.float32),
    "s16": (2**15 - 1, np.int16),
    "s32": (2**31 - 1, np.int32),
}
Edit = tuple[float | None, float]  # begin in s in the stored stream, None for nothing at all, and length
UNCUT: tuple[Edit, ...] = ()
START: tuple[Edit, ...] = ((0.41, 2.2),)
END: tuple[Edit, ...] = ((0.0, 1.01),)
JOINT: tuple[Edit, ...] = ((0.41, 0.6), (1.61, 1.0))
LATE: tuple[Edit, ...] = ((None, 0.5), (0.41, 1.0))


def is_shown(edits: tuple[Edit, ...], second: float) -> bool:
    return not edits or any(begin is not None and begin <= second < begin + length for begin, length in edits)


def write_edited(
    path: Path, edits: tuple[Edit, ...], sound: str = "aac", *, second: bool = False, texts: bool = False,
    muxer: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write an MP4 of 3 s whose edit lists hide all but `edits`, where it is bright and of a high tone."""
    with av.open(str(path), "w", options=muxer or {}) as out:
        videos = [
            out.add_stream("libx264", FPS, {"bf": "2", "g": "25", "preset": "ultrafast"}) for _ in range(1 + second)
        ]
        for stream, width in zip(videos, (96, 64), strict=False):
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        audio = out.add_stream(sound, RATE, layout="mono")
        assert isinstance(audio, av.AudioStream)
        subtitles = out.add_mux_stream("mov_text", time_base=Fraction(1, 1000)) if texts else None
        for number in range(SECONDS * FPS):
            at = number / FPS
            level = HIDDEN if not is_shown(edits, at) else FLASH if FLASH_AT[0] <= at < FLASH_AT[1] else DARK
            for stream, width in zip(videos, (96, 64), strict=False):
                frame = VideoFrame.from_ndarray(np.full((96, width), 128, np.uint8), "yuv420p")
                plane_of(frame, 0)[:] = level
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                out.mux(stream.encode(frame))
        for stream in videos:
            out.mux(stream.encode(None))
        out.mux([packet for frame in tones(edits, audio) for packet in audio.encode(frame)])
        out.mux(audio.encode(None))
        if subtitles is not None:
            for start in (0, 500, 1000, 1500):
                text = f"from {start}".encode()
                packet: av.Packet[Any] = av.Packet(len(text).to_bytes(2, "big") + text)
                packet.stream, packet.time_base, packet.duration = subtitles, Fraction(1, 1000), 500
                packet.pts = packet.dts = start
                packet.is_keyframe = True
                out.mux(packet)
    if edits:
        path.write_bytes(edited(path.read_bytes(), edits))
    return path


def tones(edits: tuple[Edit, ...], audio: av.AudioStream) -> Iterator[AudioFrame]:
    times = np.arange(SECONDS * RATE) / RATE
    shown = np.array([is_shown(edits, second) for second in times])
    flash = (times >= FLASH_AT[0]) & (times < FLASH_AT[1])
    wave = np.where(
        shown, 0.4 * flash * np.sin(2 * np.pi * FLASH_HZ * times), 0.5 * np.sin(2 * np.pi * HIDDEN_HZ * times)
    )
    step, kind = audio.codec_context.frame_size or 1024, audio.codec_context.format.name
    for start in range(0, len(wave), step):
        samples = wave[np.newaxis, start : start + step]
        scale, depth = DEPTHS[kind.removesuffix("p")]
        stored: npt.NDArray[Any] = (scale * samples).astype(depth)
        frame = AudioFrame.from_ndarray(stored, kind, "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        yield frame


def boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names of the boxes of an MP4, and the boxes with them."""
    while start < len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        yield data[start + 4 : start + 8], data[start : start + size]
        start += size


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content


def edited(data: bytes, edits: tuple[Edit, ...]) -> bytes:
    """Give all tracks of an MP4 an edit list; begins are counted from where their own ones had it."""
    result = b""
    for name, content in boxes(data):
        if name == b"moov":
            scale = scale_of(content, b"mvhd")
            inner = (edited_track(one, edits, scale) if kind == b"trak" else one for kind, one in boxes(content, 8))
            result += box(b"moov", b"".join(inner))
        else:
            result += content
    return result


def scale_of(parent: bytes, name: bytes) -> int:
    """Return the units a second of the box of that name in another."""
    return int.from_bytes(dict(boxes(parent, 8))[name][20:24], "big")


def edited_track(track: bytes, edits: tuple[Edit, ...], movie_scale: int) -> bytes:
    inner = list(boxes(track, 8))
    scale = scale_of(next(content for name, content in inner if name == b"mdia"), b"mdhd")
    old = next((content for name, content in inner if name == b"edts"), None)
    begins: int = struct.unpack(">i", old[-8:-4])[0] if old else 0
    entries = b"".join(
        struct.pack(
            ">IiI", round(movie_scale * length), -1 if begin is None else begins + round(scale * begin), 1 << 16
        )
        for begin, length in edits
    )
    listed = box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)) + entries))
    return box(
        b"trak", b"".join(content + (listed if name == b"tkhd" else b"") for name, content in inner if name != b"edts")
    )


class Played(NamedTuple):
    """What is seen and heard of a file: luma with its times, samples, and when these begin and end, all in s."""

    levels: list[tuple[float, float]]
    samples: npt.NDArray[np.float64]
    begin: float
    end: float


def played(path: Path, index: int = 0, **options: str) -> Played:
    with av.open(str(path), options=options) as video:
        levels = [(float(one.time or 0), float(plane_of(one, 0).mean())) for one in video.decode(video=index)]
    parts, begins = [], []
    with av.open(str(path), options=options) as video:
        for frame in video.decode(audio=0):
            parts.append(frame.to_ndarray().astype(np.float64).ravel() / DEPTHS[frame.format.name.removesuffix("p")][0])
            begins.append(float(frame.time or 0))
    return Played(levels, np.concatenate(parts), begins[0], begins[-1] + len(parts[-1]) / RATE)


def loudness(samples: npt.NDArray[np.float64], hertz: int) -> npt.NDArray[np.float64]:
    """Return the amplitude of a tone in each 5 ms."""
    pieces = samples[: len(samples) // 240 * 240].reshape(-1, 240)
    return np.asarray(np.abs(pieces @ np.exp(2j * np.pi * hertz * np.arange(240) / RATE)) / 120)


# Frames, and the s in which the result begins and ends.
EDITS = {
    "uncut": (UNCUT, 75, 0.0, 3.0),
    "start": (START, 55, 0.0, 2.2),
    "end": (END, 26, 0.0, 1.01),
    "joint": (JOINT, 40, 0.0, 1.6),
    "late": (LATE, 25, 0.5, 1.5),
}


@pytest.mark.parametrize(
    ("sound", "suffix", "name"),
    [
        *(("aac", ".mp4", name) for name in ("uncut", "start", "joint")),
        *(("aac", ".mkv", name) for name in ("start", "end", "joint", "late")),
        *(("libopus", ".mkv", name) for name in ("start", "end")),
        *(("libmp3lame", ".mkv", name) for name in ("start", "end", "joint")),
        *(("pcm_s16le", ".mov", name) for name in ("uncut", "start", "end", "late")),
    ],
)
def test_what_an_edit_list_hides_is_not_in_the_result(
    sharpener: Sharpener, tmp_path: Path, sound: str, suffix: str, name: str
) -> None:
    edits, frames, begin_s, end_s = EDITS[name]
    source = write_edited(tmp_path / ("in.mov" if sound == "pcm_s16le" else "in.mp4"), edits, sound)
    target = tmp_path / f"out{suffix}"
    sharpen_video(sharpener, source, target)
    # Edit lists of the result are passed over once: nothing may be hidden there either.
    before, after, unedited = played(source), played(target), played(target, ignore_editlist="1")
    for one in (after, unedited):
        assert loudness(one.samples, HIDDEN_HZ).max() < 0.02
        assert max(level for _, level in one.levels) < FLASH + 20
    assert len(after.levels) == frames
    # What an encoder of sound begins with cannot be hidden in Matroska: it puts all the rest off.
    assert after.levels[0][0] == pytest.approx(begin_s, abs=0.025)
    assert after.begin == pytest.approx(begin_s, abs=0.025)
    assert after.end == pytest.approx(end_s, abs=0.06)
    # Sound and video stay together; FFmpeg itself moves the video to its first complete frame.
    assert apart_s(before) == pytest.approx(0.0, abs=0.041)
    assert apart_s(after) == pytest.approx(apart_s(before), abs=0.006)


def apart_s(found: Played) -> float:
    """Return how much later than the flash its tone begins."""
    seen = next(at for at, level in found.levels if DARK + 30 < level < HIDDEN - 30)
    return float(found.begin + 0.005 * np.flatnonzero(loudness(found.samples, FLASH_HZ) > 0.2)[0] - seen)


@pytest.mark.parametrize("sound", ["aac", "libmp3lame", "libopus"])
def test_what_an_encoder_of_sound_begins_and_ends_with_is_kept(
    sharpener: Sharpener, tmp_path: Path, sound: str
) -> None:
    source = write_edited(tmp_path / "in.mp4", UNCUT, sound)
    expected = [data for data, _ in packets(source, "audio")]
    assert len(expected) > 100
    for name in ("out.mp4", "out.mkv"):
        sharpen_video(sharpener, source, tmp_path / name)
        assert [data for data, _ in packets(tmp_path / name, "audio")] == expected


def test_a_second_video_loses_what_is_hidden_and_what_builds_on_it(
    sharpener: Sharpener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its key frames are 1 s apart: of 0.41 s to 2.61 s there are complete frames from 1 s on."""
    source = write_edited(tmp_path / "in.mp4", START, second=True)
    sharpen_video(sharpener, source, tmp_path / "out.mkv")
    levels = played(tmp_path / "out.mkv", index=1).levels
    assert max(level for _, level in levels) < FLASH + 5
    assert levels[0][0] == pytest.approx(0.6, abs=0.041)
    assert len(levels) >= 35
    assert "frames that build on hidden ones are left out" in capsys.readouterr().err


def test_hidden_subtitles_are_left_out(sharpener: Sharpener, tmp_path: Path) -> None:
    source = write_edited(tmp_path / "in.mp4", ((0.5, 1.0),), texts=True)
    sharpen_video(sharpener, source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4"), options={"ignore_editlist": "1"}) as video:
        texts = [bytes(packet)[2:] for packet in video.demux(subtitles=0) if packet.size]
    assert [text for text in texts if text] == [b"from 500", b"from 1000"]
    assert b"from 0" not in (tmp_path / "out.mp4").read_bytes()


def test_hidden_frames_of_a_fragmented_file_are_left_out(sharpener: Sharpener, tmp_path: Path) -> None:
    muxer = {"movflags": "frag_keyframe+empty_moov+delay_moov"}
    source = write_edited(tmp_path / "in.mp4", ((0.4, 0.0),), muxer=muxer)
    with av.open(str(source)) as video:
        times = [float((packet.pts or 0) * packet.time_base) for packet in video.demux(video=0) if packet.size]
    assert min(times) == pytest.approx(-0.4)
    sharpen_video(sharpener, source, tmp_path / "out.mkv")
    found = played(tmp_path / "out.mkv")
    assert len(found.levels) == len([at for at in times if at >= 0]) == 65
    assert found.levels[0][0] == pytest.approx(0.0, abs=0.025)
    assert found.begin == pytest.approx(0.0, abs=0.025)


# Moving images.

DURATIONS_MS = (100, 200, 50, 400, 110)


def write_animation(path: Path, *, hole: int | None = None) -> Path:
    """Write five frames of uneven durations; frame number `hole` is transparent in a corner."""
    frames = []
    for number in range(5):
        pixels = np.full((64, 96, 4), (40 * number, 90, 200, 255), np.uint8)
        if number == hole:
            pixels[:8, :8, 3] = 0
        frames.append(Image.fromarray(pixels if hole is not None else pixels[..., :3]))
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {"disposal": 2}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(DURATIONS_MS), loop=0, **options)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
def test_an_animation_is_a_video_with_its_times(
    sharpener: Sharpener, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, target: str
) -> None:
    sharpen_video(sharpener, write_animation(tmp_path / f"in{suffix}"), tmp_path / target, crf=0)
    said = capsys.readouterr().err
    assert "transparent" not in said and "broken" not in said and "cut short" not in said
    with av.open(str(tmp_path / target)) as video:
        frames = list(video.decode(video=0))
    assert [round(1000 * (frame.time or 0)) for frame in frames] == [0, 100, 300, 350, 750]
    assert [frame.to_ndarray(format="rgb24")[32, 48, 0] for frame in frames] == pytest.approx(
        [0, 40, 80, 120, 160], abs=4
    )
    if target == "out.mkv":
        assert [round(1000 * (frame.duration or 0) * (frame.time_base or 0)) for frame in frames] == list(DURATIONS_MS)


@pytest.mark.parametrize(("suffix", "hole"), [(".gif", 0), (".png", 3), (".webp", 3)])
def test_a_frame_that_is_transparent_is_told_once(
    sharpener: Sharpener, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, hole: int
) -> None:
    sharpen_video(sharpener, write_animation(tmp_path / f"in{suffix}", hole=hole), tmp_path / "out.mkv")
    assert capsys.readouterr().err.count("is transparent in places: that is left out") == 1


def test_a_corrupt_animated_webp_is_done_as_far_as_it_goes(
    sharpener: Sharpener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_animation(tmp_path / "in.webp")
    data = bytearray(source.read_bytes())
    last = data.rindex(b"VP8L") + 8 + 5  # what follows the heads of the last frame
    data[last:] = b"\xff" * (len(data) - last)
    source.write_bytes(data)
    assert sharpen_video(sharpener, source, tmp_path / "out.mkv").frames == 4
    assert f"{source} is corrupt: from frame 5 on it is left out" in capsys.readouterr().err


def test_a_webp_that_cannot_be_read_is_one_message(sharpener: Sharpener, tmp_path: Path) -> None:
    (tmp_path / "in.webp").write_bytes(b"RIFF\x10\0\0\0WEBPno more")
    with pytest.raises(UserError, match=r"in.webp cannot be read as a video: "):
        sharpen_video(sharpener, tmp_path / "in.webp", tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_an_animation_is_no_image(sharpener: Sharpener, tmp_path: Path, suffix: str) -> None:
    source = write_animation(tmp_path / f"in{suffix}")
    with pytest.raises(UserError, match="it is an animation of 5 frames: name a video file for the result"):
        sharpen_file(sharpener, source, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_animations_in_a_folder_become_videos(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for suffix in (".gif", ".png", ".webp"):
        write_animation(tmp_path / "in" / f"moving_{suffix[1:]}{suffix}")
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "in" / "still.png")
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "in" / "frame.gif")
    done = sharpen_folder(SharpenerOptions("fast", "onnxruntime", 1), tmp_path / "in", tmp_path / "out")
    assert (done.done, done.failed, done.ignored) == (5, 0, [])
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        *("frame.png", "moving_gif.mp4", "moving_png.mp4", "moving_webp.mp4", "still.png")
    ]


def test_the_middle_of_an_animation_is_compared(sharpener: Sharpener, tmp_path: Path) -> None:
    for suffix in (".gif", ".png", ".webp"):
        shown = Image.open(write_before_after(sharpener, write_animation(tmp_path / f"in{suffix}"), None))
        assert shown.convert("RGB").getpixel((40, 60))[0] == pytest.approx(160, abs=6)  # type: ignore[index]  # RGB
        (tmp_path / "in_compare.png").unlink()


def test_side_data_that_is_unknown_to_pyav_is_no_obstacle(plain: Sharpener, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a webcam"  # FFmpeg hands it out with a frame of Motion JPEG
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "in.jpg", exif=exif)
    (tmp_path / "in.jpg").rename(tmp_path / "in.mp4")
    assert sharpen_video(plain, tmp_path / "in.mp4", tmp_path / "out.mkv").frames == 1


def test_sound_of_an_unknown_codec_is_refused_by_its_stream(sharpener: Sharpener, tmp_path: Path) -> None:
    source = write_edited(tmp_path / "in.mp4", UNCUT)
    source.write_bytes(source.read_bytes().replace(b"mp4a", b"xxxx").replace(b"esds", b"xxxx"))
    with pytest.raises(UserError, match=r"stream 1 \(audio, unknown\) cannot be copied into a matroska file"):
        sharpen_video(sharpener, source, tmp_path / "out.mkv")
