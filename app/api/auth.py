"""Checks keys: API keys for everything but the probes, admin keys for what changes the service.

request -> KeyMiddleware -> a probe, or a service without keys, or a good key? -> the routes
                         -> else 401, 403 or 404, before the body is read
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.keys import Key, KeyRing
from app.api.problems import problem_response, responses, shape_for
from app.errors import ForbiddenError, PredictorError, UnauthorizedError
from app.settings import Settings

ADMIN_TAG: Final = "admin"
OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready", "/health/startup", "/healthz", "/livez", "/readyz"})
"""The paths of the probes, which need no key: orchestrators have none."""
_METRICS_PATH: Final = "/metrics"
_BEARER: Final = re.compile(r"[ \t]*bearer[ \t]+(\S+)[ \t]*", re.IGNORECASE)


class Auth:
    """Which keys a service has, and which paths they open.

    Args:
        settings: the service's settings, which say where the keys are.

    Attributes:
        open_paths: the paths that never need a key.
        open_patterns: patterns of further paths that never need a key.
        admin_routes: methods and patterns of the paths that need an admin key.

    Raises:
        KeyFileError: the keys cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._api_keys = KeyRing.of_clients(settings)
        self._admin_keys = KeyRing.of_admins(settings)
        self.open_paths = OPEN_PATHS | ({_METRICS_PATH} if settings.metrics_open else set())
        self.open_patterns: list[re.Pattern[str]] = []
        self.admin_routes: list[tuple[frozenset[str], re.Pattern[str]]] = []

    @property
    def needs_keys(self) -> bool:
        """Whether the service has API keys, so that only the open paths can be used without one."""
        return self._api_keys is not None

    @property
    def has_admins(self) -> bool:
        """Whether the service has admin keys, and so admin routes."""
        return self._admin_keys is not None

    def is_open(self, path: str) -> bool:
        """Returns whether a path never needs a key."""
        return path in self.open_paths or any(pattern.match(path) for pattern in self.open_patterns)

    def check(self, method: str, path: str, headers: Headers) -> Key | None:
        """Returns the key that a request came with, None where none is needed.

        Args:
            method: the HTTP method.
            path: the path that was asked for.
            headers: the request's headers.

        Raises:
            UnauthorizedError: the request has no key, or an unknown one.
            ForbiddenError: the key is known and does not open this path.
        """
        if self.is_open(path):
            return None
        if any(method in methods and pattern.match(path) for methods, pattern in self.admin_routes):
            return self.check_admin(headers)
        if self._api_keys is None:
            return None
        presented = _presented_key(headers)
        key = presented and (self._api_keys.find(presented) or self._find_admin(presented))
        if not key:
            raise _unauthorized(presented)
        if key.role == "metrics" and path != _METRICS_PATH:
            raise ForbiddenError("This key opens /metrics alone.")
        return key

    def check_admin(self, headers: Headers) -> Key:
        """Returns the admin key that a request came with.

        Args:
            headers: the request's headers.

        Raises:
            UnauthorizedError: the request has no key, or an unknown one.
            ForbiddenError: the key is an API key, and no admin key.
        """
        presented = _presented_key(headers)
        admin = presented and self._find_admin(presented)
        if admin:
            return admin
        if presented and self._api_keys is not None and self._api_keys.find(presented):
            raise ForbiddenError("This needs an admin key, and the key sent is none.")
        raise _unauthorized(presented, "an admin key")

    def _find_admin(self, presented: str) -> Key | None:
        key = self._admin_keys.find(presented) if self._admin_keys is not None else None
        return None if key is None or key.role else key


class KeyMiddleware:
    """The layer that lets a request with a good key pass, and answers any other with 401 or 403.

    It lies inside `RequestMiddleware`, which gives every request its id and counts it.

    Args:
        app: the layer inside.
        auth: the service's keys.
    """

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, and puts the key's name into its state, for the log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        try:
            key = self._auth.check(scope["method"], scope["path"], Headers(scope=scope))
        except PredictorError as error:
            state["error_code"] = error.code  # for the metrics
            response = problem_response(
                error.code, error.detail, request_id=state["request_id"], shape=shape_for(scope)
            )
            await response(scope, receive, send)
            return
        if key:
            state["api_key_name"] = key.name
        await self._app(scope, receive, send)


async def require_admin(request: Request) -> None:
    """Guards a route that changes the service: `Depends(require_admin)`.

    Args:
        request: the request for that route.

    Raises:
        HTTPException: 404, as if there were no such route, because the service has no admin keys.
        UnauthorizedError: the request has no key, or an unknown one.
        ForbiddenError: the key is an API key, and no admin key.
    """
    auth: Auth = request.app.state.auth
    if not auth.has_admins:
        raise HTTPException(404)
    request.state.api_key_name = auth.check_admin(request.headers).name


def add_admin_routes(app: FastAPI, router: APIRouter) -> None:
    """Adds routes for admins, or none if the service has no admin keys.

    `KeyMiddleware` knows their paths from then on, and answers strangers before a body is read.

    Args:
        app: the application.
        router: the routes.
    """
    auth: Auth = app.state.auth
    if not auth.has_admins:
        return
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    auth.admin_routes += [(frozenset(route.methods or ()), route.path_regex) for route in routes]
    app.include_router(router)


def document_keys(app: FastAPI) -> None:
    """Makes the OpenAPI document of an application say which operations need a key."""
    auth: Auth = app.state.auth
    if not (auth.needs_keys or auth.has_admins):
        return
    app.openapi = _with_keys(app.openapi, auth)  # type: ignore[method-assign]


def _with_keys(openapi: Callable[[], dict[str, Any]], auth: Auth) -> Callable[[], dict[str, Any]]:
    def documented() -> dict[str, Any]:
        document = openapi()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        if schemes:  # FastAPI keeps the document: it has been through here before
            return document
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
        schemes["header"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        for path, operation in _operations(document):
            is_admin = ADMIN_TAG in operation.get("tags", ())
            if is_admin or (auth.needs_keys and not auth.is_open(path)):
                operation["security"] = [{"bearer": []}, {"header": []}]
                codes = ("unauthorized", "forbidden")
                for status, response in responses(*codes).items():
                    operation["responses"].setdefault(str(status), response)
        return document

    return documented


def _operations(document: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    return ((path, operation) for path, item in document["paths"].items() for operation in item.values())


def _presented_key(headers: Headers) -> str:
    bearer = _BEARER.fullmatch(headers.get("authorization", ""))
    return bearer[1] if bearer else headers.get("x-api-key", "").strip(" \t")


def _unauthorized(presented: str, wanted: str = "a key") -> UnauthorizedError:
    if presented:
        return UnauthorizedError("The key sent is not known here.")
    return UnauthorizedError(f"This needs {wanted}: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
