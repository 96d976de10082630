"""From start to stop: load -> verify -> warm up -> ready; then drain -> close.

The service answers from the first moment, so that probes learn why it is not ready yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from app.sampling import Sampler
from app.service import Phase, Service


def create_lifespan(service: Service, sampler: Sampler) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Returns the lifespan of an application over a service that a sampler looks at."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.registry.load_all())
        sampling = asyncio.create_task(sampler.run())
        yield
        service.phase = Phase.CLOSING
        sampling.cancel()
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await asyncio.to_thread(service.registry.close)
        if service.tracing:
            await asyncio.to_thread(service.tracing.close)

    return lifespan
