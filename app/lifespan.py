"""From start to stop: load -> verify -> warm up -> ready; then drain -> close.

The service answers from the first moment, so that probes learn why it is not ready yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from app.scaling import worthwhile_workers
from app.service import Phase, Service


def create_lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Returns the lifespan of an application over a service."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(service))
        watching = asyncio.create_task(service.watchdog.run())
        yield
        service.phase = Phase.CLOSING
        loading.cancel()
        watching.cancel()
        await asyncio.gather(loading, watching, return_exceptions=True)
        if not service.watchdog.verdict.restart_because:  # what is stuck would never let go
            await asyncio.to_thread(service.registry.close)

    return lifespan


async def _load(service: Service) -> None:
    """Loads the models; the only worker then finds out whether it should be joined by others."""
    await service.registry.load_all()
    runtime = service.runtime
    if runtime and not service.is_settled:
        models = service.registry.served
        wanted = await asyncio.to_thread(worthwhile_workers, models, max_workers=runtime.max_workers)
        if wanted == 1:
            service.is_settled = True
        else:  # the supervisor replaces this one by several with a smaller share of the cores each
            runtime.board.wanted_workers = wanted
