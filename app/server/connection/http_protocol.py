"""Limits what one client may do to a connection: uvicorn's HTTP protocol with the limits that it leaves to a proxy.

accept -> is there room? -> head, limited in bytes and seconds -> early_refusal.py -> the application
-> its answer, while the client reads -> the rest of a body that nobody reads -> idle -> the next head

uvicorn limits neither the size of a request's head nor its time. It keeps connections that never send anything. It
reads without end what the application has refused. It may close a connection so early that a client that still sends
cannot read its answer. Little of the code here runs for an ordinary request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from app.api.auth import OPEN_PATHS
from app.api.problems import problem_details
from app.server.connection.early_refusal import EarlyRefusals, whole_answer
from app.server.connection.handshakes import Handshake
from app.server.connection.unread_answers import ReadersWatched
from app.telemetry.request_log import request_id_of

MAX_HEAD_BYTES: Final = 32_768  # nginx's default (large_client_header_buffers 4 x 8k)
HEAD_TIMEOUT_S: Final = 10.0
# How long the service reads, and throws away, what a refused client still sends. Closing at once would reset the
# connection before the client has read its refusal. nginx's lingering_time; shorter if there are too many.
_LINGER_S: Final = 30.0
_SHORT_LINGER_S: Final = 1.0
# How long a connection for which there is no room may take to show that it is a probe.
_PROBE_S: Final = 1.0
_PROBES: Final = frozenset(path.encode() for path in OPEN_PATHS)


class LimitedProtocol(ReadersWatched):
    """One connection.

    Args:
        arguments: what `ReadersWatched` takes.
        refusals: looks at the heads of requests.
        handshake: the TLS handshake before; None on a connection that is not encrypted.
        named: what `ReadersWatched` takes by name.
    """

    def __init__(
        self, *arguments: Any, refusals: EarlyRefusals, handshake: Handshake | None = None, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._refusals = refusals
        self._handshake = handshake
        self._in_head = False
        self._in_message = False
        self._last_received = 0
        self._unread_bytes = 0  # received since the head began, or since the last piece of the body
        self._ending = False  # what the client still sends is thrown away
        self._refusal: tuple[str, str] | None = None  # waits for the answers to the requests before it
        self._lingers_shortly = False  # there is no room for it: it may only probe
        self._timer: asyncio.TimerHandle | None = None

    # Called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counts the connection. If there are too many, it may only probe, and is refused otherwise."""
        super().connection_made(transport)
        if self._handshake:
            self._handshake.end()
        if self._connections.enter(self):
            self._wait_for_next()  # uvicorn starts this timer of its own only after a first answer
            return
        self._lingers_shortly = self._connections.begin_refusal()
        if self._lingers_shortly:
            self._start_timer(_PROBE_S, self._refuse_connection)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_timer()
        self._unset_keepalive_if_required()  # uvicorn leaves it running after an error
        self._connections.leave(self)
        if self._lingers_shortly:
            self._connections.end_refusal()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser while the head is within its limit."""
        if self._ending:
            return
        self._last_received = len(data)
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._ending:  # what came was refused
            return
        if self._unread_bytes > MAX_HEAD_BYTES and self._in_message:  # a head, or the trailer of a chunked body
            self._refuse_head()
        elif self._timer is None and self.timeout_keep_alive_task is None and (self._in_head or self._is_idle):
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_timed_out)

    # Called by the parser

    def on_message_begin(self) -> None:
        """Starts to count the bytes of a head."""
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._unread_bytes = self._last_received

    def on_headers_complete(self) -> None:
        """Hands the request to the application, if its head is small enough."""
        if self._ending:
            return
        self._stop_timer()
        if self._unread_bytes > MAX_HEAD_BYTES:  # some of them may be the body's
            if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
                self._refuse_head()
                return
            self._unread_bytes = 0
        if self.parser.should_upgrade():  # the parser stops here, and a new one calls this again
            return
        self._in_head = False
        if self._lingers_shortly and self.url.partition(b"?")[0] not in _PROBES:
            self._refuse_connection()
            return
        if self._refuse_early():
            return
        super().on_headers_complete()
        self._connections.work(self)
        # A refused client that waited for `100 Continue` may send its body or not, and the parser could not tell.
        if self.expect_100_continue or self._lingers_shortly or self._connections.give_away():
            self.cycle.keep_alive = False
        if not self.cycle.keep_alive:
            self.cycle.transport = _GentlyClosing(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Hands a piece of a body to the application, or throws it away if the answer is complete."""
        self._unread_bytes = 0
        if not self._ending and not self._is_idle:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends the request."""
        if self._ending or self._in_head:  # a head with an offer is parsed again
            return
        self._in_message = False
        self._stop_timer()
        if not self._is_idle:
            super().on_message_complete()
        else:  # the answer was complete before, and uvicorn stopped its timer when these bytes came
            self._wait_for_next()

    # Called by the application's side

    def on_response_complete(self) -> None:
        """Waits for the next request, or first for the rest of a body that nobody reads."""
        is_last = not self.pipeline
        super().on_response_complete()
        if self._refusal and is_last and not self.transport.is_closing():
            self._answer_and_end(*self._refusal)
        elif self._is_idle and not self.transport.is_closing():
            self._connections.wait(self)
            if self._in_message and not self._in_head and not self._ending:
                self._start_timer(_LINGER_S, self.drop)

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection on which nothing has come for too long."""
        self.drop()

    def drop(self) -> None:
        """Ends the connection at once."""
        self._ending = True
        super().drop()

    def close_gently(self) -> None:
        """Ends the connection after its answer. A client that is still sending can read the answer."""
        if (self._in_message or self._refusal) and not self.transport.is_closing():
            self._end()
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are not HTTP; called by uvicorn's `data_received`."""
        if not self._ending:
            self._refuse("malformed_request", msg)

    def _refuse_early(self) -> bool:
        """Answers the request whose head is complete if there is no room for it; its body is thrown away."""
        if not self._is_idle or self.expect_100_continue or self.transport.is_closing():
            return False
        if not self.parser.should_keep_alive():
            return False
        answer = self._refusals.look_at(
            self.parser.get_method(),
            self.url,
            self.headers,
            scheme=self.scheme or "http",
            defaults=self.server_state.default_headers,
        )
        if answer is None:
            return False
        self.server_state.total_requests += 1
        self.transport.write(answer)
        self._connections.work(self)  # and from now on it is the one that has waited for the shortest time
        self._connections.wait(self)
        self._start_timer(_LINGER_S, self.drop)
        return True

    def _refuse_connection(self) -> None:
        self._answer_and_end("overloaded", "There are too many connections.", retry_after=b"1")

    def _wait_for_next(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _refuse_head(self) -> None:
        self._refuse("head_too_large", f"The request's headers have more than {MAX_HEAD_BYTES:,} bytes.")

    def _head_timed_out(self) -> None:
        self._timer = None
        if self._is_idle:
            detail = f"The request's headers have not come within {HEAD_TIMEOUT_S:.0f} seconds."
            self._refuse("request_too_slow", detail)
        else:  # the head follows a request that has no answer yet
            self._start_timer(HEAD_TIMEOUT_S, self._head_timed_out)

    def _refuse(self, code: str, detail: str) -> None:
        """Answers what the parser or a limit did not let pass, in its turn, and ends the connection."""
        self._connections.count(code)
        is_next = not self._is_idle  # its turn comes after the answers to the requests before it
        if is_next and self._in_message and not self._in_head:  # the latest request cannot be completed
            is_next = bool(self.pipeline)
            if is_next:
                self.pipeline.popleft()
            elif self.cycle.response_started:  # nothing may be put into an answer
                self.drop()
                return
            else:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
        if not is_next:
            self._answer_and_end(code, detail)
            return
        self._ending = True
        self._refusal = code, detail
        self._stop_timer()

    def _answer_and_end(self, code: str, detail: str, *, retry_after: bytes | None = None) -> None:
        of_request = self.headers if self._in_message else ()
        headers = [*self.server_state.default_headers, (b"connection", b"close")]
        headers += self._refusals.cross_origin(of_request)
        headers += [(b"retry-after", retry_after)] if retry_after else []
        problem = problem_details(code, detail, request_id_of(""))
        self.transport.write(whole_answer(problem, scheme=self.scheme or "http", headers=headers))
        self._end()

    def _end(self) -> None:
        self._ending = True
        self._refusal = None
        self._connections.wait(self)
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self._start_timer(_SHORT_LINGER_S if self._lingers_shortly else _LINGER_S, self.drop)

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _GentlyClosing:
    """The transport of the last answer of a connection, which `close_gently` closes; uvicorn would close it at once.

    Args:
        protocol: the connection's protocol.
    """

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        """Ends the connection; uvicorn calls it at the end of the answer."""
        self._protocol.close_gently()
