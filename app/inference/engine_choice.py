"""Chooses the engine that serves a model: the first of those that are possible here which passes the golden check.

artifact -> possible engines, the fastest first -> build -> warm up -> golden check -> serves
-> on a CPU, in the background: build it again for a batch that is alone -> compare both -> it serves such batches too

Which engine is the fastest is known beforehand: OpenVINO on a CPU. `image-predictor bench` measures it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from app.errors import ArtifactError
from app.images.limits import DEFAULT_LIMITS
from app.inference.adaptive_engine import AdaptiveEngine
from app.inference.artifact import Artifact
from app.inference.decode_budget import DecodeResources
from app.inference.devices import CPU, device_type, has_torch, how_to_get_torch
from app.inference.engine import Engine, Pixels, Probabilities, UnavailableError
from app.inference.golden_check import MAX_DEVIATIONS, Candidate, GoldenCheck, check_golden, grey_image, warm_up
from app.inference.openvino_engine import OpenVINOEngine
from app.inference.pipeline import Pipeline
from app.inference.prepare import prepare
from app.inference.thread_layout import ThreadLayout, busy_layout, lone_layout
from app.settings import ModelSettings

logger = logging.getLogger(__name__)

Build = Callable[[ThreadLayout], Engine]

_GOLDEN_CHECK_TIMEOUT_S: Final = 60
# A network that computes an image faster on one core gains nothing from several: they would wait for each other.
_MIN_LONE_S: Final = 0.002
_LONE_RUNS: Final = 3


@dataclass(frozen=True)
class EngineChoice:
    """The engine that was chosen, and what else was considered.

    Attributes:
        engine: the engine that serves.
        pipeline: the pipeline through that engine.
        layout: how its threads are laid out.
        golden_check: the outcome of the engine's golden check; None for a model without golden examples.
        candidates: the engines that were considered, in order. The last one serves.
        improve: builds what makes the engine faster and is not needed to serve; None if there is nothing. It takes as
            long as building the engine once more, and may be called in any thread.
    """

    engine: Engine
    pipeline: Pipeline
    layout: ThreadLayout
    golden_check: GoldenCheck | None
    candidates: tuple[Candidate, ...]
    improve: Callable[[], None] | None


async def choose_engine(
    artifact: Artifact,
    devices: tuple[str, ...],
    settings: ModelSettings,
    *,
    decoding: DecodeResources,
    max_queue_items: int,
) -> EngineChoice:
    """Builds and proves the engines that the settings allow, until one passes.

    Args:
        artifact: the model.
        devices: the devices to compute on, as torch names them. Only GPUs may be several.
        settings: the settings of engine, precision, streams, threads and batching.
        decoding: what the pipeline decodes with.
        max_queue_items: the most images that may wait in the pipeline.

    Raises:
        ArtifactError: no engine that the settings allow can be built and passes its golden check.
    """
    rejected: list[Candidate] = []
    for name, build in possible_engines(artifact, devices, settings).items():
        try:
            choice = await _proven(artifact, build, devices, settings, decoding, max_queue_items)
        except (UnavailableError, ArtifactError) as error:
            reason = error.detail if isinstance(error, ArtifactError) else str(error)
            rejected.append(Candidate(name, rejected_because=reason))
        else:
            for each in rejected:
                logger.warning("Model %s does without %s: %s", artifact.name, each.engine, each.rejected_because)
            return replace(choice, candidates=(*rejected, *choice.candidates))
    reasons = [f"{each.engine}: {each.rejected_because}" for each in rejected]
    raise ArtifactError(" ".join(reasons) if len(rejected) > 1 else rejected[0].rejected_because or "")


def possible_engines(artifact: Artifact, devices: tuple[str, ...], settings: ModelSettings) -> dict[str, Build]:
    """Returns the functions that build the engines which the settings allow, by the engine's name, the fastest first.

    Args:
        artifact: the model.
        devices: the devices to compute on.
        settings: the settings of engine, precision and batching.
    """
    precision = settings.precision

    def torchscript(layout: ThreadLayout) -> Engine:
        if not artifact.files.has_torchscript:
            raise UnavailableError("The model was imported from ONNX and has no TorchScript: use --engine openvino.")
        if not has_torch():
            raise UnavailableError(f"TorchScript needs torch, which is not installed: {how_to_get_torch()}.")
        if device_type(devices[0]) == "cuda" and artifact.is_split:
            from app.inference.cuda_engine import CudaEngine

            return CudaEngine(
                artifact,
                devices,
                precision=precision,
                streams=layout.streams,
                max_batch_size=settings.max_batch_size,
            )
        from app.inference.torchscript_engine import TorchScriptEngine

        return TorchScriptEngine(artifact, devices[0], precision=precision, threads=layout.threads_per_stream)

    def openvino(layout: ThreadLayout) -> Engine:
        if devices != CPU:
            raise UnavailableError(f"--engine openvino computes on the CPU, not on {devices[0]}.")
        if artifact.onnx_twin is None:
            raise UnavailableError("The model has no verified model.onnx, which OpenVINO needs: use --engine auto.")
        return OpenVINOEngine(
            artifact.onnx_twin,
            class_count=len(artifact.class_names),
            precision=precision,
            streams=layout.streams,
            threads=layout.threads_per_stream,
        )

    builders: dict[str, Build] = {"openvino": openvino, "torchscript": torchscript}
    if settings.engine != "auto":
        return {settings.engine: builders[settings.engine]}
    return builders if devices == CPU and artifact.onnx_twin else {"torchscript": torchscript}


def _warm(build: Build, layout: ThreadLayout, artifact: Artifact, settings: ModelSettings) -> Engine:
    engine = build(layout)
    warm_up(artifact, engine, settings.max_batch_size)
    return engine


async def _proven(
    artifact: Artifact,
    build: Build,
    devices: tuple[str, ...],
    settings: ModelSettings,
    decoding: DecodeResources,
    max_queue_items: int,
) -> EngineChoice:
    """Returns an engine that has passed the golden check.

    Raises:
        UnavailableError: the engine cannot be used here.
        ArtifactError: the engine fails, or does not compute what the artifact promises.
    """
    layout, other = busy_layout(settings, devices), lone_layout(settings, devices)
    engine = await asyncio.to_thread(_warm, build, layout, artifact, settings)
    adaptive = AdaptiveEngine(engine, other.threads_per_stream) if other else None
    pipeline = Pipeline(
        artifact,
        adaptive or engine,
        settings,
        streams=layout.streams,
        decoding=decoding,
        max_queue_items=max_queue_items,
    )
    improve = None
    if adaptive and other:
        adaptive.streams_at_work = pipeline.busy_streams_counter()
        improve = partial(_add_lone, artifact, adaptive, partial(_warm, build, other, artifact, settings))
    try:
        check = await _check(artifact, engine, pipeline)
    except BaseException:
        await asyncio.to_thread(pipeline.close)
        raise
    return EngineChoice(adaptive or engine, pipeline, layout, check, (Candidate(engine.name, check),), improve)


async def _check(artifact: Artifact, engine: Engine, pipeline: Pipeline) -> GoldenCheck | None:
    """Returns the outcome of the golden check; None if there are no golden examples."""
    if not artifact.golden:
        return None
    deadline = time.monotonic() + _GOLDEN_CHECK_TIMEOUT_S

    async def classify(encoded: bytes) -> Probabilities:
        # Formats that are switched off for requests do not matter here.
        classification = await pipeline.classify(encoded, deadline=deadline, limits=DEFAULT_LIMITS)
        return classification.probabilities

    return await check_golden(artifact, classify, bound=MAX_DEVIATIONS[engine.precision])


def _add_lone(artifact: Artifact, engine: AdaptiveEngine, build: Callable[[], Engine]) -> None:
    """Gives an engine a second one for batches that are alone, if that gains something and computes the same."""
    grey = grey_image(artifact)
    if min(_seconds(engine, [grey]) for _ in range(_LONE_RUNS)) < _MIN_LONE_S:
        return
    images = [prepare(example.image, artifact, engine.precision, DEFAULT_LIMITS).pixels for example in artifact.golden]
    try:
        lone = build()
        for image in images or [grey]:
            deviation = float(np.abs(lone([image]) - engine([image])).max())
            if deviation > MAX_DEVIATIONS[engine.precision]:
                raise ArtifactError(f"one that is alone would deviate by {deviation:.2g}.")
    except (UnavailableError, ArtifactError) as error:
        logger.warning("Model %s computes all batches alike: %s", artifact.name, error)
        return
    engine.lone = lone


def _seconds(engine: Engine, batch: Sequence[Pixels]) -> float:
    started_at = time.perf_counter()
    engine(batch)
    return time.perf_counter() - started_at
