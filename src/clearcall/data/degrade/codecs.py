"""Encode frames as video calls do, lose some packets, decode: H.264, VP8, VP9 and AV1 by PyAV.

Low delay throughout: one packet a frame, no B-frames, no look-ahead, one key frame at the start.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal, cast

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from clearcall.core.errors import UserError
from clearcall.data.manifest import CLIP_FRAMES
from clearcall.data.synthetic import pan_and_zoom
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Filter, SizeContract, divided, resized
from clearcall.imaging.yuv import CONVERSION
from clearcall.params import CallCodec
from clearcall.temporal.filter import TemporalFilter

MAX_QP, _MAX_QUANTIZER = 51, 63  # of H.264, whose scale is ours, and of VP8, VP9 and AV1
FRAMES_PER_SECOND = 30
_ENCODED = SizeContract(multiple_of=2, minimum=64)  # SVT-AV1 takes no less
_KEY_FRAME_EVERY = 10_000
_PACKET_BYTES = 1200  # what fits into a datagram
_SLICE_TYPES = {1, 5}  # of NAL units: of inter and of key frames
_ENCODERS: dict[CallCodec, str] = {"h264": "libx264", "vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
_DECODERS: dict[CallCodec, str] = {"h264": "h264", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}


@dataclass(frozen=True)
class Transmission:
    """How an image is sent: as the last frame of a clip.

    The clip of a still pans by (x, y) pixels and zooms by a factor in each frame. `factor` is what it is downscaled by,
    `qp` the quantization parameter on H.264's scale (0 to 51). A share `loss_rate` of packets is lost, drawn by `seed`.
    The receiver upscales by `upscale_filter`; if `filtered`, it applies `TemporalFilter`.
    """

    codec: CallCodec
    factor: float
    qp: int
    pan: tuple[float, float]
    zoom: float
    loss_rate: float
    seed: int
    filtered: bool = False
    upscale_filter: Filter = "bicubic"


def transmit(image: Frame, sent: Transmission, before: Sequence[Frame] = ()) -> Frame:
    """Return an image, 8-bit RGB of (height, width, 3), as it is received: same size, registered.

    `before` are the frames before it, of the same size, where it comes from a video; without, it is a still.
    """
    clip = [*before, image] if before else pan_and_zoom(image, CLIP_FRAMES, sent.pan, sent.zoom)
    arrived = transmit_clip(clip, sent)
    if not sent.filtered:
        return arrived[-1]
    *_, last = map(TemporalFilter().rgb, arrived)
    return last


def transmit_clip(clip: Sequence[Frame], sent: Transmission) -> list[Frame]:
    """Return all frames of a clip, 8-bit RGB of one size, as they are received, unfiltered."""
    height, width = clip[0].shape[:2]
    size = divided((width, height), sent.factor)
    arrived = send([resized(frame, size) for frame in clip], sent.codec, sent.qp, sent.loss_rate, sent.seed)
    return [resized(frame, (width, height), sent.upscale_filter) for frame in arrived]


def send(frames: Sequence[Frame], codec: CallCodec, qp: int, loss_rate: float = 0.0, seed: int = 0) -> list[Frame]:
    """Return the frames, 8-bit RGB of one size, after encoding, packet loss and decoding.

    `loss_rate` is of packets of at most 1200 bytes after the first frame. H.264 is sent in slices of that size: the
    first slice of each frame arrives, the decoder conceals lost ones. With the other codecs a frame that lacks a packet
    is not shown, and the next is a key frame (picture loss indication, RFC 4585); the last frame arrives. Raises
    UserError if this installation lacks the encoder or decoder.
    """
    height, width = frames[0].shape[:2]
    encoder, decoder = _encoder(codec, qp, *_padded(frames[0]).shape[1::-1]), _decoder(codec)
    draw = np.random.default_rng(seed)
    received: list[Frame] = []
    wanted = PictureType.I
    for index, frame in enumerate(frames):
        rgb = av.VideoFrame.from_ndarray(_padded(frame), format="rgb24")
        sent = rgb.reformat(format="yuv420p", interpolation=CONVERSION)
        sent.pts, sent.pict_type = index, wanted
        (packet,) = encoder.encode(sent)
        parts = _slices(bytes(packet)) if codec == "h264" else [bytes(packet)]
        counts = [1 + len(part) // _PACKET_BYTES for part in parts]
        safe = index == 0 or (codec != "h264" and index == len(frames) - 1)
        arrived = [safe or bool((draw.random(count) >= loss_rate).all()) for count in counts]
        arrived[0] |= codec == "h264"
        data = b"".join(part for part, here in zip(parts, arrived, strict=True) if here)
        if data and (decoded := decoder.decode(av.Packet(data))):
            shown_rgb = decoded[-1].reformat(format="rgb24", interpolation=CONVERSION).to_ndarray()
            shown = np.asarray(shown_rgb, np.uint8)[:height, :width]
        received.append(shown)
        wanted = PictureType.NONE if any(arrived) else PictureType.I
    encoder.encode()  # flush: some encoders warn without
    return received


def _slices(packet: bytes) -> list[bytes]:
    """Split a coded H.264 frame into NAL units; parameter sets stay with the first slice."""
    starts = [match.start() for match in re.finditer(rb"\x00?\x00\x00\x01", packet)]
    units = [packet[start:end] for start, end in pairwise([*starts, len(packet)])]
    first = next(index for index, unit in enumerate(units) if unit.lstrip(b"\0")[1] & 31 in _SLICE_TYPES)
    return [b"".join(units[: first + 1]), *units[first + 1 :]]


def _encoder(codec: CallCodec, qp: int, width: int, height: int) -> VideoCodecContext:
    """Return an encoder of a constant quantizer that answers each frame with one packet."""
    context: Any = _created(_ENCODERS[codec], "w", codec)
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate, context.time_base = Fraction(FRAMES_PER_SECOND), Fraction(1, FRAMES_PER_SECOND)
    context.gop_size, context.max_b_frames, context.thread_count = _KEY_FRAME_EVERY, 0, 1
    quantizer = max(1, round(qp * _MAX_QUANTIZER / MAX_QP))
    match codec:
        case "h264":
            slices = f"scenecut=0:slice-max-size={_PACKET_BYTES}"
            context.options = {"preset": "veryfast", "tune": "zerolatency", "qp": str(qp), "x264-params": slices}
        case "vp8" | "vp9":
            limits = {"qmin": str(quantizer), "qmax": str(quantizer), "b": "100M"}  # the rate must not be what limits
            # Below zero VP8's speed is fixed; above, it follows the clock, and a busy machine gives other images.
            speed = "-8" if codec == "vp8" else "8"
            context.options = {"deadline": "realtime", "cpu-used": speed, "lag-in-frames": "0", **limits}
        case "av1":
            quality = f"rc=0:qp={quantizer}:aq-mode=0"
            context.options = {"preset": "10", "svtav1-params": f"{quality}:rtc=1:pred-struct=1:lookahead=0:lp=1:scd=0"}
    return cast(VideoCodecContext, context)


def _decoder(codec: CallCodec) -> VideoCodecContext:
    context: Any = _created(_DECODERS[codec], "r", codec)
    context.thread_count = 1
    context.flags |= Flags.low_delay | Flags.output_corrupt  # an image with faults is what a receiver shows
    return cast(VideoCodecContext, context)


def _created(name: str, mode: Literal["r", "w"], codec: CallCodec) -> av.CodecContext:
    try:
        return av.CodecContext.create(name, mode)
    except UnknownCodecError:
        kind = "encoder" if mode == "w" else "decoder"
        raise UserError(
            f"PyAV has no {kind} {name} here, which {codec} needs: leave {codec} out, or install av from its own "
            "packages (pip install --force-reinstall av)"
        ) from None


def _padded(frame: Frame) -> Frame:
    """Pad to a size that every encoder takes, by the last row and column."""
    rows, columns = (_ENCODED.padded(side) - side for side in frame.shape[:2])
    return np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge")
