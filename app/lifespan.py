"""From start to stop: load -> verify -> warm up -> ready; then drain -> close.

The service answers from the first moment, so that probes learn why it is not ready yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from app.priority import step_back
from app.service import Phase, Service


def create_lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Returns the lifespan of an application over a service."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # What a library starts while a model is loaded takes the priority of the thread that loads it.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4, "background", step_back))
        loading = asyncio.create_task(service.registry.load_all())
        yield
        service.phase = Phase.CLOSING
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await asyncio.to_thread(service.registry.close)

    return lifespan
