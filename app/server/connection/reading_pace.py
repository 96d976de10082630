"""Watches that a client reads what was written to it, so that an answer which nobody reads holds nothing for long.

the write buffer is full -> every 15 seconds: how much has the client taken? -> enough, or the connection ends

What the client has taken is what was written, without what waits here and in the kernel's send buffer. The kernel's
buffer alone holds megabytes: what it accepts says little about what the client reads.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

from app.server.connection.joined_writes import JoinedWrites

if sys.platform != "win32":
    import fcntl
    import termios

INTERVAL_S: Final = 15.0
LAST_INTERVAL_S: Final = 2.0
"""The interval once the service ends: what nobody reads does not hold the end up."""


class ReadingPace:
    """Ends a connection whose client does not read.

    Args:
        transport: the connection's transport.
        loop: the event loop of the connection.
        min_bytes_per_s: the least that a client has to take while it is watched, in bytes a second.
        give_up: called when it has taken less.
    """

    def __init__(
        self,
        transport: JoinedWrites,
        loop: asyncio.AbstractEventLoop,
        *,
        min_bytes_per_s: int,
        give_up: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._min_bytes_per_s = min_bytes_per_s
        self._give_up = give_up
        self._interval_s = INTERVAL_S
        self._taken = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Starts to watch, if it does not yet."""
        if self._timer is None and self._min_bytes_per_s:
            self._taken = self._taken_bytes()
            self._timer = self._loop.call_later(self._interval_s, self._check)

    def end(self) -> None:
        """Stops watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hurry(self) -> None:
        """Watches at shorter intervals from now on."""
        self._interval_s = LAST_INTERVAL_S
        if self._timer is not None:
            self.end()
            self.begin()

    def _check(self) -> None:
        self._timer = None
        before, self._taken = self._taken, self._taken_bytes()
        if self._taken - before < self._min_bytes_per_s * self._interval_s:
            self._give_up()
        else:
            self.begin()

    def _taken_bytes(self) -> int:
        waiting = self._transport.get_write_buffer_size()
        return self._transport.written_bytes - int(waiting) - _unsent_bytes(self._transport.get_extra_info("socket"))


def _unsent_bytes(connection: socket.socket) -> int:
    """Returns how much the client has not acknowledged of what the kernel has taken; see TIOCOUTQ in tcp(7)."""
    if sys.platform == "win32":
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:  # a connection that is gone, or a kernel that does not tell
        return 0
