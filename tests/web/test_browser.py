"""The page in a real browser: the same pixels as in Python, video, camera, keyboard, messages, no request elsewhere."""

import base64
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from PIL import Image
from tests.make.browsers import chromium, faults_of, needs_axe, playwright_or_skip, skip_without_runtime
from tests.make.videos import STEP, frames_of, packets, rgb_at, times_of, write_video
from tests.web.conftest import Site

from clearcall.imaging.frame import Frame
from clearcall.imaging.looks import Look
from clearcall.imaging.sizes import resized
from clearcall.media.images import resize_pixels
from clearcall.runtime.sharpener import Sharpener

WAIT_MS = 60_000  # of a loaded machine

playwright = playwright_or_skip()
skip_without_runtime()

# (height, width) of the ten images; the smallest are padded, some are odd.
SIZES = ((1, 1), (17, 40), (33, 31), (64, 64), (99, 131), (150, 97), (201, 333), (240, 320), (301, 200), (400, 512))
READ = """() => {
  const canvas = document.getElementById("after"), { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let text = "";
  for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
  return [width, height, btoa(text)];
}"""
# Sharpens with the module alone, as an extension would.
SHARPEN = """async ({ pixels, width, height, model, options }) => {
  const ort = await import("/vendor/ort.wasm.min.mjs"), { Sharpener } = await import("/sharpen.js");
  ort.env.wasm.wasmPaths = `${location.origin}/vendor/`;
  const onnx = new Uint8Array(await (await fetch(`/models/${model}.onnx`)).arrayBuffer());
  const sharpener = await Sharpener.load(ort, onnx);
  const rgba = Uint8ClampedArray.from(atob(pixels), one => one.charCodeAt(0));
  const { data, expert } = await sharpener.sharpen(rgba, width, height, options);
  let text = "";
  for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
  return [btoa(text), expert];
}"""


@pytest.fixture(scope="module")
def camera_file(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Frame]) -> Path:
    """A raw video that Chromium takes for a camera: a blurred photograph, 128x96 pixels."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    grey = np.asarray(Image.fromarray(blurred(photos["astronaut"], (96, 128))).convert("L"))
    frame = b"FRAME\n" + grey.tobytes() + bytes([128]) * (grey.size // 2)
    path.write_bytes(b"YUV4MPEG2 W128 H96 F30:1 Ip A1:1 C420mpeg2\n" + 30 * frame)
    return path


@pytest.fixture(scope="module")
def browser(camera_file: Path) -> Iterator[Any]:
    fake = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with chromium(*fake, f"--use-file-for-fake-video-capture={camera_file}") as started:
        yield started


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    """The page, ready; at the end of each test, no request went elsewhere and no error was logged."""
    shown, asked, errors = browser.new_page(viewport={"width": 1280, "height": 900}), [], list[str]()
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    shown.goto(site.url)
    wait_for(shown, "Ready.")
    yield shown
    shown.close()
    assert not [url for url in asked if not url.startswith((f"{site.origin}/", "blob:", "data:"))]
    assert len(asked) > 3 and errors == []


def wait_for(page: Any, text: str | re.Pattern[str]) -> None:
    playwright.expect(page.locator("#status")).to_contain_text(text, timeout=WAIT_MS)


def blurred(photo: Frame, size: tuple[int, int]) -> Frame:
    """A photograph at (height, width), as upscaled by 2 to it."""
    height, width = size
    small = resized(photo, (max(1, width // 2), max(1, height // 2)))
    return np.ascontiguousarray(resized(small, (width, height)))


def pictures(photos: dict[str, Frame]) -> list[Frame]:
    """Ten images of as many sizes; one in three is a photograph as it is, the others are upscaled."""
    found = []
    for index, size in enumerate(SIZES):
        photo = [*photos.values()][index % 3]
        found.append(np.ascontiguousarray(photo[: size[0], : size[1]]) if index % 3 == 1 else blurred(photo, size))
    return found


def give(page: Any, path: Path) -> Frame:
    """Sharpen an image file on the page; return the result's pixels."""
    page.set_input_files("#file", path)
    wait_for(page, re.compile(rf"{re.escape(path.name)} is (already sharp|sharpened)\."))
    return result(page)[..., :3]


def result(page: Any) -> Frame:
    """The pixels (height, width, 4) that are shown as the result."""
    width, height, pixels = page.evaluate(READ)
    return np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + WAIT_MS / 1000
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def differ(one: Frame, other: Frame) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(np.int16) - other).max())


@pytest.mark.parametrize("model", ["fast", "quality", "best"])
def test_ten_images_differ_from_python_by_at_most_one_level(
    page: Any, tmp_path: Path, photos: dict[str, Frame], model: str
) -> None:
    page.select_option("#model", model)
    sharpener, chosen = Sharpener(model, "onnxruntime", threads=1), set()
    for index, picture in enumerate(pictures(photos)):
        path = tmp_path / f"{index}.png"
        Image.fromarray(picture).save(path)
        assert differ(give(page, path), sharpener(picture)) <= 1
        chosen.add(sharpener.expert)
        said = "already sharp" if sharpener.expert == "identity" else f"expert {sharpener.expert}"
        assert said in page.locator("#details").inner_text()
    assert len(chosen) > 2


@pytest.mark.parametrize("model", ["fast", "quality", "best"])
def test_frames_of_a_codec_too_with_their_chroma(page: Any, photos: dict[str, Frame], model: str) -> None:
    frame = blurred(photos["astronaut"], (201, 333))
    rgba = np.dstack([frame, np.full(frame.shape[:2], 200, np.uint8)])
    given = {"pixels": base64.b64encode(rgba.tobytes()).decode(), "width": 333, "height": 201, "model": model}
    sharpener = Sharpener(model, "onnxruntime", threads=1, coded=True)
    settings: list[tuple[Look, float]] = [("natural", 1.0), ("crisp", 1.0), ("natural", 0.7), ("crisp", 0.5)]
    for sharpener.look, sharpener.strength in settings:
        options = {"look": sharpener.look, "strength": sharpener.strength, "coded": True}
        pixels, expert = page.evaluate(SHARPEN, given | {"options": options})
        sharp = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(rgba.shape)
        most = 2 if expert in sharpener.graph.coloured else 1  # a level of Cb is 1.8 levels of blue
        assert differ(sharp[..., :3], sharpener(frame)) <= most
        assert expert == sharpener.expert and expert in sharpener.graph.coded
        assert (expert in sharpener.graph.coloured) == (model != "fast")
        assert (sharp[..., 3] == 200).all()


def test_an_image_is_enlarged_as_by_the_command(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    path, small = tmp_path / "small.png", np.ascontiguousarray(photos["coffee"][:75, :101])
    Image.fromarray(small).save(path)
    page.select_option("#enlarge", "2")
    enlarged = np.asarray(resize_pixels(small, (202, 150)), np.uint8)
    expected = Sharpener("fast", "onnxruntime", threads=1)(enlarged, expert="bicubic_x2.0")
    assert differ(give(page, path), expected) <= 1


def test_options_sharpen_the_image_again(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    path, picture = tmp_path / "a.png", blurred(photos["chelsea"], (120, 160))
    Image.fromarray(picture).save(path)
    give(page, path)
    page.locator("#strength").fill("0")
    playwright.expect(page.locator("#strength-value")).to_have_text("0.0")
    eventually(lambda: differ(result(page)[..., :3], picture) == 0)
    page.get_by_label("Photo", exact=True).check()
    assert page.locator("#model").input_value() == "best" and page.locator("#strength").input_value() == "1"
    expected = Sharpener("best", "onnxruntime", threads=1)(picture)
    eventually(lambda: differ(result(page)[..., :3], expected) <= 1)


def test_a_sharp_image_is_said_to_be(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    Image.fromarray(photos["chelsea"]).save(tmp_path / "a.png")
    give(page, tmp_path / "a.png")
    wait_for(page, "a.png is already sharp.")
    for look, told in (("natural", "left as it is"), ("crisp", "crisp alone")):
        page.select_option("#look", look)
        playwright.expect(page.locator("#details")).to_contain_text(f"already sharp: {told}", timeout=WAIT_MS)


def test_the_result_is_downloaded_as_png(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    path, name = tmp_path / "<b>name.v2.png", "<b>name.v2-sharp.png"
    Image.fromarray(blurred(photos["coffee"], (50, 70))).save(path)
    shown = give(page, path)
    assert page.locator("#status b").count() == 0  # a name is text
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    assert download.value.suggested_filename in {name, name.translate(str.maketrans("<>", "__"))}
    with Image.open(download.value.path()) as saved:
        assert saved.format == "PNG" and (np.asarray(saved)[..., :3] == shown).all()


def test_a_file_can_be_dropped(page: Any, photos: dict[str, Frame], tmp_path: Path) -> None:
    Image.fromarray(photos["coffee"][:40, :60]).save(tmp_path / "a.png")
    content = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    page.evaluate(
        """text => {
          const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0)), dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
          document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
        }""",
        content,
    )
    wait_for(page, "dropped.png is ")
    assert result(page).shape == (40, 60, 4)


def test_a_video_plays_and_is_sharpened(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    path = tmp_path / "call.webm"
    write_webm(path, [blurred(photos["astronaut"][index : index + 300], (180, 320)) for index in range(8)])
    page.set_input_files("#file", path)
    wait_for(page, "call.webm is being sharpened.")
    first = result(page)
    line = re.compile(r"320x180, [1-9][\d.]* fps, \d+ ms, \d+ frames dropped, expert (\w+)")
    playwright.expect(page.locator("#details")).to_contain_text(line, timeout=WAIT_MS)
    found = line.search(page.locator("#details").inner_text())
    assert found and found[1] in Sharpener("fast", "onnxruntime", threads=1).graph.coded
    time.sleep(2)  # it starts again more than once
    wait_for(page, "call.webm is being sharpened.")
    page.get_by_role("button", name="Pause").click()
    playwright.expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert differ(result(page), first) > 0
    assert page.evaluate(READ.replace('"after"', '"before"')) != page.evaluate(READ)
    page.select_option("#enlarge", "2")  # a frame that stands still is sharpened again
    eventually(lambda: result(page).shape == (360, 640, 4))


def save(page: Any, folder: Path) -> Path:
    """Save all of the video that is open, by the keyboard; return the file."""
    with page.expect_download(timeout=WAIT_MS) as download:
        page.get_by_role("button", name="Save video").press("Enter")
    path = folder / str(download.value.suggested_filename)
    download.value.save_as(path)
    return path


def rgb_of(frame: VideoFrame) -> Frame:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def luma(rgb: Frame) -> npt.NDArray[np.float64]:
    return np.asarray(rgb @ np.array([0.2126, 0.7152, 0.0722]), np.float64)  # BT.709


@pytest.mark.parametrize(
    ("name", "codec", "rotation", "scale"),
    [("call.v2.mp4", "libx264", 90, 1), ("call.webm", "libvpx-vp9", 0, 2), ("call.mkv", "libx264", 0, 1)],
)
def test_every_frame_of_a_video_is_saved_with_its_time_and_the_sound(
    page: Any, tmp_path: Path, photos: dict[str, Frame], name: str, codec: str, rotation: int, scale: int
) -> None:
    photo = photos["astronaut"] if scale > 1 else blurred(photos["astronaut"], (512, 512))
    scene = np.pad(photo, [(0, 512), (0, 512), (0, 0)], "symmetric")  # no edge comes into view where it starts over
    times = [0, STEP, 2 * STEP, 5 * STEP, *range(6 * STEP, 20 * STEP, STEP)]
    options = {"crf": "10"} | ({"b": "0", "deadline": "realtime"} if codec == "libvpx-vp9" else {})
    traits: dict[str, Any] = {"tags": {"colorspace": 1}, "options": options, "rotation": rotation, "sound": 40}
    source = write_video(tmp_path / name, scene, times, codec=codec, size=(320, 240), **traits)
    page.select_option("#enlarge", str(scale) if scale > 1 else "")
    page.locator("#strength").fill("2")
    page.set_input_files("#file", source)
    wait_for(page, f"{name} is being sharpened.")
    saved = save(page, tmp_path)
    wait_for(page, f"{name} is saved.")
    assert saved.name == f"{source.stem}-sharp{'.webm' if name.endswith('.webm') else '.mp4'}"
    assert [data for data, _ in packets(saved, "audio")] == [data for data, _ in packets(source, "audio")]
    assert [float(one) for one in times_of(saved)] == pytest.approx([float(one) for one in times_of(source)], abs=1e-3)
    sharpener, lost, changed = Sharpener("fast", "onnxruntime", threads=1, strength=2, video=True), 0.0, 0.0
    sharpener.begin_video(coded=True)
    for given, frame in zip(frames_of(source), frames_of(saved), strict=True):
        before = np.rot90(rgb_of(given), rotation // 90)
        height, width = before.shape[:2]
        before = np.asarray(resize_pixels(before, (scale * width, scale * height)), np.uint8)
        expected, after = luma(sharpener(np.ascontiguousarray(before))), luma(rgb_of(frame))
        assert sharpener.expert != "identity" and after.shape == expected.shape
        lost, changed = lost + np.square(after - expected).mean(), changed + np.square(luma(before) - expected).mean()
    assert lost < changed / 2  # by the encoder, and by the network


def test_a_video_that_changes_its_size_is_saved_at_its_first(
    page: Any, tmp_path: Path, photos: dict[str, Frame]
) -> None:
    source = tmp_path / "call.webm"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libvpx", 25, width=160, height=120)
        for number, size in enumerate([(160, 120), (80, 60)]):  # as a call does when its bandwidth shrinks
            encoder = av.VideoCodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = *size, "yuv420p", Fraction(1, 25)
            for index in range(5):
                frame = av.VideoFrame.from_ndarray(rgb_at(photos["astronaut"], index, *size), format="rgb24")
                frame.pts, frame.time_base = 5 * number + index, encoder.time_base
                for packet in [*encoder.encode(frame), *(encoder.encode(None) if index == 4 else [])]:
                    packet.stream = stream
                    out.mux(packet)
    page.set_input_files("#file", source)
    wait_for(page, "call.webm is being sharpened.")
    assert [(frame.width, frame.height) for frame in frames_of(save(page, tmp_path))] == 10 * [(160, 120)]


def test_saving_a_video_can_be_stopped_and_leaves_no_file(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    source, downloads = tmp_path / "long.mp4", list[str]()
    write_video(source, blurred(photos["astronaut"], (512, 512)), range(0, 400 * STEP, STEP), size=(320, 240))
    page.on("download", lambda one: downloads.append(one.suggested_filename))
    page.set_input_files("#file", source)
    wait_for(page, "long.mp4 is being sharpened.")
    for stop in (
        lambda: page.get_by_role("button", name="Stop saving").click(),
        lambda: give(page, tmp_path / "a.png"),  # another file
    ):
        page.get_by_role("button", name="Save video").click()
        playwright.expect(page.locator("#details")).to_contain_text(re.compile(r"[1-9]\d* % saved"), timeout=WAIT_MS)
        assert page.get_by_role("progressbar", name="Part of the video that is saved").evaluate("one => one.value") > 0
        assert page.locator("#model").is_disabled() and not page.locator("#player").is_visible()
        Image.fromarray(photos["coffee"][:40, :60]).save(tmp_path / "a.png")
        stop()
        playwright.expect(page.locator("#progress")).to_be_hidden(timeout=WAIT_MS)
        playwright.expect(page.locator("#model")).to_be_enabled()
        if page.locator("#save").is_visible():
            wait_for(page, "long.mp4 is not saved.")
    wait_for(page, "a.png is ")
    assert result(page).shape == (40, 60, 4) and downloads == []


def test_sound_that_cannot_be_kept_is_told(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    source = write_video(tmp_path / "call.mkv", photos["astronaut"], sound=True, sound_codec="wavpack")
    page.set_input_files("#file", source)
    wait_for(page, "call.mkv is being sharpened.")
    saved = save(page, tmp_path)
    wait_for(page, "call.mkv is saved without its sound, which this browser cannot keep.")
    assert len(frames_of(saved)) == 10 and packets(saved, "audio") == []


@pytest.mark.parametrize("button", ["Stop and save", "Stop the camera"])
def test_the_camera_is_recorded(page: Any, tmp_path: Path, photos: dict[str, Frame], button: str) -> None:
    page.get_by_role("button", name="Use the camera").click()
    wait_for(page, "The camera is being sharpened.")
    page.get_by_role("button", name="Record").click()
    wait_for(page, "Recording …")
    time.sleep(2)
    shown = result(page)[..., :3]
    with page.expect_download(timeout=WAIT_MS) as download:
        page.get_by_role("button", name=button).click()
    wait_for(page, "The camera is saved." if button == "Stop and save" else "The camera is off.")
    assert download.value.suggested_filename == "The camera-sharp.mp4"
    frames, times = frames_of(download.value.path()), times_of(download.value.path())
    assert times[0] == 0 and 1 < times[-1] < 60 and len(times) > 5 and times == sorted({*times})
    # Every frame of this camera is the same.
    assert np.abs(luma(rgb_of(frames[-1])) - luma(shown)).mean() < 5


def test_a_browser_that_cannot_encode_says_so(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    page.evaluate("() => { delete window.VideoEncoder; }")
    write_video(tmp_path / "call.mp4", photos["astronaut"])
    page.set_input_files("#file", tmp_path / "call.mp4")
    wait_for(page, "call.mp4 is being sharpened.")
    page.get_by_role("button", name="Save video").click()
    wait_for(page, "call.mp4 cannot be saved: this browser cannot encode it")
    playwright.expect(page.get_by_role("button", name="Save video")).to_be_enabled()


def test_the_camera_is_sharpened_and_can_be_stopped(page: Any) -> None:
    page.get_by_role("button", name="Use the camera").click()
    wait_for(page, "The camera is being sharpened.")
    playwright.expect(page.locator("#details")).to_contain_text(re.compile(r"[1-9]\d*\.\d fps"), timeout=WAIT_MS)
    assert "128x96" in page.locator("#details").inner_text()
    page.get_by_role("button", name="Stop the camera").click()
    wait_for(page, "The camera is off.")
    assert not page.locator("#stop").is_visible()


def test_of_two_inputs_in_a_row_the_last_one_counts(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    Image.fromarray(photos["coffee"][:40, :60]).save(tmp_path / "a.png")
    page.get_by_role("button", name="Use the camera").click()
    assert give(page, tmp_path / "a.png").shape == (40, 60, 3)
    time.sleep(1)
    assert result(page).shape == (40, 60, 4) and not page.locator("#stop").is_visible()


def test_a_refused_camera_is_a_message(page: Any) -> None:
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('Permission denied'); }; }"
    )
    page.get_by_role("button", name="Use the camera").click()
    wait_for(page, "The camera cannot be used: Permission denied")


@pytest.mark.usefixtures("_sound")
def test_a_file_that_cannot_be_read_is_a_message(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    (tmp_path / "notes.txt").write_bytes(b"not an image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "broken.webm").write_bytes(b"not a video")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(photos["coffee"][:40, :60]).save(tmp_path / "good.png")
    for name in ("notes.txt", "broken.png", "broken.webm", "empty.jpg", "sound.wav"):
        page.set_input_files("#file", tmp_path / name)
        wait_for(page, f"{name} cannot be read: it is no image or video that this browser can decode.")
        assert not page.locator("#result").is_visible()
        assert page.locator("#drop").bounding_box()["height"] > 400
        assert give(page, tmp_path / "good.png").shape == (40, 60, 3)


def test_too_large_an_image_is_a_message(page: Any, tmp_path: Path) -> None:
    Image.new("L", (5000, 4000)).save(tmp_path / "large.png")
    page.set_input_files("#file", tmp_path / "large.png")
    wait_for(page, "large.png cannot be sharpened: a result of 20.0 megapixels is too large")


def test_the_keyboard_alone_reaches_everything(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    Image.fromarray(blurred(photos["coffee"], (300, 500))).save(tmp_path / "a.png")
    give(page, tmp_path / "a.png")
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
    wanted = ["choose", "camera", "preset", "model", "look", "enlarge", "zoom", "strength"]
    wanted += ["view", "divider", "download"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    divider = page.get_by_role("slider", name="Divider between before and after")
    divider.focus()
    values = {"ArrowRight": 51, "ArrowLeft": 50, "PageUp": 60, "End": 100, "ArrowUp": 100, "Home": 0}
    for key, value in values.items():
        page.keyboard.press(key)
        playwright.expect(divider).to_have_attribute("aria-valuenow", str(value))
        assert cut_at(page) == pytest.approx(page.locator("#view").evaluate("one => one.clientWidth") * value / 100)


def test_zoom_and_dragging_move_the_divider_over_the_view(page: Any, tmp_path: Path, photos: dict[str, Frame]) -> None:
    Image.fromarray(blurred(photos["coffee"], (400, 600))).save(tmp_path / "a.png")
    give(page, tmp_path / "a.png")
    page.select_option("#zoom", "3")
    assert page.locator("#after").evaluate("canvas => canvas.clientWidth") == 1800
    page.locator("#view").evaluate("view => { view.scrollLeft = 300; }")
    box = page.locator("#divider").bounding_box()
    left = page.locator("#view").bounding_box()["x"]
    width = page.locator("#view").evaluate("view => view.clientWidth")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(left + width / 4, box["y"] + 60)
    page.mouse.up()
    playwright.expect(page.locator("#divider")).to_have_attribute("aria-valuenow", "25")
    assert cut_at(page) == pytest.approx(300 + width / 4, abs=2)


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_fault(page: Any, tmp_path: Path, photos: dict[str, Frame], scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    Image.fromarray(blurred(photos["coffee"], (300, 500))).save(tmp_path / "a.png")
    write_video(tmp_path / "long.mp4", photos["astronaut"], range(0, 400 * STEP, STEP), size=(320, 240))

    def save_long() -> None:
        page.set_input_files("#file", tmp_path / "long.mp4")
        page.get_by_role("button", name="Save video").click(timeout=WAIT_MS)

    for show in (lambda: None, lambda: give(page, tmp_path / "a.png"), save_long):
        show()
        assert faults_of(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Stop saving").click()
    wait_for(page, "long.mp4 is not saved.")


def test_a_static_host_without_isolation_does_with_one_thread(
    browser: Any, tmp_path: Path, project: Path, photos: dict[str, Frame]
) -> None:
    demo = tmp_path / "demo"
    subprocess.run(
        ["/usr/bin/env", "make", "-o", "web", "demo", f"DEMO={demo}"], cwd=project, check=True, capture_output=True
    )

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=demo)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        shown = browser.new_page()
        shown.goto(f"http://127.0.0.1:{server.server_port}/")
        wait_for(shown, "Ready.")
        assert shown.evaluate("crossOriginIsolated") is False
        picture = blurred(photos["chelsea"], (120, 160))
        Image.fromarray(picture).save(tmp_path / "a.png")
        assert differ(give(shown, tmp_path / "a.png"), Sharpener("fast", "onnxruntime", threads=1)(picture)) <= 1
        shown.close()
        server.shutdown()


def cut_at(page: Any) -> float:
    """The column, in CSS pixels of the zoomed image, from which on the result is shown."""
    clip = page.locator("#after").evaluate("canvas => getComputedStyle(canvas).clipPath")
    return float(re.findall(r"[\d.]+", clip)[-1])


def write_webm(path: Path, frames: list[Frame]) -> None:
    """Write frames as a VP8 video of 10 frames a second, which every Chromium decodes."""
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libvpx", rate=10, options={"deadline": "realtime", "b": "2M"})
        stream.height, stream.width = frames[0].shape[:2]
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())
