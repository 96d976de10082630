"""The open connections of a process: how many there may be, and who goes when there are too many.

raise the process's limit on descriptors -> Connections -> each connection's protocol asks it for room
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Final, Protocol

from app.telemetry.metrics import Metrics

if sys.platform != "win32":
    pass

logger = logging.getLogger("app.server")

_MAX_REFUSALS: Final = 256  # connections that are told so, at once; beyond, they are only closed
_WARNING_INTERVAL_S: Final = 10.0


class Connection(Protocol):
    """What is told to go."""

    def drop(self) -> None:
        """Ends the connection at once."""


class Connections:
    """Counts connections; when there is no room for one more, the one that has waited longest makes it.

    Waiting are those without a request: idle ones, those whose head is not complete, and those whose client still sends
    what has been refused.

    Args:
        max_connections: the most that are served at once.
        metrics: where they are counted.
    """

    def __init__(self, max_connections: int, metrics: Metrics) -> None:
        self._max_connections = max_connections
        self._closed = metrics.connections_closed
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # the longest waiting first: a dict keeps its order
        self._surplus = 0
        self._refused_count = 0
        self._warned_at = -_WARNING_INTERVAL_S
        self._open_count = metrics.connections

    def enter(self, connection: Connection) -> bool:
        """Takes a new connection in. Returns False where there is no room, and none that waits."""
        if len(self._open) >= self._max_connections:
            self._warn()
            longest_waiting = next(iter(self._waiting), None)
            if longest_waiting is None:
                return False
            self.count("evicted")
            self.leave(longest_waiting)
            longest_waiting.drop()
        self._open.add(connection)
        self._open_count.set(len(self._open))
        self._waiting[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """Forgets a connection."""
        self._open.discard(connection)
        self._open_count.set(len(self._open))
        self._waiting.pop(connection, None)

    def wait(self, connection: Connection) -> None:
        """Notes that a connection has no request any more."""
        if connection in self._open:
            self._waiting[connection] = None

    def work(self, connection: Connection) -> None:
        """Notes that a connection has a request."""
        self._waiting.pop(connection, None)

    def share(self, surplus: int) -> None:
        """Notes how many connections more than its part of them this process has, where siblings have fewer."""
        self._surplus = surplus

    def give_away(self) -> bool:
        """Returns whether a connection is one too many here: closed after its answer, it comes back to a sibling."""
        if self._surplus <= 0:
            return False
        self._surplus -= 1
        return True

    def begin_refusal(self) -> bool:
        """Counts a connection for which there is no room; returns whether it may be told so."""
        self.count("too_many")
        if self._refused_count >= _MAX_REFUSALS:
            return False
        self._refused_count += 1
        return True

    def end_refusal(self) -> None:
        """Notes that one that was told so is gone."""
        self._refused_count -= 1

    def count(self, reason: str) -> None:
        """Counts a connection that a limit has ended."""
        self._closed.labels(reason).inc()

    def _warn(self) -> None:
        now = time.monotonic()
        if now - self._warned_at > _WARNING_INTERVAL_S:
            self._warned_at = now
            logger.warning("There are %d connections, as many as --max-connections allows.", len(self._open))
