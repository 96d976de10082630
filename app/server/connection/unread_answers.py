"""Keeps answers that nobody reads from holding a connection, which counts as waiting, and ends at last.

the write buffer is full -> the connection waits, so that it may make room for another -> reading_pace.py -> it ends
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from app.server.connection.connections import Connections
from app.server.connection.joined_writes import JoinedWrites
from app.server.connection.reading_pace import ReadingPace
from app.server.connection.upgrade_offers import OffersDeclined

_NO_LINGER: Final = struct.pack("ii", 1, 0)  # struct linger: what is unsent is thrown away


class ReadersWatched(OffersDeclined):
    """One connection, whose client has to read its answers.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's state of this process, shared by all connections.
        app_state: the state that the lifespan hands to every request.
        connections: counts the connections of this process.
        min_read_bytes_per_s: the least pace at which the client has to read a long answer, in bytes a second.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
        min_read_bytes_per_s: int,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections
        self._min_read_bytes_per_s = min_read_bytes_per_s
        self._pace: ReadingPace | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Joins writes, and gets ready to watch what becomes of them."""
        joined = JoinedWrites(transport, self.loop)
        super().connection_made(joined)  # type: ignore[arg-type] # it has what uvicorn uses of a transport
        self._pace = ReadingPace(
            joined, self.loop, min_bytes_per_s=self._min_read_bytes_per_s, give_up=self._give_up_reader
        )
        joined.on_close_unread = self._pace.begin

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops watching."""
        if self._pace:
            self._pace.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Notes that the client does not take what is written. Its connection counts as waiting."""
        super().pause_writing()
        self._connections.wait(self)
        if self._pace:
            self._pace.begin()

    def resume_writing(self) -> None:
        """Notes that the client has taken what was written."""
        super().resume_writing()
        if self._pace and not self.transport.is_closing():
            self._pace.end()
        if not self._is_idle:
            self._connections.work(self)

    def shutdown(self) -> None:
        """Ends the connection after its answers. A client that does not read them is not waited for."""
        if self._pace:
            self._pace.hurry()
        super().shutdown()

    def drop(self) -> None:
        """Ends the connection at once."""
        self._connections.leave(self)
        if self.transport.get_write_buffer_size():  # its client does not read, and the kernel holds megabytes for it
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.transport.abort()
        else:
            self.transport.close()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up_reader(self) -> None:
        self._connections.count("not_read")
        self.drop()
