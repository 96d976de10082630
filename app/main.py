"""Assembles the application: the service, its routes and what surrounds them.

`uvicorn --factory app.main:create_app` serves it with settings from the environment; `python -m app serve` runs it
under `app.server`.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from app.api.auth import Auth, KeyMiddleware, document_keys
from app.api.cross_origin import allow_origins
from app.api.health import add_health_routes
from app.api.middleware import RequestMiddleware
from app.api.models import add_model_routes
from app.api.pages import add_pages
from app.api.predict import add_prediction_routes
from app.api.problems import add_exception_handlers
from app.api.security_headers import SecurityHeadersMiddleware
from app.protocols.error_shapes import TORCHSERVE_SHAPE, error_shapes
from app.protocols.routes import add_protocols
from app.protocols.sagemaker_multi_model import add_multi_model_routes
from app.protocols.torchserve.management import add_management_routes
from app.protocols.torchserve.metrics import add_metrics_route
from app.serving.lifecycle import running
from app.serving.service import Service
from app.settings import Settings
from app.settings.platforms import tell_unused_storage
from app.system.environment import tell_ignored_variables
from app.telemetry.logs import configure_logging

_API_VERSION = "1"  # the version of the HTTP interface; the software's own version is not shown to clients


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """Returns the application; nothing is loaded before its lifespan starts.

    The `Service` behind it is `app.state.service`.

    Args:
        settings: the settings of this process. None reads them from the environment, and sets up the log lines too, as
            an ASGI server does not know them.
        service: the service behind it, if that is kept running elsewhere (`app.serving.lifecycle`); None to make one
            that lives as long as the application.

    Raises:
        ValidationError: a variable of the environment does not hold what its setting needs.
        KeyFileError: keys are configured and cannot be read.
        SignatureError: the file of trusted keys cannot be read or used.
        TelemetryError: traces are asked for, and the extra `telemetry` is not installed.
    """
    if settings is None:
        settings = Settings()
        configure_logging(settings.log_level, settings.log_format)
        tell_ignored_variables()
        tell_unused_storage(os.environ)
    own = service or Service(settings)
    app = _bare_app(own, lifespan=None if service else lambda _app: running(own))
    vertex_routes = own.settings.vertex_health_route, own.settings.vertex_predict_route
    app.state.error_shapes = error_shapes(own.settings.spoken_protocols, filter(None, vertex_routes))
    add_prediction_routes(app, own)
    if own.settings.sagemaker_multi_model:
        add_multi_model_routes(app, own, own.settings.sagemaker_models)
    else:
        add_model_routes(app, own)
    add_health_routes(app, own)
    add_protocols(app, own)
    add_pages(app)
    document_keys(app)
    return _surrounded(app)


def create_management_app(service: Service) -> FastAPI:
    """Returns the application of TorchServe's management interface, which has a port of its own.

    Args:
        service: the service whose models it manages.
    """
    app = _bare_app(service)
    add_management_routes(app, service)
    return _surrounded(app)


def create_metrics_app(service: Service) -> FastAPI:
    """Returns the application of `/metrics` with TorchServe's names, which has a port of its own.

    Args:
        service: the service whose metrics it shows.
    """
    app = _bare_app(service)
    add_metrics_route(app, service)
    return _surrounded(app)


def _bare_app(service: Service, **options: Any) -> FastAPI:
    """Returns an application without routes; its errors are TorchServe's until it is told otherwise."""
    app = FastAPI(
        title="Image Predictor",
        version=_API_VERSION,
        description="Class probabilities for images.",
        servers=[{"url": "./", "description": "Where this document came from."}],  # also below a path of a proxy
        openapi_url=None,  # add_pages adds one that costs a tenth of the time
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # RequestMiddleware takes a path with a slash at its end for the one without
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
        },  # FastAPI's would cost each request time; ours are in app.telemetry
        **options,
    )
    app.state.service = service
    app.state.auth = Auth(service.settings)
    app.state.error_shapes = lambda _method, _path: TORCHSERVE_SHAPE
    return app


def _surrounded(app: FastAPI) -> FastAPI:
    """Returns an application that has all its routes, with the layers that every request passes."""
    auth: Auth = app.state.auth
    service: Service = app.state.service
    add_exception_handlers(app)
    if auth.needs_keys or auth.has_admins:
        app.add_middleware(KeyMiddleware, auth=auth)  # inside CORS: a preflight carries no key
    allow_origins(app, service.settings)
    app.add_middleware(RequestMiddleware, service=service)
    app.add_middleware(SecurityHeadersMiddleware)  # the last one added is the outermost
    return app
