"""Frames of a recorded call that differ from each other, and pairs of them with what they should look like."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from clearcall.core.console import ProgressBar
from clearcall.core.errors import NothingToLearnError, UserError
from clearcall.core.files import atomic_folder, write_csv
from clearcall.data.degrade.degradations import build_degradation
from clearcall.data.manifest import CLIP_FRAMES, Split
from clearcall.data.pairs import INDEX, PairRecord
from clearcall.imaging.frame import Frame
from clearcall.imaging.metrics import psnr_db, ssim
from clearcall.imaging.sizes import SMALLEST_SIDE
from clearcall.media.video.read import decoded, is_coded, opened, rate_of, upright_rgb, video_span_s, video_stream
from clearcall.params import Codec

TRAIN_FRAMES, VALIDATION_FRAMES = 8, 4  # of all recordings together, at most
_LEAST_TRAIN, _LEAST_VALIDATION = 2, 1
_TRIED_A_SECOND = 4
# Parts of a recording are for training and for validation in turn: neighbouring frames would be nearly the same.
_PART_S, _FEWEST_PARTS = 2.0, 4
_PART_FRAMES = 4  # of a live call, which offers two a second
_THUMBNAIL = 32, 18  # width, height in pixels
_LEAST_DIFFERENCE = 1.0  # RMS of two thumbnails in 8-bit levels: less is noise of a still scene

# What an encoder leaves of one's own camera, from little to much: see params.yaml, of which these are the usual calls.
_SENT = tuple(
    Codec(
        op="codec",
        codecs=("h264", "h264", "vp8", "vp9"),
        factors=(1.5, 2.0, 2.0),
        qp_range=(least, least + 4),
        loss_rates=(0.0, 0.0, 0.02),
        upscale_filters=("bicubic", "bicubic", "bilinear", "lanczos"),
    )
    for least in (22, 27, 32)
)

_Thumbnail = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RecordedFrame:
    """A frame of a recording as it is shown, 8-bit RGB, and whether a video encoder has had it.

    `before` are the frames before it, `sharp` is what was sent, where these are known.
    """

    recording: str
    number: int
    frame: Frame
    coded: bool
    before: tuple[Frame, ...] = ()
    sharp: Frame | None = None


@dataclass
class _Distinct:
    """Those frames of a stream that differ most from each other, `most` of them: memory does not grow with it."""

    most: int
    kept: list[tuple[_Thumbnail, RecordedFrame]] = field(default_factory=list)

    def offer(self, thumbnail: _Thumbnail, read: Callable[[], RecordedFrame]) -> None:
        """Keep a frame if it is unlike those that are kept, in place of one of the two that are most alike."""
        nearest = min((_difference(thumbnail, other) for other, _ in self.kept), default=np.inf)
        if nearest < _LEAST_DIFFERENCE:
            return
        if len(self.kept) == self.most:
            pairs = [
                (_difference(self.kept[one][0], self.kept[other][0]), other)
                for other in range(len(self.kept))
                for one in range(other)
            ]
            least, later = min(pairs, default=(np.inf, 0))
            if nearest <= least:
                return
            del self.kept[later]
        self.kept.append((thumbnail, read()))


class LiveFrames:
    """Distinct frames of a live call, for training and for validation from different parts."""

    def __init__(self) -> None:
        self._kept: dict[Split, _Distinct] = {
            "train": _Distinct(TRAIN_FRAMES),
            "validation": _Distinct(VALIDATION_FRAMES),
        }
        self._offered = 0

    @property
    def enough(self) -> bool:
        """Whether there are as many as an adaptation takes."""
        return all(len(distinct.kept) == distinct.most for distinct in self._kept.values())

    def offer(self, frame: Frame, coded: bool) -> None:  # noqa: FBT001  # it comes by a queue
        """Keep an RGB frame if it differs from those kept."""
        grey = cv2.cvtColor(cv2.resize(frame, _THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        recorded = RecordedFrame("live", self._offered, frame, coded)
        # Two parts for training, one for validation, in turn.
        split: Split = "validation" if self._offered // _PART_FRAMES % 3 == 2 else "train"  # noqa: PLR2004  # of three
        self._kept[split].offer(grey.astype(np.float32), lambda: recorded)
        self._offered += 1

    def frames(self) -> dict[Split, list[RecordedFrame]]:
        """Return the frames that were kept."""
        return {split: [frame for _, frame in distinct.kept] for split, distinct in self._kept.items()}


def _difference(one: _Thumbnail, other: _Thumbnail) -> float:
    return float(np.sqrt(np.square(one - other).mean()))


def read_recordings(paths: Iterable[Path], *, with_before: bool = False) -> dict[Split, list[RecordedFrame]]:
    """Return frames of videos that differ from each other, for training and for validation, from different parts.

    Of four frames a second each is looked at. `with_before`: with the frames before them, for `sent`. Raises UserError
    if a file cannot be read, is too small, or if all together hold too few frames that differ.
    """
    paths = list(paths)
    kept: dict[Split, _Distinct] = {"train": _Distinct(TRAIN_FRAMES), "validation": _Distinct(VALIDATION_FRAMES)}
    for path in paths:
        _read(path, kept, CLIP_FRAMES - 1 if with_before else 0)
    found = {split: [frame for _, frame in distinct.kept] for split, distinct in kept.items()}
    if len(found["train"]) < _LEAST_TRAIN or len(found["validation"]) < _LEAST_VALIDATION:
        count = sum(map(len, found.values()))
        raise NothingToLearnError(
            f"{', '.join(map(str, paths))}: only {count} frames differ from each other, and at least "
            f"{_LEAST_TRAIN + _LEAST_VALIDATION} are needed from different seconds: give a longer recording in which "
            "something moves"
        )
    return found


def _read(path: Path, kept: dict[Split, _Distinct], most_before: int) -> None:
    duration_s = video_span_s(path)[1]
    with opened(path) as video:
        stream = video_stream(video, path)
        coded, rate = is_coded(stream), float(rate_of(stream))
        if min(stream.width, stream.height) < SMALLEST_SIDE:
            raise UserError(f"{path} is {stream.width}x{stream.height}: sides must have {SMALLEST_SIDE} pixels")
        size = stream.width, stream.height
        every = max(1, round(rate / _TRIED_A_SECOND))
        if duration_s * rate < every * _FEWEST_PARTS * 2:
            every = 1
        part = max(1, round(min(_PART_S, duration_s / _FEWEST_PARTS) * rate))
        count, before = 0, deque[VideoFrame](maxlen=most_before)
        with ProgressBar(f"reading {path.name}", stream.frames or None) as bar:
            for number, frame in enumerate(decoded(stream, video.demux(stream))):
                bar.advance()
                count += 1
                if not number % every:
                    grey = frame.reformat(*_THUMBNAIL, "gray").to_ndarray().astype(np.float32)
                    kept["validation" if number // part % 2 else "train"].offer(
                        grey, partial(_recorded, path, number, [*before, frame], size, coded=coded)
                    )
                before.append(frame)
    if not count:
        raise UserError(f"{path} holds no frame that can be decoded")


def _recorded(
    path: Path, number: int, frames: Sequence[VideoFrame], size: tuple[int, int], *, coded: bool
) -> RecordedFrame:
    *before, frame = (upright_rgb(one, size) for one in frames)
    return RecordedFrame(path.name, number, frame, coded, tuple(before))


def sent(sharp: RecordedFrame, seed: int) -> Iterator[RecordedFrame]:
    """Yield a sharp frame as others receive it in a call: about half as large, from finely to coarsely coded."""
    height, width = sharp.frame.shape[:2]
    for index, step in enumerate(_SENT):
        degrade = build_degradation([step], width, height, seed + index, sharp.before)
        yield RecordedFrame(sharp.recording, sharp.number, degrade(sharp.frame), coded=True, sharp=sharp.frame)


def write_recorded_pairs(
    folder: Path, expert: str, frames: Mapping[Split, Sequence[RecordedFrame]], answer: Callable[[Frame], Frame]
) -> None:
    """Write a pairs folder of frames as they were received and what was sent, or else a teacher's answers.

    `expert` stands in place of the degradation, which nobody knows.
    """
    records = []
    with atomic_folder(folder) as temporary:
        for split, group in frames.items():
            shard, offset = temporary / f"{split}-000.bin", 0
            with shard.open("wb") as file:
                for one in group:
                    target = answer(one.frame) if one.sharp is None else one.sharp
                    height, width = target.shape[:2]
                    for image in (target, one.frame):
                        file.write(np.ascontiguousarray(image).data)
                    record = PairRecord(
                        image=f"{one.recording}/{one.number}",
                        image_sha256=hashlib.sha256(one.frame.tobytes()).hexdigest(),
                        group=one.recording,
                        split=split,
                        scale=1.0,
                        degradation=expert,
                        variant=0,
                        height=height,
                        width=width,
                        degraded_height=height,
                        degraded_width=width,
                        sharp_shard=shard.name,
                        sharp_offset=offset,
                        degraded_shard=shard.name,
                        degraded_offset=offset + target.size,
                        psnr_db=psnr_db(target, one.frame),
                        ssim=ssim(target, one.frame),
                        enlarged=1.0,
                    )
                    records.append(record)
                    offset += 2 * target.size
        write_csv(temporary / INDEX, records)
