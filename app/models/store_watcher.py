"""Keeps what serves true to the store and to what was asked for at run time.

every few seconds: store -> `Registry.refresh`; a few times a second, with several workers: what the others were asked
"""

from __future__ import annotations

import asyncio
import logging
import time

from app.errors import InvalidParameterError, MemoryBudgetError, ModelRejectedError, UnknownModelError
from app.models.deployment import Deployment
from app.models.registry import Registry
from app.store.model_store import is_file_reference

logger = logging.getLogger("app.models")

_FOLLOW_INTERVAL_S = 0.25


class StoreWatcher:
    """Follows the store and the changes that were asked of other workers, and carries out those asked of this one.

    Args:
        registry: what serves.
        watch_store_s: seconds between looks at the store; 0 to look only when asked.
    """

    def __init__(self, registry: Registry, *, watch_store_s: float) -> None:
        self._registry = registry
        self._watch_store_s = watch_store_s
        self._looks = registry.shared_changes.read().looks
        self._changing = asyncio.Lock()  # what one request changes, another must not see half done

    async def run(self) -> None:
        """Watches until cancelled; what was asked for at the start must have been loaded."""
        is_shared = self._registry.shared_changes.is_shared
        if not is_shared and not self._watch_store_s:
            return
        interval_s = min(filter(None, (_FOLLOW_INTERVAL_S if is_shared else 0, self._watch_store_s)))
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
        for deployment in list(self._registry.deployments):
            await self._registry.refresh(deployment, watching=True)

    async def follow(self) -> None:
        """Does what other workers were asked to do."""
        registry = self._registry
        async with self._changing:
            changes = registry.shared_changes.read()
            wanted = changes.references(registry.configured)
            await registry.remove(
                [deployment for deployment in registry.deployments if deployment.reference not in wanted]
            )
            for reference in set(wanted) - {deployment.reference for deployment in registry.deployments}:
                deployment = await registry.add(reference)
                if not deployment.model:  # it is shown, and tried again when the store changes
                    registry.deployments.append(deployment)
        asked = {name for name, count in changes.looks.items() if count != self._looks.get(name)}
        self._looks = changes.looks
        for deployment in [deployment for deployment in registry.deployments if deployment.name in asked]:
            await self._look_again(deployment)

    async def reload(self, name: str) -> Deployment:
        """Looks for a new version of a model now, and tries again what failed.

        Returns:
            its deployment, which serves what the store has.

        Raises:
            UnknownModelError: it is not served here.
            NotReadyError: models are still being loaded.
            ModelRejectedError: what the store has cannot be served; what served before serves on.
            MemoryBudgetError: there is no room for it.
        """
        deployments = self._deployments_of(name)
        changes = self._registry.shared_changes.apply(lambda changes: changes.with_look(name))
        self._looks = {**self._looks, name: changes.looks[name]}
        for deployment in deployments:
            await self._look_again(deployment)
        for deployment in deployments:
            _raise_rejection(deployment)
        return deployments[0]

    async def load(self, name: str) -> Deployment:
        """Serves a model of the store, or one of the settings that was unloaded.

        Returns:
            its deployment; the one that there is if it serves already.

        Raises:
            UnknownModelError: there is no such model.
            ModelRejectedError: it cannot be served.
            MemoryBudgetError: there is no room for it.
        """
        registry = self._registry
        if serving := [
            deployment for deployment in registry.deployments if deployment.name == name and deployment.model
        ]:
            return serving[0]
        if failed := [deployment for deployment in registry.deployments if deployment.name == name]:
            await self._look_again(failed[0])
            _raise_rejection(failed[0])
            return failed[0]
        async with self._changing:
            references = registry.shared_changes.read().unloaded.get(name)
            if references is None:
                if is_file_reference(name):  # a request must not choose a file
                    raise UnknownModelError(f"{name!r} is no model of the store.")
                registry.store.resolve(name)  # raises
                references = (name,)
            deployments: list[Deployment] = []
            for reference in references:
                deployments.append(await registry.add(reference))
                if not deployments[-1].model:
                    await registry.remove(deployments)
                    _raise_rejection(deployments[-1])
            registry.shared_changes.apply(lambda changes: changes.with_loaded(name))
        return deployments[0]

    async def unload(self, name: str) -> None:
        """Stops serving a model; requests inside it are answered first.

        Raises:
            UnknownModelError: it is not served here.
            NotReadyError: models are still being loaded.
            InvalidParameterError: it is the default model.
        """
        registry = self._registry
        deployments = self._deployments_of(name)
        if registry.deployments[0] in deployments:
            raise InvalidParameterError(f"Model {name!r} answers /predict: it cannot be unloaded.")
        configured = tuple(
            deployment.reference for deployment in deployments if deployment.reference in registry.configured
        )
        async with self._changing:
            registry.shared_changes.apply(lambda changes: changes.without(name, configured))
            await registry.remove(deployments)

    def _deployments_of(self, name: str) -> list[Deployment]:
        self._registry.deployment(name)  # raises
        return [deployment for deployment in self._registry.deployments if deployment.name == name]

    async def _look_again(self, deployment: Deployment) -> None:
        deployment.rejected.clear()
        await self._registry.refresh(deployment)


def _raise_rejection(deployment: Deployment) -> None:
    """Raises why a deployment does not serve what it should, if it does not."""
    rejection = deployment.rejection
    if rejection is None:
        return
    if isinstance(rejection.error, MemoryBudgetError | UnknownModelError):
        raise rejection.error
    meanwhile = f" Version {deployment.model.artifact.version} serves on." if deployment.model else ""
    raise ModelRejectedError(f"{deployment.name}: {rejection.reason}{meanwhile}")
