"""Keeps what serves true to the store and to what was asked for at run time.

every few seconds: store -> `Registry.refresh`; a few times a second, with several workers: what the others were asked
"""

from __future__ import annotations

import asyncio
import logging
import time

from app.errors import InvalidParameterError, MemoryBudgetError, ModelRejectedError, UnknownModelError
from app.models.deployment import Slot
from app.models.registry import Registry
from app.store.model_store import is_file_reference

logger = logging.getLogger(__name__)

_CONTROL_INTERVAL_S = 0.25


class Watcher:
    """Looks at the store and at the other workers' wishes, and carries out those of this worker's admin routes.

    Args:
        registry: what serves.
        watch_store_s: seconds between looks at the store; 0 to look only when asked.
    """

    def __init__(self, registry: Registry, *, watch_store_s: float) -> None:
        self._registry = registry
        self._watch_store_s = watch_store_s
        self._looks = registry.control.read().looks
        self._changing = asyncio.Lock()  # what one request changes, another must not see half done

    async def run(self) -> None:
        """Watches until cancelled; what was asked for at the start must have been loaded."""
        is_shared = self._registry.control.is_shared
        if not is_shared and not self._watch_store_s:
            return
        interval_s = min(filter(None, (_CONTROL_INTERVAL_S if is_shared else 0, self._watch_store_s)))
        looked_at = time.monotonic()
        while True:
            await asyncio.sleep(interval_s)
            try:
                if is_shared:
                    await self.follow()
                if self._watch_store_s and time.monotonic() >= looked_at + self._watch_store_s:
                    await self.look()
                    looked_at = time.monotonic()
            except Exception:  # a disk or a file out of order must not end the watch
                logger.exception("Looking for new models failed; the next look is in %g s.", interval_s)

    async def look(self) -> None:
        """Looks at the store, once for each model."""
        for slot in list(self._registry.slots):
            await self._registry.refresh(slot, watching=True)

    async def follow(self) -> None:
        """Does what other workers were asked to do."""
        registry = self._registry
        async with self._changing:
            wishes = registry.control.read()
            wanted = wishes.references(registry.configured)
            await registry.remove([slot for slot in registry.slots if slot.reference not in wanted])
            for reference in set(wanted) - {slot.reference for slot in registry.slots}:
                slot = await registry.add(reference)
                if not slot.model:  # it is shown, and tried again when the store changes
                    registry.slots.append(slot)
        asked = {name for name, count in wishes.looks.items() if count != self._looks.get(name)}
        self._looks = wishes.looks
        for slot in [slot for slot in registry.slots if slot.name in asked]:
            await self._look_again(slot)

    async def reload(self, name: str) -> Slot:
        """Looks for a new version of a model now, and tries again what failed.

        Returns:
            its slot, which serves what the store has.

        Raises:
            UnknownModelError: it is not served here.
            NotReadyError: models are still being loaded.
            ModelRejectedError: what the store has cannot be served; what served before serves on.
            MemoryBudgetError: there is no room for it.
        """
        slots = self._slots_of(name)
        wishes = self._registry.control.change(lambda wishes: wishes.with_look(name))
        self._looks = {**self._looks, name: wishes.looks[name]}
        for slot in slots:
            await self._look_again(slot)
        for slot in slots:
            _raise_rejection(slot)
        return slots[0]

    async def load(self, name: str) -> Slot:
        """Serves a model of the store, or one of the settings that was unloaded.

        Returns:
            its slot; the one that there is if it serves already.

        Raises:
            UnknownModelError: there is no such model.
            ModelRejectedError: it cannot be served.
            MemoryBudgetError: there is no room for it.
        """
        registry = self._registry
        if serving := [slot for slot in registry.slots if slot.name == name and slot.model]:
            return serving[0]
        if failed := [slot for slot in registry.slots if slot.name == name]:
            await self._look_again(failed[0])
            _raise_rejection(failed[0])
            return failed[0]
        async with self._changing:
            references = registry.control.read().unloaded.get(name)
            if references is None:
                if is_file_reference(name):  # a request must not choose a file
                    raise UnknownModelError(f"{name!r} is no model of the store.")
                registry.store.resolve(name)  # raises
                references = (name,)
            slots: list[Slot] = []
            for reference in references:
                slots.append(await registry.add(reference))
                if not slots[-1].model:
                    await registry.remove(slots)
                    _raise_rejection(slots[-1])
            registry.control.change(lambda wishes: wishes.with_loaded(name))
        return slots[0]

    async def unload(self, name: str) -> None:
        """Stops serving a model; requests inside it are answered first.

        Raises:
            UnknownModelError: it is not served here.
            NotReadyError: models are still being loaded.
            InvalidParameterError: it is the default model.
        """
        registry = self._registry
        slots = self._slots_of(name)
        if registry.slots[0] in slots:
            raise InvalidParameterError(f"Model {name!r} answers /predict: it cannot be unloaded.")
        configured = tuple(slot.reference for slot in slots if slot.reference in registry.configured)
        async with self._changing:
            registry.control.change(lambda wishes: wishes.without(name, configured))
            await registry.remove(slots)

    def _slots_of(self, name: str) -> list[Slot]:
        self._registry.slot(name)  # raises
        return [slot for slot in self._registry.slots if slot.name == name]

    async def _look_again(self, slot: Slot) -> None:
        slot.rejected.clear()
        await self._registry.refresh(slot)


def _raise_rejection(slot: Slot) -> None:
    """Raises why a slot does not serve what it should, if it does not."""
    rejection = slot.rejection
    if rejection is None:
        return
    if isinstance(rejection.error, MemoryBudgetError | UnknownModelError):
        raise rejection.error
    meanwhile = f" Version {slot.model.artifact.version} serves on." if slot.model else ""
    raise ModelRejectedError(f"{slot.name}: {rejection.reason}{meanwhile}")
