"""Starts the service in a process of its own and puts load on it over HTTP: for `bench`, benchmarks and tests.

requests -> connections that each wait for their answer before they ask again (a closed loop) -> answers, timed
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from app.errors import PredictorError

_POLL_S: Final = 0.05
_START_TIMEOUT_S: Final = 120.0


class LoadError(PredictorError):
    """The service did not start, or did not answer as it should."""


@dataclass
class OwnServer:
    """A service in a process of its own.

    Attributes:
        process: the service's first process, to send signals to; its workers are children of it.
        log: the file that the service logs to.
        url: where the service listens, such as `http://127.0.0.1:41234`.
    """

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def wait_until_listening(self) -> None:
        """Waits until the service takes connections, and learns its URL.

        Raises:
            LoadError: the service ended, or took more than two minutes; with the last lines of its log.
        """
        self._wait(self._finds_url)

    def wait_until_ready(self) -> None:
        """Waits until every worker serves every model.

        Raises:
            LoadError: a model failed, the service ended, or it took more than two minutes; with its last log lines.
        """
        self._wait(self._is_ready)

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise self._error()
            time.sleep(_POLL_S)

    def _finds_url(self) -> bool:
        if found := re.search(r"Listening on (https?://\S+)", self.log.read_text(encoding="utf-8")):
            self.url = found[1].replace("localhost", "127.0.0.1")
        return bool(found)

    def _is_ready(self) -> bool:
        try:
            urlopen(f"{self.url}/health/startup", timeout=5).close()
        except (URLError, OSError):  # it is still loading
            return False
        try:
            urlopen(f"{self.url}/health/ready", timeout=5).close()
        except HTTPError as error:
            error.close()
            if any(model["state"] == "failed" for model in self._models()):  # and never will be
                raise self._error() from None
            return False  # the workers are being changed
        return True

    def _models(self) -> list[dict[str, Any]]:
        with urlopen(f"{self.url}/models", timeout=5) as response:
            models: list[dict[str, Any]] = json.load(response)["models"]
        return models

    def _error(self) -> LoadError:
        lines = self.log.read_text(encoding="utf-8").splitlines()[-5:]
        return LoadError("\n".join(["The server did not become ready:", *lines]))


@contextmanager
def own_server(
    settings: Mapping[str, object],
    *,
    options: Sequence[str] = (),
    log: Path | None = None,
    python: str = sys.executable,
    folder: Path | None = None,
) -> Iterator[OwnServer]:
    """Starts `serve` in a process of its own on a free port, waits until it listens, and ends it afterwards.

    Args:
        settings: values by their names in `app.settings.Settings`; None stands for the default.
        options: more arguments of the command line, such as `["--workers", "2"]`.
        log: the file that takes what the service prints; by default, one that is removed afterwards.
        python: the interpreter of the environment in which the service is installed.
        folder: the folder to start it in; by default, the one of this process.

    Raises:
        LoadError: the service ended, or did not listen in time; with the last lines of its log.
    """
    given = {f"PREDICTOR_{name.upper()}": str(value) for name, value in settings.items() if value is not None}
    command = [python, "-m", "app", "serve", "--host", "127.0.0.1", "--port", "0", *options]
    with tempfile.TemporaryDirectory() as temporary:
        log = log or Path(temporary) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=os.environ | given, cwd=folder, stdout=output, stderr=subprocess.STDOUT
            )
        server = OwnServer(process, log)
        try:
            server.wait_until_listening()
            yield server
        finally:
            process.terminate()
            process.wait()


def post(body: bytes, *headers: str, path: str = "/predict", content_type: str = "application/octet-stream") -> bytes:
    """Returns the bytes of a request that sends a body.

    Args:
        body: an image, or a form with one.
        headers: more header lines, such as `Connection: close`.
        path: where the request goes, with its query.
        content_type: the body's media type.
    """
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}",
             f"Content-Length: {len(body)}", *headers, "", ""]  # fmt: skip
    return "\r\n".join(lines).encode() + body


def address_of(url: str) -> tuple[str, int]:
    """Returns the host and the port of a server's URL."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


class Answered(NamedTuple):
    """One answer.

    Attributes:
        status: the HTTP status; 0 if the connection broke.
        due_at: when the request should have been sent, on the clock of `time.perf_counter`.
        latency_s: seconds from then until the whole answer was there.
    """

    status: int
    due_at: float
    latency_s: float


class Connection(asyncio.Protocol):
    """One kept connection, with one request at a time.

    Args:
        on_answer: called with the connection and each answer; the connection can be used again then, if it `is_open`.

    Attributes:
        body: the body of the last answer.
    """

    def __init__(self, on_answer: Callable[[Connection, Answered], None]) -> None:
        self.body = b""
        self._on_answer = on_answer
        self._received = b""
        self._due_at: float | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, due_at: float) -> None:
        """Sends a request; its latency counts from `due_at`, on the clock of `time.perf_counter`."""
        assert self._transport
        self._due_at = due_at
        self._transport.write(request)

    def close(self) -> None:
        """Closes the connection."""
        if self._transport:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Waits for a whole answer."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        is_whole = len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")  # in chunks
        if is_whole:
            self.body, self._received = body, b""
            if re.search(rb"\r\nconnection: *close", head, re.IGNORECASE):  # this was its last answer
                self.close()
            self._finish(int(head[9:12]))

    def connection_lost(self, _error: Exception | None) -> None:
        """Counts what is lost with the connection."""
        self._transport = None
        if self._due_at is not None:
            self._finish(0)

    def _finish(self, status: int) -> None:
        if self._due_at is None:  # the server speaks unasked, as it closes a connection that was idle
            return
        answered = Answered(status, self._due_at, time.perf_counter() - self._due_at)
        self._due_at = None
        self._on_answer(self, answered)


class Client:
    """A client that opens a connection when it has none, and waits for each answer.

    Args:
        url: the service's URL.

    Attributes:
        body: the body of the last answer.
    """

    def __init__(self, url: str) -> None:
        self.body = b""
        self._address = address_of(url)
        self._connection: Connection | None = None
        self._waiting: asyncio.Future[Answered] | None = None

    async def ask(self, request: bytes) -> Answered:
        """Sends a request; returns its answer, with the status 0 if the connection broke.

        The latency counts from the call, so that it includes opening a connection.

        Raises:
            OSError: there was no connection, and none could be opened.
        """
        due_at = time.perf_counter()
        loop = asyncio.get_running_loop()
        if self._connection is None or not self._connection.is_open:
            _, self._connection = await loop.create_connection(lambda: Connection(self._take), *self._address)
        self._waiting = loop.create_future()
        self._connection.send(request, due_at)
        answered = await self._waiting
        self.body = self._connection.body
        return answered

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _take(self, _connection: Connection, answered: Answered) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(answered)


async def closed_loop(
    url: str, requests: Sequence[bytes], *, connections: int, seconds: float, strict: bool = True
) -> list[Answered]:
    """Sends requests for a while, on each connection as soon as the answer before has come.

    Args:
        url: the service's URL.
        requests: whole requests, such as `post` makes them, sent in turn.
        connections: how many are kept open.
        seconds: how long requests are sent; at least one is.
        strict: whether an answer other than 200 is an error.

    Returns:
        the answers, in the order in which they came.

    Raises:
        LoadError: `strict`, and an answer was not 200.
    """
    upcoming = itertools.cycle(requests)
    answers: list[Answered] = []
    until = time.perf_counter() + seconds

    async def ask() -> None:
        client = Client(url)
        try:
            while time.perf_counter() < until or not answers:  # to connect may have taken all of the time
                answered = await client.ask(next(upcoming))
                if strict and answered.status != 200:
                    raise LoadError(f"The server answered {answered.status}: {client.body.decode(errors='replace')}")
                answers.append(answered)
        finally:
            client.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return answers


def per_second(answers: Sequence[Answered]) -> float:
    """Returns how many answers came a second, from the first request to the last answer."""
    began_at, ended_at = min(each.due_at for each in answers), max(each.due_at + each.latency_s for each in answers)
    return len(answers) / (ended_at - began_at)
