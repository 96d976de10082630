"""The open connections of a process: how many there may be, and which one is closed when there are too many.

a new connection -> its protocol enters it -> room? -> else the connection that has waited longest is closed
                                                   -> else, if all are busy, the new one is refused
"""

from __future__ import annotations

import logging
import time
from typing import Final, Protocol

from app.system.descriptors import ConnectionLimits
from app.telemetry.metrics import Metrics

logger = logging.getLogger("app.server")

_WARNING_INTERVAL_S: Final = 10.0


class Connection(Protocol):
    """What `Connections` counts."""

    def drop(self) -> None:
        """Ends the connection at once."""


class Connections:
    """Counts connections; when there is no room for one more, the one that has waited longest is closed.

    A connection waits while it has no request: it is idle, or the head of its request is not complete, or its client
    still sends a body that has been refused.

    Args:
        limits: how many connections may be open at once.
        metrics: the metrics of this process.
    """

    def __init__(self, limits: ConnectionLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._closed = metrics.connections_closed
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # the longest waiting first: a dict keeps its order
        self._excess = 0
        self._refused_count = 0
        self._warned_at = -_WARNING_INTERVAL_S
        self._open_count = metrics.connections

    def enter(self, connection: Connection) -> bool:
        """Counts a new connection. Returns False if there is no room for it, and no connection waits."""
        if len(self._open) >= self._limits.served:
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
        """Notes that a connection has no request any more, and waits for the next."""
        if connection in self._open:
            self._waiting[connection] = None

    def work(self, connection: Connection) -> None:
        """Notes that a connection has a request."""
        self._waiting.pop(connection, None)

    def set_excess(self, excess: int) -> None:
        """Notes how many connections this process has beyond its share.

        Args:
            excess: the number of connections to close, so that their clients connect to another worker.
        """
        self._excess = excess

    def give_away(self) -> bool:
        """Returns whether to close a connection after its answer, so that its client connects to another worker."""
        if self._excess <= 0:
            return False
        self._excess -= 1
        return True

    def begin_refusal(self) -> bool:
        """Counts a connection for which there is no room; returns whether it gets an answer that says so."""
        self.count("too_many")
        if self._refused_count >= self._limits.refused:
            return False
        self._refused_count += 1
        return True

    def end_refusal(self) -> None:
        """Notes that a connection is gone that got such an answer."""
        self._refused_count -= 1

    def count(self, reason: str) -> None:
        """Counts a connection that a limit has ended.

        Args:
            reason: the label of the metric `predictor_connections_closed_total`.
        """
        self._closed.labels(reason).inc()

    def _warn(self) -> None:
        now = time.monotonic()
        if now - self._warned_at > _WARNING_INTERVAL_S:
            self._warned_at = now
            logger.warning("There are %d connections, as many as --max-connections allows.", len(self._open))
