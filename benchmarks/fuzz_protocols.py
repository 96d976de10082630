"""Sends damaged requests of every protocol to a live service: no 5xx, no leak, and the next good request is right.

python -m benchmarks.fuzz_protocols --bodies 20000

For each protocol, so many requests whose JSON, base64, tensors, headers or bytes were changed, and now and then a good
one, whose answer must stay the same. Before that, with atheris installed, the binary codec is fuzzed in a process of
its own, guided by coverage (`benchmarks.fuzz_codec`). Exits with 1 if a claim fails, and keeps the bodies that failed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from app.commands.bench.http_load import Client, post
from benchmarks.support.damage import real_images
from benchmarks.support.load import ProcessTree
from benchmarks.support.protocol_bodies import PROTOCOLS, Sent, request_of
from benchmarks.support.small_service import small_service, tracebacks
from tests.support.colours import colour_image

_MAX_PIXELS = 1_000_000
_EXPECTED = {200, 400, 413, 415, 422, 501}
_LATE = 504  # what a changed `timeout` of microseconds asks for
_GOOD_EVERY = 100
_MAX_GROWTH = 0.08
_MAX_GROWTH_BYTES = 40_000_000  # of a process of 400 MB, what its allocator takes and gives back


@dataclass
class Outcome:
    """What came of the requests of one protocol."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    next_body: int = 0


def main() -> None:
    """Runs all parts and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=1_000, help="sent to each protocol")
    parser.add_argument("--codec-runs", type=int, help="coverage-guided; ten times the bodies, if not said")
    parser.add_argument("--protocols", nargs="*", default=list(PROTOCOLS), choices=list(PROTOCOLS))
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--max-answer-s", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-failures")
    arguments = parser.parse_args()
    runs = 10 * arguments.bodies if arguments.codec_runs is None else arguments.codec_runs
    holds = _fuzz_codec(runs, arguments.seed) if runs else True
    holds &= _fuzz_service(arguments)
    sys.exit(0 if holds else 1)


def _fuzz_codec(runs: int, seed: int) -> bool:
    if importlib.util.find_spec("atheris") is None:
        print("codec: left out, as atheris is not installed (pip install atheris)")
        return True
    command = [sys.executable, "-m", "benchmarks.fuzz_codec", "--runs", str(runs), "--seed", str(seed)]
    finished = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in finished.stderr.splitlines() if line.startswith("stat::")]
    print(f"codec: {runs:,} coverage-guided runs, exit status {finished.returncode}", *lines, sep="\n  ")
    if finished.returncode:
        print(*finished.stderr.splitlines()[-30:], sep="\n  ")
    return finished.returncode == 0


def _fuzz_service(arguments: argparse.Namespace) -> bool:
    images = [image for image in real_images() if len(image) < 50_000]
    holds = True
    with small_service(max_pixels=_MAX_PIXELS, vertex_predict_route="/vertex/predict") as server:
        processes = ProcessTree(server.process.pid)
        memory_early = 0
        for protocol in arguments.protocols:
            outcome, started_at = Outcome(), time.monotonic()
            uvloop.run(_send_all(server.url, protocol, images, outcome, arguments))
            memory = processes.resident_bytes()
            memory_early = memory_early or memory
            seconds = time.monotonic() - started_at
            statuses = dict(sorted(outcome.statuses.items()))
            print(f"{protocol}: {arguments.bodies:,} requests in {seconds:.0f} s, {statuses}")
            print(f"    slowest {outcome.slowest_s * 1e3:.0f} ms, memory {memory / 1e6:.0f} MB")
            for failure in outcome.failures[:10]:
                print(f"    {failure}")
            holds &= not outcome.failures and outcome.slowest_s <= arguments.max_answer_s
        growth = memory - memory_early
        claims = {
            "every answer is a good one or says what is wrong, in time": holds,
            "no traceback in the log": tracebacks(server) == 0,
            "the service has not ended": server.process.poll() is None,
            "memory is flat after the first protocol": growth <= max(_MAX_GROWTH * memory_early, _MAX_GROWTH_BYTES),
        }
    for claim, is_true in claims.items():
        print(f"  {'holds' if is_true else 'FAILS'}: {claim}")
    return all(claims.values())


async def _send_all(
    url: str, protocol: str, images: list[bytes], outcome: Outcome, arguments: argparse.Namespace
) -> None:
    await asyncio.gather(*(_send(url, protocol, images, outcome, arguments) for _ in range(arguments.connections)))


async def _send(url: str, protocol: str, images: list[bytes], outcome: Outcome, arguments: argparse.Namespace) -> None:
    client, good, expected = Client(url), colour_image("green"), b""
    while (number := outcome.next_body) < arguments.bodies:
        outcome.next_body += 1
        is_good = number % _GOOD_EVERY == 0
        rng = random.Random(f"{arguments.seed} {protocol} {number}")
        sent = Sent("/predictions/colours", good, {}) if is_good else request_of(protocol, images, rng)
        headers = dict(sent.headers)
        content_type = headers.pop("Content-Type", "application/octet-stream")
        lines = [f"{name}: {value}" for name, value in headers.items()]
        try:
            request = post(sent.body, *lines, path=sent.path, content_type=content_type)
            status, _, latency_s = await client.ask(request)
        except OSError as error:
            _keep(outcome, arguments.kept, f"{protocol}-{number}", sent, f"connection: {error!r}")
            continue
        outcome.statuses[status] += 1
        outcome.slowest_s = max(outcome.slowest_s, latency_s)
        if is_good:
            expected = expected or client.body
        name, told = f"{protocol}-{number}", f"{status} {client.body[:200]!r}"
        if is_good and (status != 200 or client.body != expected):
            _keep(outcome, arguments.kept, name, sent, f"a good image: {told}")
        elif status not in _EXPECTED and not (status == _LATE and protocol.startswith("oip")):
            _keep(outcome, arguments.kept, name, sent, told)
    client.close()


def _keep(outcome: Outcome, folder: Path, name: str, sent: Sent, what: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(sent.body)
    outcome.failures.append(f"{path} to {sent.path} {sent.headers}: {what}")


if __name__ == "__main__":
    main()
