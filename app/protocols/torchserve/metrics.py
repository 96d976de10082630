"""Metrics on a port of their own, with TorchServe's names too, for its dashboards and for KServe's scaler.

They come from the service's own counters, so that the workers add up.

https://docs.pytorch.org/serve/metrics_api.html
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import UntypedMetricFamily
from prometheus_client.registry import Collector

from app.serving.service import Service
from app.telemetry.metrics import Metrics


def add_metrics_route(app: FastAPI, service: Service) -> None:
    """Adds `/metrics` to an application that has no other routes.

    Args:
        app: the application.
        service: the service whose metrics they are.
    """
    torchserve = CollectorRegistry()
    torchserve.register(_TorchServeNames(service.metrics))

    async def metrics() -> Response:
        """All metrics of the service, and those of TorchServe."""
        service.gauges.sample_service()
        return Response(service.metrics.render() + generate_latest(torchserve), media_type=CONTENT_TYPE_LATEST)

    app.add_api_route("/metrics", metrics, methods=["GET"], include_in_schema=False)


class _TorchServeNames(Collector):
    """The service's counters under TorchServe's names; all versions of a model count together, as `default`.

    They are untyped, because a counter's name would have to end in `_total`, and TorchServe's do not.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._host = socket.gethostname()

    def collect(self) -> Iterator[UntypedMetricFamily]:
        """Yields each metric with its values."""
        totals = self._metrics.totals
        queue = totals("predictor_queue_seconds_sum", "model")
        decode, inference = (totals(f"predictor_{step}_seconds_sum", "model") for step in ("decode", "inference"))
        latency = {key: queue.get(key, 0) + decode.get(key, 0) + inference.get(key, 0) for key in queue}
        requests = totals("predictor_model_requests_total", "model")
        yield self._by_model("ts_inference_requests_total", "Requests for predictions", requests)
        yield self._by_model("ts_inference_latency_microseconds", "Time of images, from upload to answer", latency, 1e6)
        yield self._by_model("ts_queue_latency_microseconds", "Time that images have waited", queue, 1e6)
        statuses = totals("predictor_requests_total", "status")
        for hundreds in "245":
            family = UntypedMetricFamily(
                f"Requests{hundreds}XX", f"Answers with a status of {hundreds}xx", labels=["Level", "Hostname"]
            )
            count = sum(value for (status,), value in statuses.items() if status.startswith(hundreds))
            family.add_metric(["Host", self._host], count)
            yield family

    def _by_model(
        self, name: str, description: str, values: dict[tuple[str, ...], float], factor: float = 1
    ) -> UntypedMetricFamily:
        family = UntypedMetricFamily(name, description, labels=["model_name", "model_version", "hostname"])
        for (model,), value in values.items():
            family.add_metric([model, "default", self._host], factor * value)
        return family
