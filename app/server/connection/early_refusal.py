"""Refuses predictions for which there is no room, before they cost a task, a layer or a route of the application.

a complete head -> a prediction? -> is there room? -> a good key? -> 503, which the connection writes
in all other cases -> the application, which refuses by itself what it must

At ten times what the service can do, most of its answers are refusals, and what each costs is taken from the requests
that are admitted. Where a layer of the application refuses instead, 4 to 8 % fewer are answered
(benchmarks/NOTES.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.api.auth import Auth
from app.api.classifying_route import ClassifyingRoutes
from app.api.cross_origin import cross_origin_headers
from app.api.problems import PROBLEM_SHAPE, ErrorShape, ErrorShapes, problem_details
from app.api.schemas import ProblemDetails
from app.api.security_headers import security_headers
from app.errors import OverloadedError, PredictorError
from app.serving.service import Phase, Service
from app.telemetry.request_log import RequestRecorder, request_id_of

RawHeaders = Iterable[tuple[bytes, bytes]]


class EarlyRefusals:
    """Looks at the heads of requests while the service is full.

    Args:
        app: the application, with all its routes.
    """

    def __init__(self, app: FastAPI) -> None:
        service: Service = app.state.service
        self._service = service
        self._auth: Auth = app.state.auth
        self._shapes: ErrorShapes = app.state.error_shapes
        self._routes = ClassifyingRoutes(app)
        self._recorder = RequestRecorder(service.metrics, access_log=service.settings.access_log)

    def look_at(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], *, scheme: str, defaults: RawHeaders
    ) -> bytes | None:
        """Returns the whole answer to a request that is refused, None if the application is to answer it.

        Args:
            method: the HTTP method.
            target: the path and the query, as they were sent.
            headers: the request's headers, with their names in lower case.
            scheme: `http` or `https`.
            defaults: headers that every answer has.
        """
        service, key = self._service, None
        if not service.admission.pending_images:
            return None
        path, verb = target.partition(b"?")[0].decode("latin-1"), method.decode()
        route = self._routes.template_of(verb, path)
        if route is None:
            return None
        if service.phase is not Phase.SERVING or service.tracing is not None:  # a refusal is traced too
            return None
        started_at = time.monotonic()
        overloaded = self._overload(service.deadline_of(started_at))
        if overloaded is None:
            return None
        given = Headers(raw=headers)
        if self._auth.needs_keys:
            try:
                key = self._auth.check(verb, path, given)
            except PredictorError:  # the application answers 401 or 403
                return None
        request_id = request_id_of(given.get("x-request-id", ""))
        problem = problem_details(overloaded.code, overloaded.detail, request_id)
        seconds = time.monotonic() - started_at
        self._recorder.record(
            method=verb,
            path=path,
            route=route,
            status=problem.status,
            code=problem.code,
            seconds=seconds,
            fields={"request_id": request_id},
            api_key_name=key.name if key else None,
        )
        more = (
            (b"retry-after", str(overloaded.retry_after_s).encode()),
            (b"server-timing", f"total;dur={1000 * seconds:.2f}".encode()),
            *self.cross_origin(headers),
        )
        return whole_answer(problem, scheme=scheme, headers=(*defaults, *more), shape=self._shapes(verb, path))

    def cross_origin(self, headers: RawHeaders) -> RawHeaders:
        """Returns the headers that let a page read the answer to a request with these headers."""
        return cross_origin_headers(self._service.settings, headers)

    def _overload(self, deadline: float) -> OverloadedError | None:
        """Returns why there is no room for a request with this deadline, None if there is."""
        try:
            self._service.check_admissible(model=None, declared_bytes=0, deadline=deadline)
        except OverloadedError as error:
            # The traceback leads to the caller's frame, and that to the error: a cycle, with the request's bytes in it.
            return error.with_traceback(None)
        return None


def whole_answer(
    problem: ProblemDetails, *, scheme: str, headers: RawHeaders, shape: ErrorShape = PROBLEM_SHAPE
) -> bytes:
    """Returns an answer of HTTP/1.1, head and body, that is written without the application.

    Args:
        problem: the body.
        scheme: `http` or `https`.
        headers: all headers but those of the body, of the request's id and of security.
        shape: how the body looks.
    """
    body = shape.write(problem).encode()
    of_body = _lines(
        (
            (b"content-type", shape.media_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", problem.request_id.encode()),
        )
    )
    return b"".join((STATUS_LINE[problem.status], _lines(headers), _FIXED[scheme], of_body, b"\r\n", body))


def _lines(headers: RawHeaders) -> bytes:
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])


_FIXED: Final = {scheme: _lines(security_headers(scheme)) for scheme in ("http", "https")}
