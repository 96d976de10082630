"""The probes of orchestrators, and the metrics of Prometheus."""

from __future__ import annotations

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.problems import responses
from app.api.schemas import Health
from app.serving.service import Service


def add_health_routes(app: FastAPI, service: Service) -> None:
    """Adds the probes and `/metrics` to an application."""

    # As Kubernetes' own components, and most of what runs on it, call it: what a liveness probe asks.
    @app.get("/livez", include_in_schema=False)
    @app.get("/healthz", include_in_schema=False)
    @app.get("/health/live", tags=["health"], summary="Is the process alive?", responses=responses("not_ready"))
    async def live() -> Health:
        """Whether the process can do its work; if not, restart it. False when inference is stuck, else only silence."""
        service.check_live()
        return Health(status="live")

    @app.get("/readyz", include_in_schema=False)
    @app.get("/ping", include_in_schema=False)  # TorchServe's, and what SageMaker asks before it sends requests
    @app.get(
        "/health/ready",
        tags=["health"],
        summary="May requests be sent here?",
        responses=responses("not_ready", "draining"),
    )
    async def ready() -> Health:
        """Whether requests should be sent here: a verified model serves, and the service is not draining."""
        service.check_ready()
        return Health(status="ready")

    @app.get("/health/startup", tags=["health"], summary="Has it started?", responses=responses("not_ready"))
    async def startup() -> Health:
        """Whether loading has come to an end, good or bad."""
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
        """Metrics in Prometheus' text format."""
        service.gauges.sample_service()
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)
