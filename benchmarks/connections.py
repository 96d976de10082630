"""Checks that a good client gets its answers while thousands of connections are idle or trickle.

python -m benchmarks.connections --connections 5000 --seconds 60

A third each: connections that never send; heads that come a byte a second; bodies, announced as 500 kB, that come 10
bytes a second. Those that the service closes are opened again at once. Meanwhile a good client sends a photo a few
times a second, each time on a new connection, as somebody who comes along would.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import resource
import sys
import time

import uvloop

from app.commands.bench.http_load import Answered, Client, address_of, own_server, post
from benchmarks.overload import photo
from benchmarks.support.load import ProcessTree, claim, percentile_ms

_HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
_STARTS = {"idle": b"", "slow head": _HEAD, "slow body": _HEAD + b"Content-Length: 500000\r\n\r\n\xff\xd8\xff"}
_TRICKLES = {"idle": b"", "slow head": b"X", "slow body": bytes(10)}
_GOOD_PER_SECOND = 3


def main() -> None:
    """Prints the figures; the exit status is 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10)
    arguments, options = parser.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with own_server({}, options=options) as server:
        server.wait_until_ready()
        processes = ProcessTree(server.process.pid)
        sys.exit(0 if uvloop.run(_measure(server.url, processes, arguments.connections, arguments.seconds)) else 1)


async def _measure(url: str, processes: ProcessTree, connections: int, seconds: float) -> bool:
    image = post(photo(), "Connection: close")
    for _ in range(5):
        await _good(url, image)
    calm = [await _good(url, image) for _ in range(10)]
    calm_bytes = processes.resident_bytes()
    opened: dict[str, int] = dict.fromkeys(_STARTS, 0)
    attack = asyncio.create_task(_attack(url, connections, opened))
    while sum(opened.values()) < connections:
        await asyncio.sleep(0.05)
    good: list[Answered] = []
    memory = 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        good.append(await _good(url, image))
        memory = max(memory, processes.resident_bytes())
        await asyncio.sleep(1 / _GOOD_PER_SECOND)
    attack.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attack
    print(f"{connections} connections; opened in all: {', '.join(f'{count} {kind}' for kind, count in opened.items())}")
    for name, answers in {"without them": calm, "with them": good}.items():
        p50, p99 = percentile_ms(answers, 50), percentile_ms(answers, 99)
        print(f"  good client {name}: {len(answers)} answers, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"  memory: {calm_bytes / 1e6:.0f} MB before, at most {memory / 1e6:.0f} MB with them")
    served = sum(answer.status == 200 for answer in good)
    per_connection = (memory - calm_bytes) / connections
    return all(
        [
            claim(f"{served} of {len(good)} good requests are answered", served == len(good)),
            claim("99 % of them within a second", percentile_ms(good, 99) <= 1000),
            claim(f"a connection costs {per_connection / 1000:.0f} kB, <= 64 kB", per_connection <= 64_000),
        ]
    )


async def _good(url: str, request: bytes) -> Answered:
    """Sends a request on a new connection, which the service closes."""
    return await Client(url).ask(request)


class _Hostile(asyncio.Protocol):
    """One connection that wastes the service's time.

    Args:
        kind: how it wastes time, a key of `_STARTS`.
        open_connections: the set that holds the connection while it is open.
    """

    def __init__(self, kind: str, open_connections: set[_Hostile]) -> None:
        self.kind = kind
        self.transport: asyncio.Transport | None = None
        self._open = open_connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self.transport = transport  # type: ignore[assignment]
        self._open.add(self)
        transport.write(_STARTS[self.kind])  # type: ignore[attr-defined]

    def connection_lost(self, _error: Exception | None) -> None:
        """Makes room for the next one."""
        self._open.discard(self)


async def _attack(url: str, connections: int, opened: dict[str, int]) -> None:
    """Keeps as many connections open, and lets them trickle."""
    address = address_of(url)
    open_connections: set[_Hostile] = set()
    kinds = itertools.cycle(_STARTS)
    trickled_at = time.perf_counter()
    try:
        while True:
            for kind in itertools.islice(kinds, min(50, connections - len(open_connections))):
                with contextlib.suppress(OSError):
                    await asyncio.get_running_loop().create_connection(
                        functools.partial(_Hostile, kind, open_connections), *address
                    )
                    opened[kind] += 1
            if time.perf_counter() > trickled_at + 1:
                trickled_at = time.perf_counter()
                for connection in open_connections:
                    if connection.transport and not connection.transport.is_closing():
                        connection.transport.write(_TRICKLES[connection.kind])
            await asyncio.sleep(0.005)
    finally:
        for connection in open_connections:
            if connection.transport:
                connection.transport.abort()


if __name__ == "__main__":
    main()
