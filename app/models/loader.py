"""Loads one model and proves it, from its files to a model that may answer requests.

verified files -> artifact -> the engines that pass the golden check -> the fastest -> ServedModel
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app.errors import ArtifactError
from app.images.isolation.decoders import IS_AVAILABLE, Decoders
from app.inference.artifact import Artifact, VerifiedFiles, load_verified
from app.inference.decode_budget import DecodeBudget, DecodeResources
from app.inference.engine import resolve_devices
from app.inference.engine_choice import EngineChoice, choose_engine
from app.inference.thread_layout import LayoutChoice
from app.models.disk_access import DiskAccess
from app.models.served_model import ServedModel
from app.settings import ModelSettings
from app.system.kernel import lower_thread_priority

logger = logging.getLogger("app.models")


class Loader:
    """Loads models. Serving goes on meanwhile, because everything that takes long happens in threads.

    Args:
        settings: the settings of device, engine, streams and batching.
        max_queue_items: the most images that may wait for each model.

    Attributes:
        decode_budget: the memory for decoding that all models share.
    """

    def __init__(self, settings: ModelSettings, *, max_queue_items: int) -> None:
        self._settings = settings
        self._decode_pool: ThreadPoolExecutor | None = None
        self._decoders = Decoders(for_all=settings.isolate_decoding) if IS_AVAILABLE else None
        # Half of the cores, so that images that take much work leave room for others.
        self._waiting = ThreadPoolExecutor(max(1, settings.core_count // 2), "decoder") if self._decoders else None
        self.decode_budget = DecodeBudget(settings.decode_bytes)
        self._max_queue_items = max_queue_items

    async def load(
        self, files: VerifiedFiles, disk: DiskAccess, *, limit_s: float, previous: ServedModel | None = None
    ) -> ServedModel:
        """Loads and proves one model.

        Args:
            files: the model's files.
            disk: the access to the disk that has them.
            limit_s: how long reading them may take, in seconds.
            previous: the model that serves now, if it is to be replaced. Its engine is taken again if that passes the
                golden check: measuring engines under load would measure the load, and slow it.

        Raises:
            ArtifactError: the model is no classifier that can be served, does not compute what it promises, or the
                disk does not answer.
        """
        artifact = await disk.call(partial(load_verified, files), limit_s=limit_s)
        choice = None
        if previous and _offers_the_same(artifact, previous.artifact):
            try:
                choice = await self._choose(
                    artifact, _settings_like(previous, self._settings), keep_layout=previous.layout
                )
            except ArtifactError as error:
                if self._settings.engine != "auto":
                    raise
                logger.warning("%s does not take %s again: %s", artifact.name, previous.engine.name, error.detail)
        choice = choice or await self._choose(artifact, self._settings)
        return ServedModel(
            artifact, choice.engine, choice.pipeline, choice.layout, choice.candidates, choice.golden_check
        )

    def close(self) -> None:
        """Ends the threads that models share. Blocks."""
        if self._decode_pool:
            self._decode_pool.shutdown()
        if self._decoders and self._waiting:
            self._waiting.shutdown(cancel_futures=True)
            self._decoders.close()

    async def _choose(
        self, artifact: Artifact, settings: ModelSettings, *, keep_layout: LayoutChoice | None = None
    ) -> EngineChoice:
        devices = resolve_devices(settings.device)
        decode_threads = settings.decode_threads or (0 if devices[0].type == "cpu" else settings.core_count)
        if decode_threads and self._decode_pool is None:
            self._decode_pool = ThreadPoolExecutor(decode_threads, "decode", lower_thread_priority)
        return await choose_engine(
            artifact,
            devices,
            settings,
            decoding=DecodeResources(self.decode_budget, self._decode_pool, self._decoders, self._waiting),
            max_queue_items=max(self._max_queue_items, len(artifact.golden)),
            keep_layout=keep_layout,
        )


def _offers_the_same(artifact: Artifact, previous: Artifact) -> bool:
    """Returns whether two artifacts leave the same engines to choose from."""
    return (artifact.is_split, bool(artifact.onnx_twin)) == (previous.is_split, bool(previous.onnx_twin))


def _settings_like(model: ServedModel, settings: ModelSettings) -> ModelSettings:
    """Returns settings that allow only the engine and the precision of a model that serves."""
    return settings.model_copy(update={"engine": model.engine.name, "precision": model.engine.precision})
