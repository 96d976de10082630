"""Adds the routes of the protocols that are switched on, after the native ones."""

from __future__ import annotations

from fastapi import FastAPI

from app.protocols.huggingface import add_huggingface_routes
from app.protocols.invocations import add_invocation_routes
from app.protocols.kserve import add_kserve_routes
from app.protocols.oip.routes import add_oip_routes
from app.protocols.probes import add_probes
from app.protocols.torchserve.inference import add_torchserve_routes
from app.protocols.vertex import add_vertex_routes
from app.serving.service import Service

_ADDERS = {
    "torchserve": add_torchserve_routes,
    "oip": add_oip_routes,
    "kserve": add_kserve_routes,
    "huggingface": add_huggingface_routes,
}


def add_protocols(app: FastAPI, service: Service) -> None:
    """Adds the routes of the protocols that the settings name.

    Args:
        app: the application, which has its native routes that classify, and gets its pages later.
        service: the service that classifies.
    """
    settings = service.settings
    protocols = settings.spoken_protocols
    add_probes(app, service, protocols)
    for protocol, add in _ADDERS.items():
        if protocol in protocols:
            add(app, service)
    add_invocation_routes(app, service, protocols)
    if "vertex" in protocols:
        add_vertex_routes(
            app, service, health_route=settings.vertex_health_route, predict_route=settings.vertex_predict_route
        )
