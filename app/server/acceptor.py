"""Accepts connections from the listening socket that all workers share, so that each worker gets its share.

kernel's backlog -> readable in every worker -> the worker with the fewest connections accepts one -> http_protocol.py

The kernel does not share a socket evenly among processes: the one that wakes first empties the backlog, and 16
keep-alive connections fall 13 to 3 on two workers. A socket for each worker (SO_REUSEPORT) is not even either, because
the kernel goes by a hash; and what waits in the backlog of a worker that dies is lost. So the workers share one
backlog, which outlives any of them. They accept one connection at a time, and a worker that has more than a sibling
first gives the sibling a moment to accept. A worker that came late, such as the replacement of one that died, gets its
share when the others close connections that they have too many of.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from app.system.worker_board import WorkerPlace

logger = logging.getLogger("app.server")

# How long a worker waits for a sibling, for each connection that it has more than the sibling. The maximum is so short
# that clients do not notice it if the sibling never accepts.
_PATIENCE_S: Final = 0.001
_MAX_PATIENCE_S: Final = 0.02
_TOLERATED_FRACTION: Final = 8  # a worker closes connections only if it has more than an eighth beyond its share
_PAUSE_AFTER_ERROR_S: Final = 0.5  # for example, too many open files


class Acceptor:
    """Accepts connections one by one.

    Args:
        listening: the listening socket; `close` closes it.
        on_connection: called with each new connection.
        connections: returns how many connections this worker has.
        wanted: returns whether this worker should accept connections at this moment.
        place: this worker's place among several, whose siblings accept too; None if it is the only process.

    Attributes:
        is_open: whether it accepts connections.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        on_connection: Callable[[socket.socket], None],
        connections: Callable[[], int],
        wanted: Callable[[], bool],
        place: WorkerPlace | None,
    ) -> None:
        self.is_open = False
        self._listening = listening
        self._on_connection = on_connection
        self._connections = connections
        self._wanted = wanted
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)

    def open(self) -> None:
        """Starts to accept connections, or starts again."""
        if not self.is_open:
            self.is_open = True
            self._loop.add_reader(self._listening, self._on_readable)

    def shut(self) -> None:
        """Stops accepting connections: the siblings get them."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._listening)
            if self._pause:
                self._pause.cancel()

    def close(self, *, accept_backlog: bool) -> None:
        """Stops for good, and closes the listening socket.

        Args:
            accept_backlog: whether to accept first what waits in the backlog, because no other process will.
        """
        self.shut()
        while accept_backlog and self._take_one():
            pass
        self._listening.close()

    def _on_readable(self) -> None:
        ahead = self._ahead()
        if not self._wanted():
            self.shut()
        elif ahead > 0:
            self._pause_for(min(ahead * _PATIENCE_S, _MAX_PATIENCE_S), then_take=True)
        else:
            self._take_one()

    def excess(self) -> int:
        """Returns how many connections this worker has beyond its share; 0 for one, or for at most an eighth of it."""
        others = self._others()
        share = -(-(self._connections() + sum(others)) // (1 + len(others)))
        excess = self._connections() - share
        return excess if excess > max(1, share // _TOLERATED_FRACTION) else 0

    def _ahead(self) -> int:
        """Returns how many connections this worker has more than the sibling with the fewest."""
        return self._connections() - min(self._others(), default=self._connections())

    def _others(self) -> list[int]:
        """Returns how many connections each sibling has that accepts connections."""
        return [status.connections for status in self._place.siblings if status.accepts] if self._place else []

    def _take_one(self) -> bool:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # a sibling was faster, or the client left
            return False
        except OSError as error:
            logger.error("New connections cannot be taken: %s.", error)
            if self.is_open:
                self._pause_for(_PAUSE_AFTER_ERROR_S, then_take=False)
            return False
        connection.setblocking(False)
        self._on_connection(connection)
        if self._place:
            self._place.status.count_connections(self._connections())
        return True

    def _pause_for(self, seconds: float, *, then_take: bool) -> None:
        self._loop.remove_reader(self._listening)

        def go_on() -> None:
            if then_take and self._wanted():  # no sibling was faster, though this worker has more
                self._take_one()
            if self.is_open:
                self._loop.add_reader(self._listening, self._on_readable)

        self._pause = self._loop.call_later(seconds, go_on)
