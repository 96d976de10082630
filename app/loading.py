"""One model: its files -> proven and ready to answer; and, when a better one took its place, out of memory again.

reference -> artifact (sha256, structure) -> the engines that pass the golden check -> the fastest -> ServedModel
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.artifact import Artifact, load_artifact
from app.engine import Engine, resolve_devices
from app.engine_choice import Candidate, EngineChoice, choose_engine
from app.errors import ArtifactError
from app.golden import GoldenCheck
from app.layout import LayoutChoice
from app.pipeline import Pipeline
from app.priority import step_back
from app.settings import ModelSettings
from app.store import ModelStore

logger = logging.getLogger(__name__)


class Usage:
    """Counts the requests inside a model, so that it is not closed under them. Belongs to the event loop."""

    def __init__(self) -> None:
        self._requests = 0
        self._ended = asyncio.Event()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps the model open while a request is inside."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._ended.set()

    async def wait_until_unused(self) -> None:
        """Returns when the last request has left."""
        while self._requests:
            self._ended.clear()
            await self._ended.wait()


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model that may answer requests.

    Attributes:
        artifact: what it is.
        engine: what computes it.
        pipeline: the way of an image through it.
        layout: of the engine's threads.
        candidates: the engines that were considered.
        golden_check: None for a plain TorchScript file, which has nothing to be checked against: it is `unverified`.
        usage: the requests inside; hold it from taking the model until the answer is made.
    """

    artifact: Artifact
    engine: Engine
    pipeline: Pipeline
    layout: LayoutChoice
    candidates: tuple[Candidate, ...]
    golden_check: GoldenCheck | None
    usage: Usage = field(default_factory=Usage, repr=False)

    async def retire(self) -> None:
        """Closes the model once the requests inside have their answers."""
        await self.usage.wait_until_unused()
        await asyncio.to_thread(self.pipeline.close)


class Loader:
    """Loads models; serving goes on meanwhile, as everything long happens in threads.

    Args:
        settings: device, engine, streams and batching.
        store: where the models are.
        max_queue_items: most images that wait for each model.
    """

    def __init__(self, settings: ModelSettings, store: ModelStore, *, max_queue_items: int) -> None:
        self._settings = settings
        self._store = store
        self._decode_pool: ThreadPoolExecutor | None = None
        self._max_queue_items = max_queue_items

    async def load(self, reference: str, *, previous: ServedModel | None = None) -> ServedModel:
        """Loads and proves one model.

        Args:
            reference: `NAME`, `NAME/VERSION`, or the path of a TorchScript file.
            previous: the version that serves now, whose engine is taken again if it passes: measuring engines under
                load would measure the load, and slow it.

        Raises:
            UnknownModelError: there is no such model.
            ArtifactError: it is damaged, or does not compute what it promises.
        """
        artifact = await asyncio.to_thread(load_artifact, reference, self._store)
        choice = None
        if previous and _offers_the_same(artifact, previous.artifact):
            try:
                choice = await self._choose(artifact, _settings_like(previous, self._settings), like=previous.layout)
            except ArtifactError as error:
                if self._settings.engine != "auto":
                    raise
                logger.warning("%s does not take %s again: %s", reference, previous.engine.name, error.detail)
        choice = choice or await self._choose(artifact, self._settings)
        return ServedModel(
            artifact, choice.engine, choice.pipeline, choice.layout, choice.candidates, choice.golden_check
        )

    def close(self) -> None:
        """Ends the threads that models share. Blocks."""
        if self._decode_pool:
            self._decode_pool.shutdown()

    async def _choose(
        self, artifact: Artifact, settings: ModelSettings, *, like: LayoutChoice | None = None
    ) -> EngineChoice:
        devices = resolve_devices(settings.device)
        decode_threads = settings.decode_threads or (0 if devices[0].type == "cpu" else settings.core_count)
        if decode_threads and self._decode_pool is None:
            self._decode_pool = ThreadPoolExecutor(decode_threads, "decode", step_back)
        return await choose_engine(
            artifact,
            devices,
            settings,
            decode_pool=self._decode_pool,
            max_queue_items=max(self._max_queue_items, len(artifact.golden)),
            like=like,
        )


def _offers_the_same(artifact: Artifact, previous: Artifact) -> bool:
    """Returns whether two artifacts leave the same engines to choose from."""
    return (artifact.is_split, bool(artifact.onnx_twin)) == (previous.is_split, bool(previous.onnx_twin))


def _settings_like(model: ServedModel, settings: ModelSettings) -> ModelSettings:
    """Returns settings that leave no choice but the engine of a model that serves."""
    return settings.model_copy(update={"engine": model.engine.name, "precision": model.engine.precision})


def return_freed_memory() -> None:
    """Gives memory that was freed back to the system, where the C library would keep it (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)
