"""A route that FastAPI documents, and that requests reach without its machinery where they do not need it.

no parameters, or a plain `top_k` and time limit -> the endpoint; anything else -> FastAPI -> the endpoint

FastAPI solves dependencies, keeps two exit stacks and validates for each request; on a small network that took 40 % of
the time that the interpreter had for one (docs/performance.md).
"""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

_TIMEOUT_HEADER: Final = b"x-request-timeout-ms"
_PLAIN_TIMEOUT: Final = re.compile(rb"[1-9][0-9]{0,8}")
_PLAIN_TOP_K: Final = re.compile(rb"top_k=([1-9][0-9]{0,6})")


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request, the path's parameters, `top_k` and `timeout_ms`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        validating = self.app

        async def direct(scope: Scope, receive: Receive, send: Send) -> None:
            query: bytes = scope["query_string"]
            plain = _PLAIN_TOP_K.fullmatch(query)
            timeout = timeout_of(scope)
            if (query and not plain) or (timeout is not None and not _PLAIN_TIMEOUT.fullmatch(timeout)):
                await validating(scope, receive, send)
                return
            parameters = {**scope["path_params"], "top_k": int(plain[1]) if plain else None}
            parameters["timeout_ms"] = None if timeout is None else int(timeout)
            response = await self.endpoint(Request(scope, receive, send), **parameters)
            await response(scope, receive, send)

        self.app = direct


def timeout_of(scope: Scope) -> bytes | None:
    """Returns what a client says of its patience, in milliseconds, as it says it; None if it does not."""
    return next((value for name, value in scope["headers"] if name == _TIMEOUT_HEADER), None)


def plain_timeout_ms(scope: Scope) -> int | None:
    """Returns the same as a number; None if there is none, or none that needs no more than a look."""
    timeout = timeout_of(scope)
    return int(timeout) if timeout and _PLAIN_TIMEOUT.fullmatch(timeout) else None
