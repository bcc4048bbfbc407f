"""Scale the frames of a video to one size: the largest that occurs, or another."""

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clearcall.core.console import ProgressBar, warn
from clearcall.core.errors import UserError
from clearcall.imaging.frame import NEUTRAL
from clearcall.imaging.sizes import MOST_SIDE, NewSize, Size, scaled
from clearcall.media.video.part import Part
from clearcall.media.video.read import (
    PLANAR,
    PLANAR_10,
    decoded,
    depth_scale,
    describe_as,
    is_hdr,
    is_transparent,
    opened,
    planar,
    plane_of,
    quarter_turns,
    rate_of,
    side_data,
    video_stream,
)

# From a frame as stored, width and height to planar 4:2:0 of that size.
Convert = Callable[[VideoFrame, int, int], VideoFrame]
_SAME_SHAPE = 0.02  # by which a frame may be stretched, relative to its width: 426x240 is meant to be 16:9
_BLACK, _FULL_RANGE = 16, 2
_VP9_MARKER = 2


class Fit:
    """Scales frames to one size and the first one's rotation, with bars if needed.

    `size` is in pixels as stored, and `pixel` the width of one by its height, 0 where that is not known; `pixels` has
    these of the sizes that occur, the first frame's first. `turns` counts the quarters, against the clock, by which
    the result is shown turned. It warns once of frames that change their size.
    """

    def __init__(
        self,
        name: Path | str,
        size: Size,
        pixel: Fraction,
        pixels: Mapping[Size, Fraction],
        turns: int,
        convert: Convert,
    ) -> None:
        self.size, self.pixel = size, pixel
        self._name, self._pixels, self._turns, self._convert = name, pixels, turns, convert
        self._first, self._default = next(iter(pixels.items()))
        self._warned, self._transparent, self._turned = False, False, turns

    @classmethod
    def of_video(cls, path: Path, first: VideoFrame, asked: NewSize | None, *, plain: bool = False) -> Self:
        """Return what fits a video's frames to the size that is asked for, as it is shown, or else to the largest.

        A factor enlarges the largest; a size has square pixels. Frames are stored as they were, 8 bits deep, or 10 if
        the first is HDR; or, if `plain`, upright, of square pixels and always of 8 bits.
        """
        turns, depth = quarter_turns(first), PLANAR_10 if is_hdr(first) else PLANAR
        pixels = frame_pixels(path, first, all_frames=not isinstance(asked, tuple))
        size, pixel = sized(path, pixels, asked, lies=turns % 2 == 1)
        if plain:
            width, height = squared(size, pixel)
            size, pixel = (height, width) if turns % 2 else (width, height), Fraction(1)
            turns, depth = 0, PLANAR
        return cls(
            path,
            size,
            pixel,
            pixels,
            turns,
            lambda frame, width, height: planar(frame, width, height, depth),
        )

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame fitted; itself if there is nothing to do."""
        if not self._warned and (frame.width, frame.height) != self._first:
            self._warned = True
            width, height = self.size[::-1] if self._turns % 2 else self.size
            warn(f"{self._name} changes its size: all frames are scaled to {width}x{height}; --size names another")
        if not self._transparent and is_transparent(frame):
            self._transparent = True
            warn(f"{self._name} is transparent in places: that is left out")
        # A rotation stays until the next key frame, as H.264 and HEVC have it, or until another one is stated. Side
        # data is asked last: a frame refers to itself once that was read, and waits for the garbage collector.
        if frame.key_frame or frame.rotation or (self._turned and side_data(frame, "DISPLAYMATRIX") is not None):
            self._turned = quarter_turns(frame)
        turns = (self._turned - self._turns) % 4
        width, height = self._inside(frame, turns)
        flat = self._convert(frame, *((height, width) if turns % 2 else (width, height)))
        return self._placed(flat, turns) if turns or (width, height) != self.size else flat

    def _inside(self, frame: VideoFrame, turns: int) -> Size:
        """Return the largest size inside the result that has the shape of a frame, once that is turned."""
        width, height = self.size
        pixel = self._pixels.get((frame.width, frame.height), self._default) or 1
        shape = frame.width * pixel / frame.height
        wanted = float((1 / shape if turns % 2 else shape) / (self.pixel or 1))  # in pixels of the result
        if abs(wanted * height / width - 1) <= _SAME_SHAPE:
            return self.size
        return min(width, _even(wanted * height)), min(height, _even(width / wanted))

    def _placed(self, flat: VideoFrame, turns: int) -> VideoFrame:
        """Return a frame turned, in the middle of a black one."""
        result = VideoFrame(*self.size, flat.format.name)
        black = 0 if flat.color_range == _FULL_RANGE else _BLACK
        sides = plane_of(flat, 0).shape[:: -1 if turns % 2 else 1]
        for index, level in enumerate((black, NEUTRAL, NEUTRAL)):
            area, plane = plane_of(result, index), np.rot90(plane_of(flat, index), turns)
            area[:] = level * depth_scale(flat)
            # Multiples of two rows and columns of luma, or its chroma would be moved against it.
            top, left = (
                (outer - inner) // 4 * 2 // (2 if index else 1)
                for outer, inner in zip(self.size[::-1], sides, strict=True)
            )
            area[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
        return describe_as(result, flat)


def squared(size: Size, pixel: Fraction) -> Size:
    """Return the size that square pixels need for the shape of a frame of the same height."""
    return size if pixel in {0, 1} else (_even(float(size[0] * pixel)), size[1])


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


def sized(
    path: Path, pixels: Mapping[Size, Fraction], asked: NewSize | None, *, lies: bool = False
) -> tuple[Size, Fraction]:
    """Return the size of a result as stored, and the shape of its pixels; `lies` if it is stored turned by 90 degrees.

    `pixels` are the sizes that occur, with the shape of their pixels.
    """
    if isinstance(asked, tuple):
        return asked[::-1] if lies else asked, Fraction(1)
    most = largest(pixels)
    return enlarged(path, most, asked), pixels[most]


def enlarged(path: Path, size: Size, factor: float | None) -> Size:
    """Return a size times a factor, with even sides; itself without one. Raises UserError if it gets too large."""
    if factor in (None, 1):
        return size
    width, height = (_even(side) for side in scaled(size, factor))
    if max(width, height) > MOST_SIDE:
        raise UserError(
            f"{path} would have {width}x{height} pixels, more than {MOST_SIDE} a side: choose a smaller scale"
        )
    return width, height


def largest(sizes: Mapping[Size, Any]) -> Size:
    """Return the size of most pixels, the first of equal ones."""
    return max(sizes, key=lambda size: size[0] * size[1])


def progress_of(
    video: InputContainer,
    main: VideoStream,
    description: str,
    part: Part = Part(),  # noqa: B008  # frozen
) -> ProgressBar:
    """Return a progress bar for the frames of a part of a video, as many as it announces."""
    announced = main.frames or round((video.duration or 0) / av.time_base * rate_of(main))
    announced = max(0, announced - int(part.start_s * rate_of(main)))
    if part.duration_s is not None:
        wanted = math.ceil(part.duration_s * rate_of(main))
        announced = min(announced or wanted, wanted)
    return ProgressBar(description, announced or None)


def frame_pixels(path: Path, first: VideoFrame, *, all_frames: bool = True) -> dict[Size, Fraction]:
    """Return the sizes of a video's frames as stored, that of the first before others, and the shape of their pixels.

    That is a width by a height, 0 where it is not known. No more frames are decoded than may change the size: key
    frames, but all of AV1, and of a VP9 stream one of whose others states its size. `all_frames` false looks no
    further than the first.
    """
    with opened(path) as video:
        main = video_stream(video, path)
        pixels = {(first.width, first.height): main.sample_aspect_ratio or Fraction(0)}
        codec = main.codec_context.codec.canonical_name
    if all_frames and not _add_sizes(path, pixels, key_frames=codec != "av1"):
        _add_sizes(path, pixels, key_frames=False)
    return pixels


def _add_sizes(path: Path, pixels: dict[Size, Fraction], *, key_frames: bool) -> bool:
    """Add the sizes of all frames, or of key frames; return false as soon as these are seen not to be enough."""
    pixel, first = next(iter(pixels.values())), None
    with opened(path) as video:
        main = video_stream(video, path)
        context = main.codec_context
        is_vp9, enough = context.codec.canonical_name == "vp9", True
        # Without delay: pixels have the shape that the decoder has seen last.
        main.thread_type = "SLICE"
        if key_frames:
            context.skip_frame = "NONKEY"
            context.flags |= Flags.low_delay

        def wanted(bar: ProgressBar) -> "Iterator[Packet[Any]]":
            nonlocal enough
            for packet in video.demux(main):
                bar.advance(packet.size > 0)  # an empty one ends the stream
                if key_frames and is_vp9 and states_size(bytes(packet)):
                    enough = False
                    return
                if packet.is_keyframe or not key_frames:
                    yield packet

        with progress_of(video, main, "looking for the largest frame") as bar:
            for frame in decoded(main, wanted(bar)):
                if frame.is_corrupt or max(frame.width, frame.height) > MOST_SIDE:
                    continue
                seen = context.sample_aspect_ratio or Fraction(0)
                first = first or seen
                known = (frame.width, frame.height) == (context.width, context.height) and seen
                pixels.setdefault((frame.width, frame.height), pixel * seen / first if known and first else pixel)
    return enough


def states_size(packet: bytes) -> bool:
    """Return whether a VP9 packet has a frame, other than a key frame, that states its size instead of inheriting it.

    Source: VP9 Bitstream & Decoding Process Specification, 6.2 and annex B.
    """
    return any(_frame_states_size(frame) for frame in _vp9_frames(packet))


def _vp9_frames(packet: bytes) -> list[bytes]:
    """Return the frames of a packet, of which an index at its end tells where there are several."""
    marker = packet[-1] if packet else 0
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = packet[-(2 + count * width) :]
    if marker >> 5 != 0b110 or len(index) < 2 + count * width or index[0] != marker:  # noqa: PLR2004  # as the specification writes it
        return [packet]
    ends = np.cumsum([int.from_bytes(index[at : at + width], "little") for at in range(1, len(index) - 1, width)])
    return [packet[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _frame_states_size(frame: bytes) -> bool:
    bits = "".join(f"{byte:08b}" for byte in frame[:5])
    if len(bits) < 40 or int(bits[:2], 2) != _VP9_MARKER:  # noqa: PLR2004  # shorter than any coded frame
        return False
    at = 5 if bits[2:4] == "11" else 4
    repeated, inter, is_shown, resilient = (bit == "1" for bit in bits[at : at + 4])
    if repeated or not inter:
        return False
    at += 4
    intra_only = not is_shown and bits[at] == "1"
    at += (0 if is_shown else 1) + (0 if resilient else 2)
    # The frames that are renewed, and for each of three references its number and sign; then, which lends its size.
    return intra_only or "1" not in bits[at + 20 : at + 23]
