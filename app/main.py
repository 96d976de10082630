"""`create_app(settings)`: assembly only."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from app.api import add_routes
from app.lifespan import create_lifespan
from app.middleware import RequestMiddleware
from app.problems import add_exception_handlers
from app.service import Service
from app.settings import Settings

_EXPOSED_HEADERS = ("X-Request-ID", "Server-Timing", "Retry-After")


def create_app(settings: Settings) -> FastAPI:
    """Returns the application; nothing is loaded before its lifespan starts.

    The `Service` behind it is `app.state.service`.
    """
    service = Service(settings)
    # With its documentation pages' scripts built in: a service in a closed network has them too.
    app = FastAPIOffline(
        title="Image Predictor",
        version=_version(),
        description="Class probabilities for images.",
        lifespan=create_lifespan(service),
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours are elsewhere; asking costs each request
    )
    app.state.service = service
    add_routes(app, service)
    add_exception_handlers(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Content-Type", "X-Request-ID"],
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(RequestMiddleware, service=service)  # the last one added is the outermost
    return app


def _version() -> str:
    try:
        return version("image-predictor")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
