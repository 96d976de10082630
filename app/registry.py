"""The models that serve: load -> verify -> warm up -> ready, each on its own; one that fails is never ready.

reference -> artifact (sha256, structure) -> the engines that pass the golden check -> the fastest -> ServedModel
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from app.artifact import Artifact, load_artifact
from app.engine import Engine, resolve_device
from app.engine_choice import Candidate, choose_engine
from app.errors import NotReadyError, PredictorError, UnknownModelError
from app.golden import MAX_GOLDEN_DEVIATION, GoldenCheck
from app.metrics import Metrics
from app.pipeline import Pipeline
from app.settings import ModelSettings, usable_cores
from app.store import ModelStore

__all__ = ["MAX_GOLDEN_DEVIATION", "GoldenCheck", "Registry", "ServedModel", "Slot"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model that may answer requests.

    Attributes:
        artifact: what it is.
        engine: what computes it.
        pipeline: the way of an image through it.
        streams: batches computed at once.
        candidates: the engines that were considered.
        golden_check: None for a plain TorchScript file, which has nothing to be checked against: it is `unverified`.
    """

    artifact: Artifact
    engine: Engine
    pipeline: Pipeline
    streams: int
    candidates: tuple[Candidate, ...]
    golden_check: GoldenCheck | None


@dataclass
class Slot:
    """One model that was asked for.

    Attributes:
        reference: as it was asked for.
        model: once it serves.
        failure: why it does not, once that is known.
    """

    reference: str
    model: ServedModel | None = None
    failure: str | None = None

    @property
    def name(self) -> str:
        """The model's name, as far as it is known."""
        return self.model.artifact.name if self.model else self.reference.partition("/")[0]

    @property
    def reason(self) -> str:
        """Why it does not serve."""
        return f"Model {self.reference}: {self.failure or 'is being loaded.'}"


class Registry:
    """Loads the models of the settings and hands them out.

    Args:
        settings: which models, on which device.
        metrics: where loads are counted.
        max_queue_items: most images that wait for each model.
    """

    def __init__(self, settings: ModelSettings, metrics: Metrics, *, max_queue_items: int) -> None:
        self.slots = [Slot(reference) for reference in settings.model_references]
        self._settings = settings
        self._metrics = metrics
        self._max_queue_items = max_queue_items
        self._store = ModelStore(settings.model_store)
        self._decode_pool: ThreadPoolExecutor | None = None

    @property
    def served(self) -> list[ServedModel]:
        """The models that are ready, the default one first if it is."""
        return [slot.model for slot in self.slots if slot.model]

    @property
    def is_loaded(self) -> bool:
        """Whether every load has come to an end, good or bad."""
        return all(slot.model or slot.failure for slot in self.slots)

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Returns the default model, or the one of that name and version.

        Raises:
            NotReadyError: it is being loaded, or could not be.
            UnknownModelError: it is not one of those that were asked for.
        """
        slot = self.slots[0] if name is None else self.slot(name, version)
        if slot.model is None:
            raise NotReadyError(slot.reason, retry_after_s=5)
        return slot.model

    def slot(self, name: str, version: str | None = None) -> Slot:
        """Returns the slot of a model, whether it serves or not; one that serves is preferred.

        Raises:
            UnknownModelError: it is not one of those that were asked for.
            NotReadyError: it may be one that is still being loaded.
        """
        named = [slot for slot in self.slots if slot.name == name]
        # Before it is loaded, a slot's version is not known.
        matching = [slot for slot in named if not (version and slot.model) or slot.model.artifact.version == version]
        if not matching and not self.is_loaded:  # a file tells its name when it is loaded
            raise NotReadyError("Models are being loaded.", retry_after_s=5)
        if not matching:
            asked = name if version is None else f"{name}/{version}"
            served = ", ".join(f"{model.artifact.name}/{model.artifact.version}" for model in self.served) or "none"
            raise UnknownModelError(f"No model {asked!r} is served here. Served: {served}.")
        return next((slot for slot in matching if slot.model), matching[0])

    async def load_all(self) -> None:
        """Loads every model, one after the other; failures end up in the slots, and in the log."""
        torch.set_num_threads(1)  # of the threads that are no streams, such as those that decode
        for slot in self.slots:
            started_at = time.monotonic()
            try:
                slot.model = await self._load(slot.reference)
            except PredictorError as error:
                slot.failure = error.detail
                logger.error("Model %s cannot be served: %s", slot.reference, error.detail)
            except Exception as error:
                slot.failure = f"Loading failed: {error}"
                logger.exception("Model %s cannot be served.", slot.reference)
            else:
                self._announce(slot.model, time.monotonic() - started_at)
            self._metrics.model_loads.labels("ready" if slot.model else "failed").inc()

    def close(self) -> None:
        """Lets what waits finish, then ends all threads. Blocks."""
        for model in self.served:
            model.pipeline.close()
        if self._decode_pool:
            self._decode_pool.shutdown()

    async def _load(self, reference: str) -> ServedModel:
        artifact = await asyncio.to_thread(load_artifact, reference, self._store)
        device = resolve_device(self._settings.device)
        decode_threads = self._settings.decode_threads or (0 if device.type == "cpu" else usable_cores())
        if decode_threads and self._decode_pool is None:
            self._decode_pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        choice = await choose_engine(
            artifact,
            device,
            self._settings,
            decode_pool=self._decode_pool,
            max_queue_items=max(self._max_queue_items, len(artifact.golden)),
        )
        return ServedModel(
            artifact, choice.engine, choice.pipeline, choice.streams, choice.candidates, choice.golden_check
        )

    def _announce(self, model: ServedModel, seconds: float) -> None:
        artifact, engine, check = model.artifact, model.engine, model.golden_check
        verdict = f"golden check passed, |dp| <= {check.max_abs_deviation:.1g}" if check else "UNVERIFIED: no manifest"
        logger.info(
            "Model %s/%s is ready after %.1f s: %d classes, %s in %s on %s (%s), %s",
            artifact.name, artifact.version, seconds, len(artifact.class_names), engine.name, engine.precision,
            engine.device, _compared(model), verdict,
        )  # fmt: skip
        self._metrics.model_info.labels(
            artifact.name, artifact.version, engine.name, engine.precision, str(engine.device), str(bool(check)).lower()
        ).set(1)
        if check:
            self._metrics.golden_deviation.labels(artifact.name, artifact.version).set(check.max_abs_deviation)


def _compared(model: ServedModel) -> str:
    """Returns what was measured, if there was a choice."""
    streams = f"{model.streams} stream{'s' if model.streams > 1 else ''}"
    rates = [f"{each.engine} {each.images_per_s:.0f}" for each in model.candidates if each.images_per_s]
    return f"{streams}; images/s: {', '.join(rates)}" if rates else streams
