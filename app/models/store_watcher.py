"""Switches models when the store changes, and carries out what admin routes ask for at run time.

every few seconds: look at the store -> Registry.refresh
a few times a second, if there are several workers: read the changes that the other workers were asked for
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from app.errors import InvalidParameterError, MemoryBudgetError, ModelRejectedError, UnknownModelError
from app.models.deployment import Deployment
from app.models.registry import LOOK_LIMIT_S, Registry
from app.models.requested_changes import RequestedChanges
from app.store.references import is_file_reference, split_alias
from app.system.worker_board import WorkerPlace

logger = logging.getLogger("app.models")

_FOLLOW_INTERVAL_S = 0.25
_FOLLOW_LIMIT_S = 60.0


class StoreWatcher:
    """Follows the store and the other workers, and loads and unloads models when this worker is asked to.

    Args:
        registry: the models that serve.
        watch_store_s: seconds between two looks at the store; 0 to look only when asked.
        place: this process's place among the workers; None if it is the only process.
    """

    def __init__(self, registry: Registry, *, watch_store_s: float, place: WorkerPlace | None = None) -> None:
        self._place = place
        self._registry = registry
        self._watch_store_s = watch_store_s
        self._looks = registry.shared_changes.read().looks
        self._changing = asyncio.Lock()  # one request must not see half of what another one changes

    async def run(self) -> None:
        """Watches until cancelled. Call it after `Registry.load_all`."""
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
        """Looks at the store once for each model. A model whose disk hangs holds up no other."""
        deployments = list(self._registry.deployments)
        await asyncio.gather(*(self._registry.refresh(deployment, watching=True) for deployment in deployments))

    async def follow(self) -> None:
        """Carries out what other workers were asked for."""
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
        if self._place:
            self._place.status.follow(changes.count)

    async def reload(self, name: str) -> Deployment:
        """Looks for a new version of a model now, and tries versions that failed again.

        Args:
            name: the name of a model that is served here.

        Returns:
            the model's deployment. It serves the version that the store says should serve.

        Raises:
            UnknownModelError: the model is not served here.
            NotReadyError: models are still being loaded.
            ModelRejectedError: the version in the store cannot be served. The one that served before serves on.
            MemoryBudgetError: the memory budget has no room for the version in the store.
        """
        deployments = self._deployments_of(name)
        changes = self._registry.shared_changes.apply(lambda changes: changes.with_look(name))
        self._looks = {**self._looks, name: changes.looks[name]}
        for deployment in deployments:
            await self._look_again(deployment)
        await self._all_follow(changes)
        for deployment in deployments:
            _raise_rejection(deployment)
        return deployments[0]

    async def load(self, name: str, *, reference: str | None = None) -> Deployment:
        """Serves one more model: one of the store, or one of the settings that was unloaded.

        Args:
            name: the name that it is served under.
            reference: what is served under that name; None for the model of the store that has it. A request must not
                choose it freely, because it may be the path of a file.

        Returns:
            the model's deployment. A model that serves already keeps its own.

        Raises:
            UnknownModelError: there is no such model.
            ModelRejectedError: the model cannot be served.
            MemoryBudgetError: the memory budget has no room for the model.
        """
        registry = self._registry
        named = [deployment for deployment in registry.deployments if deployment.name == name]
        if serving := [deployment for deployment in named if deployment.model]:
            return serving[0]
        if failed := named:
            await self._look_again(failed[0])
            _raise_rejection(failed[0])
            return failed[0]
        async with self._changing:
            references = registry.shared_changes.read().unloaded.get(name)
            if references is None:
                if reference is None and is_file_reference(name):  # a request must not choose a file
                    raise UnknownModelError(f"{name!r} is no model of the store.")
                _, source = split_alias(reference or name)
                if not is_file_reference(source):
                    await registry.disk.call(partial(registry.store.resolve, source), limit_s=LOOK_LIMIT_S)  # raises
                references = (reference or name,)
            deployments: list[Deployment] = []
            for reference in references:
                deployments.append(await registry.add(reference))
                if not deployments[-1].model:
                    await registry.remove(deployments)
                    _raise_rejection(deployments[-1])
            changes = registry.shared_changes.apply(lambda changes: changes.with_loaded(name, references[0]))
        await self._all_follow(changes)
        return deployments[0]

    async def unload(self, name: str) -> None:
        """Stops serving a model. Requests inside it are answered first.

        Args:
            name: the name of a model that is served here.

        Raises:
            UnknownModelError: the model is not served here.
            NotReadyError: models are still being loaded.
            InvalidParameterError: the model is the default one, which cannot be unloaded.
        """
        registry = self._registry
        deployments = self._deployments_of(name)
        if registry.default in deployments:
            raise InvalidParameterError(f"Model {name!r} answers /predict: it cannot be unloaded.")
        configured = tuple(
            deployment.reference for deployment in deployments if deployment.reference in registry.configured
        )
        async with self._changing:
            changes = registry.shared_changes.apply(lambda changes: changes.without(name, configured))
            await registry.remove(deployments)
        await self._all_follow(changes)

    async def _all_follow(self, changes: RequestedChanges) -> None:
        """Waits until all workers have carried out a change: whichever answers next, it knows the models.

        A worker that hangs is waited for no longer than `_FOLLOW_LIMIT_S`.
        """
        if self._place is None:
            return
        self._place.status.follow(changes.count)
        until = time.monotonic() + _FOLLOW_LIMIT_S
        while time.monotonic() < until and any(
            sibling.ready and not sibling.retiring and sibling.followed_changes < changes.count
            for sibling in self._place.siblings
        ):
            await asyncio.sleep(_FOLLOW_INTERVAL_S / 5)

    def _deployments_of(self, name: str) -> list[Deployment]:
        self._registry.deployment(name)  # raises
        return [deployment for deployment in self._registry.deployments if deployment.name == name]

    async def _look_again(self, deployment: Deployment) -> None:
        deployment.rejected.clear()
        await self._registry.refresh(deployment)


def _raise_rejection(deployment: Deployment) -> None:
    """Raises the reason why a deployment does not serve the version that it should, if there is one."""
    rejection = deployment.rejection
    if rejection is None:
        return
    if isinstance(rejection.error, MemoryBudgetError | UnknownModelError):
        raise rejection.error
    meanwhile = f" Version {deployment.model.artifact.version} serves on." if deployment.model else ""
    raise ModelRejectedError(f"{deployment.name}: {rejection.reason}{meanwhile}")
