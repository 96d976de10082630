"""Parses a few requests ahead of the answer that is due. The rest of what a client sends stays in the socket.

what was received -> a head, or the piece of a body that is due -> http_protocol.py -> enough ahead? -> no more is read
an answer is complete, or its turn comes (parsing_turns.py) -> the next pieces

A client may send requests without waiting for answers (pipelining). One read from the socket can hold 14,000 small
heads, each of which costs a kilobyte once it is parsed.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from app.server.connection.connections import Connections
from app.server.connection.early_refusal import EarlyRefusals
from app.server.connection.http_protocol import LimitedProtocol
from app.server.connection.parsing_turns import ParsingTurns

_MAX_AHEAD: Final = 4
_TURN_S: Final = 0.002  # before other connections have their turn
_END_OF_HEAD: Final = b"\r\n\r\n"
# Of a chunked body: what is in it may look like the end of a head, and its chunks may have one byte each.
_MIN_PIECE_BYTES: Final = 256
_MAX_PIECE_BYTES: Final = 4096


def limited_protocol(app: FastAPI, connections: Connections) -> type[asyncio.Protocol]:
    """Returns the protocol class for `uvicorn.Config(http=...)`.

    Args:
        app: the application, with all its routes.
        connections: counts the connections of this process.
    """
    return partial(  # type: ignore[return-value] # uvicorn only calls it
        FewAhead,
        connections=connections,
        refusals=EarlyRefusals(app),
        turns=ParsingTurns(),
        min_read_bytes_per_s=app.state.service.settings.min_upload_bytes_per_s,
    )


class _HeldFlow(FlowControl):
    """uvicorn's flow of a connection. It resumes when the application takes a piece of a body, and must not while held.

    Otherwise more would be read for each piece than is parsed for it, without end.
    """

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class FewAhead(LimitedProtocol):
    """One connection, of which only a few requests are parsed at once.

    Args:
        arguments: what `LimitedProtocol` takes.
        turns: the line of connections that take long.
        named: what `LimitedProtocol` takes by name.
    """

    def __init__(self, *arguments: Any, turns: ParsingTurns, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._turns = turns
        self._received = b""
        self._position = 0  # what is in front of it was parsed
        self._body_left = 0  # of the request that is being received, if it declares its length

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes hold of the flow."""
        super().connection_made(transport)
        self.flow = self._flow = _HeldFlow(self.transport)

    def data_received(self, data: bytes) -> None:
        """Parses what has come, as far as it is due."""
        if self._received:  # a read that was on its way already
            self._received = self._received[self._position :] + data
            self._position = 0
            self._hold()
            return
        self._received = data
        self._parse()

    def on_headers_complete(self) -> None:
        """Notes the length of the body that follows."""
        self._body_left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Counts the body."""
        self._body_left -= len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Goes on with what has come already."""
        super().on_response_complete()
        if self._received and not self.transport.is_closing():
            self._hold()
            self.loop.call_soon(self._parse)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets what was not parsed."""
        self._received = b""
        super().connection_lost(exc)

    def _parse(self) -> None:
        end_of_turn = time.monotonic() + _TURN_S
        while True:
            if self._ending or self._position >= len(self._received):
                self._received, self._position = b"", 0
                self._read_on()
                return
            if len(self.pipeline) >= _MAX_AHEAD:
                self._hold()
                return
            start, self._position = self._position, self._end_of_piece()
            super().data_received(self._received[start : self._position])
            if self._position < len(self._received) and time.monotonic() > end_of_turn:
                self._hold()
                self._turns.wait(self._parse)
                return

    def _hold(self) -> None:
        if not self.transport.is_closing():
            self._flow.is_held = True
            self._flow.pause_reading()

    def _read_on(self) -> None:
        """Reads more, unless uvicorn waits until the application has taken what there is."""
        if self._flow.is_held and not self.transport.is_closing():
            self._flow.is_held = False
            if self._ending or self._is_idle or not (self.pipeline or len(self.cycle.body) > HIGH_WATER_LIMIT):
                self.flow.resume_reading()

    def _end_of_piece(self) -> int:
        if self._in_message and not self._in_head:
            if self._body_left > 0:
                return min(self._position + self._body_left, len(self._received))
            last = min(self._position + _MAX_PIECE_BYTES, len(self._received))
            found = self._received.find(_END_OF_HEAD, self._position + _MIN_PIECE_BYTES, last)
        else:
            last = len(self._received)
            found = self._received.find(_END_OF_HEAD, self._position)
        return last if found < 0 else found + len(_END_OF_HEAD)
