"""Sends OpenTelemetry traces to a collector. Without an address of one, OpenTelemetry's SDK is not imported.

request (continues the trace of the caller's `traceparent`) -> classify, for each image -> queue, decode, queue,
inference -> in batches, from a thread of its own, to the collector (OTLP over HTTP)

OpenTelemetry's own `OTEL_*` variables set sampling, headers, batching and the resource.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from app.errors import PredictorError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from app.inference.pipeline import Classification

_TRACES_PATH: Final = "/v1/traces"
_FLUSH_S: Final = 2.0
# Probes and scrapes come every few seconds, and their traces would tell nothing.
_UNTRACED: Final = ("/health", "/livez", "/readyz", "/ping", "/v2/health", "/metrics")


class TelemetryError(PredictorError):
    """Traces are asked for, and the packages that send them are not installed."""

    code = "invalid_parameter"


def check_installed() -> None:
    """Checks that traces can be sent; imports nothing of OpenTelemetry but empty packages.

    Raises:
        TelemetryError: the extra `telemetry` is not installed.
    """
    if not is_installed():
        raise TelemetryError("--otlp-endpoint needs the extra `telemetry`: pip install 'image-predictor[telemetry]'.")


def is_installed() -> bool:
    """Returns whether the extra `telemetry` is installed; imports nothing of it but empty packages."""
    try:
        return all(
            importlib.util.find_spec(f"opentelemetry.{name}") for name in ("sdk.trace", "exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:
        return False


def traces_to(endpoint: str) -> Tracing:
    """Returns tracing that exports to a collector; starts a thread.

    Args:
        endpoint: the collector's address, such as `http://localhost:4318`.

    Raises:
        TelemetryError: the extra `telemetry` is not installed.
    """
    check_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # log a batch that is lost, not each attempt
    base = endpoint.rstrip("/").removesuffix(_TRACES_PATH)
    return Tracing(OTLPSpanExporter(f"{base}{_TRACES_PATH}"), BatchSpanProcessor)


class Tracing:
    """Makes the spans of a service.

    Args:
        exporter: sends the spans.
        processor: the class of the span processor, which is called with the exporter.
    """

    def __init__(self, exporter: SpanExporter, processor: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # no OTEL_SERVICE_NAME is set
            resource = resource.merge(Resource({"service.name": "image-predictor"}))
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor(exporter))
        self._tracer = self._provider.get_tracer("app")
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[RequestSpan | None]:
        """Opens the span of a request; spans that are made inside the `with` block become its children.

        Args:
            method: the HTTP method.
            path: the path without the query.
            headers: the request's headers; `traceparent` and `tracestate` tell which trace to continue.

        Yields:
            the span; None for a probe or a scrape, which is not traced.
        """
        if path.startswith(_UNTRACED):
            yield None
            return
        with self._tracer.start_as_current_span(
            method,
            context=self._propagator.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": path},
            record_exception=False,
        ) as span:
            yield RequestSpan(span)

    @contextmanager
    def classify(self, model: str, version: str) -> Iterator[ClassifySpan]:
        """Opens the span of the classification of one image; records the error's code if it fails.

        Args:
            model: the model's name.
            version: the model's version.
        """
        attributes = {"predictor.model": model, "predictor.version": version}
        with self._tracer.start_as_current_span("classify", attributes=attributes, record_exception=False) as span:
            try:
                yield ClassifySpan(self, span)
            except PredictorError as error:
                span.set_attribute("error.type", error.code)
                raise

    def step(self, name: str, started_at: float, seconds: float, attributes: Mapping[str, AttributeValue]) -> None:
        """Records a finished step as a child of the current span.

        Args:
            name: the name of the step.
            started_at: when the step began, on the clock of time.monotonic().
            seconds: the duration of the step.
            attributes: the attributes of its span.
        """
        epoch_s = time.time() - time.monotonic()
        started_ns = int((epoch_s + started_at) * 1e9)
        span = self._tracer.start_span(name, start_time=started_ns, attributes=dict(attributes))
        span.end(end_time=started_ns + int(seconds * 1e9))

    def close(self) -> None:
        """Sends the spans that are left, for 2 seconds at most: a collector that hangs must not hold up the end."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_S)


class RequestSpan:
    """The span of a request.

    Args:
        span: the span, which has been started.

    Attributes:
        trace_id: the id of the trace, in 32 hexadecimal digits.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def finish(self, *, method: str, route: str, status: int, code: str, request_id: str) -> None:
        """Records the result of the request, under the names of OpenTelemetry's conventions for HTTP.

        Args:
            method: the HTTP method.
            route: the path's template.
            status: the HTTP status.
            code: the code of the error; empty without one.
            request_id: the request's id.
        """
        from opentelemetry.trace import StatusCode

        self._span.update_name(f"{method} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("predictor.request_id", request_id)
        if code:
            self._span.set_attribute("error.type", code)
        if status >= 500:  # a client's mistake is not the server's error
            self._span.set_status(StatusCode.ERROR)


class ClassifySpan:
    """The span of the classification of one image.

    Args:
        tracing: makes the spans of its steps.
        span: the span, which has been started.
    """

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self._started_at = time.monotonic()

    def finish(self, classification: Classification) -> None:
        """Records the steps of the image's way through the pipeline as spans.

        Args:
            classification: the result, with its times.
        """
        if not self._span.is_recording():
            return
        size = {"predictor.image.width": classification.width, "predictor.image.height": classification.height}
        image = {"predictor.image.format": classification.format, **size}
        batch = {"predictor.batch_size": classification.batch_size}
        self._span.set_attributes({**image, **batch})
        decode_at = classification.decode_started_at
        decoded_at = decode_at + classification.decode_s
        infer_at = self._started_at + classification.queue_s + classification.decode_s
        step = self._tracing.step
        step("queue", self._started_at, max(0.0, decode_at - self._started_at), {"predictor.waits_for": "decode"})
        step("decode", decode_at, classification.decode_s, image)
        step("queue", decoded_at, max(0.0, infer_at - decoded_at), {"predictor.waits_for": "inference"})
        step("inference", infer_at, classification.inference_s, batch)
