"""Measures our server and its peers side by side in one run: `make bench`, or `python -m benchmarks`.

models, images, environments -> rounds: every server in turn, only one running -> open loop -> memory -> results
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.comparison import drivers, machine, plots, report
from benchmarks.comparison.ceiling import Ceiling
from benchmarks.comparison.environments import BENCH, InstallError, install, version_of
from benchmarks.comparison.images import write_missing
from benchmarks.comparison.models import model_file, publish_missing
from benchmarks.comparison.results import Memory, Results
from benchmarks.comparison.servers import Running, Server, ServerError, ours, peer_names, peers, running, upload_of
from benchmarks.comparison.workloads import WORKLOADS, Workload

STORE = BENCH / "model_store"
IMAGES = BENCH / "images"
LOGS = BENCH / "logs"
OURS, OURS_BF16 = "ours", "ours_bf16"
_SHARES_OF_OUR_RATE = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
_OPEN_LOOP_WORKLOAD = "photo-c16"
_MOST_FAILED = 0.05  # a server that fails or delays more than this is not offered more


def main() -> None:
    """Runs the benchmark."""
    arguments = _arguments()
    names = [name for name in peer_names() if name in arguments.peers]
    workloads = [workload for workload in WORKLOADS if workload.name in arguments.workloads]
    results = Results(
        machine=machine.describe(),
        command=f"python -m benchmarks {shlex.join(sys.argv[1:])}".strip(),
        seconds=arguments.seconds,
        versions={},
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    publish_missing(STORE)
    images = write_missing(IMAGES)
    servers = [server for server in peers(names) if _installed(server, results)]
    for round_number in range(arguments.rounds):
        print(f"Round {round_number + 1} of {arguments.rounds}", flush=True)
        for workload in workloads:
            results.ceilings[workload.name].append(_ceiling(workload, images[workload.image], arguments.seconds))
        for model in dict.fromkeys(workload.model for workload in workloads):
            of_model = [workload for workload in workloads if workload.model == model]
            everyone = [ours(STORE)(model), ours(STORE, OURS_BF16, PREDICTOR_PRECISION="bfloat16")(model), *servers]
            # Another starts each round, so that none always follows the same one.
            shift = round_number % len(everyone)
            for server in everyone[shift:] + everyone[:shift]:
                _measure(server, of_model, images, arguments.seconds, arguments.port, results)
        results.write(arguments.output / "results.json")  # what there is, should the run be cut short
    if arguments.open_loop and results.rate(_OPEN_LOOP_WORKLOAD, OURS):
        everyone = [ours(STORE)("imagenet"), *servers]
        _measure_open_loop(everyone, images["photo-640x480.jpg"], arguments.seconds, arguments.port, results)
    if arguments.memory_requests:
        image, count = images["photo-640x480.jpg"], arguments.memory_requests
        _measure_memory(ours(STORE)("imagenet"), image, count, arguments.port, results)
    results.write(arguments.output / "results.json")
    plots.throughput(results, workloads, arguments.output / "throughput.svg")
    if results.offered:
        plots.latency_against_load(results, arguments.output / "latency.svg")
    report.write(results, workloads, arguments.output / "results.md")
    print(f"Written: {arguments.output / 'results.md'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement, at least 1")
    parser.add_argument("--peers", nargs="*", default=peer_names(), choices=peer_names())
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--workloads", nargs="+", default=names, choices=names)
    parser.add_argument("--open-loop", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--memory-requests", type=int, default=10_000, help="0 leaves the memory out")
    parser.add_argument("--port", type=int, default=8310, help="and the four above it, which TorchServe takes")
    parser.add_argument("--output", type=Path, default=Path("benchmarks"), help="folder of results.md and the plots")
    return parser.parse_args()


def _installed(server: Server, results: Results) -> bool:
    try:
        install(server.folder)
    except InstallError as error:
        results.failures[server.name] = str(error)
        print(f"Without {server.name}: {error}", flush=True)
        return False
    results.versions[server.name] = version_of(server.folder)
    return True


def _measure(
    server: Server, workloads: list[Workload], images: dict[str, Path], seconds: float, port: int, results: Results
) -> None:
    """Starts a server once for all workloads of its model."""
    precision = "bfloat16" if server.name == OURS_BF16 else "float32"
    mine = [workload for workload in workloads if workload.precision == precision]
    if not mine:
        return
    model = mine[0].model
    try:
        with running(server, model_file(STORE, model), images[mine[0].image], LOGS, port) as state:
            if model == "imagenet":
                results.ready_s[server.name].append(state.ready_s)
            for workload in mine:
                _measure_one(state, workload, images[workload.image], seconds, results)
    except ServerError as error:
        results.failures[server.name] = f"{model}: {error}"
        print(f"{server.name:16s} {model}: {error}", flush=True)
        return
    results.left_behind[server.name] = max(results.left_behind.get(server.name, 0), state.left_behind)


def _measure_one(state: Running, workload: Workload, image: Path, seconds: float, results: Results) -> None:
    server = state.server
    try:
        load = drivers.closed_loop(
            state.url, upload_of(image, server), connections=workload.connections, seconds=seconds
        )
    except drivers.LoadError as error:
        results.failures[server.name] = f"{workload.title}: {error}"
        print(f"{server.name:16s} {workload.name:16s} {error}", flush=True)
        return
    results.loads[workload.name][server.name].append(load)
    print(
        f"{server.name:16s} {workload.name:16s} {load.requests_per_s:8.1f} requests/s  "
        f"p50 {load.p50_ms:7.1f} ms  p99 {load.p99_ms:7.1f} ms",
        flush=True,
    )


def _ceiling(workload: Workload, image: Path, seconds: float) -> Ceiling:
    command = [
        sys.executable, "-m", "benchmarks.comparison.ceiling", "--store", str(STORE), "--model", workload.model,
        "--image", str(image), "--precision", workload.precision, "--seconds", str(seconds),
    ]  # fmt: skip
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ceiling = Ceiling(**json.loads(output.splitlines()[-1]))
    print(
        f"{'in-process':16s} {workload.name:16s} {ceiling.images_per_s:8.1f} images/s    "
        f"one at a time {ceiling.latency_ms:.1f} ms  ({ceiling.setting})",
        flush=True,
    )
    return ceiling


def _measure_open_loop(servers: list[Server], image: Path, seconds: float, port: int, results: Results) -> None:
    our_rate = results.rate(_OPEN_LOOP_WORKLOAD, OURS)
    assert our_rate is not None
    for server in servers:
        try:
            with running(server, model_file(STORE, "imagenet"), image, LOGS, port) as state:
                upload = upload_of(image, server)
                drivers.send(state.url, upload, count=20, connections=4)  # warm-up
                for share in _SHARES_OF_OUR_RATE:
                    offered = share * our_rate
                    load = drivers.open_loop(state.url, upload, requests_per_s=offered, seconds=seconds)
                    results.offered[server.name].append((offered, load))
                    print(
                        f"{server.name:16s} {offered:6.1f} offered/s: p50 {load.p50_ms:7.1f} ms, p99 "
                        f"{load.p99_ms:7.1f} ms, {load.failed:.0%} failed",
                        flush=True,
                    )
                    if load.failed > _MOST_FAILED or load.requests_per_s < (1 - 2 * _MOST_FAILED) * offered:
                        break
        except (ServerError, drivers.LoadError) as error:
            print(f"{server.name:16s} {error}", flush=True)


def _measure_memory(server: Server, image: Path, last_count: int, port: int, results: Results) -> None:
    first_count = last_count // 10
    with running(server, model_file(STORE, "imagenet"), image, LOGS, port) as state:
        upload = upload_of(image, server)
        drivers.send(state.url, upload, count=first_count, connections=16)
        first_bytes = statistics.median(state.rss_bytes() for _ in range(3))
        drivers.send(state.url, upload, count=last_count - first_count, connections=16)
        last_bytes = statistics.median(state.rss_bytes() for _ in range(3))
    results.memory = Memory(first_count, round(first_bytes), last_count, round(last_bytes))
    print(f"Memory: {first_bytes / 2**20:.0f} MiB, then {last_bytes / 2**20:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
