"""Our server with each engine and the tutorial server, on one model and one image, taking turns under wrk.

python -m benchmarks.compare --model-store model_store photo.jpg

One runs at a time; the order changes nothing, as every round has all of them. Needs wrk.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

_SCRIPT = """
local image = io.open(os.getenv("IMAGE"), "rb"):read("*all")
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=boundary"
wrk.body = '--boundary\\r\\nContent-Disposition: form-data; name="file"; filename="image"\\r\\n\\r\\n'
  .. image .. "\\r\\n--boundary--\\r\\n"
"""
_OURS = {
    "ours, openvino": {"PREDICTOR_ENGINE": "openvino"},
    "ours, torchscript": {"PREDICTOR_ENGINE": "torchscript"},
    "ours, openvino bfloat16": {"PREDICTOR_ENGINE": "openvino", "PREDICTOR_PRECISION": "bfloat16"},
}


def main() -> None:
    """Prints each server's rounds and medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--port", type=int, default=8310)
    arguments = parser.parse_args()
    model = arguments.model_store / "imagenet" / "1" / "model.pt"
    ours = [sys.executable, "-m", "app", "serve", "--model-store", str(arguments.model_store), "--port"]
    tutorial = [sys.executable, "-m", "uvicorn", "benchmarks.tutorial_server:app", "--log-level", "warning", "--port"]
    servers: dict[str, tuple[list[str], dict[str, str]]] = {name: (ours, extra) for name, extra in _OURS.items()}
    servers["tutorial"] = (tutorial, {"MODEL": str(model)})
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in servers}
    for _ in range(arguments.rounds):
        for name, (command, environment) in servers.items():
            measured = _measure(command, environment, arguments)
            rounds[name].append(measured)
            print(f"{name:26s} {measured[0]:7.1f} requests/s, p50 {measured[1]:6.1f} ms, p99 {measured[2]:6.1f} ms")
    print(f"\nmedians of {arguments.rounds} rounds, {arguments.connections} connections")
    for name, measurements in rounds.items():
        requests, p50, p99 = (statistics.median(values) for values in zip(*measurements, strict=True))
        print(f"{name:26s} {requests:7.1f} requests/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms")


def _measure(command: list[str], environment: dict[str, str], arguments: argparse.Namespace) -> tuple[float, ...]:
    url = f"http://127.0.0.1:{arguments.port}"
    server = subprocess.Popen(
        [*command, str(arguments.port)], env=os.environ | environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_until_ready(url, server)
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(_SCRIPT)
            script.flush()
            wrk = ["wrk", "-t1", f"-c{arguments.connections}", "--latency", "--timeout", "30s", "-s", script.name]
            target = f"{url}/predict"
            image = os.environ | {"IMAGE": str(arguments.image)}
            subprocess.run([*wrk, "-d2", target], env=image, check=True, capture_output=True)  # warm-up
            output = subprocess.run(
                [*wrk, f"-d{arguments.seconds}", target], env=image, check=True, capture_output=True, text=True
            ).stdout
    finally:
        server.terminate()
        server.wait()
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"Requests failed:\n{output}")
    return (float(_found(r"Requests/sec:\s+([\d.]+)", output)), _percentile(50, output), _percentile(99, output))


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    path = "/health/ready" if "app" in server.args else "/openapi.json"  # type: ignore[operator]
    while True:
        if server.poll() is not None:
            sys.exit(f"{server.args!r} has ended.")
        try:
            urllib.request.urlopen(url + path, timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)


def _percentile(percent: int, output: str) -> float:
    value, unit = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", output).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def _found(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    assert found, output
    return found[1]


if __name__ == "__main__":
    main()
