"""Runs the application under uvicorn in this process, and shuts it down in order on SIGTERM.

SIGTERM or SIGINT -> unready at once -> go on answering for `drain_delay_s` -> finish open requests -> exit status 0
a second signal -> exit at once
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI

from app.errors import PredictorError
from app.server.acceptor import Acceptor
from app.server.connection.connections import Connections
from app.server.connection.handshakes import Handshake
from app.server.connection.read_ahead import limited_protocol
from app.server.start import SAME_SIGNAL_S
from app.serving.service import Phase, Service
from app.settings import Settings
from app.system.descriptors import connection_limits

logger = logging.getLogger("app.server")

# At a shutdown, a client may send one more request on an open connection for this long. The answer says that the
# connection closes. A connection that is closed at once may break under a request that is on its way already.
_LAST_REQUESTS_S: Final = 0.5

_MOMENT_S: Final = 0.05


class DescriptorsError(PredictorError):
    """The process may open too few files to serve."""


def make_server(app: FastAPI, settings: Settings, listening: socket.socket, tls: Mapping[str, Any]) -> uvicorn.Server:
    """Returns the server of one process; it begins to serve when it is run.

    Args:
        app: an application of `create_app`.
        settings: the settings of this process.
        listening: the socket that connections are taken from.
        tls: the arguments of `uvicorn.Config` for HTTPS, from `tls_options`; empty for plain HTTP.

    Raises:
        DescriptorsError: the limit on open files leaves room for no connection.
    """
    service: Service = app.state.service
    try:
        limits = connection_limits(settings.max_connections)
    except ValueError as error:
        raise DescriptorsError(str(error)) from error
    connections = Connections(limits, service.metrics)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=max(logging.WARNING, logging.getLogger().level),  # our own lines tell of start and end
        access_log=False,  # our own access log has the request's id
        server_header=False,
        http=limited_protocol(app, connections),
        timeout_keep_alive=settings.idle_timeout_s,  # type: ignore[arg-type] # uvicorn only hands it to `call_later`
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
        **tls,
    )
    return _Server(config, service, listening, connections)


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, service: Service, listening: socket.socket, connections: Connections
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self._service = service
        self._place = service.place
        self._listening = listening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acceptor: Acceptor | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._parent = os.getppid()
        self._signalled_at = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if sys.platform == "win32":  # the event loop there cannot wait for a socket to be readable
            await super().startup([self._listening])
            return
        await super().startup([])
        self._acceptor = Acceptor(
            self._listening,
            on_connection=self._on_connection,
            connections=self._count_connections,
            wanted=self._should_accept,
            place=self._place,
        )
        self._take_stock()

    async def on_tick(self, counter: int) -> bool:  # uvicorn's, ten times a second
        self._take_stock()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._acceptor:
            retiring = self._place is not None and not self._place.board.draining
            self._acceptor.close(accept_backlog=not retiring)
            if not self.force_exit:
                await self._hear_last_requests()
        self._service.phase = Phase.CLOSING
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own method would raise the signal again at the end, and the exit status would not be 0.
        if self._place and sig == signal.SIGINT:  # Ctrl-C goes to the whole group; the supervisor passes it on
            return
        if self._loop is None:
            self.should_exit = True  # as soon as it has started
            return
        now = time.monotonic()
        if self._service.phase is Phase.SERVING:
            self._signalled_at = now
            self._service.phase = Phase.DRAINING
            # Sent to the whole group, this signal may come before the supervisor has said that all workers end.
            self._loop.call_soon_threadsafe(self._loop.call_later, _MOMENT_S if self._place else 0.0, self._drain)
        elif now - self._signalled_at > SAME_SIGNAL_S:
            self.should_exit = self.force_exit = True

    def _drain(self) -> None:
        assert self._loop is not None
        delay_s = self._service.settings.drain_delay_s
        if self._place and not self._place.board.draining:  # only this worker ends: its siblings take new connections
            self._place.status.retire()
            delay_s = 0.0
        self._loop.call_later(delay_s, self._close)

    def _close(self) -> None:
        self.should_exit = True

    def _on_connection(self, connection: socket.socket) -> None:
        opening = asyncio.ensure_future(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        assert self._loop is not None

        handshake = Handshake(self.config.ssl, self._connections) if self.config.ssl else None
        create_protocol = partial(
            cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            handshake=handshake,
        )
        if handshake:
            await handshake.run(create_protocol, connection)
            return
        try:
            await self._loop.connect_accepted_socket(create_protocol, connection)
        except OSError as error:  # the client left
            logger.debug("A connection could not be opened: %s", error)
            connection.close()

    def _count_connections(self) -> int:
        return len(self.server_state.connections) + len(self._opening)

    def _take_stock(self) -> None:
        """Publishes this process's status on the board, and opens or shuts the acceptor by the status of the others."""
        if self._acceptor is None:
            return
        if self._should_accept():
            self._acceptor.open()
        else:
            self._acceptor.shut()
        if self._place is None:
            return
        if os.getppid() != self._parent:
            os._exit(1)  # the supervisor is gone, and nobody would ever end this process
        status = self._place.status
        status.publish(
            accepting=self._acceptor.is_open, ready=self._service.is_ready_itself, connections=self._count_connections()
        )
        self._connections.set_excess(self._acceptor.excess())
        if self._service.watchdog.verdict.restart_because:
            status.ask_for_restart()

    def _should_accept(self) -> bool:
        """Returns whether to take connections. A worker that is not ready leaves them to siblings that are.

        Without such a sibling it takes them, so that clients and probes learn the reason.
        """
        if self._place is None:
            return True
        if self._service.phase is not Phase.SERVING and not self._place.board.draining:  # only this worker ends
            return False
        return self._service.is_ready_itself or not any(status.serves for status in self._place.siblings)

    async def _hear_last_requests(self) -> None:
        """Answers one more request on each open connection and closes it, until all are closed or the time is up."""
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_REQUESTS_S):
                while self._count_connections() and not self.force_exit:
                    await asyncio.sleep(0.01)
