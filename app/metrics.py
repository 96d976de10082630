"""Prometheus metrics, each event counted in one place.

Requests in `middleware.py`, images in `service.py`, loads of models in `registry.py`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "predictor_requests_total",
            "Requests answered, by route, status and error code",
            ["route", "method", "status", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "predictor_request_seconds",
            "Seconds from a request's head to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.decode_seconds = self._seconds("decode", "Seconds to decode and resize an image")
        self.queue_seconds = self._seconds("queue", "Seconds that an image waited for a decoder and a stream")
        self.inference_seconds = self._seconds("inference", "Seconds that an image's batch took")
        self.batch_size = Histogram(
            "predictor_batch_size",
            "Images that shared an image's batch",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self.images = Counter(
            "predictor_images_total", "Images classified, by format", ["model", "format"], registry=self.registry
        )
        self.pending_images = Gauge(
            "predictor_pending_images", "Images admitted and not answered yet", registry=self.registry
        )
        self.pending_bytes = Gauge(
            "predictor_pending_bytes", "Bytes of bodies in memory, arriving or unanswered", registry=self.registry
        )
        self.connections = Gauge("predictor_connections", "Open connections", registry=self.registry)
        self.connections_closed = Counter(
            "predictor_connections_closed_total",
            "Connections that a limit has ended before a route was reached, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.model_loads = Counter(
            "predictor_model_loads_total", "Attempts to load a model, by outcome", ["outcome"], registry=self.registry
        )
        self.model_info = Gauge(
            "predictor_model_info",
            "1 for each model that serves",
            ["model", "version", "engine", "precision", "device", "verified"],
            registry=self.registry,
        )
        self.golden_deviation = Gauge(
            "predictor_golden_deviation",
            "Largest |dp| of the golden check",
            ["model", "version"],
            registry=self.registry,
        )

    def _seconds(self, step: str, description: str) -> Histogram:
        name = f"predictor_{step}_seconds"
        return Histogram(name, description, ["model"], buckets=_SECONDS, registry=self.registry)

    def render(self) -> bytes:
        """Returns the text that Prometheus scrapes."""
        return generate_latest(self.registry)
