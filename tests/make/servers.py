"""Servers of this process, and requests whose path is sent as it is."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI


@contextmanager
def running(make_app: Callable[[int], FastAPI]) -> Iterator[int]:
    """Run the application that is made for a free port, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(make_app(port), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield port
        server.should_exit = True
        thread.join(10)


def request(
    port: int, path: str, method: str, headers: Mapping[str, str], data: bytes = b""
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send one request with these headers alone; return the answer and its content."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content
