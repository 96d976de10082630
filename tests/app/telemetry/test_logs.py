"""Logs are readable for people and for machines, and no client can forge a line."""

from __future__ import annotations

import io
import json
import logging
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.middleware import RequestMiddleware
from app.serving.service import Service
from app.settings import Settings
from app.telemetry.logs import log_handler
from tests.support.colours import StartApp, colour_image
from tests.support.live import live_server


@pytest.fixture
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the service's loggers write, in the format of the `indirect` parameter."""
    stream = io.StringIO()
    handler = log_handler(request.param, stream)
    logger = logging.getLogger("app")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


as_json = pytest.mark.parametrize("written", ["json"], indirect=True)
on_console = pytest.mark.parametrize("written", ["console"], indirect=True)


@as_json
def test_access_line_says_what_was_asked_and_what_came_of_it(start_app: StartApp, written: io.StringIO) -> None:
    client = start_app(access_log=True)
    client.post("/models/colours/predict", content=b"nonsense", headers={"X-Request-ID": "my-id-7"})
    line = lines_of(written)[-1]

    assert 0 < line.pop("duration_ms") < 10_000
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line.pop("process") > 0
    assert line.pop("message").startswith("POST /models/colours/predict 415 ")
    assert line == {
        "level": "INFO",
        "logger": "app.access",
        "request_id": "my-id-7",
        "method": "POST",
        "path": "/models/colours/predict",
        "route": "/models/{name}/predict",
        "status": 415,
        "code": "unsupported_format",
    }


@as_json
@pytest.mark.anyio
async def test_access_line_names_the_key_that_was_used(colours_store: Path, written: io.StringIO) -> None:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["api_key_name"] = "shop"
        await Response("yes")(scope, receive, send)

    service = Service(Settings(model="colours", model_store=colours_store, access_log=True))
    transport = httpx.ASGITransport(RequestMiddleware(guarded, service))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.get("/")

    assert lines_of(written)[-1]["api_key_name"] == "shop"


@as_json
def test_exception_is_one_line_with_the_request_it_happened_in(
    start_app: StartApp, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_app()

    def fail(*_: object) -> None:
        raise RuntimeError("the disk\nis full")

    monkeypatch.setattr("app.models.registry.Registry.get", fail)
    request_id = client.post("/predict", content=colour_image("red")).headers["X-Request-ID"]
    line = lines_of(written)[-1]

    assert (line["level"], line["request_id"]) == ("ERROR", request_id)
    assert "RuntimeError: the disk\nis full" in line["exception"]


@on_console
def test_client_cannot_forge_a_line(start_app: StartApp, written: io.StringIO) -> None:
    client = start_app(access_log=True)
    before = len(written.getvalue().splitlines())
    client.get("/x%0A2026-11-21 ERROR everything is lost%1B[2J%E2%80%A8")
    added = written.getvalue().splitlines()[before:]

    assert len(added) == 1
    assert "GET /x\\n2026-11-21 ERROR everything is lost\\x1b[2J\\u2028 404 " in added[0]


@pytest.mark.slow
def test_every_line_of_a_running_service_is_json(colours_store: Path, tmp_path: Path) -> None:
    """From the first line to the last, those of libraries included."""
    log = tmp_path / "log"
    settings = {"model": "colours", "model_store": colours_store, "log_format": "json", "log_level": "debug"}
    with live_server(log, access_log=True, **settings) as server:
        server.wait_until_ready()
        httpx.post(f"{server.url}/predict", content=colour_image("red"))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]

    assert {"app.access", "app.server", "app.models"} <= {line["logger"] for line in lines}
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    assert any(line.get("route") == "/predict" and line["status"] == 200 for line in lines)
