"""The metrics of Prometheus. Each event is counted in one place.

Requests are counted by `app/telemetry/request_log.py`, images by `app/api/answering.py`, and loads of models by
`app/models/registry.py`; `app/serving/gauges.py` sets the gauges.

To look up a metric by its labels costs more than to count: what every request counts is kept. The number of different
labels is bounded, whatever clients send.

Each of several workers keeps its values in files in a folder that they share, and the worker that is asked adds all of
them up (Prometheus' multiprocess mode). In this mode a gauge needs a `multiprocess_mode` and cannot call a function.
Labels that were used cannot be removed: the gauge of what is gone is set to 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.inference.pipeline import Classification
from app.system.worker_board import WorkerBoard, WorkerPlace

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MAX_COUNTED_CLASSES: Final = 100
"""The most classes of a model that are counted by name: each is a time series of its own, which Prometheus keeps."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Metrics:
    """The metrics of one service, in a registry of their own so that several services can live in one process.

    Args:
        place: this worker's place among the workers, which share files already; None if it is the only process.

    Attributes:
        registry: holds every metric of this process.
    """

    def __init__(self, place: WorkerPlace | None = None) -> None:
        self.registry = CollectorRegistry()
        self._place = place
        self.requests = Counter(
            "predictor_requests_total",
            "Requests answered, by route, status and error code",
            ["route", "method", "status", "code"],
            registry=self.registry,
        )
        self.model_requests = Counter(
            "predictor_model_requests_total",
            "Requests for predictions that a model was found for, by outcome: success, or fail with any error",
            ["model", "outcome"],
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
            "Images in each batch that was computed",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self.images = Counter(
            "predictor_images_total", "Images classified, by format", ["model", "format"], registry=self.registry
        )
        self.last_inference = Gauge(
            "predictor_last_inference_timestamp_seconds",
            "When an image was last classified, in seconds since 1970",
            ["model"],
            multiprocess_mode="max",
            registry=self.registry,
        )
        self.predictions = Counter(
            "predictor_predictions_total",
            f"Images by their most probable class: the first {MAX_COUNTED_CLASSES} classes that occur, then `other`",
            ["model", "class_id", "class_name"],
            registry=self.registry,
        )
        self.confidence = Histogram(
            "predictor_confidence",
            "Probability of an image's most probable class",
            ["model"],
            buckets=_CONFIDENCES,
            registry=self.registry,
        )
        self.pending_images = Gauge(
            "predictor_pending_images",
            "Images admitted and not answered yet",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.queue_depth = Gauge(
            "predictor_queue_depth",
            "Images waiting for a stream",
            ["model"],
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.ready = Gauge(
            "predictor_ready",
            "1 while every worker may be sent requests, else 0",
            multiprocess_mode="livemin",
            registry=self.registry,
        )
        self.event_loop_lag_seconds = Histogram(
            "predictor_event_loop_lag_seconds",
            "How late the event loop came to what was due, looked at once a second",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pending_bytes = Gauge(
            "predictor_pending_bytes",
            "Bytes of bodies in memory, arriving or unanswered",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.decode_bytes = Gauge(
            "predictor_decode_bytes",
            "Memory that images take while they are decoded, by an estimate",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.connections = Gauge(
            "predictor_connections", "Open connections", multiprocess_mode="livesum", registry=self.registry
        )
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
            multiprocess_mode="livemax",
        )
        self.golden_deviation = Gauge(
            "predictor_golden_deviation",
            "Largest |dp| of the golden check",
            ["model", "version"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.golden_bound = Gauge(
            "predictor_golden_bound",
            "Largest |dp| that the golden check allows",
            ["model", "version"],
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        for outcome in ("ready", "failed"):  # Prometheus sees no increase in a counter that did not exist before
            self.model_loads.labels(outcome)
        self._request_children: dict[tuple[str, str, int, str], tuple[Counter, Histogram]] = {}
        self._model_metrics: dict[tuple[str, str], ModelMetrics] = {}
        self._counted_classes: dict[str, set[tuple[int, str]]] = {}

    def count_request(self, route: str, method: str, status: int, code: str, seconds: float) -> None:
        """Counts a request that has been answered.

        Args:
            route: the path's template, never the path itself, which the client chooses.
            method: the HTTP method; an unknown one is counted as `other`.
            status: the HTTP status.
            code: the code of the error; empty without one.
            seconds: the time from the request's head to its answer.
        """
        key = (route, method if method in _METHODS else "other", status, code)
        children = self._request_children.get(key)
        if children is None:
            children = self._request_children[key] = (self.requests.labels(*key), self.request_seconds.labels(route))
        children[0].inc()
        children[1].observe(seconds)

    def of_model(self, name: str, version: str) -> ModelMetrics:
        """Returns the metrics of one version of a model, with the model's labels filled in."""
        found = self._model_metrics.get((name, version))
        if found is None:
            found = ModelMetrics(self, name, self._counted_classes.setdefault(name, set()))
            self._model_metrics[name, version] = found
        return found

    def _seconds(self, step: str, description: str) -> Histogram:
        name = f"predictor_{step}_seconds"
        return Histogram(name, description, ["model"], buckets=_SECONDS, registry=self.registry)

    def render(self) -> bytes:
        """Returns the text that Prometheus scrapes, with the sum of all workers."""
        return generate_latest(self._of_all_workers())

    def totals(self, sample: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Returns the sums of one sample over all workers.

        Args:
            sample: the name of the sample, such as `predictor_decode_seconds_sum`.
            labels: the labels to tell apart; those that differ in others only are added up.
        """
        found: dict[tuple[str, ...], float] = {}
        for family in self._of_all_workers().collect():
            for each in family.samples:
                if each.name == sample:
                    key = tuple(each.labels[label] for label in labels)
                    found[key] = found.get(key, 0.0) + each.value
        return found

    def _of_all_workers(self) -> CollectorRegistry:
        if self._place is None:
            return self.registry
        together = CollectorRegistry()
        if self._place.metrics_folder.is_dir():
            MultiProcessCollector(together, path=str(self._place.metrics_folder))  # type: ignore[no-untyped-call]
        together.register(_Workers(self._place.board))
        return together


class _Workers(Collector):
    """Metrics of the workers themselves, read from their board at each scrape."""

    def __init__(self, board: WorkerBoard) -> None:
        self._board = board

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yields each metric with its value."""
        ready = sum(status.ready for status in self._board.statuses)
        yield GaugeMetricFamily("predictor_workers_ready", "Workers whose models serve", value=ready)
        restarts = self._board.restarts
        yield CounterMetricFamily("predictor_worker_restarts", "Workers replaced after they had died", value=restarts)


class ModelMetrics:
    """The metrics of one version of a model; all versions of a model count together.

    Args:
        metrics: the metrics of this process.
        model: the model's name.
        counted_classes: the ids and names of the classes that are counted by name; the model's versions share it.
    """

    def __init__(self, metrics: Metrics, model: str, counted_classes: set[tuple[int, str]]) -> None:
        self._model = model
        self._counted_classes = counted_classes
        self._images = metrics.images
        self.succeeded: Counter = metrics.model_requests.labels(model, "success")
        self.failed: Counter = metrics.model_requests.labels(model, "fail")
        self._last_inference = metrics.last_inference.labels(model)
        self._predictions = metrics.predictions
        self._decode_seconds = metrics.decode_seconds.labels(model)
        self._queue_seconds = metrics.queue_seconds.labels(model)
        self._inference_seconds = metrics.inference_seconds.labels(model)
        self._confidence = metrics.confidence.labels(model)
        self._images_by_format: dict[str, Counter] = {}
        self._predictions_by_class: dict[int, Counter] = {}
        self.queue_depth: Gauge = metrics.queue_depth.labels(model)
        self.batch_size: Histogram = metrics.batch_size.labels(model)

    def count_image(self, classification: Classification, class_names: tuple[str, ...]) -> None:
        """Counts an image that has been classified.

        Args:
            classification: the result, with its format and its times.
            class_names: the names of the model's classes, in the order of the probabilities.
        """
        image_format = classification.format
        images = self._images_by_format.get(image_format)
        if images is None:
            images = self._images_by_format[image_format] = self._images.labels(self._model, image_format)
        images.inc()
        self._last_inference.set_to_current_time()
        self._decode_seconds.observe(classification.decode_s)
        self._queue_seconds.observe(classification.queue_s)
        self._inference_seconds.observe(classification.inference_s)
        class_id = int(classification.ranking[0])
        self._confidence.observe(float(classification.probabilities[class_id]))
        predictions = self._predictions_by_class.get(class_id)
        if predictions is None:
            predictions = self._predictions_by_class[class_id] = self._predictions.labels(
                self._model, *self._class_labels(class_id, class_names[class_id])
            )
        predictions.inc()

    def _class_labels(self, class_id: int, class_name: str) -> tuple[str, str]:
        """Returns the labels of a class: its id, which tells apart classes of the same name, and its name."""
        this_class = (class_id, class_name)
        if this_class not in self._counted_classes and len(self._counted_classes) == MAX_COUNTED_CLASSES:
            return "", "other"
        self._counted_classes.add(this_class)
        return str(class_id), class_name
