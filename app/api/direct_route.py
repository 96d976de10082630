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

TIMEOUT_HEADER: Final = b"x-request-timeout-ms"
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
            timeout = next((value for name, value in scope["headers"] if name == TIMEOUT_HEADER), None)
            if (query and not plain) or (timeout is not None and plain_timeout_ms(timeout) is None):
                await validating(scope, receive, send)
                return
            parameters = {**scope["path_params"], "top_k": int(plain[1]) if plain else None}
            parameters["timeout_ms"] = None if timeout is None else plain_timeout_ms(timeout)
            response = await self.endpoint(Request(scope, receive, send), **parameters)
            await response(scope, receive, send)

        self.app = direct


def plain_timeout_ms(timeout: bytes) -> int | None:
    """Returns what a client says of its patience, in milliseconds; None if that needs more than a look."""
    return int(timeout) if _PLAIN_TIMEOUT.fullmatch(timeout) else None
