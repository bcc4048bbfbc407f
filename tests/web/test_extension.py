"""The browser extension in Chromium: on a WebRTC page, under strict policies, on what may not be read."""

import base64
import json
import shutil
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest
from tests.make.browsers import CHROMIUM
from tests.web.test_browser import blurred, differ, eventually, playwright, write_webm

from clearcall.imaging.frame import Frame
from clearcall.runtime.sharpener import Sharpener
from clearcall.web.pack import write_zip

WIDTH, HEIGHT = 320, 180
HEADERS = {
    "/plain": {},
    "/strict": {"Content-Security-Policy": "default-src 'none'"},
    "/isolated": {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"},
}
VIDEO = """<!doctype html><title>call</title><video id="video" width="320" height="180" autoplay muted></video>"""
# Shows a blurred picture, redrawn at a rate, as a video: from the canvas itself, or through two WebRTC peers.
CALL = """async ({ pixels, width, height, rate, peers }) => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d"), rgba = Uint8ClampedArray.from(atob(pixels), one => one.charCodeAt(0));
  const image = new ImageData(rgba, width, height);
  context.putImageData(image, 0, 0);
  const stream = canvas.captureStream(), [track] = stream.getTracks();
  setInterval(() => { context.putImageData(image, 0, 0); window.drawn = (window.drawn ?? 0) + 1; }, 1000 / rate);
  if (!peers) { video.srcObject = stream; return; }
  const [from, to] = window.peers = [new RTCPeerConnection(), new RTCPeerConnection()];
  from.onicecandidate = ({ candidate }) => candidate && to.addIceCandidate(candidate);
  to.onicecandidate = ({ candidate }) => candidate && from.addIceCandidate(candidate);
  to.ontrack = event => { video.srcObject = new MediaStream([event.track]); };
  track.contentHint = "detail"; // keeps its resolution
  from.addTrack(track, stream);
  await from.setLocalDescription();
  await to.setRemoteDescription(from.localDescription);
  await to.setLocalDescription();
  await from.setRemoteDescription(to.localDescription);
}"""
# The pixels of the video and of the canvas over it, which is null if none is shown.
READ = """() => [video, document.querySelector("canvas[data-clearcall]")].map(source => {
  if (!source || getComputedStyle(source).display === "none") return null;
  const width = source.videoWidth || source.width, height = source.videoHeight || source.height;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(source, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  let text = "";
  for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
  return [width, height, btoa(text)];
})"""
COUNT = """seconds => new Promise(resolve => {
  let first = 0;
  const count = (now, { presentedFrames }) => {
    first ||= presentedFrames;
    window.counted = presentedFrames - first;
    video.requestVideoFrameCallback(count);
  };
  video.requestVideoFrameCallback(count);
  setTimeout(() => resolve(window.counted / seconds), 1000 * seconds);
})"""


class Pages(BaseHTTPRequestHandler):
    """Pages with one video element each, and a video file."""

    webm = b""

    def do_GET(self) -> None:
        is_file = self.path == "/video.webm"
        content = self.webm if is_file else VIDEO.encode()
        self.send_response(200)
        self.send_header("Content-Type", "video/webm" if is_file else "text/html")
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.get(self.path, {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Frame]) -> Iterator[int]:
    path = tmp_path_factory.mktemp("videos") / "video.webm"
    write_webm(path, [blurred(photos["astronaut"], (HEIGHT, WIDTH))] * 30)
    Pages.webm = path.read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Any]:
    """Chromium with the extension as it is built; at the end, no request has left this machine."""
    folder = tmp_path_factory.mktemp("extension")
    write_zip(folder / "extension.zip")
    with zipfile.ZipFile(folder / "extension.zip") as archive:
        archive.extractall(folder / "unpacked")
    unpacked, asked = folder / "unpacked", list[str]()
    arguments = ["--no-sandbox", "--headless=new", "--enable-unsafe-extension-debugging"]
    arguments += [f"--load-extension={unpacked}", f"--disable-extensions-except={unpacked}"]
    with playwright.sync_playwright() as tools:
        started = tools.chromium.launch_persistent_context(
            folder / "profile", executable_path=CHROMIUM, headless=False, args=arguments
        )
        started.on("request", lambda request: asked.append(request.url))
        yield started
        started.close()
    own = (f"http://127.0.0.1:{port}/", f"http://localhost:{port}/", "chrome-extension://", "about:", "blob:", "data:")
    assert asked and not [url for url in asked if not url.startswith(own)]
    shutil.rmtree(folder)


class Tab:
    """A page, and the extension in it."""

    def __init__(self, context: Any, url: str) -> None:
        self.page = context.new_page()
        self.page.goto(url)
        self._browser = context.browser.new_browser_cdp_session()
        self._page = context.new_cdp_session(self.page)
        self._contexts: dict[str, int] = {}
        self._page.on("Runtime.executionContextCreated", self._remember)
        self._page.send("Runtime.enable")

    def _remember(self, event: Any) -> None:
        self._contexts[event["context"]["name"]] = event["context"]["id"]

    def call(self, picture: Frame, *, rate: float = 15, peers: bool = False) -> None:
        """Play a picture as a video."""
        rgba = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        height, width = picture.shape[:2]
        given = {"pixels": base64.b64encode(rgba.tobytes()).decode(), "width": width, "height": height}
        self.page.evaluate(CALL, given | {"rate": rate, "peers": peers})

    def click(self) -> None:
        """Click on the extension's button: this opens the popup, which sharpens the tab."""
        [extension] = self._browser.send("Extensions.getExtensions")["extensions"]
        tabs = self._browser.send("Target.getTargets", {"filter": [{"type": "tab"}]})["targetInfos"]
        [tab] = [one["targetId"] for one in tabs if one["url"] == self.page.url]
        self.page.bring_to_front()
        self._browser.send("Extensions.triggerAction", {"id": extension["id"], "targetId": tab})
        eventually(lambda: "clearcall" in self._contexts or self.page.wait_for_timeout(50))
        self.set(strength=1, look="natural", model="fast", off=[])

    def inside(self, expression: str) -> Any:
        """Evaluate an expression where content.js runs."""
        given = {"contextId": self._contexts["clearcall"], "expression": expression}
        answer = self._page.send("Runtime.evaluate", given | {"returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def set(self, **settings: object) -> None:
        self.inside(f"chrome.storage.local.set({json.dumps(settings)})")

    def state(self) -> dict[str, Any]:
        [state] = self.inside("clearcall()")
        return dict(state)

    def read(self) -> tuple[Frame | None, Frame | None]:
        """The pixels of the video and of the canvas shown over it."""
        found: list[Frame | None] = []
        for shown in self.page.evaluate(READ):
            if shown is None:
                found.append(None)
                continue
            width, height, pixels = shown
            rgba = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)
            found.append(np.ascontiguousarray(rgba[..., :3]))
        return found[0], found[1]

    def wait(self, expression: str) -> None:
        """Wait until an expression of the page holds."""
        eventually(lambda: self.page.evaluate(expression))  # wait_for_function needs eval

    def popup(self) -> str:
        """The text of the popup."""
        targets = self._browser.send("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["url"].endswith("/popup.html"))
        session = self._browser.send("Target.attachToTarget", {"targetId": target, "flatten": False})["sessionId"]
        answers = list[str]()
        self._browser.on("Target.receivedMessageFromTarget", lambda event: answers.append(event["message"]))
        parameters = {"expression": "document.body.innerText", "returnByValue": True}
        message = json.dumps({"id": 1, "method": "Runtime.evaluate", "params": parameters})
        self._browser.send("Target.sendMessageToTarget", {"sessionId": session, "message": message})
        eventually(lambda: bool(answers) or self.page.wait_for_timeout(50))
        return str(json.loads(answers[0])["result"]["result"]["value"])


SHOWN = """document.querySelector("canvas[data-clearcall]")?.style.display === "block" """
NONE = """!document.querySelector("canvas, iframe")"""


@pytest.fixture
def tab(context: Any, port: int, request: pytest.FixtureRequest) -> Iterator[Tab]:
    opened = Tab(context, f"http://127.0.0.1:{port}{getattr(request, 'param', '/plain')}")
    yield opened
    opened.page.close()


@pytest.fixture(scope="module")
def picture(photos: dict[str, Frame]) -> Frame:
    return blurred(photos["astronaut"], (HEIGHT, WIDTH))


@pytest.mark.parametrize("tab", [*HEADERS], indirect=True)
def test_a_video_is_sharpened_as_in_python(tab: Tab, picture: Frame) -> None:
    tab.call(picture)
    tab.click()
    tab.wait(SHOWN)
    shown, sharp = tab.read()
    assert shown is not None and sharp is not None
    sharpener = Sharpener("fast", "onnxruntime", threads=1)
    assert differ(sharp, sharpener(shown)) <= 1 and differ(sharp, shown) > 8
    assert tab.state()["expert"] == sharpener.expert != "identity"


def test_a_webrtc_call_is_sharpened_and_loses_no_frame(tab: Tab, picture: Frame) -> None:
    tab.call(picture, rate=20, peers=True)
    tab.wait("video.videoWidth === 320")
    before = tab.page.evaluate(COUNT, 3)
    tab.click()
    tab.wait(SHOWN)
    assert tab.page.evaluate(COUNT, 3) > 0.8 * before  # of a loaded machine
    state = tab.state()
    assert state["expert"] in Sharpener("fast", "onnxruntime", threads=1).graph.coded and state["fps"] > 0
    eventually(lambda: tab.read()[1] is not None)
    eventually(lambda: f"expert {state['expert']}" in tab.popup())
    assert "320x180" in tab.popup() and "Sharpen on 127.0.0.1" in tab.popup()


def test_options_apply_at_once_and_off_leaves_nothing_in_the_page(tab: Tab, picture: Frame) -> None:
    tab.call(picture)
    tab.click()
    tab.wait(SHOWN)
    tab.set(model="quality", look="crisp", strength=0.5)
    sharpener = Sharpener("quality", "onnxruntime", threads=1)
    sharpener.look, sharpener.strength = "crisp", 0.5

    def is_applied() -> bool:
        shown, sharp = tab.read()
        return shown is not None and sharp is not None and differ(sharp, sharpener(shown)) <= 2  # it restores chroma

    eventually(is_applied)
    for off, on in (({"strength": 0}, {"strength": 1}), ({"off": [tab.page.url.removesuffix("/plain")]}, {"off": []})):
        tab.set(**off)
        tab.wait(NONE)
        assert tab.inside("clearcall()") == []
        tab.set(**on)
        tab.wait(SHOWN)


def test_the_canvas_follows_the_video(tab: Tab, picture: Frame) -> None:
    tab.call(picture)
    tab.click()
    tab.wait(SHOWN)
    boxes = """[video, document.querySelector("canvas")].map(one => {
      const { x, y, width, height } = one.getBoundingClientRect();
      return [x, y, width, height].join();
    })"""
    changes = (
        "video.style.cssText = 'width: 400px; height: 300px; margin: 20px; transform: scaleX(-1)'",
        "document.body.style.height = '3000px'; scrollTo(0, 60)",
        "document.body.style.cssText = 'position: relative; margin: 50px; border: 5px solid'",
        "video.style.position = 'fixed'",
        "document.body.requestFullscreen()",
    )
    for change in changes:
        tab.page.evaluate(f"void ({change.replace('; scroll', ', scroll')})")
        tab.wait(f"new Set({boxes}).size === 1")
        tab.wait(SHOWN)
    assert tab.page.evaluate("getComputedStyle(document.querySelector('canvas')).pointerEvents") == "none"
    tab.page.evaluate("video.remove()")
    tab.wait("!document.querySelector('canvas')")


def test_a_result_is_at_most_one_frame_late(tab: Tab, picture: Frame) -> None:
    """The picture has a number in black and white blocks; the canvas shows the number of the video, or that before."""
    tab.call(picture, rate=12)
    tab.page.evaluate("""() => {
      const { putImageData } = CanvasRenderingContext2D.prototype;
      let number = 0;
      CanvasRenderingContext2D.prototype.putImageData = function (...given) {
        putImageData.apply(this, given);
        number = (number + 1) % 64;
        for (let bit = 0; bit < 6; bit++) {
          this.fillStyle = number >> bit & 1 ? "#fff" : "#000";
          this.fillRect(30 * bit, 0, 30, 30);
        }
      };
    }""")
    tab.click()
    tab.set(look="crisp")  # blocks are sharp: the router may select the identity
    tab.wait(SHOWN)
    lags = tab.page.evaluate("""() => new Promise(resolve => {
      const context = new OffscreenCanvas(320, 180).getContext("2d", { willReadFrequently: true }), lags = [];
      const number = source => {
        context.drawImage(source, 0, 0);
        const red = bit => context.getImageData(30 * bit + 15, 15, 1, 1).data[0];
        return [0, 1, 2, 3, 4, 5].reduce((sum, bit) => sum + (red(bit) > 127) * 2 ** bit, 0);
      };
      const look = () => {
        const canvas = document.querySelector("canvas[data-clearcall]");
        if (canvas.style.display === "block") lags.push((number(video) - number(canvas) + 64) % 64);
        if (lags.length < 60) requestAnimationFrame(look);
        else resolve(lags);
      };
      requestAnimationFrame(look);
    })""")
    assert 0 in lags and set(lags) <= {0, 1}


def test_what_cannot_be_read_or_is_too_large_is_left_alone_with_the_reason(
    tab: Tab, port: int, photos: dict[str, Frame]
) -> None:
    tab.page.evaluate(f"video.loop = true, video.src = 'http://localhost:{port}/video.webm'")  # another site
    tab.wait("video.readyState === 4")
    tab.click()
    eventually(lambda: "another site" in tab.state()["reason"])
    assert not tab.page.evaluate(SHOWN)
    eventually(lambda: "another site that does not let it be read" in tab.popup())
    tab.page.evaluate("video.src = '/video.webm'")
    tab.wait(SHOWN)
    assert tab.state()["expert"] in Sharpener("fast", "onnxruntime", threads=1).graph.coded
    tab.call(np.zeros((1080, 1920, 3), np.uint8), rate=2)
    eventually(lambda: "larger than 1280x720" in tab.state()["reason"])
    assert not tab.page.evaluate(SHOWN)


def test_a_video_that_stands_still_is_sharpened(tab: Tab) -> None:
    tab.page.evaluate("video.autoplay = false, video.src = '/video.webm'")
    tab.wait("video.readyState === 4")
    tab.click()
    tab.wait(SHOWN)


def test_too_slow_a_network_pauses_with_the_reason(tab: Tab, photos: dict[str, Frame]) -> None:
    tab.call(blurred(photos["astronaut"], (720, 1280)), rate=30)
    tab.click()
    tab.set(model="quality")
    eventually(lambda: tab.state()["isSteady"] or "paused" in tab.state()["reason"])
    state = tab.state()
    assert "ready in time" in state["reason"] or state["fps"] >= 9
    # A result is shown with the frame after that from which on all are steady.
    eventually(lambda: bool(tab.page.evaluate(SHOWN)) == tab.state()["isSteady"])
