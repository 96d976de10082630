"""Lets connections whose bytes take long to parse take turns, so that the event loop gets to everything else between.

a connection has had its time -> it waits in line -> each round of the event loop, the first in line goes on
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class ParsingTurns:
    """The line in which connections of one process wait. Only the event loop may use it."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Puts a connection at the end of the line.

        Args:
            go_on: parses on, for a short time.
        """
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._take_turn)
        go_on()  # it may wait again, behind the others
