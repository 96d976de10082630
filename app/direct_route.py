"""A route that FastAPI documents, and that requests reach without its machinery where they do not need it.

request without parameters, or with a plain `top_k` -> the endpoint; anything else -> FastAPI -> the endpoint

FastAPI solves dependencies, keeps two exit stacks and validates for each request; on a small network that took 40 % of
the time that the interpreter had for one (docs/performance.md).
"""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

_PLAIN_TOP_K: Final = re.compile(rb"top_k=([1-9][0-9]{0,6})")


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request, the path's parameters and `top_k`, and returns a response."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        validating = self.app

        async def direct(scope: Scope, receive: Receive, send: Send) -> None:
            query: bytes = scope["query_string"]
            plain = _PLAIN_TOP_K.fullmatch(query)
            if query and not plain:
                await validating(scope, receive, send)
                return
            top_k = int(plain[1]) if plain else None
            response = await self.endpoint(Request(scope, receive, send), **scope["path_params"], top_k=top_k)
            await response(scope, receive, send)

        self.app = direct
