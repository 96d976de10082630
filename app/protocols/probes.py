"""The probes of hosts and clients: is it there, and may requests be sent to it? None of them needs a key."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from app.api.problems import responses
from app.errors import PredictorError
from app.protocols.classifying import json_response
from app.protocols.documents import answer_of
from app.serving.service import Service

_PACKAGE: Final = "image-predictor"


def add_probes(app: FastAPI, service: Service, protocols: Collection[str]) -> None:
    """Adds the probes of the protocols that are switched on.

    Args:
        app: the application, which has its pages later: a browser gets the page at `/`.
        service: the service whose state they tell.
        protocols: the protocols that are switched on.
    """

    async def ping(request: Request) -> Response:
        """`Healthy` while requests should be sent here, else 503 and `Unhealthy`."""
        try:
            service.check_ready()
        except PredictorError as error:
            request.state.error_code = error.code  # for the metrics
            response = json_response({"status": "Unhealthy"}, 503)
            response.headers["Retry-After"] = str(error.retry_after_s)
            return response
        return json_response({"status": "Healthy"})

    async def health() -> Response:
        """200 while requests should be sent here, else 503."""
        service.check_ready()
        return json_response({"status": "OK"})

    async def software_version() -> Response:
        """The version of this software, as a text."""
        try:
            return Response(version(_PACKAGE), media_type="text/plain")
        except PackageNotFoundError:  # it runs from its sources
            return Response("unknown", media_type="text/plain")

    async def alive() -> Response:
        """KServe's V1 client asks this before anything else. Who accepts `text/html` gets the page for people."""
        return json_response({"status": "alive"})

    def probe(path: str, endpoint: Any, *methods: str, **options: Any) -> None:
        app.router.add_api_route(path, endpoint, methods=[*methods], include_in_schema=False, **options)
        app.state.auth.open_paths |= {path}

    wanted = set(protocols)
    if wanted & {"torchserve", "sagemaker", "mlflow"}:
        probe("/ping", ping, "GET", "HEAD", "POST")
    if wanted & {"huggingface", "mlflow"}:
        probe("/health", health, "GET", "HEAD", responses=responses("not_ready", "draining"))
    if "mlflow" in wanted:
        app.router.add_api_route("/version", software_version, methods=["GET"], include_in_schema=False)
    if "kserve" in wanted:
        app.router.add_api_route(
            "/",
            alive,
            methods=["GET"],
            tags=["kserve"],
            summary="Is the service alive?",
            response_class=Response,
            responses=answer_of({"type": "object"}),
            route_class_override=_RouteBesideThePage,
        )


class _RouteBesideThePage(APIRoute):
    """A route for requests that do not want HTML."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns whether a request is for this route."""
        wants_html = any(name == b"accept" and b"text/html" in value for name, value in scope.get("headers", ()))
        return (Match.NONE, {}) if wants_html else super().matches(scope)
