"""Refuses predictions that there is no room for, before they cost a route.

RequestMiddleware -> keys -> here: is there room? -> the routes, which look again with all that they know

At ten times what the service can do, most of its answers are refusals: what each costs is taken from those that are
admitted. Routing, and the layers that FastAPI puts around it, are most of that cost.
"""

from __future__ import annotations

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.direct_route import plain_timeout_ms
from app.errors import DrainingError, OverloadedError
from app.problems import problem_response
from app.service import Service

_PATHS = ("/predict", "/predict/batch")


class RefusalMiddleware:
    """The innermost layer before the routes.

    Args:
        app: what it wraps.
        service: that has room, or has not.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._routes: dict[str, Route] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 503 at once, or passes the request on."""
        if scope["type"] == "http" and scope["method"] in {"POST", "PUT"} and scope["path"] in _PATHS:
            state = scope["state"]
            try:
                deadline = self._service.deadline_of(state["started_at"], plain_timeout_ms(scope))
                self._service.check_admissible(model=None, declared_bytes=0, deadline=deadline)
            except (DrainingError, OverloadedError) as error:
                state["error_code"] = error.code
                scope["route"] = self._route(scope)  # by which requests are counted
                headers = {"Retry-After": str(error.retry_after_s)}
                response = problem_response(error.code, error.detail, request_id=state["request_id"], headers=headers)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _route(self, scope: Scope) -> Route:
        if not self._routes:
            routes = [route for route in scope["app"].routes if isinstance(route, Route)]
            self._routes = {path: next(route for route in routes if route.path == path) for path in _PATHS}
        return self._routes[scope["path"]]
