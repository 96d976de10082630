"""Runs the service in a thread of this process, and talks to it byte by byte."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from app.main import create_app
from app.server.uvicorn_server import make_server
from app.settings import Settings


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Serves in a thread of this process, where tests can change limits and hold engines up; yields the URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = make_server(create_app(settings), settings, listening, {})
    thread = threading.Thread(target=server.run)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def until(condition: Callable[[], bool]) -> None:
    """Waits up to 20 seconds for a condition."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connect(url: str) -> socket.socket:
    """Returns a new connection to a service."""
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def until_closed(connection: socket.socket) -> bytes:
    """Returns what comes until the service closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def answers_on(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Returns the status and the body of the next answers on a connection, which all declare their lengths."""
    answers: list[tuple[int, bytes]] = []
    received = b""
    while len(answers) < count:
        top, found, rest = received.partition(b"\r\n\r\n")
        length = int(re.findall(rb"(?im)^content-length: (\d+)", top)[0]) if found else 0
        if found and len(rest) >= length:
            answers.append((int(top.split()[1]), rest[:length]))
            received = rest[length:]
        else:
            data = connection.recv(65536)
            assert data, f"The connection has ended after {len(answers)} answers."
            received += data
    return answers


def head(path: str = "/predict", *, length: int | None = None, more: str = "") -> bytes:
    """Returns the head of a POST, with a length if one is given, and more header lines, each with its line break."""
    declared = "" if length is None else f"Content-Length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{declared}{more}\r\n".encode()
