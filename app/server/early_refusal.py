"""Refuses predictions that there is no room for, before they cost a parser, a task, a layer or a route.

bytes of a head -> plain? -> room? -> whose key? -> the whole answer, which the connection writes; else uvicorn has
them, and the application, which refuses by itself what it must

At ten times what the service can do, most of its answers are refusals: what each costs is taken from those that are
admitted. What uvicorn, the middleware and the routes do for one was most of that cost (docs/performance.md).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.api.auth import Auth
from app.api.problems import MEDIA_TYPE, problem_details
from app.api.request_log import RequestRecorder, request_id_of
from app.api.schemas import ProblemDetails
from app.api.security_headers import security_headers
from app.errors import OverloadedError, PredictorError
from app.serving.service import Phase, Service

RawHeaders = Iterable[tuple[bytes, bytes]]

# All that is understood here is what nobody could understand otherwise: the length in digits, each header once and on
# one line. The rest is uvicorn's parser's, so that no two ideas of where a request ends ever meet on one connection.
_PLAIN_HEAD: Final = re.compile(
    rb"(?P<method>POST|PUT) (?P<path>/predict(?:/batch)?)(?:\?[!-~]*)? HTTP/1\.1(?:\r\n[\w-]+:[ -~]*)+"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,12}")
_NOT_PLAIN: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class Refusal(NamedTuple):
    """What becomes of a request that is refused.

    Attributes:
        answer: head and body.
        body_start: where the request's body begins, in what has come.
        body_bytes: its length.
    """

    answer: bytes
    body_start: int
    body_bytes: int


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

    def of(self, received: bytes, *, scheme: str, defaults: RawHeaders) -> Refusal | None:
        """Returns what becomes of a request; None for all that the application is to look at.

        Args:
            received: what has come, from the first byte of a request on.
            scheme: `http` or `https`.
            defaults: headers that every answer has.
        """
        service = self._service
        if not service.admission.pending_images or service.phase is not Phase.SERVING:
            return None
        if service.tracing is not None:  # which wants to see every request
            return None
        started_at = time.monotonic()
        overloaded = self._overload(service.deadline_of(started_at, None))
        if overloaded is None:
            return None
        end = received.find(b"\r\n\r\n")
        plain = _PLAIN_HEAD.fullmatch(received, 0, end) if end > 0 else None
        if plain is None:
            return None
        lines = received[:end].split(b"\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        length = _LENGTH.fullmatch(headers.get(b"content-length", b""))
        if length is None or len(headers) < len(lines) or not _NOT_PLAIN.isdisjoint(headers):
            return None
        if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return None
        if service.settings.cors_origins and b"origin" in headers:  # the answer depends on it
            return None
        path, key = plain["path"].decode(), None
        if self._auth.needs_keys:
            try:
                key = self._auth.check(path, Headers(raw=list(headers.items())))
            except PredictorError:  # told as every stranger is
                return None
        request_id = request_id_of(headers.get(b"x-request-id", b"").decode("ascii"))
        problem = problem_details(overloaded.code, overloaded.detail, request_id)
        seconds = time.monotonic() - started_at
        self._recorder.record(
            method=plain["method"].decode(),
            path=path,
            route=path,
            status=problem.status,
            code=problem.code,
            seconds=seconds,
            fields={"request_id": request_id},
            api_key_name=key.name if key else None,
        )
        more = (
            (b"retry-after", str(overloaded.retry_after_s).encode()),
            (b"server-timing", f"total;dur={1000 * seconds:.2f}".encode()),
        )
        answer = whole_answer(problem, scheme=scheme, headers=(*defaults, *more))
        return Refusal(answer, end + 4, int(length[0]))

    def _overload(self, deadline: float) -> OverloadedError | None:
        """Returns why there is no room for a request."""
        try:
            self._service.check_admissible(model=None, declared_bytes=0, deadline=deadline)
        except OverloadedError as error:
            # Its traceback leads to the caller's frame, and that to the error: a cycle, with the request's bytes in it.
            return error.with_traceback(None)
        return None


def whole_answer(problem: ProblemDetails, *, scheme: str, headers: RawHeaders) -> bytes:
    """Returns an answer of HTTP/1.1, head and body, for what is answered without the application.

    Args:
        problem: that it tells of.
        scheme: `http` or `https`.
        headers: beyond those that tell of the body, of the request's id and of security.
    """
    body = problem.model_dump_json().encode()
    of_body = f"content-length: {len(body)}\r\nx-request-id: {problem.request_id}\r\n\r\n".encode()
    return b"".join((STATUS_LINE[problem.status], _lines(headers), _FIXED[scheme], of_body, body))


def _lines(headers: RawHeaders) -> bytes:
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])


_FIXED: Final = {
    scheme: _lines([*security_headers(scheme), (b"content-type", MEDIA_TYPE.encode())]) for scheme in ("http", "https")
}
