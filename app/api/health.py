"""The routes of the health probes, and `/metrics` for Prometheus."""

from __future__ import annotations

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.problems import responses
from app.api.schemas import Health
from app.serving.service import Service


def add_health_routes(app: FastAPI, service: Service) -> None:
    """Adds the probes and `/metrics` to an application.

    Args:
        app: the application.
        service: the service whose state the probes tell.
    """

    # Kubernetes' own components call it /livez or /healthz, and so does most of what runs on Kubernetes.
    @app.get("/livez", include_in_schema=False)
    @app.get("/healthz", include_in_schema=False)
    @app.get("/health/live", tags=["health"], summary="Is the process alive?", responses=responses("not_ready"))
    async def live() -> Health:
        """200 while this process can classify.

        503 when inference is stuck, and restarting the process is what helps.
        """
        service.check_live()
        return Health(status="live")

    @app.get("/readyz", include_in_schema=False)
    @app.get(
        "/health/ready",
        tags=["health"],
        summary="May requests be sent here?",
        responses=responses("not_ready", "draining"),
    )
    async def ready() -> Health:
        """200 while requests should be sent here: the default model serves, and the service is not shutting down.

        503 while they should be sent elsewhere.
        """
        service.check_ready()
        return Health(status="ready")

    @app.get("/health/startup", tags=["health"], summary="Has it started?", responses=responses("not_ready"))
    async def startup() -> Health:
        """200 once loading has ended, whether the models serve or were rejected.

        503 while models are being loaded.
        """
        service.check_started()
        return Health(status="started")

    @app.get(
        "/metrics",
        tags=["health"],
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        """All metrics of the service, in the text format of Prometheus."""
        service.gauges.sample_service()
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)
