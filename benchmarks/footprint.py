"""Compares installations of the service: what they take to install, to start, in memory, and what they answer.

python -m benchmarks.footprint before=old/.venv/bin/python:old after=.slim/bin/python

Each is NAME=PYTHON, or NAME=PYTHON:FOLDER for one whose code lies in a folder. They take turns, round by round: each is
started with the default model, asked for a photo until it answers, left alone for a moment, and then put under load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import uvloop

from app.commands.bench.http_load import closed_loop, own_server, post
from benchmarks.overload import photo
from benchmarks.support.load import ProcessTree

_REST_S = 3.0  # until the memory is read
_INSTALLED = """
import importlib.metadata, pathlib, sysconfig
folder = pathlib.Path(sysconfig.get_path("purelib"))
files = [file.lstat().st_size for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
print(sum(1 for _ in importlib.metadata.distributions(path=[str(folder)])), sum(files))
"""


class Installation(NamedTuple):
    """An installed service.

    Attributes:
        name: what the table calls it.
        python: the interpreter of its environment.
        folder: the folder to start it in.
    """

    name: str
    python: str
    folder: Path


class Round(NamedTuple):
    """What was measured in one round.

    Attributes:
        first_answer_s: seconds from the command to the first right answer.
        supervisor_mb: the memory of the first process at rest (RSS).
        others_mb: the memory of all its children at rest (RSS).
        unique_mb: the memory of all together at rest, what they share counted once (PSS).
        images_per_s: answers a second, by workload.
        cpu_ms: milliseconds of processor time for each answer, by workload. A busy neighbour changes it least.
    """

    first_answer_s: float
    supervisor_mb: float
    others_mb: float
    unique_mb: float
    images_per_s: dict[str, float]
    cpu_ms: dict[str, float]


def main() -> None:
    """Prints a row for each figure, and a column for each installation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("installations", nargs="+", help="NAME=PYTHON or NAME=PYTHON:FOLDER")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="the store with the model imagenet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of each workload in each round")
    arguments = parser.parse_args()
    installations = [_installation(given) for given in arguments.installations]
    workloads = {
        "640x480 JPEG, c=16": (photo(), 16),
        "640x480 JPEG, c=1": (photo(), 1),
        "12 MP JPEG, c=16": (photo(4000, 3000), 16),
    }
    rounds: dict[str, list[Round]] = {each.name: [] for each in installations}
    for number in range(arguments.rounds):
        for each in installations if number % 2 else installations[::-1]:
            rounds[each.name].append(_measure(each, arguments.store.resolve(), workloads, arguments.seconds))
    print("| figure |", " | ".join(each.name for each in installations), "|")
    installed = [_installed(each.python) for each in installations]
    _row("packages", [str(packages) for packages, _ in installed])
    _row("installed, MB", [f"{size / 1e6:,.0f}" for _, size in installed])
    for title, figure in (
        ("first answer after the command, s", "first_answer_s"),
        ("memory of the supervisor at rest, MB", "supervisor_mb"),
        ("memory of its children at rest, MB", "others_mb"),
        ("all processes, shared memory once, MB", "unique_mb"),
    ):
        _row(title, [_spread([getattr(each, figure) for each in rounds[one.name]]) for one in installations])
    for workload in workloads:
        of_each = [[each.images_per_s[workload] for each in rounds[one.name]] for one in installations]
        _row(f"{workload}, requests/s", [_spread(found) for found in of_each])
        ratios = [statistics.median(b / a for a, b in zip(of_each[0], found, strict=True)) for found in of_each]
        _row("  ratio to the first, median of the rounds", [f"{ratio:.2f}" for ratio in ratios])
        times = [[each.cpu_ms[workload] for each in rounds[one.name]] for one in installations]
        _row("  CPU time for each, ms", [_spread(found) for found in times])


def _installation(given: str) -> Installation:
    name, _, place = given.partition("=")
    python, _, folder = place.partition(":")
    return Installation(name, str(Path(python).absolute()), Path(folder or tempfile.gettempdir()))


def _installed(python: str) -> tuple[int, int]:
    done = subprocess.run([python, "-c", _INSTALLED], capture_output=True, text=True, check=True)
    packages, size = done.stdout.split()
    return int(packages), int(size)


def _measure(one: Installation, store: Path, workloads: dict[str, tuple[bytes, int]], seconds: float) -> Round:
    image = photo()
    began_at = time.perf_counter()
    with own_server({"model_store": store}, python=one.python, folder=one.folder) as server:
        while not _answers(server.url, image):
            time.sleep(0.005)
        first_answer_s = time.perf_counter() - began_at
        time.sleep(_REST_S)
        own, *children = pids = ProcessTree(server.process.pid).members()
        memory = {pid: _memory(pid) for pid in pids}
        rates, cpu_ms = {}, {}
        for name, (body, connections) in workloads.items():
            uvloop.run(closed_loop(server.url, [post(body)], connections=connections, seconds=1))
            before_s = sum(map(_cpu_s, pids))
            answers = uvloop.run(closed_loop(server.url, [post(body)], connections=connections, seconds=seconds))
            rates[name] = len(answers) / seconds
            cpu_ms[name] = 1000 * (sum(map(_cpu_s, pids)) - before_s) / len(answers)
    return Round(
        first_answer_s,
        memory[own][0],
        sum(memory[pid][0] for pid in children),
        sum(unique for _, unique in memory.values()),
        rates,
        cpu_ms,
    )


def _answers(url: str, image: bytes) -> bool:
    try:
        urlopen(Request(f"{url}/predict", data=image), timeout=30).close()
    except (URLError, OSError):
        return False
    return True


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[float, float]:
    """Returns the resident memory of a process, and its part of what it shares with others, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kilobytes["Rss"] * 1024 / 1e6, kilobytes["Pss"] * 1024 / 1e6


def _spread(found: list[float]) -> str:
    low, middle, high = np.percentile(found, [0, 50, 100])
    digits = 2 if middle < 20 else 0
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _row(title: str, figures: list[str]) -> None:
    print(f"| {title} |", " | ".join(figures), "|", flush=True)


if __name__ == "__main__":
    main()
