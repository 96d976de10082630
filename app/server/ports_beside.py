"""Serves the ports beside the service's own, of TorchServe's management and metrics interfaces, for as long as it runs.

Operators use them, a few requests a minute. So all workers listen on them, and whichever the kernel wakes answers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

import uvicorn
from fastapi import FastAPI

_MAX_CONNECTIONS: Final = 64
_IDLE_S: Final = 5


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the service's own server."""
        yield


class PortsBeside:
    """The servers of these ports. They serve inside the `async with` block.

    Args:
        tls: the arguments of `uvicorn.Config` for HTTPS; empty for plain HTTP.
    """

    def __init__(self, tls: Mapping[str, Any]) -> None:
        self._tls = tls
        self._servers: list[tuple[_Server, socket.socket]] = []
        self._running: list[asyncio.Task[None]] = []

    def add(self, app: FastAPI, listening: socket.socket) -> None:
        """Adds an application and the socket that its connections come from."""
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=1,
            **self._tls,
        )
        self._servers.append((_Server(config), listening))

    async def __aenter__(self) -> Self:
        """Begins to serve."""
        self._running = [asyncio.create_task(server.serve([listening])) for server, listening in self._servers]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends with the requests that have come."""
        for server, _listening in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._running)
