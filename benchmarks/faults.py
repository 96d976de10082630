"""Measures what faults cost clients: SIGTERM to the service under load, and SIGKILL to its workers.

python -m benchmarks.faults --terms 100 --kills 50

Claims, and exits with 1 if one does not hold: after SIGTERM every request that was sent on an open connection gets its
answer, and the exit status is 0; while workers are killed one after another, a new connection is always answered, and
no answer is wrong. A small model, so that the process and not the model is what is tried.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.commands.bench.http_load import Client, post
from benchmarks.support.load import in_background
from tests.support.colours import COLOURS, colour_image, export_colours
from tests.support.live import LiveServer, live_server

_CLIENT_TIMEOUT_S = 20
_LOAD_BEFORE_SIGNAL_S = 0.5


_REQUESTS = {colour: post(colour_image(colour), path="/predict?top_k=1") for colour in COLOURS}


@contextmanager
def _clients(url: str, count: int) -> Iterator[Counter[str]]:
    """Runs closed-loop clients while the block lasts: half keep their connection, half open one for each request.

    Yields:
        how many requests ended in which way; complete when the block has ended.
    """
    outcomes: Counter[str] = Counter()

    async def run(stopping: threading.Event) -> None:
        await asyncio.gather(*(_client(url, number % 2 == 0, outcomes, stopping) for number in range(count)))

    with in_background(run):
        yield outcomes


async def _client(url: str, keeps_connection: bool, outcomes: Counter[str], stopping: threading.Event) -> None:
    client = Client(url)
    while not stopping.is_set():
        outcome = await _outcome(client)
        outcomes[outcome] += 1
        if not keeps_connection or outcome != "right":
            client.close()
        if outcome == "refused":
            await asyncio.sleep(0.01)
    client.close()


async def _outcome(client: Client) -> str:
    """Sends an image; returns what became of it."""
    colour = random.choice(list(COLOURS))
    try:
        async with asyncio.timeout(_CLIENT_TIMEOUT_S):
            status = (await client.ask(_REQUESTS[colour])).status
    except TimeoutError:
        return "lost"
    except OSError:
        return "refused"
    if not status:
        return "lost"
    answer = json.loads(client.body)
    if status != 200:
        return f"{status} {answer['code']}"
    return "right" if answer["predictions"][0]["class_name"] == colour else "WRONG"


def terminate(store: Path, arguments: argparse.Namespace) -> bool:
    """Sends SIGTERM to the service under load, again and again; returns whether the claims hold."""
    outcomes: Counter[str] = Counter()
    seconds, exit_statuses = [], []
    for _ in range(arguments.terms):
        with _server(store, workers=arguments.workers) as server:
            with _clients(server.url, arguments.clients) as seen:
                time.sleep(_LOAD_BEFORE_SIGNAL_S)
                sent_at = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                exit_statuses.append(server.process.wait(60))
                seconds.append(time.monotonic() - sent_at)
            outcomes += seen
    print(
        f"{arguments.terms} SIGTERMs, {arguments.workers} workers, {arguments.clients} clients: {_listed(outcomes)}; "
        f"exit statuses {sorted(set(exit_statuses))}; seconds to the end: median {statistics.median(seconds):.2f}, "
        f"most {max(seconds):.2f}"
    )
    return set(outcomes) <= {"right", "refused", "503 draining"} and set(exit_statuses) == {0}


def kill(store: Path, arguments: argparse.Namespace) -> bool:
    """Kills workers under load, one after another; returns whether the claims hold."""
    replaced_s, worst_probe_s, failed_probes = [], 0.0, 0
    with _server(store, workers=arguments.workers) as server:
        _wait_for_workers(server, arguments.workers)
        with _clients(server.url, arguments.clients) as outcomes:
            for _ in range(arguments.kills):
                time.sleep(_LOAD_BEFORE_SIGNAL_S)
                victim = random.choice(server.workers)
                killed_at = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                while not (_ready_workers(server) == arguments.workers and victim not in server.workers):
                    probed_at = time.monotonic()
                    try:  # a new connection each time
                        status = httpx.get(f"{server.url}/health/ready", timeout=_CLIENT_TIMEOUT_S).status_code
                    except httpx.TransportError:
                        status = 0
                    worst_probe_s = max(worst_probe_s, time.monotonic() - probed_at)
                    failed_probes += status != 200
                    time.sleep(0.01)
                    if time.monotonic() - killed_at > 60:
                        sys.exit("A worker was not replaced within 60 s.")
                replaced_s.append(time.monotonic() - killed_at)
    print(
        f"{arguments.kills} worker SIGKILLs, {arguments.workers} workers, {arguments.clients} clients: "
        f"{_listed(outcomes)}; replaced and ready after: median {statistics.median(replaced_s):.2f} s, "
        f"most {max(replaced_s):.2f} s; new connections answered within {worst_probe_s:.2f} s, {failed_probes} were not"
    )
    return (
        set(outcomes) <= {"right", "lost"}
        and outcomes["lost"] <= arguments.kills * arguments.clients
        and failed_probes == 0
        and worst_probe_s <= arguments.answer_s
    )


@contextmanager
def _server(store: Path, *, workers: int) -> Iterator[LiveServer]:
    """A service that is ready."""
    with live_server(store / "log", model="colours", model_store=store, workers=workers) as server:
        server.wait_until_ready()
        yield server


def _ready_workers(server: LiveServer) -> int:
    try:
        found = re.search(r"^predictor_workers_ready (\d+)", httpx.get(f"{server.url}/metrics", timeout=20).text, re.M)
    except httpx.TransportError:  # the connection was inside the worker that was killed
        return 0
    return int(found[1]) if found else 0


def _wait_for_workers(server: LiveServer, workers: int) -> None:
    while _ready_workers(server) != workers:
        time.sleep(0.05)


def _listed(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))


def main() -> None:
    """Runs both trials and prints what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", type=int, default=3, help="how many services get SIGTERM")
    parser.add_argument("--kills", type=int, default=3, help="how many workers get SIGKILL")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--answer-s", type=float, default=2.0, help="how long a new connection may wait for its answer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        export_colours(store)
        held = [terminate(store, arguments), kill(store, arguments)]
    print("Every claim holds." if all(held) else "A CLAIM DOES NOT HOLD.")
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
