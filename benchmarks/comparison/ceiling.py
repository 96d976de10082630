"""Measures the ceiling of a service on this machine: decode, resize and classify in one process, without HTTP.

python -m benchmarks.comparison.ceiling --store STORE --model imagenet --image photo.jpg

Each thread takes an image from bytes to probabilities in a loop. Engines, streams, threads and batch sizes are tried
briefly, and the best are measured for longer. It prints JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from app.commands.bench.rate import rate_of
from app.images.limits import DEFAULT_LIMITS
from app.inference.artifact import Artifact
from app.inference.engine import Engine, Precision
from app.inference.loading import load_artifact
from app.inference.openvino_engine import OpenVINOEngine
from app.inference.prepare import prepare
from app.inference.thread_layout import SPARE_STREAMS
from app.inference.torchscript_engine import TorchScriptEngine
from app.store.model_store import ModelStore

_TRIAL_S = 0.4
_BATCH_SIZES = (1, 4, 8)


@dataclass(frozen=True)
class Ceiling:
    """What the machine can do without HTTP.

    Attributes:
        images_per_s: images a second in the best setting, with all cores busy.
        setting: the setting that gives the most images a second.
        latency_ms: milliseconds for one image at a time in the quickest setting; the median.
        latency_setting: the setting that takes the least time for one image.
    """

    images_per_s: float
    setting: str
    latency_ms: float
    latency_setting: str


@dataclass(frozen=True)
class _Candidate:
    engine: Engine
    streams: int
    threads: int

    def __str__(self) -> str:
        return f"{self.engine.name}, {self.streams} x {self.threads} threads"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    artifact = load_artifact(arguments.model, ModelStore(arguments.store))
    encoded = arguments.image.read_bytes()
    candidates = _candidates(artifact, arguments.precision)
    print(json.dumps(asdict(measure(artifact, encoded, candidates, arguments.seconds))))


def measure(artifact: Artifact, encoded: bytes, candidates: list[_Candidate], seconds: float) -> Ceiling:
    """Tries each candidate briefly, then measures the one with the most images a second and the quickest one.

    Args:
        artifact: the model.
        encoded: the image to classify, as a file's bytes.
        candidates: the engines to try. Their rate is tried with several batch sizes.
        seconds: how long the best rate is measured. The latency is measured half as long.
    """
    classify = {candidate: _whole_way(artifact, candidate.engine) for candidate in candidates}

    def rate(setting: tuple[_Candidate, int], seconds: float) -> float:
        candidate, batch_size = setting
        batch = [encoded] * batch_size
        classify[candidate](batch)  # a size is compiled when it is first seen
        return rate_of(classify[candidate], batch, candidate.streams, seconds)

    def latency_s(candidate: _Candidate, seconds: float) -> float:
        return _latency_s(partial(classify[candidate], [encoded]), seconds)

    settings = list(itertools.product(candidates, _BATCH_SIZES))
    best = max(settings, key=lambda setting: rate(setting, _TRIAL_S))
    quickest = min(candidates, key=lambda candidate: latency_s(candidate, _TRIAL_S))
    return Ceiling(
        images_per_s=rate(best, seconds),
        setting=f"{best[0]}, batches of {best[1]}",
        latency_ms=latency_s(quickest, seconds / 2) * 1e3,
        latency_setting=str(quickest),
    )


def _candidates(artifact: Artifact, precision: Precision) -> list[_Candidate]:
    cores = len(os.sched_getaffinity(0))
    candidates = []
    for streams, threads in dict.fromkeys([(cores, 1), (cores + SPARE_STREAMS, 1), (1, cores)]):
        twin = artifact.onnx_twin
        assert twin is not None
        openvino = OpenVINOEngine(
            twin, class_count=len(artifact.class_names), precision=precision, streams=streams, threads=threads
        )
        candidates.append(_Candidate(openvino, streams, threads))
    # TorchScript is slower (benchmarks/NOTES.md). Only the layout that suits it best is tried.
    torchscript = TorchScriptEngine(artifact, precision=precision)
    return [*candidates, _Candidate(torchscript, cores, 1)]


def _whole_way(artifact: Artifact, engine: Engine) -> Callable[[Sequence[bytes]], object]:
    """Returns a function that takes a batch of encoded images to their probabilities."""

    def classify(batch: Sequence[bytes]) -> object:
        return engine([prepare(encoded, artifact, engine.precision, DEFAULT_LIMITS).pixels for encoded in batch])

    return classify


def _latency_s(step: Callable[[], object], seconds: float) -> float:
    """Returns the median seconds that a step takes, when one follows the other."""
    step()
    latencies: list[float] = []
    ends_at = time.perf_counter() + seconds
    while not latencies or time.perf_counter() < ends_at:
        started_at = time.perf_counter()
        step()
        latencies.append(time.perf_counter() - started_at)
    return sorted(latencies)[len(latencies) // 2]


if __name__ == "__main__":
    main()
