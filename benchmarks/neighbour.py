"""Measures how steady the service is beside a process that keeps one core busy, in several layouts of threads.

python -m benchmarks.neighbour --model-store model_store photo.jpg

All servers run throughout; one at a time has load, alone and beside the neighbour, in turns. Exits with 1 if the 99th
percentile of the default settings at 16 connections is above three times the median, with nothing else running.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.commands.bench.http_load import closed_loop, own_server, per_second, post
from app.system.cores import usable_cores
from benchmarks.support.load import percentile_ms

_MAX_P99_TO_MEDIAN = 3.0
_CONNECTIONS = (1, 16)


def main() -> None:
    """Prints the medians of all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, nargs="?", default=Path("training/golden/cat.jpg"))
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--model", default="imagenet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    cores = usable_cores()
    layouts = {
        "measured at load": {},
        f"{cores} streams x 1": {"streams": cores, "threads_per_stream": 1},
        f"1 stream x {cores}": {"streams": 1, "threads_per_stream": cores},
    }
    requests = [post(arguments.image.read_bytes())]
    measured: dict[tuple[str, int, str], list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        urls = {}
        for name, layout in layouts.items():
            settings = {"model": arguments.model, "model_store": arguments.model_store, **layout}
            server = stack.enter_context(own_server(settings))
            server.wait_until_ready()
            urls[name] = server.url
        for _ in range(arguments.rounds):
            for neighbours in (0, 1):
                with _busy(neighbours):
                    for connections in _CONNECTIONS:
                        for name, url in urls.items():
                            loop = closed_loop(url, requests, connections=connections, seconds=arguments.seconds)
                            answers = asyncio.run(loop)
                            p50, p99 = (percentile_ms(answers, percent) for percent in (50, 99))
                            key = ("beside a busy one" if neighbours else "alone", connections, name)
                            measured.setdefault(key, []).append((per_second(answers), p50, p99))
    medians = {
        key: [statistics.median(values) for values in zip(*rounds, strict=True)] for key, rounds in measured.items()
    }
    for (where, connections, name), (rate, p50, p99) in medians.items():
        print(f"{where:18s} c={connections:<3d} {name:18s} {rate:7.1f} images/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms")
    _, p50, p99 = medians["alone", _CONNECTIONS[-1], "measured at load"]
    print(f"p99 / p50 at {_CONNECTIONS[-1]} connections, alone: {p99 / p50:.2f} (at most {_MAX_P99_TO_MEDIAN:g})")
    sys.exit(0 if p99 <= _MAX_P99_TO_MEDIAN * p50 else 1)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
