"""Puts load on a server and measures it: wrk in a closed loop, a client of our own in an open loop.

closed loop: so many connections, each sends when it has its answer -> requests/s, latency
open loop: so many requests a second, whatever the server does -> latency from the time when each was due

A closed loop hides what a slow server does to those who would have asked meanwhile ("coordinated omission"); only an
open loop shows it. wrk2, which has one, is packaged neither by Debian nor for Python.
"""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.commands.bench.http_load import Client, post
from benchmarks.comparison.servers import Upload
from benchmarks.support import load

_TIMEOUT_S = 30
_OPEN_LOOP_TIMEOUT_S = 10
_SCRIPT = """
local body = io.open(os.getenv("BODY"), "rb")
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
wrk.body = body:read("*all")
done = function(summary, latency, requests)
  local errors = summary.errors
  print("RESULT", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout)
end
"""


class LoadError(Exception):
    """Requests failed, so that the figures would mean nothing."""


@dataclass(frozen=True)
class Load:
    """What a loop measured.

    Attributes:
        requests_per_s: answers of success a second.
        p50_ms: the median latency.
        p99_ms: the latency that one answer in 100 exceeded.
        failed: the share of requests that were refused, failed or timed out.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: float = 0.0


def closed_loop(url: str, upload: Upload, *, connections: int, seconds: float) -> Load:
    """Measures with wrk, after a warm-up whose last answer is waited for: nothing that was abandoned is still computed.

    Args:
        url: where images are POSTed to.
        upload: the body of each request.
        connections: how many are open; each sends when it has its answer.
        seconds: how long to measure. A slow server is measured for as long as four answers on each connection take,
            because what is being computed when the time is up counts for nothing.

    Raises:
        LoadError: a request failed.
    """
    started_at = time.perf_counter()
    send(url, upload, count=connections, connections=connections)
    seconds = max(seconds, 4 * (time.perf_counter() - started_at))
    with tempfile.TemporaryDirectory() as folder:
        script, body = Path(folder) / "post.lua", Path(folder) / "body"
        script.write_text(_SCRIPT, encoding="ascii")
        body.write_bytes(upload.body)
        environment = os.environ | {"BODY": str(body), "CONTENT_TYPE": upload.content_type}
        wrk = ["wrk", "-t1", f"-c{connections}", "--timeout", f"{_TIMEOUT_S}s", "-s", str(script), url]
        output = subprocess.run(
            [*wrk, f"-d{max(1, math.ceil(seconds))}s"], env=environment, check=True, capture_output=True, text=True
        ).stdout
    fields = next(line for line in output.splitlines() if line.startswith("RESULT")).split()[1:]
    requests, duration_us, p50_us, p99_us, refused, broken = map(float, fields)
    if refused or broken or not requests:
        raise LoadError(f"{refused:.0f} of {requests:.0f} requests were refused or failed, {broken:.0f} got no answer.")
    return Load(requests / (duration_us / 1e6), p50_us / 1e3, p99_us / 1e3)


def send(url: str, upload: Upload, *, count: int, connections: int) -> None:
    """Sends requests, on each connection when the answer before has come.

    Raises:
        LoadError: a request failed, or had no answer within 30 seconds.
    """
    failed = asyncio.run(_send(url, upload, count, connections))
    if failed:
        raise LoadError(f"{failed} of {count} requests failed.")


async def _send(url: str, upload: Upload, count: int, connections: int) -> int:
    request = _request(url, upload)
    remaining = iter(range(count))
    failed = 0

    async def ask() -> None:
        nonlocal failed
        client = Client(url)
        for _ in remaining:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    failed += (await client.ask(request)).status != 200
            except OSError:  # `TimeoutError` is one
                client.close()
                failed += 1
        client.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return failed


def open_loop(url: str, upload: Upload, *, requests_per_s: float, seconds: float) -> Load:
    """Sends at a fixed rate, evenly spaced; a late answer delays no other request, and counts as failed after 10 s."""
    loop = load.open_loop(url, [_request(url, upload)], per_second=requests_per_s, seconds=seconds, seed=None)
    answers = asyncio.run(loop)
    count = max(1, round(requests_per_s * seconds))
    served = [each for each in answers if each.status == 200 and each.latency_s <= _OPEN_LOOP_TIMEOUT_S]
    if not served:
        return Load(0.0, float("inf"), float("inf"), 1.0)
    took_s = max(each.due_at + each.latency_s for each in answers) - min(each.due_at for each in answers)
    p50, p99 = (load.percentile_ms(served, percent) for percent in (50, 99))
    return Load(len(served) / max(took_s, seconds), p50, p99, max(0.0, 1 - len(served) / count))


def _request(url: str, upload: Upload) -> bytes:
    return post(upload.body, path=urlsplit(url).path, content_type=upload.content_type)
