"""Load for the benchmarks: an open loop of requests, forms, percentiles, and the memory of a service's processes.

An open loop sends when a request is due, whatever has become of those before, and counts latency from then. A server
that stalls looks as slow as it is to clients that do not wait for each other; a closed loop would hide it ("coordinated
omission"). The connections are those of `app.commands.bench.http_load`, which has the closed loop.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import uvloop

from app.commands.bench.http_load import Answered, Connection, address_of

_TICK_S = 0.001
_PATIENCE_S = 10  # after the last request of an open loop; what has no answer by then is left out
_BOUNDARY = "boundary-5d2c0a"


async def open_loop(
    url: str, requests: Sequence[bytes], *, per_second: float, seconds: float, seed: int | None = 0
) -> list[Answered]:
    """Sends requests in turn, each when it is due, on connections that are opened as they are needed.

    Args:
        url: the server's URL.
        requests: whole requests, such as `post` makes them.
        per_second: requests a second.
        seconds: how long requests are sent.
        seed: seeds the random times between requests (a Poisson process); None: requests are evenly spaced.

    Returns:
        the answers that came within ten seconds of the end.
    """
    upcoming = itertools.cycle(requests)
    loop = asyncio.get_running_loop()
    address = address_of(url)
    answers: list[Answered] = []
    connections: list[Connection] = []
    idle: deque[Connection] = deque()
    opening: set[asyncio.Task[None]] = set()
    times = None if seed is None else random.Random(seed)
    sent = 0

    def take(connection: Connection, answered: Answered) -> None:
        answers.append(answered)
        if connection.is_open:
            idle.append(connection)

    async def send_on_new_connection(due_at: float) -> None:
        try:
            _, connection = await loop.create_connection(lambda: Connection(take), *address)
        except OSError:
            answers.append(Answered(0, due_at, time.perf_counter() - due_at))
        else:
            connections.append(connection)
            connection.send(next(upcoming), due_at)

    started_at = time.perf_counter()
    due_at = started_at
    while due_at < started_at + seconds:
        if (wait_s := due_at - time.perf_counter()) > 0:
            await asyncio.sleep(max(wait_s, _TICK_S))
            continue
        while idle and not idle[-1].is_open:  # the server closed it while it was idle
            idle.pop()
        if idle:
            idle.pop().send(next(upcoming), due_at)
        else:
            task = loop.create_task(send_on_new_connection(due_at))
            opening.add(task)
            task.add_done_callback(opening.discard)
        sent += 1
        due_at += times.expovariate(per_second) if times else 1 / per_second
        if sent % 50 == 0:
            await asyncio.sleep(0)  # answers are read also when the generator is late
    while len(answers) < sent and time.perf_counter() < started_at + seconds + _PATIENCE_S:
        await asyncio.sleep(0.01)
    for connection in connections:
        connection.close()
    return answers


@contextmanager
def in_background(clients: Callable[[threading.Event], Coroutine[object, object, object]]) -> Iterator[threading.Event]:
    """Runs clients on an event loop in another thread, and waits for their end when the block ends.

    Args:
        clients: makes the coroutine, of an event that is set when the clients shall end.

    Yields:
        that event, to end them earlier.
    """
    stopping = threading.Event()
    thread = threading.Thread(target=lambda: uvloop.run(clients(stopping)))
    thread.start()
    try:
        yield stopping
    finally:
        stopping.set()
        thread.join()


def form(image: bytes, *, field: str = "file", filename: str = "image", image_type: str = "") -> tuple[bytes, str]:
    """Returns a form with one file, and its content type.

    Args:
        image: the file's content.
        field: the name of the form's field.
        filename: the file's name.
        image_type: the file's media type; the form does not say one if it is empty.
    """
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
    head += f"Content-Type: {image_type}\r\n\r\n" if image_type else "\r\n"
    return head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}"


def percentile_ms(answers: Sequence[Answered], percent: float) -> float:
    """Returns a percentile of the latencies, in milliseconds; not a number where there are none."""
    latencies = sorted(answer.latency_s for answer in answers)
    return 1000 * latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))] if latencies else float("nan")


class ProcessTree:
    """A process and its descendants; one that ends while it is looked at counts nothing.

    Args:
        process_id: the id of the process at the root.
    """

    def __init__(self, process_id: int) -> None:
        self._root = process_id

    def resident_bytes(self) -> int:
        """Returns the memory that all of them hold (RSS)."""
        pages = 0
        for pid in self.members():
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """Returns how many file descriptors all of them have open."""
        count = 0
        for pid in self.members():
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))
        return count

    def members(self) -> list[int]:
        """Returns the ids of the processes, the root first."""
        members = [self._root]
        for pid in members:  # which grows meanwhile
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    members += map(int, (task / "children").read_text().split())
        return members


def claim(text: str, holds: bool) -> bool:
    """Prints a claim and whether it holds; returns whether it holds."""
    print(f"{'ok  ' if holds else 'FAIL'}  {text}", flush=True)
    return holds
