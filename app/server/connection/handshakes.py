"""A connection that is in its TLS handshake: it is counted, has a limited time, and makes room for others.

accept -> is there room? -> the handshake -> http_protocol.py takes its place
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from app.server.connection.connections import Connections

logger = logging.getLogger("app.server")

_HANDSHAKE_S: Final = 10.0
# How long a client may take to confirm the end of an encrypted connection.
_GOODBYE_S: Final = 5.0


class Handshake:
    """One connection, from its acceptance until its HTTP begins.

    Args:
        context: the certificate and the key.
        connections: counts the connections of this process.
    """

    def __init__(self, context: ssl.SSLContext, connections: Connections) -> None:
        self._context = context
        self._connections = connections
        self._is_refused = False
        self._running: asyncio.Task[None] | None = None

    async def run(self, create_protocol: Callable[[], asyncio.Protocol], connection: socket.socket) -> None:
        """Encrypts a connection and hands it to its protocol, which calls `end` first.

        Args:
            create_protocol: makes the protocol.
            connection: the connection.
        """
        self._running = asyncio.current_task()
        try:
            if not self._connections.enter(self):
                # It may turn out to be a probe.
                self._is_refused = self._connections.begin_refusal()
                if not self._is_refused:
                    connection.close()
                    return
            await asyncio.get_running_loop().connect_accepted_socket(
                create_protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except (OSError, asyncio.CancelledError) as error:  # the client left, took too long or made room for another
            logger.debug("A TLS handshake failed: %s", error)
            connection.close()
        finally:
            self.end()

    def end(self) -> None:
        """Gives the place of the connection back."""
        self._connections.leave(self)
        if self._is_refused:
            self._is_refused = False
            self._connections.end_refusal()

    def drop(self) -> None:
        """Ends the connection at once."""
        if self._running:
            self._running.cancel()
