"""Gives every request its id and its clock, and afterwards counts and logs it; answers 500 to unexpected errors.

head -> id, start of the clock -> the layers inside -> `X-Request-ID`, `Server-Timing` -> metrics, log line, span
"""

from __future__ import annotations

import logging
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answering import Timings
from app.api.problems import problem_response, shape_for
from app.serving.service import Service
from app.telemetry.logs import request_fields
from app.telemetry.request_log import RequestRecorder, request_id_of
from app.telemetry.tracing import RequestSpan

logger = logging.getLogger(__name__)

_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left: it is counted and logged, and nothing is sent
_OWN_SLASH: Final = {"/", "/docs/"}


class RequestMiddleware:
    """The layer of the application that all other layers but the security headers lie inside.

    Args:
        app: the layer inside.
        service: the service, whose metrics count the requests.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._recorder = RequestRecorder(service.metrics, access_log=service.settings.access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request. The client gets an answer whatever happens inside, unless it has left."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path.endswith("/") and path not in _OWN_SLASH:
            # The same route, and no redirect: that would lead to whatever `Host` says, and lose a proxy's prefix.
            scope["path"] = path[:-1]
        tracing = self._service.tracing
        if tracing is None:
            await self._handle(scope, receive, send)
            return
        with tracing.request(scope["method"], scope["path"], Headers(scope=scope)) as span:
            await self._handle(scope, receive, send, span)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, span: RequestSpan | None = None) -> None:
        started_at = time.monotonic()
        request_id = request_id_of(Headers(scope=scope).get("x-request-id", ""))
        fields = {"request_id": request_id, "trace_id": span.trace_id} if span else {"request_id": request_id}
        context = request_fields.set(fields)
        timings = Timings()
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, timings=timings, started_at=started_at)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"server-timing", _server_timing(timings, time.monotonic() - started_at).encode()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = _CLIENT_CLOSED_REQUEST
        except Exception:
            logger.exception("Request %s (%s %s) failed.", request_id, scope["method"], scope["path"])
            if status:  # the answer has begun: the server breaks the connection, so that the client knows
                raise
            state["error_code"] = "internal"
            detail = "The request could not be answered; the log has the reason under the request id."
            response = problem_response("internal", detail, request_id=request_id, shape=shape_for(scope))
            await response(scope, receive, send_with_headers)
        finally:
            seconds = time.monotonic() - started_at
            method, route = scope["method"], getattr(scope.get("route"), "path", "unmatched")
            code = state.get("error_code", "")
            self._recorder.record(
                method=method,
                path=scope["path"],
                route=route,
                status=status,
                code=code,
                seconds=seconds,
                fields=fields,
                api_key_name=state.get("api_key_name"),
            )
            if span:
                span.finish(method=method, route=route, status=status, code=code, request_id=request_id)
            request_fields.reset(context)


def _server_timing(timings: Timings, total_s: float) -> str:
    """Returns the value of the header `Server-Timing`, in milliseconds as its specification (W3C) says."""
    steps = {
        "decode": timings.decode_s,
        "queue": timings.queue_s,
        "inference": timings.inference_s,
        "total": total_s,
    }
    return ", ".join(f"{step};dur={1000 * seconds:.2f}" for step, seconds in steps.items() if seconds is not None)
