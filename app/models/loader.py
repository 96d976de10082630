"""Loads one model and proves it, from its files to a model that may answer requests.

verified files -> artifact -> the first engine that passes the golden check -> ServedModel
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from app.images.isolation.decoders import IS_AVAILABLE, Decoders
from app.inference.artifact import VerifiedFiles
from app.inference.decode_budget import DecodeBudget, DecodeResources
from app.inference.devices import CPU, resolve_devices
from app.inference.engine_choice import choose_engine
from app.inference.loading import load_verified
from app.models.disk_access import DiskAccess
from app.models.served_model import ServedModel
from app.settings import ModelSettings
from app.system.kernel import lower_thread_priority, return_freed_memory


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
        self._improving: set[asyncio.Task[None]] = set()  # asyncio itself keeps no reference to a task

    async def load(self, files: VerifiedFiles, disk: DiskAccess, *, alias: str | None, limit_s: float) -> ServedModel:
        """Loads and proves one model.

        Args:
            files: the model's files.
            disk: the access to the disk that has them.
            alias: the name that the model is served under; None for its own.
            limit_s: how long reading them may take, in seconds.

        Raises:
            ArtifactError: the model is no classifier that can be served, does not compute what it promises, or the
                disk does not answer.
        """
        artifact = await disk.call(partial(load_verified, files), limit_s=limit_s)
        if alias is not None:
            artifact = replace(artifact, name=alias)
        devices = await asyncio.to_thread(resolve_devices, self._settings.device)
        choice = await choose_engine(
            artifact,
            devices,
            self._settings,
            decoding=self._decoding(devices),
            max_queue_items=max(self._max_queue_items, len(artifact.golden)),
        )
        if choice.improve:
            improving = asyncio.create_task(asyncio.to_thread(_improve, choice.improve))
            self._improving.add(improving)
            improving.add_done_callback(self._improving.discard)
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

    def _decoding(self, devices: tuple[str, ...]) -> DecodeResources:
        threads = self._settings.decode_threads or (0 if devices == CPU else self._settings.core_count)
        if threads and self._decode_pool is None:
            self._decode_pool = ThreadPoolExecutor(threads, "decode", lower_thread_priority)
        return DecodeResources(self.decode_budget, self._decode_pool, self._decoders, self._waiting)


def _improve(improve: Callable[[], None]) -> None:
    improve()
    return_freed_memory()
