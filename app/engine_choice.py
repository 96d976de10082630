"""Which engine serves a model: the fastest on this machine of those that pass the golden check.

artifact -> candidates: build -> warm up -> golden check; those that pass -> measure, taking turns -> the fastest
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final

import torch

from app.artifact import Artifact
from app.engine import Engine, TorchScriptEngine
from app.errors import ArtifactError
from app.golden import MAX_DEVIATIONS, GoldenCheck, check_golden, grey_image, warm_up
from app.openvino_engine import OpenVINOEngine, UnavailableError
from app.pipeline import Pipeline
from app.settings import ModelSettings, usable_cores

logger = logging.getLogger(__name__)

_ROUNDS: Final = 3
_ROUND_S: Final = 0.1
_MEASURED_BATCH_SIZE: Final = 2  # of an almost idle service and of a busy one alike: what is queued is shared out
# The reference is kept unless another is faster by more than the measurement's noise.
_MIN_GAIN: Final = 1.1


@dataclass(frozen=True)
class Candidate:
    """An engine that was considered.

    Attributes:
        engine: its name.
        golden_check: its outcome; None if it failed, or there is nothing to check against.
        images_per_s: measured at load; None where it was the only one left.
        rejected_because: why it was left out, if it was.
    """

    engine: str
    golden_check: GoldenCheck | None = None
    images_per_s: float | None = None
    rejected_because: str | None = None


@dataclass(frozen=True)
class EngineChoice:
    """What serves, and what else was considered.

    Attributes:
        engine: that was chosen.
        pipeline: through it.
        streams: batches that it computes at once.
        golden_check: of this engine; None for a model without golden examples.
        candidates: all that were considered, the reference first.
    """

    engine: Engine
    pipeline: Pipeline
    streams: int
    golden_check: GoldenCheck | None
    candidates: tuple[Candidate, ...]


async def choose_engine(
    artifact: Artifact,
    device: torch.device,
    settings: ModelSettings,
    *,
    decode_pool: Executor | None,
    max_queue_items: int,
) -> EngineChoice:
    """Builds, proves and measures the engines that the settings allow.

    Args:
        artifact: the model.
        device: where to compute.
        settings: engine, precision, streams and batching.
        decode_pool: of the pipeline; None where its streams decode.
        max_queue_items: of the pipeline.

    Raises:
        ArtifactError: the reference, or the only engine asked for, cannot be built or fails its golden check.
    """
    streams = settings.streams or (usable_cores() if device.type == "cpu" else 1)
    candidates: list[Candidate] = []
    passed: dict[str, tuple[Engine, Pipeline]] = {}
    try:
        for name, build in _builders(artifact, device, settings, streams):
            try:
                engine = await asyncio.to_thread(build)
                pipeline = Pipeline(
                    artifact,
                    engine,
                    settings,
                    streams=streams,
                    decode_pool=decode_pool,
                    max_queue_items=max_queue_items,
                )
                passed[name] = (engine, pipeline)
                check = await _prove(artifact, engine, pipeline, settings)
            except (UnavailableError, ArtifactError) as error:
                reason = error.detail if isinstance(error, ArtifactError) else str(error)
                if settings.engine != "auto" or name == TorchScriptEngine.name:
                    raise ArtifactError(reason) from error
                logger.warning("Model %s does without %s: %s", artifact.name, name, reason)
                candidates.append(Candidate(name, rejected_because=reason))
                if name in passed:
                    await asyncio.to_thread(passed.pop(name)[1].close)
            else:
                candidates.append(Candidate(name, check))
        rates: dict[str, float] = {}
        if len(passed) > 1:
            engines = {name: engine for name, (engine, _) in passed.items()}
            rates = await asyncio.to_thread(measure, engines, grey_image(artifact), streams, settings.max_batch_size)
        chosen = _fastest(rates) if rates else next(iter(passed))
        engine, pipeline = passed.pop(chosen)
    finally:
        for _, unused in passed.values():
            await asyncio.to_thread(unused.close)
    measured = tuple(replace(each, images_per_s=rates.get(each.engine)) for each in candidates)
    check = next(each.golden_check for each in measured if each.engine == chosen)
    return EngineChoice(engine, pipeline, streams, check, measured)


def _builders(
    artifact: Artifact, device: torch.device, settings: ModelSettings, streams: int
) -> list[tuple[str, Callable[[], Engine]]]:
    """Returns what may be built, the reference first."""
    precision, threads = settings.precision, settings.threads_per_stream

    def torchscript() -> Engine:
        return TorchScriptEngine(artifact, device, precision=precision, threads=threads)

    def openvino() -> Engine:
        if device.type != "cpu":
            raise UnavailableError(f"--engine openvino computes on the CPU, not on {device}.")
        if artifact.onnx_twin is None:
            raise UnavailableError("The model has no verified model.onnx, which OpenVINO needs: use --engine auto.")
        class_count = len(artifact.class_names)
        return OpenVINOEngine(
            artifact.onnx_twin, class_count=class_count, precision=precision, streams=streams, threads=threads
        )

    builders: list[tuple[str, Callable[[], Engine]]] = []
    if settings.engine in {"auto", TorchScriptEngine.name}:
        builders.append((TorchScriptEngine.name, torchscript))
    if settings.engine == OpenVINOEngine.name or (
        settings.engine == "auto" and device.type == "cpu" and artifact.onnx_twin
    ):
        builders.append((OpenVINOEngine.name, openvino))
    return builders


async def _prove(artifact: Artifact, engine: Engine, pipeline: Pipeline, settings: ModelSettings) -> GoldenCheck | None:
    await asyncio.to_thread(warm_up, artifact, engine, settings.max_batch_size)
    if not artifact.manifest:
        return None
    return await check_golden(artifact, pipeline, bound=MAX_DEVIATIONS[engine.precision])


def measure(
    engines: dict[str, Engine], image: torch.Tensor, streams: int, max_batch_size: int, *, round_s: float = _ROUND_S
) -> dict[str, float]:
    """Returns the images a second of each engine, all streams busy; engines take turns, so that noise hits all.

    Args:
        engines: warmed up, by name.
        image: what they classify.
        streams: threads that call an engine at once.
        max_batch_size: the service's; small batches are measured.
        round_s: seconds of each turn.

    Returns:
        the median of the rounds.
    """
    batch = [image] * min(_MEASURED_BATCH_SIZE, max_batch_size)
    rounds = [
        {name: rate_of(engine, batch, streams, round_s) for name, engine in engines.items()} for _ in range(_ROUNDS)
    ]
    return {name: statistics.median(each[name] for each in rounds) for name in engines}


def rate_of(engine: Engine, batch: Sequence[torch.Tensor], streams: int, seconds: float) -> float:
    """Returns the images a second of an engine that several threads keep busy; each computes a batch at least."""
    rates = [0.0] * streams

    def stream(number: int) -> None:
        started_at, batches = time.perf_counter(), 0
        while batches == 0 or time.perf_counter() < started_at + seconds:
            engine(batch)
            batches += 1
        rates[number] = batches * len(batch) / (time.perf_counter() - started_at)

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def _fastest(rates: dict[str, float]) -> str:
    best = max(rates, key=lambda name: rates[name])
    reference = rates.get(TorchScriptEngine.name, 0.0)
    return best if rates[best] > _MIN_GAIN * reference else TorchScriptEngine.name
