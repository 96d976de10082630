"""One worker process, from its fork to its end: its share of the limits, its application, its server."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.errors import PredictorError
from app.main import create_app
from app.server.uvicorn_server import serve_process
from app.settings import Settings
from app.system.worker_board import Board, Runtime
from app.telemetry.logs import configure_logging
from app.telemetry.metrics import share_files

logger = logging.getLogger(__name__)

_CANNOT_START: Final = 2  # exit status, of a worker and then of the service: starting again would not help
_STOP_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT} | ({signal.SIGHUP} if sys.platform != "win32" else set())
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(frozen=True)
class _RuntimeSeed:
    """What a worker makes its `Runtime` of: the board itself is mapped anew in each process."""

    folder: Path
    workers: int
    index: int
    max_workers: int

    def grow(self) -> Runtime:
        """Returns the runtime."""
        board = Board(self.folder / Board.FILE_NAME)
        return Runtime(self.folder, self.workers, self.index, board, self.max_workers)


def _work(settings: Settings, listening: socket.socket, seed: _RuntimeSeed, parent: int) -> None:
    """A worker process, from start to end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is lost before the server takes it over
    for number in _STOP_SIGNALS - {signal.SIGTERM}:  # a terminal sends these to the whole group: the supervisor acts
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    _die_with(parent)
    if not logging.getLogger().handlers:  # a spawned process has none yet
        configure_logging(settings.log_level, settings.log_format)
    runtime = seed.grow()
    share_files(runtime)
    settings = share_limits(settings, runtime.workers)
    try:
        app = create_app(settings, runtime)
    except PredictorError as error:
        logger.error("%s", error)
        sys.exit(_CANNOT_START)
    serve_process(app, settings, listening)


def share_limits(settings: Settings, workers: int) -> Settings:
    """Returns the settings of one of several workers: its part of what is limited for the service as a whole."""
    whole = settings.max_pending_images
    # But a request of several images must fit, if it may come at all.
    part = max(-(-whole // workers), min(whole, settings.max_images_per_request))
    shared = {
        "max_pending_images": part,
        "max_pending_bytes": max(-(-settings.max_pending_bytes // workers), settings.max_body_bytes),
        "max_connections": -(-settings.max_connections // workers),
        "cores": max(1, settings.core_count // workers),
    }
    return settings.model_copy(update=shared)


def _die_with(parent: int) -> None:
    """Makes the kernel end this process when the supervisor ends, however it ends; elsewhere, the server looks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was faster
            os._exit(1)
