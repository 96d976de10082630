"""Chooses the engine that serves a model: of those that pass the golden check, the one that is fastest on this machine.

artifact -> candidates: build -> warm up -> golden check; those that pass -> measure, taking turns -> the fastest
-> on a CPU: build it again for the other thread layout -> measure both layouts -> golden check of the one that serves
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch

from app.errors import ArtifactError
from app.images.limits import DEFAULT_LIMITS
from app.inference.adaptive_engine import AdaptiveEngine, composed
from app.inference.artifact import Artifact
from app.inference.cuda_engine import CudaEngine
from app.inference.decode_budget import DecodeResources
from app.inference.engine import Engine, Probabilities, UnavailableError
from app.inference.golden_check import MAX_DEVIATIONS, check_golden, grey_image, warm_up
from app.inference.measured import Candidate, GoldenCheck
from app.inference.measuring import BUSY_BATCH_SIZE, MIN_GAIN, ROUND_S, lay_out, measure, rate_of
from app.inference.openvino_engine import OpenVINOEngine
from app.inference.pipeline import Pipeline
from app.inference.thread_layout import LayoutChoice, ThreadLayout, possible_layouts
from app.inference.torchscript_engine import TorchScriptEngine
from app.settings import ModelSettings

logger = logging.getLogger(__name__)

Build = Callable[[ThreadLayout], Engine]

_GOLDEN_CHECK_TIMEOUT_S: Final = 60


@dataclass(frozen=True)
class EngineChoice:
    """The engine that was chosen, and what else was considered.

    Attributes:
        engine: the engine that serves.
        pipeline: the pipeline through that engine.
        layout: how its threads are laid out, and what was measured to choose that.
        golden_check: the outcome of the engine's golden check; None for a model without golden examples.
        candidates: the engines that were considered, the reference first.
    """

    engine: Engine
    pipeline: Pipeline
    layout: LayoutChoice
    golden_check: GoldenCheck | None
    candidates: tuple[Candidate, ...]


async def choose_engine(
    artifact: Artifact,
    devices: tuple[torch.device, ...],
    settings: ModelSettings,
    *,
    decoding: DecodeResources,
    max_queue_items: int,
    keep_layout: LayoutChoice | None = None,
) -> EngineChoice:
    """Builds, proves and measures the engines that the settings allow.

    Args:
        artifact: the model.
        devices: the devices to compute on. Only GPUs may be several.
        settings: the settings of engine, precision, streams, threads and batching.
        decoding: what the pipeline decodes with.
        max_queue_items: the most images that may wait in the pipeline.
        keep_layout: the layout to take without measuring; None to measure and take the best one.

    Raises:
        ArtifactError: TorchScript, or the only engine that the settings allow, cannot be built or fails its golden
            check.
    """
    selection = _EngineSelection(artifact, devices, settings, decoding, max_queue_items, keep_layout)
    try:
        choice = await selection.choose()
    except BaseException:
        await selection.close()
        raise
    await selection.close(except_for=choice.pipeline)
    return choice


@dataclass(frozen=True)
class _Proven:
    engine: Engine
    pipeline: Pipeline
    golden_check: GoldenCheck | None


class _EngineSelection:
    """Builds, proves and compares engines; see `choose_engine`."""

    def __init__(
        self,
        artifact: Artifact,
        devices: tuple[torch.device, ...],
        settings: ModelSettings,
        decoding: DecodeResources,
        max_queue_items: int,
        keep_layout: LayoutChoice | None,
    ) -> None:
        self._artifact = artifact
        self._keep_layout = keep_layout
        self._settings = settings
        self._decoding = decoding
        self._max_queue_items = max_queue_items
        self._layouts = possible_layouts(settings, devices[0].type, device_count=len(devices))
        self._builders = possible_engines(artifact, devices, settings)
        self._busy_batch = [grey_image(artifact)] * min(BUSY_BATCH_SIZE, settings.max_batch_size)
        self._pipelines: list[Pipeline] = []

    async def choose(self) -> EngineChoice:
        """Returns the engine that serves; see `choose_engine`."""
        first = self._layouts[0]
        candidates: list[Candidate] = []
        proven: dict[str, _Proven] = {}
        for name, build in self._builders.items():
            try:
                proven[name] = await self._prove(await asyncio.to_thread(self._build, build, first))
            except (UnavailableError, ArtifactError) as error:
                if len(self._builders) == 1 or name == TorchScriptEngine.name:
                    raise ArtifactError(_reason(error)) from error
                logger.warning("Model %s does without %s: %s", self._artifact.name, name, _reason(error))
                candidates.append(Candidate(name, rejected_because=_reason(error)))
            else:
                candidates.append(Candidate(name, proven[name].golden_check))
        rates = await asyncio.to_thread(self._rates, proven) if len(proven) > 1 else {}
        chosen = _fastest(rates) if rates else next(iter(proven))
        best, layout = proven[chosen], LayoutChoice(first, first.threads_per_stream)
        if len(self._layouts) > 1:
            best, layout = await self._laid_out(best, self._builders[chosen], layout)
        measured = tuple(replace(each, images_per_s=rates.get(each.engine)) for each in candidates)
        return EngineChoice(best.engine, best.pipeline, layout, best.golden_check, measured)

    async def close(self, *, except_for: Pipeline | None = None) -> None:
        """Ends every pipeline except one, which serves."""
        for pipeline in self._pipelines:
            if pipeline is not except_for:
                await asyncio.to_thread(pipeline.close)

    def _build(self, build: Build, layout: ThreadLayout) -> Engine:
        engine = build(layout)
        warm_up(self._artifact, engine, self._settings.max_batch_size)
        return engine

    async def _prove(self, engine: Engine) -> _Proven:
        pipeline = Pipeline(
            self._artifact,
            engine,
            self._settings,
            streams=self._layouts[0].streams,
            decoding=self._decoding,
            max_queue_items=self._max_queue_items,
        )
        self._pipelines.append(pipeline)
        if isinstance(engine, AdaptiveEngine):
            engine.streams_at_work = pipeline.busy_streams_counter()
        if not self._artifact.manifest:
            return _Proven(engine, pipeline, None)
        deadline = time.monotonic() + _GOLDEN_CHECK_TIMEOUT_S

        async def classify(encoded: bytes) -> Probabilities:
            # Formats that are switched off for requests do not matter here.
            classification = await pipeline.classify(encoded, deadline=deadline, limits=DEFAULT_LIMITS)
            return classification.probabilities

        check = await check_golden(self._artifact, classify, bound=MAX_DEVIATIONS[engine.precision])
        return _Proven(engine, pipeline, check)

    def _rates(self, proven: dict[str, _Proven]) -> dict[str, float]:
        streams = min(self._layouts[0].streams, self._settings.core_count)
        turns = [partial(rate_of, each.engine, self._busy_batch, streams, ROUND_S) for each in proven.values()]
        return dict(zip(proven, measure(turns), strict=True))

    async def _laid_out(self, first: _Proven, build: Build, layout: LayoutChoice) -> tuple[_Proven, LayoutChoice]:
        """Returns an engine in its best layout; in the first one if it cannot be built in the second."""
        several, one = self._layouts
        try:
            if self._keep_layout and self._keep_layout.layout == several and not self._keep_layout.is_adaptive:
                return first, self._keep_layout
            other = await asyncio.to_thread(self._build, build, one)
            if self._keep_layout:
                return await self._prove(composed(first.engine, other, self._keep_layout)), self._keep_layout
            engine, measured = await asyncio.to_thread(lay_out, first.engine, other, (several, one), self._busy_batch)
            return (first if engine is first.engine else await self._prove(engine)), measured
        except (UnavailableError, ArtifactError) as error:
            logger.warning("Model %s keeps its first layout: %s", self._artifact.name, _reason(error))
            return first, layout


def possible_engines(
    artifact: Artifact, devices: tuple[torch.device, ...], settings: ModelSettings
) -> dict[str, Build]:
    """Returns the functions that build the engines which the settings allow, by the engine's name, the reference first.

    Args:
        artifact: the model.
        devices: the devices to compute on.
        settings: the settings of engine, precision and batching.
    """
    device, precision = devices[0], settings.precision

    def torchscript(layout: ThreadLayout) -> Engine:
        if device.type == "cuda" and artifact.is_split:
            return CudaEngine(
                artifact,
                devices,
                precision=precision,
                streams=layout.streams,
                max_batch_size=settings.max_batch_size,
            )
        return TorchScriptEngine(artifact, device, precision=precision, threads=layout.threads_per_stream)

    def openvino(layout: ThreadLayout) -> Engine:
        if device.type != "cpu":
            raise UnavailableError(f"--engine openvino computes on the CPU, not on {device}.")
        if artifact.onnx_twin is None:
            raise UnavailableError("The model has no verified model.onnx, which OpenVINO needs: use --engine auto.")
        return OpenVINOEngine(
            artifact.onnx_twin,
            class_count=len(artifact.class_names),
            precision=precision,
            streams=layout.streams,
            threads=layout.threads_per_stream,
        )

    possible: dict[str, Build] = {}
    auto = settings.engine == "auto"
    with_openvino = device.type == "cpu" and artifact.onnx_twin is not None
    if settings.engine == TorchScriptEngine.name or (auto and not (with_openvino and precision == "float16")):
        possible[TorchScriptEngine.name] = torchscript
    if settings.engine == OpenVINOEngine.name or (auto and with_openvino):
        possible[OpenVINOEngine.name] = openvino
    return possible


def _reason(error: Exception) -> str:
    return error.detail if isinstance(error, ArtifactError) else str(error)


def _fastest(rates: dict[str, float]) -> str:
    best = max(rates, key=lambda name: rates[name])
    reference = rates.get(TorchScriptEngine.name, 0.0)
    return best if rates[best] > MIN_GAIN * reference else TorchScriptEngine.name
