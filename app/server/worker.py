"""Runs one worker process, from its fork to its end: its share of the limits, its application, its server.

its settings -> Service: models are loaded -> meanwhile the web framework is imported -> uvicorn serves
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.errors import PredictorError
from app.server.start import CANNOT_START, STOP_SIGNALS, Listening
from app.serving.lifecycle import running
from app.serving.service import Service
from app.settings import Settings
from app.system.worker_board import WorkerPlace
from app.telemetry.logs import configure_logging
from app.telemetry.metric_files import share_files

if TYPE_CHECKING:
    import uvicorn

    from app.server.ports_beside import PortsBeside

logger = logging.getLogger("app.workers")

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def run_worker(
    settings: Settings, listening: Listening, tls: Mapping[str, Any], place: WorkerPlace, parent: int
) -> None:
    """Runs a worker process, from its start to its end.

    Args:
        settings: the settings of the service; the worker takes its share of the limits.
        listening: the sockets that all workers take connections from.
        tls: the arguments of `uvicorn.Config` for HTTPS, from `tls_options`; empty for plain HTTP.
        place: the worker's place among its siblings.
        parent: the supervisor's process id.

    Raises:
        SystemExit: with `CANNOT_START` when starting again would not help.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the server handles it, nothing can be lost
    for number in STOP_SIGNALS - {signal.SIGTERM}:  # a terminal sends these to the whole group: the supervisor acts
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _die_with(parent)
    if not logging.getLogger().handlers:  # a spawned process has none yet
        configure_logging(settings.log_level, settings.log_format)
    share_files(place)
    settings = share_limits(settings, place.workers)
    try:
        serve_process(settings, listening, tls, place)
    except PredictorError as error:
        logger.error("%s", error)
        sys.exit(CANNOT_START)


def serve_process(
    settings: Settings, listening: Listening, tls: Mapping[str, Any], place: WorkerPlace | None = None
) -> None:
    """Serves in this process until a signal ends it.

    Args:
        settings: the settings of this process.
        listening: the sockets that connections are taken from.
        tls: the arguments of `uvicorn.Config` for HTTPS, from `tls_options`; empty for plain HTTP.
        place: this process's place among several workers; None if it is the only process.

    Raises:
        PredictorError: the process cannot serve.
    """
    if sys.platform == "win32":
        new_loop = None
    else:
        from uvloop import new_event_loop as new_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(Service(settings, place), listening, tls))


async def _serve(service: Service, listening: Listening, tls: Mapping[str, Any]) -> None:
    context = running(service)
    await context.__aenter__()
    # Importing the web framework takes as long as loading a model, and both at once little longer. The pool is not the
    # loop's own, whose threads stand back.
    with ThreadPoolExecutor(1) as pool:
        assemble = partial(_assemble, service, listening, tls)
        server, beside = await asyncio.get_running_loop().run_in_executor(pool, assemble)
    gc.freeze()  # as after loading: the collector need not look through what stays
    async with beside:
        await server.serve()
    if not server.force_exit:
        await context.__aexit__(None, None, None)


def _assemble(service: Service, listening: Listening, tls: Mapping[str, Any]) -> tuple[uvicorn.Server, PortsBeside]:
    from app.main import create_app, create_management_app, create_metrics_app
    from app.server.ports_beside import PortsBeside
    from app.server.uvicorn_server import make_server

    beside = PortsBeside(tls)
    if listening.management:
        beside.add(create_management_app(service), listening.management)
    if listening.metrics:
        beside.add(create_metrics_app(service), listening.metrics)
    server = make_server(create_app(service.settings, service), service.settings, listening.requests, tls)
    return server, beside


def share_limits(settings: Settings, workers: int) -> Settings:
    """Returns the settings of one worker: its share of the limits and of the cores.

    Args:
        settings: the settings of the service.
        workers: the number of workers that share the limits.
    """
    whole = settings.max_pending_images
    # A share is never less than one request of several images needs, if the service admits such a request at all.
    part = max(-(-whole // workers), min(whole, settings.max_images_per_request))
    shared = {
        "max_pending_images": part,
        "max_pending_bytes": max(-(-settings.max_pending_bytes // workers), settings.max_body_bytes),
        "max_connections": -(-settings.max_connections // workers),
        "max_decode_mb": max(1, settings.decode_bytes // 1_000_000 // workers),
        "cores": max(1, settings.core_count // workers),
    }
    return settings.model_copy(update=shared)


def _die_with(parent: int) -> None:
    """Makes the kernel kill this process when the supervisor ends; without Linux, `uvicorn_server` looks for that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
