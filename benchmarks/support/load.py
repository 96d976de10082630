"""Load for the benchmarks: an open loop on kept connections, with requests built once, and a server to be loaded.

An open loop sends when a request is due, whatever has become of those before, and counts from then: a server that
stalls looks as slow as it is to clients that do not wait for each other ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_TICK_S = 0.001


class Answered(NamedTuple):
    """One answer.

    Attributes:
        status: of HTTP; 0 if the connection broke.
        due_at: when the request should have been sent, of `time.perf_counter`.
        latency_s: from then until the whole answer was there.
    """

    status: int
    due_at: float
    latency_s: float


class Client(asyncio.Protocol):
    """One kept connection, with one request at a time.

    Args:
        idle: where it puts itself when it is free.
        answers: where it puts what it got.
    """

    def __init__(self, idle: deque[Client], answers: list[Answered]) -> None:
        self._idle = idle
        self._answers = answers
        self._received = b""
        self._due_at: float | None = None
        self.transport: asyncio.Transport | None = None
        self.answered = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, due_at: float) -> None:
        """Sends one request."""
        assert self.transport
        self._due_at = due_at
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Waits for a whole answer."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = re.search(rb"content-length: (\d+)", self._received[:end])
        if length and len(self._received) >= end + 4 + int(length[1]):
            self._finish(int(self._received[9:12]))
            self._received = b""
            if self.transport and not self.transport.is_closing():
                self._idle.append(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Counts what is lost with it."""
        if self._due_at is not None:
            self._finish(0)
        if self in self._idle:
            self._idle.remove(self)

    def _finish(self, status: int) -> None:
        assert self._due_at is not None
        self._answers.append(Answered(status, self._due_at, time.perf_counter() - self._due_at))
        self._due_at = None
        self.answered.set()


async def open_loop(port: int, request: bytes, *, per_second: float, seconds: float, seed: int = 0) -> list[Answered]:
    """Sends requests at random times (a Poisson process) on a pool of connections that grows as it must."""
    loop = asyncio.get_running_loop()
    answers: list[Answered] = []
    idle: deque[Client] = deque()
    opening: set[asyncio.Task[None]] = set()
    times = random.Random(seed)
    sent = 0

    async def on_new_connection(due_at: float) -> None:
        try:
            _, client = await loop.create_connection(lambda: Client(idle, answers), "127.0.0.1", port)
        except OSError:
            answers.append(Answered(0, due_at, time.perf_counter() - due_at))
        else:
            client.send(request, due_at)

    started_at = time.perf_counter()
    due_at = started_at
    while due_at < started_at + seconds:
        if (wait_s := due_at - time.perf_counter()) > 0:
            await asyncio.sleep(max(wait_s, _TICK_S))
            continue
        if idle:
            idle.pop().send(request, due_at)
        else:
            task = loop.create_task(on_new_connection(due_at))
            opening.add(task)
            task.add_done_callback(opening.discard)
        sent += 1
        due_at += times.expovariate(per_second)
        if sent % 50 == 0:
            await asyncio.sleep(0)  # answers are read also when the generator is late
    while len(answers) < sent and time.perf_counter() < started_at + seconds + 10:
        await asyncio.sleep(0.01)
    return answers


async def closed_loop(port: int, request: bytes, *, connections: int, seconds: float) -> list[Answered]:
    """Sends on each connection as soon as the answer before has come."""
    loop = asyncio.get_running_loop()
    answers: list[Answered] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        _, client = await loop.create_connection(lambda: Client(deque(), answers), "127.0.0.1", port)
        while time.perf_counter() < until:
            client.answered.clear()
            client.send(request, time.perf_counter())
            await client.answered.wait()
        client.transport.close()  # type: ignore[union-attr]

    await asyncio.gather(*(one() for _ in range(connections)))
    return answers


def post(image: bytes, *headers: str) -> bytes:
    """Returns the bytes of a request that sends an image as its body."""
    lines = ["POST /predict HTTP/1.1", "Host: localhost", f"Content-Length: {len(image)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + image


def percentile_ms(answers: list[Answered], percent: float) -> float:
    """Returns a percentile of the latencies, in milliseconds; not a number where there are none."""
    latencies = sorted(answer.latency_s for answer in answers)
    return 1000 * latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))] if latencies else float("nan")


class ProcessTree:
    """A process and its descendants; those that end while they are looked at count nothing.

    Args:
        process_id: of the root.
    """

    def __init__(self, process_id: int) -> None:
        self._root = process_id

    def resident_bytes(self) -> int:
        """Returns the memory that all of them hold (RSS)."""
        pages = 0
        for pid in self._members():
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """Returns how many file descriptors all of them have open."""
        count = 0
        for pid in self._members():
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))
        return count

    def _members(self) -> list[int]:
        members = [self._root]
        for pid in members:  # which grows meanwhile
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    members += map(int, (task / "children").read_text().split())
        return members


class Server(NamedTuple):
    """A service under load."""

    port: int
    process: subprocess.Popen[bytes]

    def resident_bytes(self) -> int:
        """Returns the memory of the process and its children (RSS)."""
        return ProcessTree(self.process.pid).resident_bytes()


@contextmanager
def serving(port: int, *options: str) -> Iterator[Server]:
    """Starts `python -m app serve` with options, waits until it is ready, and stops it afterwards."""
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--log-level", "warning", *options]
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + 120
        while True:
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("The service did not start.")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as answer:
                    answer.read()
                    break
            except OSError:
                time.sleep(0.1)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait()


def claim(text: str, holds: bool) -> bool:
    """Prints a claim and whether it holds."""
    print(f"{'ok  ' if holds else 'FAIL'}  {text}", flush=True)
    return holds
