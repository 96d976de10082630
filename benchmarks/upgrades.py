"""Switches versions under constant load: no answer fails, and each answer's version fits its probabilities.

python -m benchmarks.upgrades --switches 200

Publishes version after version of a small model, each with probabilities of its own, every tenth damaged: a wrong hash,
a model cut short, probabilities other than the golden ones. Clients send images all the while, and compare. Exit status
1 if an answer failed, a version gave another's probabilities, a damaged version served, or memory kept growing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import torch
from PIL import Image
from torch import nn

from app.commands.bench.http_load import Client, post
from app.store.manifest import TrainingData
from app.store.model_store import ModelStore
from benchmarks.support.load import in_background
from tests.support.damaged_versions import flip_a_byte, replace_model, truncate
from tests.support.live import LiveServer, live_server
from training.export.export import Provenance, export
from training.export.predictor import Predictor

_MODEL = "switching"
_CLASS_NAMES = ["first", "second"]
_DAMAGE_EVERY = 10
_SWITCH_TIMEOUT_S = 60
_CLIENT_TIMEOUT_S = 30
# Answers are rounded to six decimals, and versions are at least 2e-4 apart.
_TOLERANCE = 2e-5
_KEPT_VERSIONS = 5
# What a process may grow by over any number of switches; a switch that kept its version would take more than 1 MB each.
_MAX_GROWTH_BYTES = 60_000_000


class Constant(nn.Module):
    """Gives one probability whatever it sees, from weights heavy enough that keeping old versions would show."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([probability, 1 - probability]).log())
        self.weights = nn.Parameter(torch.zeros(250_000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 3, S, S)` -> `(N, 2)` logits, the same for all."""
        return self.logits + 0 * (x.mean(dim=(1, 2, 3)) + self.weights.sum()).unsqueeze(1)


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        answers: the number of right answers of each version.
        failures: what each failed or wrong answer said.
        latencies_s: the latencies of all answers, in seconds.
    """

    answers: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)


def main() -> None:
    """Runs the switches and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--watch-store-s", type=float, default=0.1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        publish(root, 1)
        settings = {"model": _MODEL, "model_store": root / "store", "watch_store_s": arguments.watch_store_s}
        with live_server(root / "log", **settings, workers=1) as server:  # whose memory is measured
            server.wait_until_ready()
            ok = run(server, root, switches=arguments.switches, clients=arguments.clients)
        errors = [line for line in (root / "log").read_text().splitlines() if "Traceback" in line]
    sys.exit(0 if ok and not errors else 1)


def run(server: LiveServer, root: Path, *, switches: int, clients: int) -> bool:
    """Publishes until there were enough switches, under load; returns whether every claim held."""
    load = Load()
    version, done, damaged, switch_s, resident = 1, 0, Counter[str](), [], []

    async def send_all(stopping: threading.Event) -> None:
        await asyncio.gather(*(send(server.url, load, stopping) for _ in range(clients)))

    with in_background(send_all):
        while done < switches and not load.failures:
            version += 1
            damage = list(_DAMAGES)[version // _DAMAGE_EVERY % len(_DAMAGES)] if version % _DAMAGE_EVERY == 0 else None
            publish(root, version, damage)
            published_at = time.monotonic()
            wait_for(server.url, "rejected_version" if damage else "version", version)
            if damage:
                damaged[damage] += 1
            else:
                done += 1
                switch_s.append(time.monotonic() - published_at)
            if version % _DAMAGE_EVERY == 1:  # the first ones fill the allocator's pools
                resident.append(server.resident_bytes())
            ModelStore(root / "store").prune(_MODEL, keep=_KEPT_VERSIONS)
    return report(load, damaged, switch_s, resident or [server.resident_bytes()])


def report(load: Load, damaged: Counter[str], switch_s: list[float], resident: list[int]) -> bool:
    """Prints the figures; returns whether every claim held."""
    served_damaged = sorted(version for version in load.answers if version % _DAMAGE_EVERY == 0)
    growth = resident[-1] - resident[0]
    latencies_ms = [1000 * seconds for seconds in sorted(load.latencies_s)]
    print(f"switches                 {len(switch_s)}")
    print(f"damaged versions         {damaged.total()} ({', '.join(f'{n} {kind}' for kind, n in damaged.items())})")
    print(f"answers                  {load.answers.total()}, by {len(load.answers)} versions")
    print(f"failed or wrong answers  {len(load.failures)}")
    for failure in load.failures[:5]:
        print(f"    {failure}")
    print(f"damaged versions served  {len(served_damaged)}")
    print(f"publish to switch        median {statistics.median(switch_s):.2f} s, longest {max(switch_s):.2f} s")
    print(f"latency                  p50 {latencies_ms[len(latencies_ms) // 2]:.1f} ms, "
          f"p99 {latencies_ms[len(latencies_ms) * 99 // 100]:.1f} ms, longest {latencies_ms[-1]:.1f} ms")  # fmt: skip
    print(f"RSS                      {resident[0] / 1e6:.0f} MB at first, {resident[-1] / 1e6:.0f} MB at last")
    return not load.failures and not served_damaged and growth < _MAX_GROWTH_BYTES


async def send(url: str, load: Load, stopping: threading.Event) -> None:
    """Sends images until told to stop, and checks each answer."""
    with io.BytesIO() as buffer:
        Image.new("RGB", (40, 30), (120, 60, 30)).save(buffer, "PNG")
        request = post(buffer.getvalue())
    client = Client(url)
    while not stopping.is_set():
        try:
            async with asyncio.timeout(_CLIENT_TIMEOUT_S):
                answered = await client.ask(request)
        except OSError as error:  # `TimeoutError` is one
            client.close()
            load.failures.append(repr(error))
            continue
        load.latencies_s.append(answered.latency_s)
        if answered.status != 200:
            load.failures.append(client.body.decode() if answered.status else "The connection broke.")
            continue
        answer = json.loads(client.body)
        version = int(answer["version"])
        given = next(each for each in answer["predictions"] if each["class_name"] == "first")["probability"]
        if abs(given - probability_of(version)) > _TOLERANCE:
            load.failures.append(f"Version {version} gave {given}, not {probability_of(version):.6f}.")
        load.answers[version] += 1
    client.close()


def probability_of(version: int) -> float:
    """Returns what a version gives the first class: 1000 values, neighbours far apart."""
    return 0.1 + 0.8 * (version * 377 % 1000) / 1000


def publish(root: Path, version: int, damage: str | None = None) -> None:
    """Publishes a version in one step, so that a damaged one was never whole."""
    staging = root / "staging"
    (staging / _MODEL / str(version - 1)).mkdir(parents=True, exist_ok=True)  # the next one is ours
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(buffer, "PNG")
    folder = export(
        predictor_of(probability_of(version)),
        store_root=staging,
        name=_MODEL,
        golden_images=[buffer.getvalue()],
        provenance=Provenance(architecture="constant", training_data=TrainingData(name="none")),
        onnx=False,
    )
    if damage:
        _DAMAGES[damage](folder)
    (root / "store" / _MODEL).mkdir(parents=True, exist_ok=True)
    folder.rename(root / "store" / _MODEL / str(version))


def predictor_of(probability: float) -> Predictor:
    """Returns a model that always gives the first class this probability."""
    return Predictor(Constant(probability), _CLASS_NAMES, image_size=16, resize_size=18, mean=[0.5] * 3, std=[0.25] * 3)


def _swap_weights(folder: Path) -> None:
    """Puts another model in place with a hash that fits: only the golden examples can tell."""
    replace_model(folder, predictor_of(0.95))


_DAMAGES = {"wrong hash": flip_a_byte, "cut short": truncate, "wrong probabilities": _swap_weights}


def wait_for(url: str, name: str, version: int) -> None:
    """Waits until the service tells of a version that it serves it, or that it rejected it."""
    deadline = time.monotonic() + _SWITCH_TIMEOUT_S
    while (description := httpx.get(f"{url}/models/{_MODEL}").json())[name] != str(version):
        if time.monotonic() > deadline:
            sys.exit(f"Version {version} is not its {name} after {_SWITCH_TIMEOUT_S} s: {description}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
