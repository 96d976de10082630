"""A request leaves its spans in the client's trace, at the collector, and none unless traces are asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.server.supervisor import serve
from app.settings import Settings
from app.telemetry import tracing
from tests.support.colours import StartApp, colour_image
from tests.support.live import live_server

pytest.importorskip("opentelemetry.sdk", reason="needs the extra `telemetry`")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

pytestmark = pytest.mark.slow

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(start_app: StartApp, exporter: InMemorySpanExporter) -> TestClient:
    """An application whose spans stay in memory."""
    client = start_app()
    client.app.state.service.tracing = tracing.Tracing(exporter, SimpleSpanProcessor)  # type: ignore[attr-defined]
    return client


def ids_of(span: ReadableSpan) -> tuple[str, str | None]:
    """Returns the trace's id and the parent's."""
    assert span.context
    return f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}" if span.parent else None


def test_request_leaves_its_steps_in_order(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    traced.post("/predict", content=colour_image("red"), headers={"X-Request-ID": "my-id-7"})
    *steps, classify, request = exporter.get_finished_spans()

    assert [span.name for span in steps] == ["queue", "decode", "queue", "inference"]
    assert (classify.name, request.name, request.kind) == ("classify", "POST /predict", SpanKind.SERVER)
    assert all(span.parent and classify.context and span.parent.span_id == classify.context.span_id for span in steps)
    assert request.attributes == {
        "http.request.method": "POST",
        "url.path": "/predict",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "predictor.request_id": "my-id-7",
    }
    assert classify.attributes == {
        "predictor.model": "colours",
        "predictor.version": "1",
        "predictor.image.format": "PNG",
        "predictor.image.width": 40,
        "predictor.image.height": 30,
        "predictor.batch_size": 1,
    }


def test_steps_lie_inside_the_request_and_follow_each_other(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    traced.post("/predict", content=colour_image("red"))
    *steps, _, request = exporter.get_finished_spans()
    times = [(span.start_time or 0, span.end_time or 0) for span in steps]

    millisecond = 1_000_000  # two clocks are read for each span
    assert (request.start_time or 0) <= times[0][0] + millisecond
    assert all(ended <= started + millisecond for (_, ended), (started, _) in pairwise(times))
    assert times[-1][1] <= (request.end_time or 0) + millisecond


def test_trace_of_the_caller_is_gone_on_with(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    traced.post("/predict", content=colour_image("red"), headers=headers)
    spans = exporter.get_finished_spans()

    assert {ids_of(span)[0] for span in spans} == {TRACE_ID}
    assert ids_of(spans[-1]) == (TRACE_ID, PARENT_ID)


def test_caller_that_does_not_sample_is_heeded(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}
    assert traced.post("/predict", content=colour_image("red"), headers=headers).status_code == 200

    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT_ID}-01", "\x00" * 9])
def test_unusable_traceparent_begins_a_new_trace(
    traced: TestClient, exporter: InMemorySpanExporter, traceparent: str
) -> None:
    traced.post("/predict", content=colour_image("red"), headers={"traceparent": traceparent})
    trace_id, parent_id = ids_of(exporter.get_finished_spans()[-1])

    assert (trace_id != "0" * 32, parent_id) == (True, None)


def test_images_of_a_batch_have_spans_of_their_own(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    files = [("files", colour_image("red")), ("files", b"nonsense"), ("files", colour_image("blue"))]
    traced.post("/predict/batch", files=files)
    spans = exporter.get_finished_spans()
    classify = [span for span in spans if span.name == "classify"]

    assert len(classify) == 3
    assert [span.name for span in spans].count("inference") == 2
    assert sorted(str((span.attributes or {}).get("error.type")) for span in classify) == [
        "None",
        "None",
        "unsupported_format",
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"), [(b"nonsense", StatusCode.UNSET, "unsupported_format"), (None, StatusCode.ERROR, "")]
)
def test_only_the_servers_own_faults_are_errors_of_its_span(
    traced: TestClient,
    exporter: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes | None,
    status: StatusCode,
    code: str,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    if body is None:
        monkeypatch.setattr("app.models.registry.Registry.get", fail)
    traced.post("/predict", content=body or colour_image("red"))
    request = exporter.get_finished_spans()[-1]

    assert request.status.status_code is status
    assert (request.attributes or {})["error.type"] == (code or "internal")


def test_probes_leave_no_spans(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        traced.get(path)

    assert exporter.get_finished_spans() == ()


def test_asking_for_traces_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.telemetry.tracing.is_installed", lambda: False)

    with pytest.raises(tracing.TelemetryError, match=r"image-predictor\[telemetry\]"):
        create_app(Settings(otlp_endpoint="http://localhost:4318"))
    with pytest.raises(tracing.TelemetryError, match=r"image-predictor\[telemetry\]"):  # before any worker starts
        serve(Settings(otlp_endpoint="http://localhost:4318", port=0))
    create_app(Settings())


@pytest.mark.slow
def test_nothing_is_imported_unless_traces_are_asked_for() -> None:
    """FastAPI imports OpenTelemetry's API by itself; what does the work is `sdk` and `exporter`."""
    code = (
        "import sys; from app.main import create_app; from app.settings import Settings; create_app(Settings());"
        "assert not {'opentelemetry.sdk', 'opentelemetry.exporter'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Collector(ThreadingHTTPServer):
    """Takes traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CollectorHandler)
        self.exports: list[ExportTraceServiceRequest] = []


class _CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.exports.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_traces_reach_a_collector_before_the_service_ends(
    collector: Collector, colours_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the environment that OpenTelemetry knows, and the trace's id in the log."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-images")
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
    settings = {"model": "colours", "model_store": colours_store, "otlp_endpoint": endpoint}
    with live_server(tmp_path / "log", log_format="json", access_log=True, **settings) as server:
        server.wait_until_ready()
        httpx.post(
            f"{server.url}/predict",
            content=colour_image("red"),
            headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"},
        )
        server.process.terminate()
        assert server.process.wait(20) == 0
    (resource_spans,) = [each for export in collector.exports for each in export.resource_spans]
    resource = {attribute.key: attribute.value.string_value for attribute in resource_spans.resource.attributes}
    spans = [span for scope in resource_spans.scope_spans for span in scope.spans]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]

    assert resource["service.name"] == "shop-images"
    assert {span.name for span in spans} == {"POST /predict", "classify", "queue", "decode", "inference"}
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert [line["trace_id"] for line in lines if line.get("route") == "/predict"] == [TRACE_ID]


def test_collector_that_does_not_answer_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.telemetry.tracing._FLUSH_S", 0.1)
    answering = threading.Event()

    class SilentExporter(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            answering.wait(30)
            return super().export(spans)

    silent = tracing.Tracing(SilentExporter(), BatchSpanProcessor)
    with silent.request("POST", "/predict", {}):
        pass
    started_at = time.monotonic()
    silent.close()
    answering.set()

    assert time.monotonic() - started_at < 5
