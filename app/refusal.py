"""Refuses predictions that there is no room for, before they cost a task, a layer of the application or a route.

head -> plain? -> whose key? -> room? -> the whole answer, which the connection writes; else the application has it,
which refuses by itself what it must

At ten times what the service can do, most of its answers are refusals: what each costs is taken from those that are
admitted. What uvicorn, the middleware and the routes do for one was most of that cost (docs/performance.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.auth import Auth
from app.direct_route import TIMEOUT_HEADER, plain_timeout_ms
from app.errors import OverloadedError, PredictorError
from app.headers import security_headers
from app.problems import MEDIA_TYPE, problem_details
from app.request_record import RequestRecorder, request_id_of
from app.schemas import ProblemDetails
from app.service import Phase, Service

RawHeaders = Iterable[tuple[bytes, bytes]]

_METHODS: Final = frozenset({b"POST", b"PUT"})
_PATHS: Final = frozenset({b"/predict", b"/predict/batch"})


class Refusals:
    """Looks at the heads of requests.

    Args:
        service: that has room, or has not.
        auth: what opens it.
    """

    def __init__(self, service: Service, auth: Auth) -> None:
        self._service = service
        self._auth = auth
        self._recorder = RequestRecorder(service.metrics, access_log=service.settings.access_log)

    def answer(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], *, scheme: str, defaults: RawHeaders
    ) -> bytes | None:
        """Returns the whole answer to a request that is refused; None for all that the application is to look at.

        Args:
            method: of HTTP.
            target: path and query, as they came.
            headers: of the request, their names in lower case.
            scheme: `http` or `https`.
            defaults: headers that every answer has.
        """
        path = target.partition(b"?")[0]
        if method not in _METHODS or path not in _PATHS or self._service.phase is not Phase.SERVING:
            return None
        if self._service.tracing is not None:  # which wants to see every request
            return None
        started_at = time.monotonic()
        given = dict(reversed(headers))  # of several of one name, the first
        if self._service.settings.cors_origins and b"origin" in given:  # the answer depends on it
            return None
        timeout = given.get(TIMEOUT_HEADER)
        timeout_ms = None if timeout is None else plain_timeout_ms(timeout)
        route = path.decode()
        try:
            deadline = self._service.deadline_of(started_at, timeout_ms)
            self._service.check_admissible(model=None, declared_bytes=0, deadline=deadline)
        except OverloadedError as error:
            overloaded = error
        else:
            return None
        try:
            key = self._auth.check(route, Headers(raw=headers))
        except PredictorError:  # told as every stranger is
            return None
        fields = {"request_id": request_id_of(given.get(b"x-request-id", b"").decode("latin-1"))}
        problem = problem_details(overloaded.code, overloaded.detail, fields["request_id"])
        seconds = time.monotonic() - started_at
        more = (
            (b"retry-after", str(overloaded.retry_after_s).encode()),
            (b"server-timing", f"total;dur={1000 * seconds:.2f}".encode()),
        )
        self._recorder.record(
            method=method.decode(),
            path=route,
            route=route,
            status=problem.status,
            code=problem.code,
            seconds=seconds,
            fields=fields,
            api_key_name=key.name if key else None,
        )
        return whole_answer(problem, scheme=scheme, headers=(*defaults, *more))


def whole_answer(problem: ProblemDetails, *, scheme: str, headers: RawHeaders) -> bytes:
    """Returns an answer of HTTP/1.1, head and body, for what is answered without the application.

    Args:
        problem: that it tells of.
        scheme: `http` or `https`.
        headers: beyond those that tell of the body, of the request's id and of security.
    """
    body = problem.model_dump_json().encode()
    lines = [STATUS_LINE[problem.status]]
    lines += [name + b": " + value + b"\r\n" for name, value in (*headers, *security_headers(scheme))]
    lines.append(f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n".encode())
    lines.append(f"x-request-id: {problem.request_id}\r\n\r\n".encode())
    return b"".join((*lines, body))
