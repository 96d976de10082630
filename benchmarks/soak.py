"""Sends images of every kind for long, and checks that memory, descriptors and p99 stay flat.

python -m benchmarks.soak --requests 100000

Starts the service with a small model and sends it images of mixed sizes and formats, damaged ones, empty ones, forms
without a file and too large bodies, raw and as forms, and uploads that break off half-way. The run is split into ten
windows; exits with 1 if memory, open descriptors or p99 grow over them, or if an answer is not the expected one.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import statistics
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import skimage.data
import uvloop
from PIL import Image

from app.commands.bench.http_load import Client, address_of, post
from benchmarks.support.damage import damaged, real_images
from benchmarks.support.load import ProcessTree, form
from benchmarks.support.small_service import small_service, tracebacks
from tests.support.live import LiveServer

_WINDOWS = 10
_MAX_BODY_BYTES = 6_000_000
_MAX_GROWTH = 0.05
_MAX_GROWTH_BYTES = 30_000_000
# Keep-alive connections are opened anew after each abort, so that a few more or less are open at any moment.
_SPARE_DESCRIPTORS = 16
# The run's neighbours on the machine change p99 from window to window; a leak of time would go on rising.
_MAX_P99_RATIO = 2.0
_SIZES = ((16, 16), (32, 32), (200, 150), (150, 200), (640, 480), (1000, 50), (1600, 1200))
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Body:
    """What is sent, and the statuses that may come back."""

    content: bytes
    statuses: frozenset[int]


@dataclass
class Window:
    """What a tenth of the run saw, and what the service held at its end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    resident_bytes: int = 0
    open_files: int = 0

    @property
    def p99_s(self) -> float:
        """The latency that one in a hundred answers exceeded."""
        return sorted(self.latencies_s)[int(len(self.latencies_s) * 0.99)]


def main() -> None:
    """Runs the windows and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with small_service(max_body_bytes=_MAX_BODY_BYTES) as server:
        windows = _run(server, arguments)
        traceback_count = tracebacks(server)
    sys.exit(0 if _report(windows, traceback_count) else 1)


def _run(server: LiveServer, arguments: argparse.Namespace) -> list[Window]:
    bodies, images, processes = _bodies(), real_images(), ProcessTree(server.process.pid)
    per_connection = max(1, arguments.requests // _WINDOWS // arguments.connections)
    windows: list[Window] = []
    print("window  answered  aborted  wrong  median ms  p99 ms  memory MB  descriptors", flush=True)
    for number in range(_WINDOWS):
        window = Window()
        rngs = [random.Random(f"{arguments.seed}-{number}-{i}") for i in range(arguments.connections)]
        uvloop.run(_send_all(server.url, bodies, images, window, per_connection, rngs))
        time.sleep(0.5)  # closed connections are noticed by then
        if server.process.poll() is not None:
            window.failures.append("the service has ended")
            return [*windows, window]
        window.resident_bytes, window.open_files = processes.resident_bytes(), processes.open_files()
        windows.append(window)
        aborted = window.outcomes["aborted"]
        print(
            f"{number + 1:6d} {sum(window.outcomes.values()) - aborted:9d} {aborted:8d} {len(window.failures):6d}"
            f" {statistics.median(window.latencies_s) * 1e3:10.1f} {window.p99_s * 1e3:7.1f}"
            f" {window.resident_bytes / 1e6:10.0f} {window.open_files:12d}",
            flush=True,
        )
    return windows


def _bodies() -> list[Body]:
    cat = Image.fromarray(skimage.data.chelsea())  # type: ignore[no-untyped-call]
    good = [
        Body(_encode(cat.resize(size), image_format), frozenset({200})) for size in _SIZES for image_format in _FORMATS
    ]
    twelve_megapixels = Body(_encode(cat.resize((4000, 3000)), "JPEG"), frozenset({200}))
    grey = Body(_encode(Image.fromarray(np.asarray(cat.convert("L"))), "PNG"), frozenset({200}))
    bad = [
        Body(b"", frozenset({400})),
        Body(b"no image", frozenset({415})),
        Body(good[0].content[: len(good[0].content) // 2], frozenset({400})),
        Body(b"\0" * (_MAX_BODY_BYTES + 1), frozenset({413})),
    ]
    return [*(good * 2), twelve_megapixels, grey, *bad]


def _encode(image: Image.Image, image_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()


async def _send_all(
    url: str, bodies: list[Body], images: list[bytes], window: Window, count: int, rngs: list[random.Random]
) -> None:
    await asyncio.gather(*(_send(url, bodies, images, window, count, rng) for rng in rngs))


async def _send(
    url: str, bodies: list[Body], images: list[bytes], window: Window, count: int, rng: random.Random
) -> None:
    client = Client(url)
    for _ in range(count):
        body = rng.choice(bodies)
        if rng.random() < 0.1:
            body = Body(damaged(images, rng), frozenset({200, 400, 413, 415}))
        content, content_type = form(body.content) if rng.random() < 0.5 else (body.content, "application/octet-stream")
        request = post(content, content_type=content_type)
        if rng.random() < 0.02:
            await _abort(url, request, len(content))
            window.outcomes["aborted"] += 1
            continue
        status, _, latency_s = await client.ask(request)
        if not status:
            # A body that is refused for its size is not read: the client may notice before it reads the answer.
            if 413 not in body.statuses:
                window.failures.append(f"{len(content)} bytes: the connection broke")
            window.outcomes["refused"] += 1
            continue
        window.latencies_s.append(latency_s)
        window.outcomes[str(status)] += 1
        if status not in body.statuses:
            window.failures.append(f"{len(content)} bytes: {status}, expected {set(body.statuses)}")
    client.close()


async def _abort(url: str, request: bytes, body_bytes: int) -> None:
    """Sends a request but for the second half of its body, and hangs up."""
    _, writer = await asyncio.open_connection(*address_of(url))
    with suppress(OSError):  # refused for its size
        writer.write(request[: len(request) - max(1, body_bytes // 2)])
        await writer.drain()
    writer.close()


def _report(windows: list[Window], traceback_count: int) -> bool:
    outcomes: Counter[str] = sum((window.outcomes for window in windows), Counter())
    failures = [failure for window in windows for failure in window.failures]
    # The first window warms up allocators and caches.
    early, late = windows[1 % len(windows)], windows[-1]
    p99 = [window.p99_s for window in windows]
    first, last = statistics.median(p99[1:4]), statistics.median(p99[-3:])
    claims = {
        "every answer is the expected one": not failures,
        "no traceback in the log": traceback_count == 0,
        "memory is flat": late.resident_bytes - early.resident_bytes
        <= max(_MAX_GROWTH * early.resident_bytes, _MAX_GROWTH_BYTES),
        "descriptors are flat": late.open_files - early.open_files <= _SPARE_DESCRIPTORS,
        f"p99 is flat ({first * 1e3:.0f} ms in windows 2 to 4, {last * 1e3:.0f} ms in the last three)": last
        <= _MAX_P99_RATIO * first,
    }
    print(f"outcomes {dict(outcomes.most_common())}")
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    for failure in failures[:20]:
        print(f"  {failure}")
    return all(claims.values())


if __name__ == "__main__":
    main()
