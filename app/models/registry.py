"""The models that serve: each was loaded and proven on its own; one that fails is never ready, and replaces none.

slot -> what should serve (`releases`) -> load beside what serves (`loading`) -> switch in one step -> retire the old
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from prometheus_client import Gauge

from app.errors import ArtifactError, MemoryBudgetError, NotReadyError, PredictorError, UnknownModelError
from app.models.deployment import Rejection, Slot
from app.models.loader import Loader
from app.models.memory_budget import slots_to_unload
from app.models.requested_changes import Control, Wishes
from app.models.served_model import ServedModel
from app.settings import ModelSettings
from app.store.model_store import ModelStore
from app.store.signatures import TrustedKeys
from app.store.stored_version import Release, find_release, follows_store
from app.system.kernel import return_freed_memory
from app.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class Registry:
    """Loads models, hands them out, and replaces them while they serve. Belongs to the event loop.

    Args:
        settings: which models, on which device.
        metrics: where loads are counted.
        max_queue_items: most images that wait for each model.
        memory_budget_mb: most that models may take, by estimate; 0 for any.
        runtime_folder: that the workers of a service share, if there are several.

    Raises:
        SignatureError: the trusted keys cannot be read.
    """

    def __init__(
        self,
        settings: ModelSettings,
        metrics: Metrics,
        *,
        max_queue_items: int,
        memory_budget_mb: int = 0,
        runtime_folder: Path | None = None,
    ) -> None:
        self.control = Control(runtime_folder)
        self.configured = settings.model_references
        self.slots = [Slot(reference) for reference in self.control.read().references(self.configured)]
        self.store = ModelStore(settings.model_store, TrustedKeys.configured(settings.trusted_keys))
        self._metrics = metrics
        self._memory_budget_bytes = 1_000_000 * memory_budget_mb
        self._loader = Loader(settings, self.store, max_queue_items=max_queue_items)
        self._loading = asyncio.Lock()  # one at a time: two would need the memory and the cores of both
        self._retiring: dict[asyncio.Task[None], ServedModel] = {}

    @property
    def served(self) -> list[ServedModel]:
        """The models that are ready, the default one first if it is."""
        return [slot.model for slot in self.slots if slot.model]

    @property
    def is_loaded(self) -> bool:
        """Whether every load has come to an end, good or bad."""
        return all(slot.model or slot.failure for slot in self.slots)

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Returns the default model, or the one of that name and version; hold its `usage` before anything else.

        Raises:
            NotReadyError: it is being loaded, or could not be.
            UnknownModelError: it is not one of those that were asked for.
        """
        slot = self.slots[0] if name is None else self.slot(name, version)
        if slot.model is None:
            raise NotReadyError(slot.reason, retry_after_s=5)
        slot.last_used_at = time.monotonic()
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
        for slot in list(self.slots):
            await self.refresh(slot)

    async def refresh(self, slot: Slot, *, watching: bool = False) -> None:
        """Looks at the store, and replaces what serves by what should; what fails is told by `slot.rejection`.

        Args:
            slot: whose model to look for.
            watching: nobody asked for it. Then a version whose files are not all there gets another moment, and what
                cannot change while it serves is left alone.
        """
        if watching and slot.model and not follows_store(slot.reference):
            return
        async with self._loading:
            passed_over = {ref: each.release.fingerprint for ref, each in slot.rejected.items()
                           if each.release and each.is_final}  # fmt: skip
            while True:
                try:
                    found, rejected = await asyncio.to_thread(
                        find_release, slot.reference, self.store, served=slot.release, rejected=passed_over
                    )
                except (PredictorError, OSError) as error:
                    rejection = Rejection(error if isinstance(error, PredictorError) else ArtifactError(str(error)))
                    if not rejection.is_like(slot.rejection):
                        self._report(slot.reference, rejection, slot)
                    slot.rejection = rejection
                    return
                if found is None:
                    slot.rejection = slot.rejected.get(rejected) if rejected else None
                    return
                if watching and slot.unfinished != found and not await asyncio.to_thread(found.is_complete):
                    slot.unfinished = found
                    return
                passed_over[found.reference] = found.fingerprint
                await self._try(slot, found)

    async def add(self, reference: str) -> Slot:
        """Loads one more model.

        Returns:
            its slot, which serves or tells why not; it is among `slots` only if it serves.
        """
        slot = Slot(reference)
        await self.refresh(slot)
        if slot.model:
            self.slots.append(slot)
        return slot

    async def remove(self, slots: Iterable[Slot]) -> None:
        """Stops serving models; their memory is free when the requests inside have ended."""
        async with self._loading:  # one that is being replaced would come back
            for slot in slots:
                self._remove(slot)

    def close(self) -> None:
        """Lets what waits finish, then ends all threads. Blocks."""
        retiring = self._retiring.copy()
        for task in retiring:
            task.get_loop().call_soon_threadsafe(task.cancel)
        for model in [*self.served, *retiring.values()]:
            model.pipeline.close()
        self._loader.close()

    async def _try(self, slot: Slot, release: Release) -> None:
        started_at = time.monotonic()
        try:
            await self._make_room(slot, release)
            model = await self._load(release.reference, slot.model)
        except PredictorError as error:
            rejection = Rejection(error, release, is_final=not _may_pass(error))
        except Exception as error:
            logger.exception("Model %s cannot be loaded.", release.reference)
            rejection = Rejection(ArtifactError(f"Loading failed: {error}"), release)
        else:
            slot.rejected.pop(release.reference, None)
            self._switch(slot, release, model, time.monotonic() - started_at)
            return
        if not rejection.is_like(slot.rejected.get(release.reference)):  # what fails again and again is told once
            self._report(release.reference, rejection, slot)
        slot.rejected[release.reference] = rejection

    async def _load(self, reference: str, previous: ServedModel | None) -> ServedModel:
        model = await self._loader.load(reference, previous=previous)
        await asyncio.to_thread(return_freed_memory)  # what loading itself needed
        return model

    def _report(self, reference: str, rejection: Rejection, slot: Slot) -> None:
        meanwhile = (
            f"Version {slot.model.artifact.version} serves on" if slot.model else "Nothing serves in its place yet"
        )
        logger.error("Model %s cannot be served: %s %s.", reference, rejection.reason, meanwhile)
        self._metrics.model_loads.labels("failed").inc()

    def _switch(self, slot: Slot, release: Release, model: ServedModel, seconds: float) -> None:
        old = slot.model
        slot.model, slot.release = model, release
        if old:
            self._retire(old)
        self._announce(model, seconds)
        self._metrics.model_loads.labels("ready").inc()

    def _remove(self, slot: Slot) -> None:
        if slot in self.slots:
            self.slots.remove(slot)
        if slot.model:
            self._retire(slot.model)
            logger.info("Model %s is not served any more.", slot.reference)
        slot.model = slot.release = None

    def _retire(self, model: ServedModel) -> None:
        self._info(model).set(0)
        retiring = asyncio.create_task(model.retire())
        self._retiring[retiring] = model
        retiring.add_done_callback(self._forget)

    def _forget(self, retired: asyncio.Task[None]) -> None:
        del self._retiring[retired]  # the last reference
        if not retired.cancelled():
            retired.get_loop().run_in_executor(None, return_freed_memory)

    async def _make_room(self, slot: Slot, release: Release) -> None:
        """Sees to it that the budget has room for one more model.

        Raises:
            MemoryBudgetError: it has not, even without the models that `/load` brought.
        """
        if not self._memory_budget_bytes:
            return

        loaded = self.control.read().loaded
        dispensable = [each for each in self.slots if each.reference in loaded and each is not slot]
        for each in slots_to_unload(release, self.slots, dispensable, budget_bytes=self._memory_budget_bytes):
            logger.warning("Model %s is unloaded to make room for %s.", each.reference, release.reference)
            self.control.change(partial(Wishes.without, name=each.reference))
            self._remove(each)
        if self._retiring:
            await asyncio.wait(list(self._retiring))

    def _announce(self, model: ServedModel, seconds: float) -> None:
        artifact, engine, check = model.artifact, model.engine, model.golden_check
        verdict = f"golden check passed, |dp| <= {check.max_abs_deviation:.1g}" if check else "UNVERIFIED: no manifest"
        logger.info(
            "Model %s/%s is ready after %.1f s: %d classes, %s in %s on %s (%s), %s",
            artifact.name, artifact.version, seconds, len(artifact.class_names), engine.name, engine.precision,
            engine.device, _compared(model), verdict,
        )  # fmt: skip
        self._info(model).set(1)
        if check:
            self._metrics.golden_deviation.labels(artifact.name, artifact.version).set(check.max_abs_deviation)
            self._metrics.golden_bound.labels(artifact.name, artifact.version).set(check.bound)
        # Only now, so that the batches of warm-up and golden check do not count.
        model.pipeline.count_batches(self._metrics.of_model(artifact.name, artifact.version).batch_size.observe)

    def _info(self, model: ServedModel) -> Gauge:
        artifact, engine, check = model.artifact, model.engine, model.golden_check
        return self._metrics.model_info.labels(
            artifact.name, artifact.version, engine.name, engine.precision, str(engine.device), str(bool(check)).lower()
        )


def _may_pass(error: PredictorError) -> bool:
    """Returns whether the same files may be loaded another time: a disk may recover, memory may be freed."""
    cause = error.__cause__
    disk_failed = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return disk_failed or isinstance(error, MemoryBudgetError)


def _compared(model: ServedModel) -> str:
    """Returns how threads are laid out, and what was measured if there was a choice."""
    rates = [f"{each.engine} {each.images_per_s:.0f}" for each in model.candidates if each.images_per_s]
    layouts = [
        f"{each.layout.streams} x {each.layout.threads_per_stream} {each.images_per_s:.0f}, "
        f"alone {each.lone_batch_ms:.1f} ms"
        for each in model.layout.measured
    ]
    threads = (
        f"streams x threads {model.layout.layout.streams} x {model.layout.layout.threads_per_stream}, "
        f"alone 1 x {model.layout.lone_threads}"
    )
    measured = (f"images/s: {', '.join(rates)}" if rates else "", f"layouts: {'; '.join(layouts)}" if layouts else "")
    return "; ".join(part for part in (threads, *measured) if part)
