"""Sends damaged images to a live service: no 5xx, no crash, no leak, no answer that takes too long.

python -m benchmarks.fuzz --bodies 100000

Starts the service with a small model, sends it mutated real files of every format (headers, lengths, cuts, splices,
metadata), raw and as forms, and a good image now and then, whose answer must stay the same. Before that, with atheris
installed, the decoder is fuzzed in a process of its own (`benchmarks.fuzz_decoder`). Exits with 1 if a claim fails; the
bodies that failed are kept in the folder that it names.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from app.commands.bench.http_load import Client, post
from benchmarks.support.damage import damaged, real_images
from benchmarks.support.load import ProcessTree, form
from benchmarks.support.small_service import small_service, tracebacks
from tests.support.colours import colour_image

_MAX_PIXELS = 1_000_000
_EXPECTED = {200, 400, 413, 415}
_GOOD_EVERY = 100
_MAX_GROWTH = 0.05
_MAX_GROWTH_BYTES = 30_000_000  # of a process of 300 MB, what its allocator takes and gives back


@dataclass
class Outcome:
    """What came of the bodies."""

    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    next_body: int = 0


def main() -> None:
    """Runs both parts and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=2_000, help="sent over HTTP")
    parser.add_argument("--decoder-runs", type=int, help="coverage-guided; as many as bodies, if not said")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--max-answer-s", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-failures")
    arguments = parser.parse_args()
    decoder_runs = arguments.bodies if arguments.decoder_runs is None else arguments.decoder_runs
    holds = _fuzz_decoder(decoder_runs, arguments.seed) if decoder_runs else True
    holds &= _fuzz_service(arguments)
    sys.exit(0 if holds else 1)


def _fuzz_decoder(runs: int, seed: int) -> bool:
    if importlib.util.find_spec("atheris") is None:
        print("decoder: left out, as atheris is not installed (pip install atheris)")
        return True
    command = [sys.executable, "-m", "benchmarks.fuzz_decoder", "--runs", str(runs), "--seed", str(seed)]
    finished = subprocess.run(command, capture_output=True, text=True)
    statistics_lines = [line for line in finished.stderr.splitlines() if line.startswith("stat::")]
    print(f"decoder: {runs:,} coverage-guided runs, exit status {finished.returncode}", *statistics_lines, sep="\n  ")
    if finished.returncode:
        print(*finished.stderr.splitlines()[-30:], sep="\n  ")
    return finished.returncode == 0


def _fuzz_service(arguments: argparse.Namespace) -> bool:
    images, outcome = real_images(), Outcome()
    with small_service(max_pixels=_MAX_PIXELS) as server:
        processes = ProcessTree(server.process.pid)
        started_at = time.monotonic()
        memory_early = uvloop.run(_send_all(server.url, images, outcome, processes, arguments))
        seconds = time.monotonic() - started_at
        if server.process.poll() is not None:
            outcome.failures.append("the service has ended")
        memory_late = processes.resident_bytes()
        traceback_count = tracebacks(server)
    growth = memory_late - memory_early
    slowest = max(outcome.latencies_s)
    claims = {
        "every answer is a picture's or says what is wrong with it": not outcome.failures,
        "no traceback in the log": traceback_count == 0,
        f"no answer takes more than {arguments.max_answer_s:g} s": slowest <= arguments.max_answer_s,
        "memory is flat": growth <= max(_MAX_GROWTH * memory_early, _MAX_GROWTH_BYTES),
    }
    print(f"service: {arguments.bodies:,} bodies in {seconds:.0f} s over {arguments.connections} connections")
    print(f"  statuses {dict(sorted(outcome.statuses.items()))}, codes {dict(outcome.codes.most_common())}")
    print(f"  median {statistics.median(outcome.latencies_s) * 1e3:.1f} ms, slowest {slowest * 1e3:.0f} ms")
    print(f"  memory {memory_early / 1e6:.0f} MB after 10 %, {memory_late / 1e6:.0f} MB at the end")
    for claim, holds in claims.items():
        print(f"  {'holds' if holds else 'FAILS'}: {claim}")
    for failure in outcome.failures[:20]:
        print(f"    {failure}")
    return all(claims.values())


async def _send_all(
    url: str, images: list[bytes], outcome: Outcome, processes: ProcessTree, arguments: argparse.Namespace
) -> int:
    """Sends all bodies; returns the service's memory after a tenth of them."""
    clients = [asyncio.create_task(_send(url, images, outcome, arguments)) for _ in range(arguments.connections)]
    while outcome.next_body < arguments.bodies // 10 and not clients[0].done():
        await asyncio.sleep(0.05)
    memory_early = processes.resident_bytes()
    await asyncio.gather(*clients)
    return memory_early


async def _send(url: str, images: list[bytes], outcome: Outcome, arguments: argparse.Namespace) -> None:
    client = Client(url)
    good, expected = colour_image("green"), None
    while (number := outcome.next_body) < arguments.bodies:
        outcome.next_body += 1
        is_good = number % _GOOD_EVERY == 0
        # A generator for each body: what a number stands for does not depend on the order of the connections.
        rng = random.Random(arguments.seed * 1_000_000_007 + number)
        body = good if is_good else damaged(images, rng)
        content, content_type = form(body) if rng.random() < 0.5 else (body, "application/octet-stream")
        try:
            status, _, latency_s = await client.ask(post(content, content_type=content_type))
        except OSError as error:
            _keep(outcome, arguments.kept, number, body, f"connection: {error!r}")
            continue
        if not status:
            _keep(outcome, arguments.kept, number, body, "connection: it broke")
            continue
        answer = json.loads(client.body)
        outcome.latencies_s.append(latency_s)
        outcome.statuses[status] += 1
        outcome.codes[answer.get("code", "answered")] += 1
        if is_good:
            expected = expected or answer.get("predictions")
        if is_good and (status != 200 or answer["predictions"] != expected):
            _keep(outcome, arguments.kept, number, body, f"a good image: {status} {answer}")
        elif status not in _EXPECTED:
            _keep(outcome, arguments.kept, number, body, f"{status} {answer}")
        elif status == 200 and answer["image"]["width"] * answer["image"]["height"] > _MAX_PIXELS:
            _keep(outcome, arguments.kept, number, body, f"beyond the limit of pixels: {answer['image']}")
        elif latency_s > arguments.max_answer_s:
            _keep(outcome, arguments.kept, number, body, f"took {latency_s:.1f} s")
    client.close()


def _keep(outcome: Outcome, folder: Path, number: int, body: bytes, what: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"body-{number}"
    path.write_bytes(body)
    outcome.failures.append(f"{path}: {what}")


if __name__ == "__main__":
    main()
