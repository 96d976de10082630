"""Takes connections from the listening socket that all workers share, so that each worker gets its part of them.

kernel's queue of new connections -> readable in every worker -> whoever has fewest takes one -> uvicorn's protocol

Several processes on one socket are not served evenly by the kernel: whichever wakes first empties the queue, and 16
keep-alive connections fall 13 to 3 on two workers. A socket for each worker (SO_REUSEPORT) is not even either, as it
goes by a hash, and what waits in the queue of a worker that dies is lost. Hence one queue, which outlives any worker,
one connection at a time, and a worker that has more than a sibling leaves it a moment to come first. One that came
late, such as the replacement of one that died, gets its part when the others close connections that are too many.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from app.system.worker_board import WorkerPlace

logger = logging.getLogger("app.server")

# How long a worker waits for a sibling, for each connection that it has more than that one; never so long that clients
# would notice, should the sibling not come.
_PATIENCE_S: Final = 0.001
_MAX_PATIENCE_S: Final = 0.02
_TOLERATED_PART: Final = 8  # an eighth more than its part is nothing that a worker closes connections for
_PAUSE_AFTER_ERROR_S: Final = 0.5  # such as too many open files


class Acceptor:
    """Takes connections one by one.

    Args:
        listening: the socket; closed by `close`.
        welcome: what to do with a new connection.
        connections: returns how many there are.
        wanted: returns whether this worker should take any at this moment.
        place: whose siblings take connections too.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        welcome: Callable[[socket.socket], None],
        connections: Callable[[], int],
        wanted: Callable[[], bool],
        place: WorkerPlace | None,
    ) -> None:
        self.is_open = False
        self._listening = listening
        self._welcome = welcome
        self._connections = connections
        self._wanted = wanted
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)

    def open(self) -> None:
        """Begins to take connections, or goes on."""
        if not self.is_open:
            self.is_open = True
            self._loop.add_reader(self._listening, self._on_readable)

    def shut(self) -> None:
        """Leaves connections to the siblings from now on."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._listening)
            if self._pause:
                self._pause.cancel()

    def close(self, *, take_the_rest: bool) -> None:
        """Ends for good.

        Args:
            take_the_rest: whether to take what waits in the queue first: nobody else will.
        """
        self.shut()
        while take_the_rest and self._take_one():
            pass
        self._listening.close()

    def _on_readable(self) -> None:
        ahead = self._ahead()
        if not self._wanted():
            self.shut()
        elif ahead > 0:
            self._rest(min(ahead * _PATIENCE_S, _MAX_PATIENCE_S), then_take=True)
        else:
            self._take_one()

    def surplus(self) -> int:
        """Returns how many connections this worker has beyond its part, 0 where that is hardly more than it has."""
        others = self._others()
        part = -(-(self._connections() + sum(others)) // (1 + len(others)))
        surplus = self._connections() - part
        return surplus if surplus > max(1, part // _TOLERATED_PART) else 0

    def _ahead(self) -> int:
        """Returns how many connections more than the sibling with fewest this worker has."""
        return self._connections() - min(self._others(), default=self._connections())

    def _others(self) -> list[int]:
        """Returns how many connections each sibling has that takes some."""
        return [status.connections for status in self._place.siblings if status.accepts] if self._place else []

    def _take_one(self) -> bool:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # a sibling was faster, or the client left
            return False
        except OSError as error:
            logger.error("New connections cannot be taken: %s.", error)
            if self.is_open:
                self._rest(_PAUSE_AFTER_ERROR_S, then_take=False)
            return False
        connection.setblocking(False)
        self._welcome(connection)
        if self._place:
            self._place.status.count_connections(self._connections())
        return True

    def _rest(self, seconds: float, *, then_take: bool) -> None:
        self._loop.remove_reader(self._listening)

        def go_on() -> None:
            if then_take and self._wanted():  # though it has more: nobody else came
                self._take_one()
            if self.is_open:
                self._loop.add_reader(self._listening, self._on_readable)

        self._pause = self._loop.call_later(seconds, go_on)
