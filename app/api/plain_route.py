"""A route that FastAPI only documents: its endpoint gets the request itself and answers it, without FastAPI between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

Endpoint = Callable[..., Awaitable[Response]]


class PlainRoute(APIRoute):
    """A route whose endpoint is called with the request and the parameters of the path, all of them texts.

    For each request, FastAPI solves dependencies, keeps two exit stacks and validates. On a small network that took
    18 % of the interpreter's time (benchmarks/NOTES.md).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)

        async def call_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            response = await self.call(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = call_endpoint

    async def call(self, request: Request) -> Response:
        """Returns the endpoint's answer to a request."""
        response: Response = await self.endpoint(request, **request.scope["path_params"])
        return response
