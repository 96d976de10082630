"""Around every request: its id, its clock, its metrics, its log line, and the answer to what nobody expected."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import request_fields
from app.problems import problem_response
from app.service import Service, Timings
from app.tracing import RequestSpan

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("app.access")

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left; nothing is sent


class RequestMiddleware:
    """The outermost layer of the application.

    Args:
        app: what it wraps.
        service: whose metrics count the requests.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._metrics = service.metrics
        self._access_log = service.settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; whatever happens inside, the client gets an answer while it is there."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tracing = self._service.tracing
        if tracing is None:
            await self._handle(scope, receive, send)
            return
        with tracing.request(scope["method"], scope["path"], Headers(scope=scope)) as span:
            await self._handle(scope, receive, send, span)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, span: RequestSpan | None = None) -> None:
        started_at = time.monotonic()
        given_id = Headers(scope=scope).get("x-request-id", "")
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else secrets.token_hex(16)
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
            if status:  # too late for another answer: the connection breaks, and the client knows
                raise
            state["error_code"] = "internal"
            detail = "The request could not be answered; the log has the reason under the request id."
            await problem_response("internal", detail, request_id=request_id)(scope, receive, send_with_headers)
        finally:
            seconds = time.monotonic() - started_at
            route = getattr(scope.get("route"), "path", "unmatched")
            code = state.get("error_code", "")
            self._metrics.count_request(route, scope["method"], status, code, seconds)
            if span:
                span.finish(method=scope["method"], route=route, status=status, code=code, request_id=request_id)
            if self._access_log:
                self._log(scope, route, status, 1000 * seconds)
            request_fields.reset(context)

    def _log(self, scope: Scope, route: str, status: int, duration_ms: float) -> None:
        method, path, state = scope["method"], scope["path"], scope["state"]
        fields = {
            "method": method,
            "path": path,
            "route": route,
            "status": status,
            "code": state.get("error_code"),
            "duration_ms": round(duration_ms, 3),
            "api_key_name": state.get("api_key_name"),
        }
        access_logger.info(
            "%s %s %d %.1f ms %s", method, path, status, duration_ms, state["request_id"],
            extra={name: value for name, value in fields.items() if value is not None},
        )  # fmt: skip


def _server_timing(timings: Timings, total_s: float) -> str:
    """Returns the header's value, in milliseconds as the Server Timing specification has them."""
    steps = {
        "decode": timings.decode_s,
        "queue": timings.queue_s,
        "inference": timings.inference_s,
        "total": total_s,
    }
    return ", ".join(f"{step};dur={1000 * seconds:.2f}" for step, seconds in steps.items() if seconds is not None)
