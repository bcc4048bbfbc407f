"""Cameras of the network: real HTTP on loopback."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.make.videos import STEP, rgb_at, write_video

from clearcall.core.errors import UserError
from clearcall.imaging.frame import Frame
from clearcall.media.camera.source import Newest, open_source


@contextmanager
def served(kind: str, chunks: list[bytes], pause_s: float = 0.0) -> Iterator[str]:
    """Yield the address, without http://, of a server that sends these chunks to whoever asks for /stream."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/stream":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if len(chunks) == 1:
                self.send_header("Content-Length", str(len(chunks[0])))
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(chunk)
                self.wfile.flush()
                time.sleep(pause_s)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def taken(newest: Newest, seconds: float) -> list[tuple[Frame, float]]:
    """Return each frame that comes, and when, until the end or for a time."""
    until, frames = time.perf_counter() + seconds, []
    while not newest.ended and time.perf_counter() < until:
        if (captured := newest.take(time.perf_counter() + 0.5)) is not None:
            frames.append((captured.frame, captured.time_s))
    return frames


def test_a_camera_that_sends_jpegs_is_read_as_they_come(scene: Frame) -> None:
    def part(number: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(rgb_at(scene, number)).save(file, "JPEG", quality=95)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(file.getvalue())}\r\n\r\n"
        return head.encode() + file.getvalue() + b"\r\n"

    with (
        served("multipart/x-mixed-replace; boundary=frame", [part(number) for number in range(60)], 0.02) as address,
        open_source(f"http://me:secret@{address}/stream", None, None) as source,
    ):
        assert source.name == f"http://{address}/stream"
        assert source.size == (96, 64) and not source.coded
        source.begin()
        frames = taken(source.newest, 20)
        trouble = source.newest.trouble
    assert len(frames) > 5
    assert frames[0][0].shape == (96, 96)
    assert trouble is not None and trouble.startswith(f"http://{address}/stream ") and "secret" not in trouble


def test_a_video_on_a_server_is_played_at_its_own_pace(scene: Frame, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in.mkv", scene, range(0, 25 * STEP, STEP)).read_bytes()
    with (
        served("video/x-matroska", [video]) as address,
        open_source(f"http://{address}/stream", None, None) as source,
    ):
        assert source.coded and source.rate == 25
        source.begin()
        frames = taken(source.newest, 20)
        assert source.newest.trouble is None
    assert frames[-1][1] - frames[0][1] == pytest.approx(24 / 25, abs=0.3)
    assert not np.array_equal(frames[0][0], frames[-1][0])


def test_an_address_that_does_not_answer_is_told_without_its_password() -> None:
    with (
        served("video/x-matroska", []) as address,
        pytest.raises(UserError, match=r"^http://127\.0\.0\.1:\d+/other cannot be opened: .*is it running") as told,
        open_source(f"http://me:secret@{address}/other", None, None),
    ):
        pass
    assert "secret" not in str(told.value)
