"""What sends the requests: wrk in a closed loop, and a client of our own in an open loop.

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

import aiohttp

from benchmarks.comparison.servers import Upload

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
        requests_per_s: answered with success.
        p50_ms: median latency.
        p99_ms: of 100 answers, one took longer.
        failed: the share that was refused, failed or timed out.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: float = 0.0


def closed_loop(url: str, upload: Upload, *, connections: int, seconds: float) -> Load:
    """Measures with wrk, after a warm-up whose last answer is waited for: nothing that was abandoned is still computed.

    Args:
        url: to POST to.
        upload: what.
        connections: each sends when it has its answer.
        seconds: to measure; of a slow server as long as four answers on each connection take: what is being computed
            when the time is up counts for nothing.

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
    """Sends so many requests.

    Raises:
        LoadError: one failed.
    """
    failed = asyncio.run(_send(url, upload, count, connections))
    if failed:
        raise LoadError(f"{failed} of {count} requests failed.")


def open_loop(url: str, upload: Upload, *, requests_per_s: float, seconds: float) -> Load:
    """Sends at a fixed rate, evenly spaced; a late answer delays no other request."""
    return asyncio.run(_open_loop(url, upload, requests_per_s, seconds))


async def _send(url: str, upload: Upload, count: int, connections: int) -> int:
    remaining = iter(range(count))
    failed = 0

    async def connection(session: aiohttp.ClientSession) -> None:
        nonlocal failed
        for _ in remaining:
            failed += not await _ask(session, url, upload)

    async with _session(_TIMEOUT_S) as session:
        await asyncio.gather(*(connection(session) for _ in range(connections)))
    return failed


async def _open_loop(url: str, upload: Upload, requests_per_s: float, seconds: float) -> Load:
    latencies_s: list[float] = []
    failed = 0

    async def request(session: aiohttp.ClientSession, due: float) -> None:
        nonlocal failed
        if await _ask(session, url, upload):
            latencies_s.append(time.perf_counter() - due)
        else:
            failed += 1

    count = max(1, round(requests_per_s * seconds))
    async with _session(_OPEN_LOOP_TIMEOUT_S) as session:
        started_at = time.perf_counter()
        open_requests = []
        for number in range(count):
            due = started_at + number / requests_per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            open_requests.append(asyncio.create_task(request(session, due)))
        await asyncio.gather(*open_requests)
        took_s = time.perf_counter() - started_at
    latencies_s.sort()
    if not latencies_s:
        return Load(0.0, float("inf"), float("inf"), 1.0)
    p50, p99 = (latencies_s[min(len(latencies_s) - 1, int(len(latencies_s) * share))] for share in (0.5, 0.99))
    return Load(len(latencies_s) / max(took_s, seconds), p50 * 1e3, p99 * 1e3, failed / count)


def _session(timeout_s: int) -> aiohttp.ClientSession:
    # A request that finds no free connection opens another: none waits for the answer of another.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=timeout_s)
    )


async def _ask(session: aiohttp.ClientSession, url: str, upload: Upload) -> bool:
    try:
        async with session.post(url, data=upload.body, headers={"Content-Type": upload.content_type}) as response:
            await response.read()
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
