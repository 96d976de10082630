"""What a response is written to: joins its head and its body into one system call.

uvicorn: write(head), write(body) -> kept until the event loop's next turn -> one write to the socket

uvicorn writes the two apart, and uvloop passes each on at once: two system calls, and a client that is woken for half
an answer. On a small network, where there is little else to do, that was a quarter of the interpreter's time
(docs/performance.md).
"""

from __future__ import annotations

import asyncio
from typing import Any


class JoiningTransport:
    """A transport that joins what is written in one turn of the event loop; all else is the transport's own.

    Args:
        transport: that writes.
        loop: whose turns count.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Writes at the end of this turn."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def write_whole(self, data: bytes) -> None:
        """Writes, at once, what is complete in itself."""
        self._flush()
        self._transport.write(data)

    def write_eof(self) -> None:
        """Ends the stream behind what was written."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Closes behind what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            if not self._transport.is_closing():
                self._transport.write(pending[0] if len(pending) == 1 else b"".join(pending))
