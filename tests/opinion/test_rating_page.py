"""From `create` to `report` with two raters in a real browser: keyboard, phone, reload, no request elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.make.browsers import chromium, faults_of, needs_axe, playwright_or_skip
from tests.make.commands import run_command
from tests.opinion.conftest import MakeStudy, served

from clearcall.opinion.server import STATIC
from clearcall.opinion.stimuli import Method, load_study
from clearcall.opinion.votes import Votes
from clearcall.reporting.opinion import write_opinion
from clearcall.web.guard import Password

WAIT_MS = 30_000  # of a loaded machine
SHOTS = os.environ.get("CLEARCALL_SHOTS")  # a folder for screenshots

playwright = playwright_or_skip()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def opened(browser: Any, url: str, asked: list[str], errors: list[str], **context: Any) -> Any:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(url)
    return page


def resume(page: Any, code: str) -> None:
    page.get_by_label("Or enter the code").fill(code)
    page.get_by_role("button", name="Continue").click()


def expect_progress(page: Any, text: str) -> None:
    playwright.expect(page.locator("#progress-text")).to_have_text(text, timeout=WAIT_MS)
    playwright.expect(page.locator("#status")).to_contain_text(text, timeout=WAIT_MS)  # the image is there


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


def type_scores(page: Any, *scores: int) -> None:
    for score in scores:
        page.keyboard.press(str(score))
    page.keyboard.press("Enter")


def test_two_raters_from_create_to_report(browser: Any, tmp_path: Path, sharp_folder: Path) -> None:
    folder, reports = tmp_path / "study", tmp_path / "reports"
    options = ["--system", "input", "--system", "unsharp", "--condition", "bicubic_x2", "--crop", "160x128"]
    done = run_command("opinion", "create", str(sharp_folder), "--output", str(folder), *options)
    assert done.returncode == 0 and "6 images to rate" in done.stdout, done.stderr
    study, asked, errors = load_study(folder), list[str](), list[str]()
    votes = Votes(study)
    for code in ("synthetic-1", "synthetic-2"):
        votes.add_rater(code)
    program = "from clearcall.cli import main; main()"
    command = [sys.executable, "-c", program, "opinion", "serve", str(folder), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            found = re.match(r"clearcall opinion: (http://127\.0\.0\.1:\d+/)\?token=\S+", server.stdout.readline())
            assert found
            with_keys(browser, found[0].split(": ")[1], asked, errors)
            assert len(votes.of_rater("synthetic-1")) == 6
            by_touch(browser, found[0].split(": ")[1], asked, errors)
        finally:
            server.terminate()
            server.communicate(timeout=20)
    assert errors == [] and len(asked) > 10
    assert not [url for url in asked if not url.startswith((found[1], "data:"))]
    assert not [url for url in asked if re.search("input|unsharp|reference|bicubic|astronaut|coffee", url)]
    done = run_command("opinion", "report", str(folder), "--output", str(reports))
    assert done.returncode == 0, done.stderr
    said = (reports / "opinion.md").read_text()
    assert "No votes yet" in said and "36 synthetic scores of 2 test raters are ignored" in said
    said = write_opinion(study, reports, "a test", include_synthetic=True).read_text()
    # The first gave 4, 3 and 5 but for one image 1, 2, 2, the second 2 throughout.
    assert "2 raters" in said and "2 rated all items" in said and (reports / "opinion.png").stat().st_size > 10_000


def with_keys(browser: Any, url: str, asked: list[str], errors: list[str]) -> None:
    """Rate all with the keyboard on a desktop, with a reload, a way back and a change by the arrow keys."""
    page = opened(browser, url, asked, errors, viewport={"width": 1280, "height": 900})
    playwright.expect(page.get_by_role("button", name="Start")).to_be_visible(timeout=WAIT_MS)
    shoot(page, "start")
    assert "token" not in page.url
    resume(page, "synthetic-1")
    for place in (1, 2, 3):
        expect_progress(page, f"Practice {place} of 3, not counted")
        type_scores(page, 3, 3, 3)
    expect_progress(page, "1 of 6")
    assert page.locator("#stage img").evaluate("image => image.clientWidth * devicePixelRatio") == 160
    type_scores(page, 4, 3, 5)
    expect_progress(page, "2 of 6")
    page.keyboard.press("Enter")  # not yet: two questions are open
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    page.locator("#back").focus()
    page.keyboard.press("ArrowRight")  # of no question
    assert [one.input_value() for one in page.locator(":checked").all()] == ["4"]
    assert page.locator("#progress-text").inner_text() == "2 of 6"
    shoot(page, "desktop")
    page.reload()
    expect_progress(page, "2 of 6")
    assert page.locator(":checked").count() == 0
    type_scores(page, 1, 2, 2)
    expect_progress(page, "3 of 6")
    page.get_by_role("button", name="Back").click()
    expect_progress(page, "2 of 6")
    assert [one.input_value() for one in page.locator(":checked").all()] == ["1", "2", "2"]
    page.get_by_label("1 Bad").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    for place in (3, 4, 5, 6):
        expect_progress(page, f"{place} of 6")
        type_scores(page, 4, 3, 5)
    playwright.expect(page.get_by_role("heading", name="Thank you")).to_be_focused(timeout=WAIT_MS)
    shoot(page, "done")
    page.context.close()


def by_touch(browser: Any, url: str, asked: list[str], errors: list[str]) -> None:
    """Rate all by touch on a narrow screen of three pixels a CSS pixel."""
    phone = {"viewport": {"width": 360, "height": 640}, "device_scale_factor": 3, "has_touch": True, "is_mobile": True}
    page = opened(browser, url, asked, errors, **phone)
    page.get_by_role("button", name="Start").wait_for()
    resume(page, "synthetic-2")
    for place in range(9):
        expect_progress(page, f"Practice {place + 1} of 3, not counted" if place < 3 else f"{place - 2} of 6")
        width = page.locator("#stage img").evaluate("image => image.getBoundingClientRect().width")
        assert width == pytest.approx(160 / 3, abs=0.1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for row in page.locator("fieldset").all():
            row.get_by_text("2 Poor").tap()
        if place == 4:
            shoot(page, "phone")
        page.get_by_role("button", name="Next").tap()
    playwright.expect(page.get_by_role("heading", name="Thank you")).to_be_visible(timeout=WAIT_MS)
    page.context.close()


def test_a_new_rater_gets_a_code_and_compares_pairs(browser: Any, make_study: MakeStudy) -> None:
    with served(make_study("pairs")) as site:
        asked, errors = list[str](), list[str]()
        page = opened(browser, f"{site.origin}/?token=the-token", asked, errors, viewport={"width": 900, "height": 700})
        resume(page, "другой")
        playwright.expect(page.locator("#status")).to_contain_text("code is not known here")
        errors.clear()
        page.get_by_role("button", name="Start").click()
        playwright.expect(page.get_by_role("button", name="Begin")).to_be_focused(timeout=WAIT_MS)
        code = page.locator("#own-code").inner_text()
        assert re.fullmatch("[2-9a-z]{10}", code)
        page.keyboard.press("Enter")
        for place in (1, 2):
            expect_progress(page, f"Practice {place} of 2, not counted")
            type_scores(page, 2)
        for place in range(1, 7):
            expect_progress(page, f"{place} of 6")
            if place == 1:
                shoot(page, "pairs")
            type_scores(page, 1)
        playwright.expect(page.get_by_role("heading", name="Thank you")).to_be_visible(timeout=WAIT_MS)
        stored = site.votes.of_rater(code)
        assert len(stored) == 6 and {one["preference"] for one in stored.values()} == {-1, 1}  # some were swapped
        page.reload()
        playwright.expect(page.get_by_role("heading", name="Thank you")).to_be_visible(timeout=WAIT_MS)
        page.get_by_role("button", name="Another person rates").click()
        playwright.expect(page.get_by_role("button", name="Start")).to_be_visible()
        assert errors == [] and all(url.startswith((site.origin, "data:")) for url in asked)
        page.context.close()


def test_a_changed_image_is_a_message_and_cannot_be_rated(browser: Any, make_study: MakeStudy) -> None:
    study = make_study()
    for name in study.stimuli:
        (study.folder / "stimuli" / f"{name}.png").write_bytes(b"other")
    with served(study) as site:
        site.votes.add_rater("synthetic-1")
        page = opened(browser, f"{site.origin}/?token=the-token", [], [])
        resume(page, "synthetic-1")
        playwright.expect(page.locator("#status")).to_contain_text("cannot be shown", timeout=WAIT_MS)
        assert page.get_by_role("button", name="Next").is_disabled()
        page.context.close()


def test_the_password_is_asked_for_on_a_page(browser: Any, make_study: MakeStudy) -> None:
    password = Password("correct horse battery", (STATIC / "login.html").read_bytes(), ("/style.css",))
    with served(make_study(), password) as site:
        page = opened(browser, site.origin, [], [])
        for given in ("wrong", "correct horse battery"):
            playwright.expect(page.get_by_role("alert")).to_have_count(0)
            page.get_by_label("Password of this study").fill(given)
            page.keyboard.press("Enter")
            if given == "wrong":
                playwright.expect(page.get_by_role("alert")).to_have_text("That password is not right.")
                page.goto(site.origin)
        playwright.expect(page.get_by_role("button", name="Start")).to_be_visible(timeout=WAIT_MS)
        page.context.close()


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("method", ["acr", "pairs"])
def test_axe_finds_no_fault(browser: Any, make_study: MakeStudy, scheme: str, method: Method) -> None:
    def check() -> None:
        assert faults_of(page) == []

    study = make_study(method)
    password = Password("correct horse battery", (STATIC / "login.html").read_bytes(), ("/style.css",))
    with served(study, password) as site:
        page = opened(browser, site.origin, [], [], viewport={"width": 360, "height": 800}, color_scheme=scheme)
        check()
        page.get_by_label("Password").fill("correct horse battery")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Start").wait_for()
        check()
        page.get_by_role("button", name="Start").click()
        page.get_by_role("button", name="Begin").wait_for()
        check()
        page.get_by_role("button", name="Begin").click()
        for item in range(len(study.items)):
            page.locator("#next:not(:disabled)").wait_for()
            if item in {0, 3}:
                check()
            before = page.locator("#progress-text").inner_text()
            type_scores(page, *([2] * len(study.scales)))
            playwright.expect(page.locator("#progress-text")).not_to_have_text(before, timeout=WAIT_MS)
        page.get_by_role("heading", name="Thank you").wait_for()
        check()
        page.context.close()
