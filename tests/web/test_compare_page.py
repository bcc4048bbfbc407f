"""The pages of `clearcall compare` and of a run in Chromium: both halves in step, keyboard, no request, axe."""

import base64
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from tests.make.browsers import chromium, faults_of, needs_axe, playwright_or_skip
from tests.make.videos import STEP, write_video

from clearcall.imaging.frame import Frame
from clearcall.media.compare import write_before_after
from clearcall.media.slider import slider_page
from clearcall.reporting.played import play_calls
from clearcall.runtime.sharpener import Sharpener

playwright = playwright_or_skip()
WIDTH, HEIGHT, FRAMES = 160, 120, 50
WAIT_MS = 60_000  # of a loaded machine


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Frame]) -> dict[str, Path]:
    """The pages of a video, of an image, whose name has to be escaped, and of a run, with two videos and a pair."""
    folder = tmp_path_factory.mktemp("compared")
    photo, times = folder / "<b>&.png", range(0, FRAMES * STEP, STEP)
    Image.fromarray(photos["coffee"][:200, :300]).save(photo)
    traits: dict[str, Any] = {"tags": {"colorspace": 1, "color_range": 1}, "options": {"crf": "10"}}
    video = write_video(folder / "call.mp4", photos["astronaut"], times, size=(WIDTH, HEIGHT), **traits)
    sharpener = Sharpener("fast", "onnxruntime", 1, strength=2, expert="bicubic_x2.0")
    pair = photos["astronaut"], sharpener(photos["astronaut"])
    (folder / "look.html").write_text(slider_page("student", {**play_calls(sharpener, 1), "a pair": pair}))
    return {"run": folder / "look.html"} | {
        one.suffix: write_before_after(sharpener, one, one.with_suffix(".html"), overwrite=True)
        for one in (photo, video)
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def opened(browser: Any, path: Path, **context: Any) -> Any:
    """Open a page, of which neither requests nor errors are expected."""
    page = browser.new_page(**context)
    page.set_default_timeout(WAIT_MS)
    seen = list[str]()
    page.on("request", lambda request: seen.append(request.url[:50]))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("console", lambda said: seen.append(said.text))
    page.goto(path.as_uri())
    page.wait_for_load_state()
    assert [one for one in seen if not one.startswith(("file://", "data:"))] == []
    return page


def shown(page: Any) -> Frame:
    """What the view shows: at 1x, pixel by pixel, but for the line of the divider."""
    with Image.open(io.BytesIO(page.locator(".pair").screenshot())) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def held(path: Path) -> list[tuple[Frame, Frame]]:
    """Input and output of each frame of the video that a page holds."""
    (data,) = re.findall(r'data-src="data:video/mp4;base64,([^"]+)', path.read_text(encoding="utf-8"))
    with av.open(io.BytesIO(base64.b64decode(data)), "r") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return [(frame[:, :WIDTH].astype(np.uint8), frame[:, WIDTH:].astype(np.uint8)) for frame in frames]


def error_of(view: Frame, frame: Frame, part: slice) -> float:
    """The mean difference of some columns."""
    return float(np.abs(view[:, part].astype(np.int16) - frame[:, part]).mean())


def nearest(view: Frame, frames: list[Frame], part: slice) -> int:
    """The number of the frame whose columns these are."""
    return int(np.argmin([error_of(view, frame, part) for frame in frames]))


def test_both_halves_of_a_video_show_the_same_frame(browser: Any, pages: dict[str, Path]) -> None:
    page, frames = opened(browser, pages[".mp4"], reduced_motion="reduce"), held(pages[".mp4"])
    inputs, outputs = [one for one, _ in frames], [other for _, other in frames]
    assert len(frames) == FRAMES and page.get_by_role("button").inner_text() == "Play"  # it does not play by itself
    page.get_by_label("Size").select_option("1")
    position, divide = page.get_by_label("Position"), page.get_by_label("Divide")

    def check(number: int) -> None:
        for at in (0, 40, 100):
            divide.fill(str(at))
            column, end = WIDTH * at // 100, time.monotonic() + WAIT_MS / 1000
            left, right = slice(0, max(0, column - 2)), slice(column + 2, WIDTH)  # of the divider's line
            for part, these, others in ((left, inputs, outputs), (right, outputs, inputs)):
                if part.start >= part.stop:
                    continue
                while nearest(view := shown(page), these, part) != number:
                    assert time.monotonic() < end
                assert view.shape == (HEIGHT, WIDTH, 3)
                assert error_of(view, these[number], part) < error_of(view, others[number], part) / 2

    for number in (0, 17, FRAMES - 1):
        position.fill(str(number / 25))
        check(number)
    position.press("ArrowLeft")  # one frame
    check(FRAMES - 2)
    page.close()


def test_a_video_plays_in_a_loop_and_can_be_paused(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages[".mp4"])
    playwright.expect(page.get_by_role("button")).to_have_text("Pause")  # it plays by itself
    before = shown(page)
    page.wait_for_function("() => document.querySelector('video').currentTime > 1.5")
    page.wait_for_function("() => document.querySelector('video').currentTime < 1")  # it has started again
    assert np.abs(shown(page).astype(int) - before).mean() > 0
    page.get_by_role("button").press("Enter")
    playwright.expect(page.get_by_role("button")).to_have_text("Play")
    assert page.locator("video").evaluate("video => video.paused && video.muted")
    page.close()


def test_a_video_that_cannot_be_played_is_told(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages[".mp4"].read_text(encoding="utf-8")
    (tmp_path / "look.html").write_text(re.sub(r"video/mp4;base64,[^\"]+", "video/mp4;base64,AAAA", text))
    page = opened(browser, tmp_path / "look.html")
    playwright.expect(page.get_by_role("alert")).to_have_text("This browser cannot play H.264.")
    page.close()


def test_each_video_of_a_run_s_page_has_its_own_player(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"], reduced_motion="reduce")
    face, text = (page.get_by_role("group", name=f"{what} in a call") for what in ("Face", "Text"))
    for player in (face, text):
        playwright.expect(player.get_by_label("Position")).to_have_attribute("max", re.compile(r"0\.9\d+"))
    before, other = face.locator("canvas").screenshot(), text.locator("canvas").screenshot()
    face.get_by_label("Position").press("End")
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.9")
    end = time.monotonic() + WAIT_MS / 1000
    while face.locator("canvas").screenshot() == before:
        assert time.monotonic() < end
    assert text.locator("canvas").screenshot() == other
    face.get_by_role("button").focus()
    for reached in (face.get_by_label("Position"), text.get_by_label("Before and after"), text.get_by_role("button")):
        page.keyboard.press("Tab")
        playwright.expect(reached).to_be_focused()
    page.keyboard.press("Enter")
    playwright.expect(text.get_by_role("button")).to_have_text("Pause")
    playwright.expect(face.get_by_role("button")).to_have_text("Play")
    page.close()


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("suffix", [".mp4", ".png", "run"])
def test_axe_finds_no_fault(browser: Any, pages: dict[str, Path], scheme: str, suffix: str) -> None:
    page = opened(browser, pages[suffix], color_scheme=scheme, viewport={"width": 360, "height": 700})
    for zoom in ("0", "3"):
        page.get_by_label("Size").select_option(zoom)
        assert faults_of(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
