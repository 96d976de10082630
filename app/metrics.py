"""Prometheus metrics, each event counted in one place.

Requests in `middleware.py`, images in `service.py`, loads of models in `registry.py`.

Of several workers, each keeps its values in files of the runtime's folder, and whichever is asked adds all of them up
(Prometheus' multiprocess mode). There, a gauge needs a `multiprocess_mode`, cannot call a function (see `sample`), and
labels once used cannot be removed: set what is gone to 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.runtime import Board, Runtime

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own so that several can live in one process.

    Args:
        runtime: of a worker, which `share_files` has prepared; None for the only process.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.registry = CollectorRegistry()
        self._runtime = runtime
        self._sampled: list[tuple[Gauge, Callable[[], float]]] = []
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
            "predictor_pending_images",
            "Images admitted and not answered yet",
            registry=self.registry,
            multiprocess_mode="livesum",
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

    def _seconds(self, step: str, description: str) -> Histogram:
        name = f"predictor_{step}_seconds"
        return Histogram(name, description, ["model"], buckets=_SECONDS, registry=self.registry)

    def sample(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Lets a gauge follow what a function returns; a worker's siblings see it a moment later."""
        self._sampled.append((gauge, read))

    def take_samples(self) -> None:
        """Sets the gauges that follow functions. A worker does so all the time, for whoever is asked."""
        for gauge, read in self._sampled:
            gauge.set(read())

    def render(self) -> bytes:
        """Returns the text that Prometheus scrapes: of all workers, whichever is asked."""
        self.take_samples()
        if self._runtime is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=str(self._runtime.metrics_folder))  # type: ignore[no-untyped-call]
        together.register(_Workers(self._runtime.board))
        return generate_latest(together)


class _Workers(Collector):
    """What the board tells of the workers themselves."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yields what Prometheus calls metric families."""
        ready = sum(row.ready for row in self._board.rows)
        yield GaugeMetricFamily("predictor_workers_ready", "Workers whose models serve", value=ready)
        restarts = self._board.restarts
        yield CounterMetricFamily("predictor_worker_restarts", "Workers replaced after they had died", value=restarts)


def share_files(runtime: Runtime) -> None:
    """Makes this process keep its metrics in the runtime's files; to be called before any metric is made.

    The files bear the worker's index, not the process' id: a replacement goes on counting where the one that died had
    stopped, so that counters never go back and files never pile up.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(runtime.metrics_folder)
    # The library chooses by the environment when it is imported, which was in the supervisor.
    values.ValueClass = values.MultiProcessValue(lambda: _file_label(runtime.index))  # type: ignore[no-untyped-call]


def forget_worker(folder: Path, index: int) -> None:
    """Removes what was true of a worker only while it lived, such as the images inside it.

    Args:
        folder: the runtime's metrics folder.
        index: the worker's.
    """
    mark_process_dead(_file_label(index), path=str(folder))  # type: ignore[no-untyped-call]


def _file_label(index: int) -> str:
    return f"worker{index}"
