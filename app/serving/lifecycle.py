"""Runs the background tasks of the service, from its start to its stop.

load -> verify -> warm up -> ready -> follow the store; at the end: cancel -> close the models -> send the last traces

The service answers from the first moment, so that probes learn why it is not ready yet.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from app.serving.service import Phase, Service
from app.system.kernel import lower_thread_priority

# The collector of cycles looks after so many new objects.
_COLLECT_AFTER: Final = 10_000


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """Loads the models of a service and keeps it running inside the `async with` block; closes it at the end."""
    # Threads that a library starts while a model is loaded take the priority of the thread that loads it.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4, "background", lower_thread_priority))
    loading = asyncio.create_task(_load_and_watch(service))
    watching = asyncio.create_task(service.watchdog.run())
    sampling = asyncio.create_task(service.gauges.run())
    yield
    service.phase = Phase.CLOSING
    sampling.cancel()
    loading.cancel()
    watching.cancel()
    await asyncio.gather(loading, watching, sampling, return_exceptions=True)
    if not service.watchdog.verdict.restart_because:  # a stuck model would never close
        await asyncio.to_thread(service.registry.close)
    if service.tracing:
        await asyncio.to_thread(service.tracing.close)


async def _load_and_watch(service: Service) -> None:
    """Loads the models, then follows the store."""
    await service.registry.load_all()
    if service.registry.shared_changes.is_shared:  # it must not be ready without what was asked for meanwhile
        await service.watcher.follow()
    # Before any probe hears it: a worker that was ready and dies does not end the service.
    if service.place and service.is_ready_itself:
        service.place.status.tell_ready()
    # The objects that exist now stay. The collector of cycles would look through all of them again and again, and hold
    # up every request for a tenth of a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    await service.watcher.run()
