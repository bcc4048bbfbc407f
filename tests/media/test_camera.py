"""The live loop: its decisions by a clock that the test turns, its ends by real videos in and out."""

import gc
import itertools
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from tests.make.commands import run_command, run_interrupted
from tests.make.videos import HEIGHT, STEP, WIDTH, i420_of, remux, times_of, write_pieces, write_video

from clearcall.core.errors import UserError
from clearcall.data.clips import Clip
from clearcall.data.synthetic import pan_and_zoom
from clearcall.evaluation.calls import Setting, receive
from clearcall.imaging.frame import Frame
from clearcall.imaging.sizes import Size
from clearcall.media.camera import source as sources
from clearcall.media.camera.ladder import RUNGS, Ladder
from clearcall.media.camera.listing import list_devices
from clearcall.media.camera.loop import Loop
from clearcall.media.camera.outputs import Fan, Preview, TkWindow, draw_overlay, open_outputs
from clearcall.media.camera.process import Processor, Worker
from clearcall.media.camera.run import Settings, run_camera
from clearcall.media.camera.source import Captured, Newest, Source, open_source
from clearcall.media.camera.status import Clock, Latencies, Status, Summary
from clearcall.media.video.fit import Fit
from clearcall.media.video.read import planar
from clearcall.runtime.sharpener import Sharpener
from clearcall.temporal.filter import TemporalFilter

FPS = 30
PERIOD = 1 / FPS
LOSSLESS = {"crf": "0"}
ON_ONE_THREAD = ("--provider", "onnxruntime", "--threads", "1")


# A clock, a camera, a worker and a screen that need no real time.


class FakeClock(Clock):
    def __init__(self) -> None:
        self.now_s = 100.0

    def now(self) -> float:
        return self.now_s

    def wait_until(self, then_s: float) -> None:
        self.now_s = max(self.now_s, then_s)


class FakeCamera(Newest):
    """Frames that come at given times after the clock's beginning; each holds its number."""

    def __init__(self, clock: FakeClock, times: Iterator[float]) -> None:
        super().__init__(clock.now)
        self.clock, self.times = clock, times
        self.begin_s, self.number = clock.now(), 0
        self._next_s = next(times, None)

    @property
    def ended(self) -> bool:
        return self._next_s is None and self._held is None

    def _arrive(self) -> bool:
        if self._next_s is None or self.begin_s + self._next_s > self.clock.now():
            return False
        self.arrived += 1
        self.dropped += self._held is not None
        came_s = self.begin_s + self._next_s
        self._held = Captured(numbered(self.arrived - 1), came_s, came_s)
        self._next_s = next(self.times, None)
        return True

    def take(self, until_s: float, since_s: float = -np.inf) -> Captured | None:
        while True:
            while self._arrive():
                pass
            if self._held is not None and self._held.time_s >= since_s:
                break
            if self._next_s is None or self.begin_s + self._next_s > until_s or until_s <= self.clock.now():
                if self._next_s is not None:
                    self.clock.wait_until(until_s)
                break
            self.clock.wait_until(self.begin_s + self._next_s)
        held, self._held = self._held, None
        return held


class FakeWork:
    """Inverts frames, which takes as long as the test says for a frame's number and a rung."""

    def __init__(self, clock: FakeClock, takes_s: Callable[[int, int], float]) -> None:
        self.clock, self.takes_s = clock, takes_s
        self.until_s, self.took_s = 0.0, 0.0
        self.frame = numbered(0)

    @property
    def busy(self) -> bool:
        return self.clock.now() < self.until_s

    def start(self, frame: Frame, rung: int) -> None:
        self.frame, self.took_s = frame, self.takes_s(number_of(frame), rung)
        self.until_s = self.clock.now() + self.took_s

    def wait(self, timeout_s: float) -> tuple[Frame, float] | None:
        ready = self.until_s - self.clock.now() <= timeout_s
        self.clock.wait_until(self.until_s if ready else self.clock.now() + max(0.0, timeout_s))
        return (255 - self.frame, self.took_s) if ready else None


class Learning:
    """Gives other networks after some frames, and keeps what it could learn from."""

    def __init__(self, networks: dict[int, str]) -> None:
        self.networks, self.offered = networks, list[bool]()

    def offer(self, _frame: Frame, *, coded: bool) -> None:
        self.offered.append(coded)

    def poll(self) -> str | None:
        return self.networks.pop(len(self.offered), None)


class Screen:
    """Keeps what is put out and when; presses keys at given slots, and blocks at others."""

    def __init__(
        self, clock: FakeClock, keys: dict[int, str] | None = None, blocks: dict[int, float] | None = None
    ) -> None:
        self.clock, self.keys, self.blocks = clock, keys or {}, blocks or {}
        self.slots: list[int] = []
        self.frames: list[Frame] = []
        self.times: list[float] = []

    def show(self, slot: int, frame: Frame, _status: Status) -> str:
        self.slots.append(slot)
        self.frames.append(frame)
        self.clock.now_s += self.blocks.get(slot, 0)
        self.times.append(self.clock.now() - 100)
        return self.keys.get(slot, "")


def numbered(number: int) -> Frame:
    frame = np.zeros((3, 2), np.uint8)
    frame[0] = number % 100, number // 100 % 100
    return frame


def number_of(frame: Frame) -> int:
    return int(frame[0, 0]) + 100 * int(frame[0, 1])


def is_sharpened(frame: Frame) -> bool:
    return bool(frame[2, 0] == 255)


def at_rate(count: int, fps: float = FPS) -> Iterator[float]:
    return (number / fps for number in range(count))


def live(
    times: Iterator[float],
    takes_s: Callable[[int, int], float] = lambda *_: 0.01,
    seconds: float | None = None,
    **screen: Any,
) -> tuple[Screen, Summary]:
    clock = FakeClock()
    camera, shown = FakeCamera(clock, times), Screen(clock, **screen)
    source = Source("camera", (2, 2), Fraction(FPS), camera, lambda: None)
    loop = Loop(source, FakeWork(clock, takes_s), shown, Fraction(FPS), clock)
    return shown, loop.run(threading.Event(), seconds)


def test_each_frame_is_put_out_sharpened_in_its_slot() -> None:
    screen, summary = live(at_rate(90))
    assert screen.slots == list(range(90))
    assert [number_of(255 - frame) for frame in screen.frames] == list(range(90))
    assert screen.times == pytest.approx([number * PERIOD + 0.01 for number in range(90)])
    counts = summary.counts
    assert (summary.arrived, summary.shown, counts.sharpened) == (90, 90, 90)
    assert (counts.late, counts.repeated, counts.missed, summary.dropped) == (0, 0, 0, 0)
    assert summary.median_ms == pytest.approx(10, abs=0.11) and summary.p95_ms == pytest.approx(10, abs=0.11)
    assert summary.drift_ms == pytest.approx(0, abs=1e-6)
    assert str(summary).startswith("90 frames in, 90 out: 90 sharpened, 0 passed through late, 0 repeated; 0 dropped")


def test_after_a_first_frame_that_was_late_the_others_soon_wait_no_more() -> None:
    """It sets the slots, and cameras and decoders take a moment to start."""
    came = [number / FPS + {0: 0.012, 20: 0.016}.get(number, 0) for number in range(90)]
    screen, summary = live(iter(came))
    assert screen.slots == list(range(90))
    assert [number_of(255 - frame) for frame in screen.frames] == list(range(90))
    assert screen.times[:20] == pytest.approx([0.012 + number * PERIOD + 0.01 for number in range(20)])
    assert screen.times[20] == pytest.approx(came[20] + 0.01)  # one that comes late once more changes nothing
    assert screen.times[41:] == pytest.approx([number * PERIOD + 0.01 for number in range(41, 90)])
    assert (summary.counts.sharpened, summary.counts.missed, summary.dropped) == (90, 0, 0)


def test_a_late_frame_is_passed_through_as_it_came_and_holds_up_none() -> None:
    screen, summary = live(at_rate(10), lambda number, _: 2.5 * PERIOD if number == 3 else 0.01)
    sharpened = [is_sharpened(frame) for frame in screen.frames]
    assert sharpened == [True] * 3 + [False] * 3 + [True] * 4  # while it is worked on, others pass at once
    for number in (3, 4, 5):
        np.testing.assert_array_equal(screen.frames[number], numbered(number))
    assert screen.slots == list(range(10))
    assert screen.times[3] == pytest.approx(4 * PERIOD)  # one slot after it came
    assert screen.times[4] == pytest.approx(4 * PERIOD)
    assert (summary.counts.sharpened, summary.counts.late) == (7, 3)
    assert (summary.dropped, summary.counts.missed) == (0, 0)


@pytest.mark.parametrize("camera_fps", [30.0, 29.97, 30.03])
def test_nothing_drifts_and_no_frame_waits_longer_than_a_slot(camera_fps: float) -> None:
    screen, summary = live(at_rate(10000, camera_fps), seconds=200)
    assert summary.shown == 200 * FPS
    assert screen.slots == list(range(200 * FPS))
    assert abs(summary.drift_ms) <= 1000 * PERIOD
    assert 199.9 < screen.times[-1] < 200.1
    assert summary.counts.late == 0 and summary.counts.missed == 0
    assert summary.p95_ms <= 1000 * PERIOD
    unlike = round(abs(camera_fps - FPS) * 200)
    assert abs(summary.counts.repeated - (unlike if camera_fps < FPS else 0)) <= 1
    assert abs(summary.dropped - (unlike if camera_fps > FPS else 0)) <= 1


def test_a_slow_camera_is_repeated_and_a_quick_one_loses_frames() -> None:
    screen, summary = live(at_rate(15, 14))
    assert [number_of(255 - frame) for frame in screen.frames[:6]] == [0, 0, 1, 1, 2, 2]
    assert summary.counts.sharpened == 15 and summary.counts.repeated == summary.shown - 15
    _, summary = live(at_rate(60, 60))
    assert summary.dropped == 60 - summary.shown and summary.counts.repeated == 0
    assert summary.p95_ms <= 1000 * PERIOD


def test_slots_that_pass_while_an_output_blocks_are_missed_and_not_made_up_for() -> None:
    screen, summary = live(at_rate(30), blocks={5: 4 * PERIOD})
    assert screen.slots == [*range(6), *range(9, 30)]
    assert summary.counts.missed == 3
    assert summary.dropped == 3
    assert number_of(255 - screen.frames[6]) == 9


def test_space_switches_off_and_on_and_q_ends() -> None:
    screen, summary = live(at_rate(20), keys={2: " ", 5: " ", 8: "x", 12: "q"})
    assert [is_sharpened(frame) for frame in screen.frames] == [True] * 3 + [False] * 3 + [True] * 7
    np.testing.assert_array_equal(screen.frames[4], numbered(4))
    assert (summary.counts.sharpened, summary.counts.off, summary.counts.late, summary.shown) == (10, 3, 0, 13)
    assert ", 3 while it was off," in str(summary)


def test_a_machine_that_is_too_slow_lowers_the_size_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, summary = live(at_rate(300), lambda _, rung: (0.05, 0.02, 0.01)[rung])
    assert summary.counts.resized == 1
    assert summary.processed == "2x2"
    assert capsys.readouterr().err.count("frames are now processed at 75% of their width and height") == 1
    assert summary.counts.late < 90 and summary.counts.sharpened > 200


def test_what_putting_out_takes_is_part_of_the_slot() -> None:
    slow = dict.fromkeys(range(600), 0.01)
    _, summary = live(at_rate(600), lambda _, rung: (0.028, 0.015, 0.008)[rung], blocks=slow)
    assert summary.p95_ms <= 1000 * PERIOD + 0.1  # a bin
    assert summary.counts.resized == 1 and summary.median_ms == pytest.approx(25, abs=0.11)
    assert summary.counts.late < 90 and summary.counts.missed == 0
    slower = dict.fromkeys(range(3000), 0.015)
    _, summary = live(at_rate(3000), lambda _, rung: (0.0195, 0.0105, 0.006)[rung], blocks=slower)
    assert summary.counts.resized == 1  # it went up again and again, as if all of the slot were for sharpening
    _, hiccup = live(at_rate(60), lambda *_: 0.012, blocks={5: 10 * PERIOD})
    assert hiccup.counts.late == 0


def test_it_ends_after_the_time_or_when_told() -> None:
    _, summary = live(at_rate(1000), seconds=2)
    assert summary.shown == 2 * FPS
    clock, stop = FakeClock(), threading.Event()
    stop.set()
    source = Source("camera", (2, 2), Fraction(FPS), FakeCamera(clock, at_rate(9)), lambda: None)
    screen = Screen(clock)
    summary = Loop(source, FakeWork(clock, lambda *_: 0), screen, Fraction(FPS), clock).run(stop)
    assert summary.shown == 0 and screen.frames == []


def test_a_source_without_a_frame_is_told() -> None:
    with pytest.raises(UserError, match="no frame came from camera"):
        live(iter(()))
    clock = FakeClock()
    silent = FakeCamera(clock, iter([60.0]))
    source = Source("camera", (2, 2), Fraction(FPS), silent, lambda: None)
    loop = Loop(source, FakeWork(clock, lambda *_: 0), Screen(clock), Fraction(FPS), clock)
    with pytest.raises(UserError, match="no frame came from camera"):
        loop.run(threading.Event())
    assert clock.now() == pytest.approx(110, abs=0.2)


# The ladder.


def climb(ladder: Ladder, seconds: float, work_s: float | None, begin_s: float) -> tuple[float, list[str]]:
    """Feed a ladder with equal frames; return the time after that and what it told."""
    told = [ladder.update(begin_s + number * PERIOD, work_s) for number in range(round(seconds * FPS))]
    return begin_s + seconds, [message for message in told if message]


def test_a_hiccup_does_not_lower_the_size() -> None:
    ladder = Ladder(PERIOD)
    now, told = climb(ladder, 5, 0.01, 0)
    now, more = climb(ladder, 0.2, None, now)
    _, rest = climb(ladder, 20, 0.01, now)
    assert (ladder.rung, told + more + rest) == (0, [])


def test_lateness_goes_down_rung_by_rung_and_tells_once_that_it_is_the_last() -> None:
    ladder = Ladder(PERIOD)
    now, told = climb(ladder, 1.9, None, 0)
    assert ladder.rung == 0
    now, more = climb(ladder, 0.3, None, now)
    assert ladder.rung == 1
    now, rest = climb(ladder, 30, None, now)
    assert ladder.rung == len(RUNGS) - 1
    told += more + rest
    assert ["75%" in told[0], "50%" in told[1], "even at the smallest size" in told[2], len(told)] == [True] * 3 + [3]


def test_it_goes_up_only_where_the_larger_size_would_fit() -> None:
    for work_s, rung in ((0.015, 1), (0.012, 0)):  # times (4 / 3)^2, against 0.75 of 33 ms
        ladder = Ladder(PERIOD)
        now, _ = climb(ladder, 2.1, None, 0)
        now, _ = climb(ladder, 9, work_s, now)
        assert ladder.rung == 1
        _, told = climb(ladder, 60, work_s, now)
        assert (ladder.rung, ["there may be room again" in text for text in told]) == (rung, [True] * (1 - rung))


def test_what_was_held_for_long_is_tried_ever_more_seldom() -> None:
    """Of 15 ms it cannot be told that there is room: 27 ms at the larger size, of 33."""
    ladder = Ladder(PERIOD)
    now, _ = climb(ladder, 60, 0.027, 0)
    now, _ = climb(ladder, 0.5, None, now)
    assert ladder.rung == 1
    now, _ = climb(ladder, 9, 0.015, now)
    assert ladder.rung == 1
    now, _ = climb(ladder, 2, 0.015, now)
    assert ladder.rung == 0
    waits = []
    for _ in range(7):
        while ladder.rung == 0:
            now, _ = climb(ladder, PERIOD, None, now)
        fell_s = now
        while ladder.rung == 1 and now < fell_s + 400:
            now, _ = climb(ladder, PERIOD, 0.015, now)
        assert ladder.rung == 0
        waits.append(now - fell_s)
    assert waits == pytest.approx([20, 40, 80, 160, 320, 320, 320], abs=0.2)
    now, _ = climb(ladder, 60, 0.027, now)
    assert ladder.rung == 0


def test_patience_lasts_where_two_rungs_are_lost_at_once() -> None:
    """Full size was held, and is always late now; three quarters are for five seconds after it, and then fit."""
    ladder, now = Ladder(PERIOD), 0.0
    now, _ = climb(ladder, 60, 0.027, now)
    rungs, left_s = list[int](), 0.0
    while now < 1800:
        was = ladder.rung
        late = was == 0 or (was == 1 and now < left_s + 5)
        now, _ = climb(ladder, PERIOD, None if late else (0.027, 0.015, 0.005)[was], now)
        left_s = now if was == 0 < ladder.rung else left_s
        rungs += [ladder.rung] if ladder.rung != was else []
    assert 2 < len(rungs) < 40


def test_a_ladder_decides_nothing_by_a_few_frames() -> None:
    ladder = Ladder(1.0)
    assert [ladder.update(number, None) for number in range(20)] == [None] * 20


# What is done to a frame.


@pytest.fixture(scope="module")
def rgb(photos: dict[str, Frame]) -> Frame:
    return np.ascontiguousarray(photos["astronaut"][60 : 60 + HEIGHT, 150 : 150 + WIDTH])


@pytest.fixture(scope="module")
def i420(rgb: Frame) -> Frame:
    return np.asarray(VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p").to_ndarray(), np.uint8)


@pytest.mark.parametrize("rung", [1, 2])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (94, 62)])
def test_a_smaller_size_adds_detail_and_loses_nothing(
    sharpener: Sharpener, i420: Frame, rung: int, size: tuple[int, int]
) -> None:
    width, height = size
    frame = np.ascontiguousarray(i420[: height * 3 // 2, :width])
    before, out = frame.copy(), np.empty_like(frame)
    Processor(sharpener, width, height)(frame, rung, out)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(out[height:], frame[height:])
    assert (out[:height] != frame[:height]).mean() > 0.05
    nothing = Sharpener("fast", "onnxruntime", 1, strength=0)
    Processor(nothing, width, height)(frame, rung, out)
    np.testing.assert_array_equal(out, frame)


def test_chroma_is_restored_at_the_highest_rung_alone(photos: dict[str, Frame], colour_onnx: Path) -> None:
    """By a network that adds 20 levels to Cb and 12 to Cr."""
    frame = np.asarray(cv2.cvtColor(photos["coffee"][:64, :96], cv2.COLOR_RGB2YUV_I420), np.uint8)
    process, out = Processor(Sharpener(colour_onnx, "onnxruntime", 1), 96, 64), np.empty_like(frame)
    process(frame, 0, out)
    assert np.array_equal(out[64:80], np.minimum(frame[64:80].astype(int) + 20, 255))
    assert np.array_equal(out[80:], np.minimum(frame[80:].astype(int) + 12, 255))
    process(frame, 1, out)
    assert np.array_equal(out[64:], frame[64:])


def test_a_network_that_has_learnt_takes_over_between_two_frames(photos: dict[str, Frame]) -> None:
    image = cv2.GaussianBlur(photos["astronaut"][:64, 170:266], (0, 0), 1.2)
    frame = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)

    def processed(process: Processor) -> Frame:
        out = np.empty_like(frame)
        process(frame, 0, out)
        return out

    def alone(name: str) -> Frame:
        return processed(Processor(Sharpener(name, "onnxruntime", 1, video=True), 96, 64, past_frames=False))

    learning = Learning({2: "quality"})
    process = Processor(Sharpener("fast", "onnxruntime", 1, video=True), 96, 64, past_frames=False)
    by_fast, by_quality = alone("fast"), alone("quality")
    until_s = time.monotonic() + 60
    with process.adapted_by(learning):
        frames = [processed(process)]
        while not np.array_equal(frames[-1], by_quality) and time.monotonic() < until_s:
            frames.append(processed(process))
            assert any(np.array_equal(frames[-1], one) for one in (by_fast, by_quality))
    assert np.array_equal(frames[0], by_fast)
    assert np.array_equal(frames[-1], by_quality)
    assert learning.offered == [False] * len(frames)


def test_a_network_that_cannot_be_used_leaves_the_one_before(
    photos: dict[str, Frame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = np.asarray(cv2.cvtColor(photos["astronaut"][:64, 170:266], cv2.COLOR_RGB2YUV_I420), np.uint8)
    process = Processor(Sharpener("fast", "onnxruntime", 1, video=True), 96, 64)
    with process.adapted_by(Learning({1: str(tmp_path / "none.onnx")})):
        until_s, told = time.monotonic() + 60, ""
        while "cannot be used: there is no model" not in told and time.monotonic() < until_s:
            process(frame, 0, np.empty_like(frame))
            told += capsys.readouterr().err
    assert "the adapted network cannot be used: there is no model" in told


def test_a_camera_uses_the_frames_before_each_at_every_size(sharpener: Sharpener, photos: dict[str, Frame]) -> None:
    sharp = pan_and_zoom(photos["astronaut"][:256, 80:400], 4, (1.7, -1.2), 1.0)
    arrived = receive(Clip("face", sharp), Setting("h264", 37, 2))
    frames = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8) for frame in arrived]
    for rung in range(len(RUNGS)):
        answers = []
        for past_frames in (True, False):
            process = Processor(sharpener, 320, 256, past_frames=past_frames)
            answers.append([np.empty_like(frame) for frame in frames])
            for frame, out in zip(frames, answers[-1], strict=True):
                process(frame, rung, out)
        assert (answers[0][0] == answers[1][0]).all()  # there is none before the first
        assert any((one != other).any() for one, other in zip(*answers, strict=True))
        if rung == 0:
            temporal = TemporalFilter()
            for frame, with_past, alone in zip(frames, *answers, strict=True):
                np.testing.assert_array_equal(with_past[:256], sharpener(temporal(frame[:256]), "gray"))
                np.testing.assert_array_equal(alone[:256], sharpener(frame[:256], "gray"))
                np.testing.assert_array_equal(alone[256:], frame[256:])


def test_what_cannot_be_processed_is_refused(sharpener: Sharpener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpener, "graph", replace(sharpener.graph, kind="rgb"))
    with pytest.raises(UserError, match="a camera needs a luma network such as fast"):
        Processor(sharpener, WIDTH, HEIGHT)


def test_a_worker_is_abandoned_when_it_is_late_and_taken_up_again(i420: Frame) -> None:
    go_on = threading.Event()

    def process(frame: Frame, rung: int, out: Frame) -> None:
        assert go_on.wait(60)
        np.copyto(out, frame + rung)

    with Worker(process) as worker:
        assert worker.wait(0) is None and not worker.busy
        worker.start(i420, 1)
        assert is_busy(worker)
        assert worker.wait(0.01) is None
        assert worker.wait(-1) is None
        go_on.set()
        worker.start(i420, 2)  # waits for the first
        result = worker.wait(60)
        assert result is not None and result[1] >= 0
        np.testing.assert_array_equal(result[0], i420 + 2)


def test_a_result_is_not_written_over_by_the_next_frames(i420: Frame) -> None:
    def process(frame: Frame, rung: int, out: Frame) -> None:
        np.copyto(out, frame)

    with Worker(process) as worker:
        addresses = set()
        for number in range(20):
            worker.start(i420 + number, 0)
            result = worker.wait(60)
            assert result is not None
            addresses.add(result[0].ctypes.data)
            worker.start(i420 + 100, 0)  # one that will be late
            while worker.busy:
                time.sleep(0.001)
            np.testing.assert_array_equal(result[0], i420 + number)
    assert len(addresses) == 2  # no memory but these two frames


def test_what_the_processing_fails_with_is_raised(i420: Frame) -> None:
    def process(frame: Frame, rung: int, out: Frame) -> None:
        raise UserError("no more")

    with Worker(process) as worker:
        worker.start(i420, 0)
        with pytest.raises(UserError, match="no more"):
            worker.wait(60)
    with Worker(process) as worker:
        worker.start(i420, 0)
        while worker.busy:
            time.sleep(0.001)
        with pytest.raises(UserError, match="no more"):
            worker.start(i420, 0)


def is_busy(worker: Worker) -> bool:
    """Ask anew: a type checker takes a property's answer for its last one."""
    return worker.busy


class PatientWorker(Worker):
    """Is never late, however slow the machine is."""

    def wait(self, _timeout_s: float) -> tuple[Frame, float] | None:
        return super().wait(60)


class RealFrames(FakeCamera):
    """A fake camera whose frames are new arrays of a real image."""

    image: Frame

    def take(self, until_s: float, since_s: float = -np.inf) -> Captured | None:
        taken = super().take(until_s, since_s)
        return taken and Captured(self.image.copy(), taken.time_s, taken.seen_s)


def test_memory_does_not_grow_with_the_frames(sharpener: Sharpener, i420: Frame) -> None:
    clock, grown = FakeClock(), []
    camera = RealFrames(clock, at_rate(300))
    camera.image = i420

    class Watched:
        def show(self, slot: int, _frame: Frame, status: Status) -> str:
            status.lines()
            if slot in {100, 299}:
                gc.collect()
                grown.append(tracemalloc.get_traced_memory()[0])
            return ""

    source = Source("camera", (WIDTH, HEIGHT), Fraction(FPS), camera, lambda: None)
    tracemalloc.start()
    try:
        with PatientWorker(Processor(sharpener, WIDTH, HEIGHT)) as worker:
            summary = Loop(source, worker, Watched(), Fraction(FPS), clock).run(threading.Event())
    finally:
        tracemalloc.stop()
    assert summary.counts.sharpened == 300
    assert grown[1] - grown[0] < 4 * i420.nbytes


# The status.


def test_latencies_are_counted_in_constant_memory() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) == 0
    for ms in [*range(1, 101), 10_000]:
        latencies.add(ms)
    assert latencies.quantile(0.5) == pytest.approx(51, abs=0.11)
    assert latencies.quantile(0.95) == pytest.approx(96, abs=0.11)
    assert latencies.quantile(1) == pytest.approx(2000, abs=0.2)


def test_the_status_tells_rate_latency_counts_and_size() -> None:
    status = Status((1280, 720))
    assert status.lines()[0] == "0.0 fps, latency 0 ms, p95 0 ms" and status.drift_ms == 0
    for number in range(200):
        status.shown(number / 25 + 0.01, number / 25, 8.0 if number % 10 else 30.0)
    status.counts.sharpened, status.counts.late, status.dropped, status.rung = 180, 20, 3, 1
    assert status.lines() == [
        "25.0 fps, latency 8 ms, p95 30 ms",
        "sharpened 180, late 20, dropped 3",
        "on, processed at 960x540",
    ]
    status.enabled = False
    assert status.lines()[2].startswith("OFF")
    assert status.drift_ms == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [(1280, 720), (WIDTH, HEIGHT), (16, 16)])
def test_the_overlay_is_written_on_a_copy(size: tuple[int, int]) -> None:
    width, height = size
    frame = np.full((height * 3 // 2, width), 200, np.uint8)
    before = frame.copy()
    written = draw_overlay(frame, ["29.9 fps", "sharpened 12", "on"])
    np.testing.assert_array_equal(frame, before)
    assert written.shape == frame.shape and (written != frame).any()
    if width == 1280:
        luma, chroma = written[:height], written[height:].reshape(2, height // 2, width // 2)
        assert luma[:140, :250].max() > 220 and luma[:140, :250].min() < 100
        assert (luma[200:] == 200).all() and (luma[:, 640:] == 200).all()
        assert (chroma[:, :40, :40] == 128).all() and (chroma[:, 100:] == 200).all()


# Where frames come from.


def write_lossless(path: Path, rgb: Frame, count: int = 10, **traits: Any) -> Path:
    return write_video(path, rgb, range(0, count * STEP, STEP), options=LOSSLESS, **traits)


def test_only_the_newest_frame_is_kept() -> None:
    clock = FakeClock()
    newest = Newest(clock.now)
    assert newest.take(clock.now()) is None
    for number in range(3):
        clock.now_s += 1
        newest.put(numbered(number))
    taken = newest.take(0)
    assert taken is not None and number_of(taken.frame) == 2 and taken.time_s == 103
    assert (newest.arrived, newest.dropped) == (3, 2)
    assert newest.take(0) is None
    newest.put(numbered(3))
    clock.now_s += 1
    held = newest.take(clock.now(), since_s=clock.now())  # too old, but there is none else in time
    assert held is not None and number_of(held.frame) == 3
    newest.put(numbered(4))
    newest.end("unplugged")
    assert [newest.ended, newest.take(np.inf, np.inf) is None, newest.ended] == [False, False, True]
    assert newest.trouble == "unplugged"
    assert newest.take(np.inf) is None


@pytest.mark.parametrize(
    ("stamp_s", "seen_s"),
    [(None, 100.0), (99.96, 99.96), (100.5, 100.0), (12.0, 100.0)],
    ids=["none", "by the camera", "of another clock", "long ago"],
)
def test_a_frame_was_seen_when_its_camera_says_so_if_that_can_be(stamp_s: float | None, seen_s: float) -> None:
    newest = Newest(lambda: 100.0)
    newest.put(numbered(0), stamp_s)
    taken = newest.take(0)
    assert taken is not None and (taken.time_s, taken.seen_s) == (100, seen_s)


def test_latency_is_counted_from_when_the_camera_saw_the_frame() -> None:
    class Stamped(FakeCamera):
        def take(self, until_s: float, since_s: float = -np.inf) -> Captured | None:
            taken = super().take(until_s, since_s)
            return taken and replace(taken, seen_s=taken.time_s - 0.02)

    clock = FakeClock()
    source = Source("camera", (2, 2), Fraction(FPS), Stamped(clock, at_rate(30)), lambda: None)
    summary = Loop(source, FakeWork(clock, lambda *_: 0.01), Screen(clock), Fraction(FPS), clock).run(threading.Event())
    assert summary.counts.sharpened == 30 and summary.median_ms == pytest.approx(30, abs=0.2)


def test_a_taker_is_woken_by_a_frame_and_by_the_end() -> None:
    newest = Newest()
    threading.Timer(0.02, newest.put, [numbered(1)]).start()
    taken = newest.take(time.perf_counter() + 60)
    assert taken is not None and number_of(taken.frame) == 1
    threading.Timer(0.02, newest.end).start()
    assert newest.take(time.perf_counter() + 60) is None


class Unhurried(threading.Event):
    """An event whose `wait` returns at once, notes for how long it should have waited, and is set after a while."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.most = most

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return len(self.waits) > self.most


@pytest.mark.parametrize(("again", "frames"), [(False, 10), (True, 25)])
def test_a_video_is_played_at_its_own_pace_once_or_in_a_loop(
    rgb: Frame, tmp_path: Path, *, again: bool, frames: int
) -> None:
    path = write_lossless(tmp_path / "in.mp4", rgb)
    stop, newest, started = Unhurried(most=25), Newest(), time.perf_counter()
    sources._play(path, upright(), Fraction(25), newest, stop, again=again)
    passed_s = time.perf_counter() - started
    assert (newest.arrived, newest.dropped) == (frames, frames - 1)
    for number, wait_s in enumerate(stop.waits):  # the second round begins where the first has ended
        assert max(0, number / 25 - passed_s) <= wait_s <= number / 25
    assert newest.trouble is None
    if not again:
        last = newest.take(0)
        assert last is not None and newest.ended
        np.testing.assert_array_equal(last.frame, i420_of(path)[-1])


def upright() -> Fit:
    return sources._upright("in.mp4", (WIDTH, HEIGHT), {(WIDTH, HEIGHT): Fraction(1)})


@pytest.mark.parametrize(("suffix", "opened"), [(".mp4", 1), (".mkv", 1), (".ts", 1), (".avi", 1), (".h264", 3)])
def test_a_video_played_in_a_loop_stays_open_if_it_can_be_wound_back(
    rgb: Frame, tmp_path: Path, suffix: str, opened: int
) -> None:
    """Opened anew each time, it left some memory behind: a camera that played a video grew by 20 MiB in ten minutes."""
    path, videos, rounds = write_lossless(tmp_path / f"in{suffix}", rgb), [], []
    if suffix == ".avi":
        remux(write_lossless(tmp_path / "in.mp4", rgb), path)
    for video, main in itertools.islice(sources._over_and_over(path), 3):
        videos.append(video)
        rounds.append(list(sources._video_frames(video, main, path, upright(), threading.Event())))
    assert len({id(video) for video in videos}) == opened
    for again in rounds:
        assert [time_s for _, time_s in again] == [time_s for _, time_s in rounds[0]]
        if suffix != ".avi":  # which has no times of B-frames
            assert [time_s for _, time_s in again] == pytest.approx([number / 25 for number in range(10)])
        for (frame, _), expected in zip(again, i420_of(path), strict=True):
            np.testing.assert_array_equal(frame, expected)


def test_full_range_becomes_limited(rgb: Frame, tmp_path: Path) -> None:
    limited = i420_of(write_lossless(tmp_path / "limited.mp4", rgb, 1))[0]
    path = write_lossless(tmp_path / "full.mp4", rgb, 1, pixel_format="yuvj420p", tags={"color_range": 2})
    assert np.abs(i420_of(path)[0].astype(int) - limited).mean() > 3
    _, (frame,) = played(path)
    assert np.abs(frame.astype(int) - limited).mean() < 1


@pytest.mark.parametrize(
    ("asked", "traits", "size"),
    [
        (None, {}, (WIDTH, HEIGHT)),
        ((48, 32), {}, (48, 32)),
        (None, {"size": (95, 63), "pixel_format": "yuv444p"}, (94, 62)),
        (None, {"tags": {"sample_aspect_ratio": Fraction(4, 3)}}, (WIDTH * 4 // 3, HEIGHT)),  # as it is shown
    ],
    ids=["own", "asked", "odd", "wide pixels"],
)
def test_a_source_tells_its_size_and_rate_and_begins_when_told(
    rgb: Frame, tmp_path: Path, asked: Size | None, traits: dict[str, Any], size: Size
) -> None:
    path = write_lossless(tmp_path / "in.mkv", rgb, **traits)
    with open_source(str(path), asked, None) as source:
        assert (source.size, source.rate, source.newest.arrived) == (size, Fraction(25), 0)
        source.begin()
        taken = source.newest.take(time.perf_counter() + 60)
    assert taken is not None and taken.frame.shape == (size[1] * 3 // 2, size[0])


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_video_of_a_phone_is_played_upright(rgb: Frame, tmp_path: Path, rotation: int) -> None:
    turns = rotation // 90
    stored = i420_of(write_lossless(tmp_path / "flat.mp4", rgb, 1))[0]
    turned = write_lossless(tmp_path / "turned.mp4", rgb, 1, rotation=rotation)
    (width, height), (frame,) = played(turned)
    assert (width, height) == ((HEIGHT, WIDTH) if turns % 2 else (WIDTH, HEIGHT))
    np.testing.assert_array_equal(frame[:height], np.rot90(stored[:HEIGHT], turns))
    chroma = stored[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    shown = frame[height:].reshape(2, height // 2, width // 2)
    for plane, before in zip(shown, chroma, strict=True):
        np.testing.assert_array_equal(plane, np.rot90(before, turns))


def played(path: Path, size: Size | None = None) -> tuple[Size, list[Frame]]:
    """Return the size that a source tells, and all frames of it."""
    frames: list[Frame] = []
    with open_source(str(path), size, None) as source:
        source.newest.put = lambda frame, *_: frames.append(frame)  # type: ignore[method-assign]  # none may be dropped
        source.begin()
        while not source.newest.ended:
            time.sleep(0.01)
    return source.size, frames


def test_a_video_that_grows_is_played_at_its_largest_size(
    rgb: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_pieces(tmp_path / "in.h264", rgb, (48, 32), (WIDTH, HEIGHT), (72, 48))
    size, frames = played(path)
    assert size == (WIDTH, HEIGHT) and len(frames) == 30
    with av.open(str(path)) as video:
        scaled = [planar(frame, WIDTH, HEIGHT) for frame in video.decode(video=0)]
    for frame, expected in zip(frames, scaled, strict=True):
        np.testing.assert_array_equal(frame, expected.to_ndarray())
    assert f"{path} changes its size: all frames are scaled to {WIDTH}x{HEIGHT}" in capsys.readouterr().err


def test_a_video_of_another_shape_has_bars(rgb: Frame, tmp_path: Path) -> None:
    path = write_lossless(tmp_path / "in.mp4", rgb, 1)
    _, (frame,) = played(path, (128, 64))
    luma, chroma = frame[:64], frame[64:].reshape(2, 32, 64)
    np.testing.assert_array_equal(luma[:, 16:112], i420_of(path)[0][:64])
    assert (luma[:, :16] == 16).all() and (luma[:, 112:] == 16).all()
    assert (chroma[:, :, :8] == 128).all() and (chroma[:, :, 56:] == 128).all()


@pytest.mark.parametrize(("asked", "size"), [(None, (48, 32)), ((WIDTH, HEIGHT), (WIDTH, HEIGHT))])
def test_a_camera_that_changes_its_size_keeps_the_one_it_began_with(
    rgb: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    asked: Size | None, size: Size,
) -> None:  # fmt: skip
    """How large its frames will be is not known, and the outputs are open by then."""
    camera_of(write_pieces(tmp_path / "in.h264", rgb, (48, 32), (WIDTH, HEIGHT)), 0, monkeypatch)
    told, frames = played(Path("/dev/video7"), asked)
    assert told == size and len(frames) == 20
    assert {frame.shape for frame in frames} == {(size[1] * 3 // 2, size[0])}
    said = capsys.readouterr().err
    assert f"/dev/video7 changes its size: all frames are scaled to {size[0]}x{size[1]}; --size names" in said


def test_hdr_is_played_as_sdr_with_a_warning(rgb: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In PQ, a white of 203 cd/m2 is at 58 % of the range; BT.709 has its white there."""
    tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    white = np.full_like(rgb, round(0.58 * 255))
    path = write_lossless(tmp_path / "in.mp4", white, 1, pixel_format="yuv420p10le", tags=tags)
    _, (frame,) = played(path)
    assert abs(float(frame[:HEIGHT].mean()) - 235) < 8
    assert "in.mp4 is HDR, which is converted to SDR: what is brighter than white is clipped" in capsys.readouterr().err


def camera_of(path: Path, refused: int, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Let a video stand for /dev/video7 that refuses the first ways to open it; return the options of each."""
    opened, asked = av.open, []

    def fake(name: str, *mode: Any, **options: Any) -> Any:
        if options.get("format") not in sources.FORMATS.values():
            return opened(name, *mode, **options)
        asked.append(options["options"])
        if len(asked) <= refused:
            raise av.ArgumentError(22, "Invalid argument", name)
        return opened(str(path))

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("clearcall.media.camera.source.av.open", fake)
    return asked


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_camera_is_opened_in_the_first_way_that_it_takes(
    rgb: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: int
) -> None:
    asked = camera_of(write_lossless(tmp_path / "in.mp4", rgb), refused, monkeypatch)
    with open_source("/dev/video7", (640, 360), 25) as source:
        assert source.size == (640, 360)  # frames are scaled to it
        source.begin()
        taken = source.newest.take(time.perf_counter() + 60)
        assert taken is not None and taken.frame.shape == (540, 640)
    wanted = {"video_size": "640x360", "framerate": "25"}
    assert asked == [wanted | {"input_format": "mjpeg"}, wanted, {}][: refused + 1]
    assert ("it is used as it is set" in capsys.readouterr().err) == (refused == 2)


def test_a_camera_is_closed_whatever_its_user_raises(
    rgb: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera_of(write_lossless(tmp_path / "in.mp4", rgb), 0, monkeypatch)
    cameras, fake = [], av.open

    def kept(*arguments: Any, **options: Any) -> Any:
        cameras.append(fake(*arguments, **options))
        return cameras[-1]

    monkeypatch.setattr("clearcall.media.camera.source.av.open", kept)
    with pytest.raises(UserError, match="no window"), open_source("/dev/video7", None, None):
        raise UserError("no window")
    with pytest.raises(AssertionError, match="not open"):
        next(cameras[0].decode(video=0))


def test_a_camera_that_takes_no_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera_of(tmp_path / "none", 3, monkeypatch)
    with pytest.raises(UserError, match="/dev/video7 cannot be used as a camera: Invalid argument; another program"):
        played(Path("/dev/video7"))


def test_a_camera_that_goes_away_ends_it_and_what_was_recorded_is_kept(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera_of(write_lossless(tmp_path / "in.mp4", rgb), 0, monkeypatch)
    summary = run_camera(sharpener, Settings("/dev/video7", (str(tmp_path / "out.mp4"),)))
    assert summary.trouble == "/dev/video7 sends no more frames: it may have been unplugged"
    assert len(i420_of(tmp_path / "out.mp4")) == summary.shown > 0


# Where frames go.


@pytest.mark.parametrize(
    ("name", "rate"),
    [("out.mp4", Fraction(30000, 1001)), *((f"out.{suffix}", Fraction(25)) for suffix in ("mkv", "webm", "mov"))],
)
def test_a_video_has_each_frame_at_the_time_of_its_slot(i420: Frame, tmp_path: Path, name: str, rate: Fraction) -> None:
    frames = [np.roll(i420, 4 * number, 1) for number in range(6)]
    slots = [0, 1, 2, 5, 6, 20]
    with open_outputs([str(tmp_path / name)], (WIDTH, HEIGHT), rate, overlay=None) as fan:
        for slot, frame in zip(slots, frames, strict=True):
            assert fan.show(slot, frame, Status((WIDTH, HEIGHT))) == ""
    assert times_of(tmp_path / name) == [slot / rate for slot in slots]
    for frame, expected in zip(i420_of(tmp_path / name), frames, strict=True):
        assert np.abs(frame.astype(int) - expected).mean() < 6
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("recorded", [0, 3])
def test_what_was_recorded_is_kept_when_something_else_fails(i420: Frame, tmp_path: Path, recorded: int) -> None:
    def fail() -> None:
        with open_outputs([str(tmp_path / "out.mp4")], (WIDTH, HEIGHT), Fraction(25), overlay=None) as fan:
            for slot in range(recorded):
                fan.show(slot, i420, Status((WIDTH, HEIGHT)))
            raise UserError("the network cannot be run")

    with pytest.raises(UserError, match="the network cannot be run"):
        fail()
    assert [len(i420_of(path)) for path in tmp_path.iterdir()] == [recorded] * (recorded > 0)


def test_the_status_is_on_those_that_are_to_show_it(i420: Frame) -> None:
    shown: list[Frame] = []

    class Kept:
        def show(self, _slot: int, frame: Frame) -> str:
            shown.append(frame)
            return "a"

    assert Fan([(Kept(), False), (Kept(), True)]).show(0, i420, Status((WIDTH, HEIGHT))) == "aa"
    assert shown[0] is i420
    np.testing.assert_array_equal(shown[1], draw_overlay(i420, Status((WIDTH, HEIGHT)).lines()))


def test_the_preview_draws_as_often_as_there_is_time_for(i420: Frame) -> None:
    clock = FakeClock()

    class Window:
        drawn: list[Frame] = []  # noqa: RUF012  # one window

        def draw(self, rgb: Frame) -> None:
            self.drawn.append(rgb)
            clock.now_s += 0.02

        def keys(self) -> str:
            return " "

    window = Window()
    preview = Preview(window, clock.now)
    for slot in range(10):
        clock.wait_until(100 + slot * PERIOD)
        assert preview.show(slot, i420) == " "
    assert len(window.drawn) == 5
    assert window.drawn[0].shape == (HEIGHT, WIDTH, 3)
    clock.now_s += 1
    preview.show(10, np.full((1080 * 3 // 2, 1920), 128, np.uint8))
    assert window.drawn[-1].shape == (540, 960, 3)


def test_a_preview_without_a_screen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems always have a screen")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UserError, match="choose --output FILE or"):
        TkWindow("clearcall")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(UserError, match="install python3-tk, or choose --output FILE or --output virtual"):
        TkWindow("clearcall")


def test_cameras_and_outputs_are_listed_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems have a screen and cameras of other names")
    monkeypatch.delenv("DISPLAY", raising=False)
    devices = [SimpleNamespace(name="/dev/video4", description="Integrated Camera", media_types=["video"])]
    monkeypatch.setattr(av, "enumerate_input_devices", lambda _kind: devices)
    camera, preview, virtual, file = list_devices()
    assert camera == "camera   /dev/video4: Integrated Camera"
    assert preview.startswith("output   preview: ") and "choose --output FILE or --output virtual" in preview
    assert virtual.startswith("output   virtual: ")
    assert ".mp4" in file
    devices.clear()
    assert next(list_devices()).startswith("camera   none found: plug one in")


def test_the_virtual_camera_gets_every_frame_or_says_what_is_missing(
    i420: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Frame] = []

    class Camera:
        def __init__(self, width: int, height: int, fps: float, *, fmt: str) -> None:
            assert (width, height, fps, fmt) == (WIDTH, HEIGHT, 30.0, "I420")

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            sent.append(i420[:0])

        def send(self, frame: Frame) -> None:
            sent.append(frame)

    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("No v4l2 loopback device found")

    formats = SimpleNamespace(I420="I420")
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=Camera, PixelFormat=formats))
    with open_outputs(["virtual"], (WIDTH, HEIGHT), Fraction(30), overlay=None) as fan:
        assert fan.show(0, i420, Status((WIDTH, HEIGHT))) == ""
    assert sent[0] is i420 and len(sent) == 2
    refused = r"there is no virtual camera here: .* \(pyvirtualcam says: No v4l2 loopback"
    missing_package = "the virtual camera needs pyvirtualcam: pip install pyvirtualcam"
    refusing = SimpleNamespace(Camera=missing, PixelFormat=formats)
    for package, message in ((refusing, refused), (None, missing_package)):
        monkeypatch.setitem(sys.modules, "pyvirtualcam", package)
        with pytest.raises(UserError, match=message), ExitStack() as stack:
            stack.enter_context(open_outputs(["virtual"], (WIDTH, HEIGHT), Fraction(30), overlay=None))


# All of it together.


@pytest.mark.parametrize("fps", [None, 10, 50])
def test_a_video_that_stands_for_a_camera_is_recorded_at_the_fixed_rate(
    sharpener: Sharpener, rgb: Frame, tmp_path: Path, fps: int | None
) -> None:
    """How many frames are in time is the machine's business; that none is unaccounted for is ours."""
    path, target = write_lossless(tmp_path / "in.mp4", rgb), tmp_path / "out.mp4"
    summary = run_camera(sharpener, Settings(str(path), (str(target),), fps=fps))
    times, counts = times_of(target), summary.counts
    assert len(times) == summary.shown == counts.sharpened + counts.late + counts.repeated > 0
    assert summary.arrived == 10 == counts.sharpened + counts.late + summary.dropped
    assert times == sorted(set(times)) and times[0] == 0
    assert all((time * (fps or 25)).denominator == 1 for time in times)
    assert times[-1] * (fps or 25) == summary.shown + counts.missed - 1
    assert summary.trouble is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.usefixtures("_sound")
def test_what_cannot_be_done_is_one_message_each_and_no_file(sharpener: Sharpener, rgb: Frame, tmp_path: Path) -> None:
    video = str(write_lossless(tmp_path / "in.mp4", rgb))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder.mp4").mkdir()
    ours, target = sorted(tmp_path.iterdir()), str(tmp_path / "out.mp4")
    for source, output, message in (
        (str(tmp_path / "nothing.mp4"), target, "there is no camera or video"),
        ("/dev/video99", target, "there is no camera or video /dev/video99: plug one in"),
        (str(tmp_path / "text.mp4"), target, "cannot be read as a video"),
        (str(tmp_path / "sound.wav"), target, "holds no moving picture"),
        (str(tmp_path), target, "cannot be used as a camera"),
        (video, video, "is the input itself"),
        (video, str(tmp_path / "out.avi"), "is no output: name preview, virtual, or a video in .mp4"),
        (video, str(tmp_path / "folder.mp4"), "is a folder: name a file"),
        (video, str(tmp_path / "text.mp4"), "text.mp4 exists: name another file for the result, or --overwrite"),
        (video, str(tmp_path / "text.mp4" / "out.mp4"), "is a file or below one: name a folder for out.mp4"),
    ):
        with pytest.raises(UserError, match=message):
            run_camera(sharpener, Settings(source, (output,)))
        assert sorted(tmp_path.iterdir()) == ours


def test_the_command_records_and_tells_what_came_of_it(rgb: Frame, tmp_path: Path) -> None:
    path, target = write_lossless(tmp_path / "in.mp4", rgb), tmp_path / "out.mp4"
    options = ("--output", str(target), *ON_ONE_THREAD, "--overlay", "--size", "64x48")
    done = run_command("camera", str(path), *options, "--loop", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert " frames in, " in done.stdout and "latency median " in done.stdout and "; drift " in done.stdout
    frames = i420_of(target)
    assert frames[0].shape == (72, 64) and times_of(target)[-1] < 1
    assert f"{len(frames)} out: " in done.stdout
    done = run_command("camera", "/dev/video99", *options, "--overwrite")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: there is no camera or video /dev/video99") and done.stderr.count("\n") == 1


def test_ctrl_c_ends_it_with_a_playable_video(rgb: Frame, tmp_path: Path) -> None:
    path, target = write_lossless(tmp_path / "in.mp4", rgb), tmp_path / "out" / "out.mp4"
    arguments = ("camera", str(path), "--output", str(target), *ON_ONE_THREAD, "--loop")
    done = run_interrupted(5, "clearcall.media.camera.outputs:Fan.show", *arguments)
    assert done.returncode == 0, done.stderr
    assert " frames in, " in done.stdout
    assert list(target.parent.iterdir()) == [target]
    assert len(i420_of(target)) == 5
    assert "5 out: " in done.stdout
