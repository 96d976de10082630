"""A service in a thread of this process, and what it takes to talk to it byte by byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from app.main import create_app
from app.server.connections import Connections
from app.server.http_protocol import limited_protocol
from app.settings import Settings
from app.system.kernel import usable_connections


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    app = create_app(settings)
    service = app.state.service
    connections = Connections(usable_connections(settings.max_connections), service.metrics)
    config = uvicorn.Config(
        app,
        log_config=None,
        http=limited_protocol(service, app.state.auth, connections),
        timeout_keep_alive=settings.idle_timeout_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def until_closed(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def head(path: str = "/predict", *, length: int | None = None, more: str = "") -> bytes:
    declared = "" if length is None else f"Content-Length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{declared}{more}\r\n".encode()
