"""The page and the extension in Firefox, by its own remote protocol, Marionette."""

import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, Literal, Self

import numpy as np
import pytest
from PIL import Image
from tests.make.browsers import skip_without_runtime
from tests.make.videos import WIDTH, frames_of, packets, write_video
from tests.web.conftest import Site
from tests.web.test_browser import READ as READ_PAGE
from tests.web.test_browser import blurred, differ, eventually
from tests.web.test_extension import CALL, Pages
from tests.web.test_extension import READ as READ_VIDEO

from clearcall.imaging.frame import Frame
from clearcall.runtime.sharpener import Sharpener
from clearcall.web.pack import write_zip

FIREFOX = next((path for name in ("firefox", "firefox-esr") if (path := shutil.which(name))), None)
TIMEOUT_MS = 60_000  # of a loaded machine
# The button of the extension, as a click on it: this opens the popup, which sharpens the tab.
CLICK = """
const { WebExtensionPolicy } = Cu.getGlobalForObject(Services);
const { ExtensionParent } = ChromeUtils.importESModule("resource://gre/modules/ExtensionParent.sys.mjs");
const { extension } = WebExtensionPolicy.getByID(given);
const action = ExtensionParent.apiManager.global.browserActionFor(extension);
await action.triggerAction(Services.wm.getMostRecentWindow("navigator:browser"));
"""

# Saves the video that is open, and returns the file.
SAVE = """
const make = URL.createObjectURL, made = new Promise(resolve => {
  URL.createObjectURL = blob => { resolve(blob); return make.call(URL, blob); };
});
document.getElementById("save").click();
const bytes = new Uint8Array(await (await made).arrayBuffer());
let text = "";
for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
return btoa(text);
"""

if FIREFOX is None:
    pytest.skip("Firefox is not installed", allow_module_level=True)
skip_without_runtime()


class Firefox:
    """Firefox without a window; a message is its length, a colon and JSON."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {"marionette.port": port, "media.autoplay.default": 0}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in settings.items()]
        (folder / "user.js").write_text("\n".join(lines))
        command = [str(FIREFOX), "--headless", "--marionette", "--remote-allow-system-access", "--profile", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._numbers, self._socket = count(1), socket.socket()
        eventually(lambda: self._connects(port))
        self._file = self._socket.makefile("rb")
        self._receive()
        self.ask("WebDriver:NewSession", capabilities={})
        self.ask("WebDriver:SetTimeouts", script=TIMEOUT_MS)

    def _connects(self, port: int) -> bool:
        assert self._process.poll() is None, "Firefox has ended"
        with suppress(OSError):
            self._socket = socket.create_connection(("127.0.0.1", port))
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._socket.close()

    def _receive(self) -> Any:
        length = b""
        while (byte := self._file.read(1)) not in {b":", b""}:
            length += byte
        return json.loads(self._file.read(int(length)))

    def ask(self, command: str, **values: object) -> Any:
        message = json.dumps([0, next(self._numbers), command, values]).encode()
        self._socket.sendall(f"{len(message)}:".encode() + message)
        _, _, error, answer = self._receive()
        assert not error, error
        return answer

    def go(self, url: str) -> None:
        self.ask("Marionette:SetContext", value="content")
        self.ask("WebDriver:Navigate", url=url)

    def run(self, script: str, given: object = None, context: Literal["content", "chrome"] = "content") -> Any:
        """Run JavaScript in the page, or in the browser itself, with `given`; return what it returns."""
        self.ask("Marionette:SetContext", value=context)
        whole = "const [given, answer] = arguments; (async () => {" + script + "})()"
        whole += ".then(value => answer([value]), error => answer(String(error)));"
        answer = self.ask("WebDriver:ExecuteAsyncScript", script=whole, args=[given])["value"]
        assert isinstance(answer, list), answer
        return answer[0]

    def choose_file(self, path: Path) -> None:
        self.ask("Marionette:SetContext", value="content")
        [element] = self.ask("WebDriver:FindElement", using="css selector", value="#file")["value"].values()
        self.ask("WebDriver:ElementSendKeys", id=element, text=str(path))


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with Firefox(tmp_path_factory.mktemp("profile")) as started:
        yield started


def pixels(found: tuple[int, int, str]) -> Frame:
    width, height, text = found
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]


def test_the_page_gives_the_pixels_of_python(
    firefox: Firefox, site: Site, photos: dict[str, Frame], tmp_path: Path
) -> None:
    picture = blurred(photos["astronaut"], (201, 333))
    Image.fromarray(picture).save(tmp_path / "in.png")
    firefox.go(site.url)
    eventually(lambda: firefox.run("return document.getElementById('status').innerText") == "Ready.")
    assert firefox.run("return self.crossOriginIsolated")  # without that there are no threads
    firefox.choose_file(tmp_path / "in.png")
    eventually(lambda: firefox.run("return document.getElementById('status').innerText") == "in.png is sharpened.")
    after = pixels(firefox.run(f"return ({READ_PAGE})()"))
    assert differ(after, Sharpener("fast", "onnxruntime", 1, coded=True)(picture)) <= 1
    assert differ(after, picture) > 10


def test_a_video_is_saved_with_its_sound(
    firefox: Firefox, site: Site, photos: dict[str, Frame], tmp_path: Path
) -> None:
    source = write_video(
        tmp_path / "in.webm", photos["astronaut"], codec="libvpx-vp9", options={"deadline": "realtime"}, sound=True
    )
    firefox.go(site.url)
    eventually(lambda: firefox.run("return document.getElementById('status').innerText") == "Ready.")
    firefox.choose_file(source)
    eventually(lambda: firefox.run("return document.getElementById('status').innerText").endswith("being sharpened."))
    saved = tmp_path / "saved.webm"
    saved.write_bytes(base64.b64decode(firefox.run(SAVE)))
    assert [frame.width for frame in frames_of(saved)] == [WIDTH] * 10
    assert [data for data, _ in packets(saved, "audio")] == [data for data, _ in packets(source, "audio")]


def test_the_extension_lays_the_pixels_of_python_over_a_video(
    firefox: Firefox, photos: dict[str, Frame], tmp_path: Path
) -> None:
    write_zip(tmp_path / "extension.zip")
    extension = firefox.ask("Addon:Install", path=str(tmp_path / "extension.zip"), temporary=True)["value"]
    picture = blurred(photos["astronaut"], (180, 320))
    rgba = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    given = {
        "pixels": base64.b64encode(rgba.tobytes()).decode(),
        "width": 320,
        "height": 180,
        "rate": 15,
        "peers": False,
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        firefox.go(f"http://127.0.0.1:{server.server_port}/strict")  # whose own policy forbids everything
        firefox.run(f"await ({CALL})(given)", given)
        firefox.run(CLICK, extension, "chrome")
        eventually(lambda: firefox.run(f"return ({READ_VIDEO})()[1]") is not None)
        video, canvas = firefox.run(f"return ({READ_VIDEO})()")
        server.shutdown()
    shown = pixels(video)
    expected = Sharpener("fast", "onnxruntime", 1, coded=True)(shown)
    assert differ(pixels(canvas), expected) <= 1
    assert differ(expected, shown) > 10
