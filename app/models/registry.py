"""Hands out the models that serve, and replaces them while they serve.

deployment -> which stored version should serve -> load it beside the one that serves -> switch -> retire the old one

Each model is loaded and proven on its own. One that fails never serves, and the version before it serves on.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from app.errors import ArtifactError, MemoryBudgetError, NotReadyError, PredictorError, UnknownModelError
from app.inference.artifact import verify
from app.models.announcement import announce, info_of
from app.models.deployment import Deployment, Rejection
from app.models.disk_access import DiskAccess
from app.models.loader import Loader
from app.models.memory_budget import Unloadable, models_to_unload
from app.models.requested_changes import RequestedChanges, SharedChanges
from app.models.served_model import ServedModel
from app.settings import ModelSettings
from app.store.model_store import ModelStore
from app.store.signatures import TrustedKeys
from app.store.stored_version import Fingerprint, StoredVersion, follows_store, version_to_serve
from app.system.kernel import return_freed_memory
from app.telemetry.metrics import Metrics

logger = logging.getLogger("app.models")

LOOK_LIMIT_S: Final = 10.0
"""A look at the store that takes longer than this finds a disk that hangs."""
# So does reading a model that takes longer than this, and than its bytes need at this rate.
_READ_LIMIT_S: Final = 30.0
_MIN_READ_BYTES_PER_S: Final = 4_000_000


class Registry:
    """Loads models, hands them out, and replaces them while they serve. Only the event loop may use it.

    Args:
        settings: which models to serve, and on which device.
        metrics: where loads are counted.
        max_queue_items: the most images that may wait for each model.
        memory_budget_mb: the most memory that all models together may take, by estimate, in MB; 0 for no limit.
        runtime_folder: the folder that the workers of a service share; None if there is one worker.

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
        self.shared_changes = SharedChanges(runtime_folder)
        self.configured = settings.model_references
        self.deployments = [
            Deployment(reference) for reference in self.shared_changes.read().references(self.configured)
        ]
        self.disk = DiskAccess()
        self.store = ModelStore(settings.model_store, TrustedKeys.configured(settings.trusted_keys))
        self._metrics = metrics
        self._memory_budget_bytes = 1_000_000 * memory_budget_mb
        self._loader = Loader(settings, max_queue_items=max_queue_items)
        self.decode_budget = self._loader.decode_budget
        self._loading = asyncio.Lock()  # one at a time: two would need the memory and the cores of both
        self._retiring: dict[asyncio.Task[None], ServedModel] = {}

    @property
    def default(self) -> Deployment | None:
        """The deployment that answers where no model is named; None if the service was started without models."""
        return self.deployments[0] if self.configured else None

    @property
    def served(self) -> list[ServedModel]:
        """The models that are ready. The default model comes first if it is ready."""
        return [deployment.model for deployment in self.deployments if deployment.model]

    @property
    def is_loaded(self) -> bool:
        """Whether every deployment has either a model that serves or a reason why none does."""
        return all(deployment.model or deployment.failure for deployment in self.deployments)

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Returns a model that serves. Hold its `usage` before anything else.

        Args:
            name: the model's name; None for the default model.
            version: the model's version; None for any that serves.

        Raises:
            NotReadyError: the model is being loaded, or could not be loaded.
            UnknownModelError: the model is not one of those that were asked for.
        """
        deployment = self.default if name is None else self.deployment(name, version)
        if deployment is None:
            raise UnknownModelError("This service has no default model: name one.")
        if deployment.model is None:
            raise NotReadyError(deployment.reason, retry_after_s=5)
        deployment.last_used_at = time.monotonic()
        return deployment.model

    def deployment(self, name: str, version: str | None = None) -> Deployment:
        """Returns the deployment of a model, whether it serves or not. One that serves is preferred.

        Args:
            name: the model's name.
            version: the model's version; None for any.

        Raises:
            UnknownModelError: the model is not one of those that were asked for.
            NotReadyError: the model may be one that is still being loaded.
        """
        named = [deployment for deployment in self.deployments if deployment.name == name]
        # Before it is loaded, a deployment's version is not known.
        matching = [
            deployment
            for deployment in named
            if not (version and deployment.model) or deployment.model.artifact.version == version
        ]
        if not matching and not self.is_loaded:  # a file tells its name when it is loaded
            raise NotReadyError("Models are being loaded.", retry_after_s=5)
        if not matching:
            asked = name if version is None else f"{name}/{version}"
            served = ", ".join(f"{model.artifact.name}/{model.artifact.version}" for model in self.served) or "none"
            raise UnknownModelError(f"No model {asked!r} is served here. Served: {served}.")
        return next((deployment for deployment in matching if deployment.model), matching[0])

    async def load_all(self) -> None:
        """Loads every model, one after the other. Failures are kept in the deployments, and logged."""
        for deployment in list(self.deployments):
            await self.refresh(deployment)

    async def refresh(self, deployment: Deployment, *, watching: bool = False) -> None:
        """Looks at the store, and loads the version that should serve. If that fails, `deployment.rejection` says why.

        Args:
            deployment: the deployment whose model to look for.
            watching: whether this is a look that nobody asked for. Then a version whose files are not all there is left
                until the next look, and so is a model that cannot change while it serves.
        """
        if watching and deployment.model and not follows_store(deployment.source):
            return
        async with deployment.refreshing:
            passed_over = {ref: each.stored_version.fingerprint for ref, each in deployment.rejected.items()
                           if each.stored_version and each.is_final}  # fmt: skip
            while not deployment.is_removed:
                try:
                    found, rejected = await self._look(deployment, passed_over)
                    is_whole = not watching or found in {None, deployment.unfinished} or await deployment.disk.call(
                        partial(found.is_complete, self.store), limit_s=LOOK_LIMIT_S
                    )  # fmt: skip
                except (PredictorError, OSError) as error:
                    rejection = Rejection(error if isinstance(error, PredictorError) else ArtifactError(str(error)))
                    if not rejection.is_like(deployment.rejection):
                        self._report(deployment.reference, rejection, deployment)
                    deployment.rejection = rejection
                    return
                if found is None:
                    deployment.rejection = deployment.rejected.get(rejected) if rejected else None
                    return
                if not is_whole:
                    deployment.unfinished = found
                    return
                passed_over[found.reference] = found.fingerprint
                await self._try(deployment, found)

    async def add(self, reference: str) -> Deployment:
        """Loads one more model.

        Returns:
            the new deployment. If no model serves for it, it says why, and is not among `deployments`.
        """
        deployment = Deployment(reference)
        await self.refresh(deployment)
        if deployment.model:
            self.deployments.append(deployment)
        return deployment

    async def remove(self, deployments: Iterable[Deployment]) -> None:
        """Stops serving models. Their memory is freed when the requests inside them have ended."""
        async with self._loading:  # otherwise a model that is being replaced would come back
            for deployment in deployments:
                self._remove(deployment)

    def close(self) -> None:
        """Computes the images that wait, then ends all threads. Blocks until then."""
        retiring = self._retiring.copy()
        for task in retiring:
            task.get_loop().call_soon_threadsafe(task.cancel)
        for model in [*self.served, *retiring.values()]:
            model.pipeline.close()
        self._loader.close()

    async def _look(
        self, deployment: Deployment, passed_over: Mapping[str, Fingerprint]
    ) -> tuple[StoredVersion | None, str | None]:
        look = partial(
            version_to_serve, deployment.source, self.store, served=deployment.stored_version, rejected=passed_over
        )
        return await deployment.disk.call(look, limit_s=LOOK_LIMIT_S)

    async def _try(self, deployment: Deployment, stored_version: StoredVersion) -> None:
        started_at = time.monotonic()
        try:
            model = await self._load(deployment, stored_version)
        except PredictorError as error:
            rejection = Rejection(error, stored_version, is_final=not _may_pass(error))
        except Exception as error:
            logger.exception("Model %s cannot be loaded.", stored_version.reference)
            rejection = Rejection(ArtifactError(f"Loading failed: {error}"), stored_version)
        else:
            if model:
                deployment.rejected.pop(stored_version.reference, None)
                announce(model, self._metrics, seconds=time.monotonic() - started_at)
            return
        _forget_frames(rejection.error)
        # What fails again and again is logged once.
        if not rejection.is_like(deployment.rejected.get(stored_version.reference)):
            self._report(stored_version.reference, rejection, deployment)
        deployment.rejected[stored_version.reference] = rejection

    async def _load(self, deployment: Deployment, stored_version: StoredVersion) -> ServedModel | None:
        """Loads a version and switches to it; returns None if the deployment has been removed meanwhile."""
        limit_s = _READ_LIMIT_S + stored_version.size_bytes() / _MIN_READ_BYTES_PER_S
        # Without the lock: a disk that hangs holds up nobody else.
        files = await deployment.disk.call(partial(verify, stored_version.reference, self.store), limit_s=limit_s)
        async with self._loading:
            if deployment.is_removed:
                return None
            await self._make_room(deployment, stored_version)
            model = await self._loader.load(files, deployment.disk, alias=deployment.alias, limit_s=limit_s)
            await asyncio.to_thread(return_freed_memory)  # what loading itself needed
            old, deployment.model, deployment.stored_version = deployment.model, model, stored_version
            if old:
                self._retire(old)
            return model

    def _report(self, reference: str, rejection: Rejection, deployment: Deployment) -> None:
        meanwhile = (
            f"Version {deployment.model.artifact.version} serves on"
            if deployment.model
            else "Nothing serves in its place yet"
        )
        logger.error("Model %s cannot be served: %s %s.", reference, rejection.reason, meanwhile)
        self._metrics.model_loads.labels("failed").inc()

    def _remove(self, deployment: Deployment) -> None:
        deployment.is_removed = True
        if deployment in self.deployments:
            self.deployments.remove(deployment)
        if deployment.model:
            self._retire(deployment.model)
            logger.info("Model %s is not served any more.", deployment.reference)
        deployment.model = deployment.stored_version = None

    def _retire(self, model: ServedModel) -> None:
        info_of(model, self._metrics).set(0)
        retiring = asyncio.create_task(model.retire())
        self._retiring[retiring] = model
        retiring.add_done_callback(self._forget)

    def _forget(self, retired: asyncio.Task[None]) -> None:
        del self._retiring[retired]  # the last reference
        if not retired.cancelled():
            retired.get_loop().run_in_executor(None, return_freed_memory)

    async def _make_room(self, deployment: Deployment, stored_version: StoredVersion) -> None:
        """Unloads models that admin routes have loaded until the memory budget has room for one more.

        Raises:
            MemoryBudgetError: there is no room even without them.
        """
        if not self._memory_budget_bytes:
            return
        loaded = self.shared_changes.read().loaded
        unloadable = {
            each.reference: each
            for each in self.deployments
            if each.model and each.reference in loaded and each is not deployment
        }
        for name in models_to_unload(
            stored_version.reference,
            stored_version.size_bytes(),
            served_bytes=[each.file_bytes for each in self.deployments],
            unloadable=[Unloadable(name, each.file_bytes, each.last_used_at) for name, each in unloadable.items()],
            budget_bytes=self._memory_budget_bytes,
        ):
            logger.warning("Model %s is unloaded to make room for %s.", name, stored_version.reference)
            self.shared_changes.apply(partial(RequestedChanges.without, name=unloadable[name].name))
            self._remove(unloadable[name])
        if self._retiring:
            await asyncio.wait(list(self._retiring))


def _may_pass(error: PredictorError) -> bool:
    """Returns whether another try with the same files may succeed: a disk may recover, memory may be freed."""
    cause = error.__cause__
    disk_failed = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return disk_failed or isinstance(error, MemoryBudgetError)


def _forget_frames(error: BaseException | None) -> None:
    """Drops what the frames of an error hold, such as a whole model, because the error is kept."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
