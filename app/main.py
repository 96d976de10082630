"""`create_app(settings)`: assembly only."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api.auth import Auth, KeyMiddleware, document_keys
from app.api.health import add_health_routes
from app.api.middleware import RequestMiddleware
from app.api.models import add_model_routes
from app.api.pages import add_pages
from app.api.predict import add_prediction_routes
from app.api.problems import add_exception_handlers
from app.api.security_headers import SecurityHeadersMiddleware
from app.serving.gauges import GaugeSampler
from app.serving.lifecycle import create_lifespan
from app.serving.service import Service
from app.settings import Settings
from app.system.worker_board import WorkerPlace

_API_VERSION = "1"  # of the interface; the software's own is nobody's business
_EXPOSED_HEADERS = ("X-Request-ID", "Server-Timing", "Retry-After")


def create_app(settings: Settings, place: WorkerPlace | None = None) -> FastAPI:
    """Returns the application; nothing is loaded before its lifespan starts.

    The `Service` behind it is `app.state.service`.

    Args:
        settings: of this process.
        place: its place among several workers; None if it is the only process.

    Raises:
        KeyFileError: keys are configured and cannot be read.
    """
    service = Service(settings, place)
    sampler = GaugeSampler(service)
    app = FastAPI(
        title="Image Predictor",
        version=_API_VERSION,
        description="Class probabilities for images.",
        lifespan=create_lifespan(service, sampler),
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours are elsewhere; asking costs each request
    )
    app.state.service = service
    app.state.auth = auth = Auth(settings)
    add_prediction_routes(app, service)
    add_model_routes(app, service)
    add_health_routes(app, service, sampler)
    add_pages(app)
    document_keys(app)
    add_exception_handlers(app)
    if auth.needs_keys or auth.has_admins:
        app.add_middleware(KeyMiddleware, auth=auth)  # inside CORS: a preflight carries no key
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"],
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(RequestMiddleware, service=service)
    app.add_middleware(SecurityHeadersMiddleware)  # the last one added is the outermost
    return app
