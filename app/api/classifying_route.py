"""A route that classifies: FastAPI only documents it, and its endpoint gets the request itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class ClassifyingRoute(APIRoute):
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


class ClassifyingRoutes:
    """Finds the routes that classify by path, before there is a request.

    Args:
        app: an application with all its routes.
    """

    def __init__(self, app: FastAPI) -> None:
        routes = [route for route in app.routes if isinstance(route, ClassifyingRoute)]

        # Clients ask the same few paths again and again.
        @lru_cache(maxsize=256)
        def template_of(method: str, path: str) -> str | None:
            matching = (route for route in routes if method in (route.methods or ()) and route.path_regex.match(path))
            return next((route.path for route in matching), None)

        self.template_of = template_of
