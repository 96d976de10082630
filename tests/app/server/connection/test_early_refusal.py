"""A refusal that the application never hears of says what the application would have said."""

from __future__ import annotations

import gc
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from app.api.keys import new_key
from app.api.middleware import RequestMiddleware
from app.inference.torchscript_engine import TorchScriptEngine
from app.server.connection import http_protocol as protocol
from app.settings import Settings
from tests.support.colours import colour_image
from tests.support.sockets import connect, head, running, until, until_closed

pytestmark = [pytest.mark.in_process, pytest.mark.slow]

StartFull = Callable[..., str]
IMAGE = colour_image("red")


@pytest.fixture
def start_full(colours_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartFull]:
    """Starts services with room for one image, and with that image, and returns their URLs."""
    release = threading.Event()
    computed = TorchScriptEngine.__call__

    def held_up(engine: TorchScriptEngine, images: object) -> object:
        assert release.wait(30)
        return computed(engine, images)  # type: ignore[arg-type]

    with ExitStack() as stack:

        def start(*, inside: str = "", **settings: object) -> str:
            chosen = {"model": "colours", "model_store": colours_store, "max_pending_images": 1, **settings}
            url = stack.enter_context(running(Settings(**chosen)))  # type: ignore[arg-type]
            stack.callback(release.set)
            monkeypatch.setattr(TorchScriptEngine, "__call__", held_up)
            waiting = stack.enter_context(connect(url))
            waiting.sendall(head(length=len(IMAGE), more=inside) + IMAGE)
            probe = head("/models/colours/predict", length=len(IMAGE), more=f"{inside}Connection: close\r\n") + IMAGE
            until(lambda: asked(url, probe)[0] == 503)
            return url

        yield start


def asked(url: str, request: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    with connect(url) as connection:
        connection.sendall(request)
        return read(connection)


def read(connection: socket.socket) -> tuple[int, dict[str, str], dict[str, object]]:
    """Returns the status, the headers and the body of the next answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    top, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(status_line.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize("path", ["/predict", "/predict?top_k=1", "/predict/batch"])
def test_refusal_says_what_the_application_would_have_said(start_full: StartFull, path: str) -> None:
    url = start_full()
    given = "X-Request-ID: mine\r\n"
    status, headers, problem = asked(url, head(path, length=len(IMAGE), more=given) + IMAGE)
    # One that closes its connection is left to the application.
    usual = asked(url, head(path, length=len(IMAGE), more=f"{given}Connection: close\r\n") + IMAGE)

    assert (status, problem["code"], problem["request_id"]) == (503, "overloaded", "mine")
    assert (usual[0], usual[2].keys()) == (status, problem.keys())
    assert usual[1].pop("connection") == "close"
    assert usual[1].keys() == headers.keys()
    for name in usual[1].keys() - {"content-length", "date", "server-timing"}:
        assert usual[1][name] == headers[name]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/predictions/colours", {"code", "type", "message"}),
        ("/predictions/colours/1.0", {"code", "type", "message"}),
        ("/v2/models/colours/infer", {"error", "code", "request_id"}),
        ("/v1/models/colours:predict", {"error", "code", "request_id"}),
        ("/", {"error", "code", "request_id"}),
        ("/invocations", {"type", "title", "status", "detail", "code", "request_id"}),
        ("/models/colours/invoke", {"type", "title", "status", "detail", "code", "request_id"}),
    ],
)
def test_refusal_has_the_shape_of_its_protocol(
    start_full: StartFull, monkeypatch: pytest.MonkeyPatch, path: str, fields: set[str]
) -> None:
    url = start_full()
    usual = asked(url, head(path, length=len(IMAGE), more="Connection: close\r\n") + IMAGE)

    def fail(*_: object) -> None:
        raise AssertionError("the application has heard of it")

    monkeypatch.setattr(RequestMiddleware, "__call__", fail)
    status, headers, answer = asked(url, head(path, length=len(IMAGE)) + IMAGE)

    assert (status, set(answer)) == (503, fields)
    assert headers["retry-after"]
    assert (usual[0], set(usual[2]), usual[1]["content-type"]) == (503, fields, headers["content-type"])


def test_application_hears_nothing_of_it(start_full: StartFull, monkeypatch: pytest.MonkeyPatch) -> None:
    url = start_full()
    heard: list[str] = []
    handle = RequestMiddleware.__call__

    async def listening(layer: RequestMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(scope["method"])
        await handle(layer, scope, receive, send)

    monkeypatch.setattr(RequestMiddleware, "__call__", listening)
    assert httpx.post(f"{url}/predict", content=IMAGE).status_code == 503
    assert httpx.get(f"{url}/health/live").status_code == 200
    assert heard == ["GET"]


def test_connection_goes_on_behind_a_refused_body(start_full: StartFull) -> None:
    url = start_full()
    large = bytes(1_000_000)
    with connect(url) as connection:
        for _ in range(3):
            connection.sendall(head(length=len(large)))
            assert read(connection)[0] == 503
            connection.sendall(large)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read(connection)[0] == 200


@pytest.mark.parametrize("path", ["/predict", "/models/colours/predict"], ids=["by-connection", "by-application"])
def test_refusal_leaves_nothing_to_the_collector_of_cycles(start_full: StartFull, path: str) -> None:
    """At overload, there are a thousand a second, each with its request's bytes."""
    request = head(path, length=len(IMAGE)) + IMAGE
    with connect(start_full()) as connection:

        def refuse(count: int) -> None:
            for _ in range(count):
                connection.sendall(request)
                assert read(connection)[0] == 503

        refuse(5)
        gc.collect()
        gc.disable()
        try:
            refuse(50)
            assert gc.collect() < 50
        finally:
            gc.enable()


def test_requests_sent_together_are_answered_in_their_order(start_full: StartFull) -> None:
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(start_full()) as connection:
        connection.sendall(live + head(length=len(IMAGE)) + IMAGE + live.replace(b"Host", b"Connection: close\r\nHost"))
        answers = until_closed(connection)

    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"503", b"200"]


HEADS = {
    "plain": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nxxxx",
    "in lower case": b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length:4\r\nconnection: KEEP-ALIVE\r\n\r\nxxxx",
    "two equal lengths": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nxxxx",
    "two lengths": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nxxxx",
    "list of lengths": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 4\r\n\r\nxxxx",
    "signed length": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nxxxx",
    "no length": b"POST /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    "empty length": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
    "space before the colon": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length : 4\r\n\r\nxxxx",
    "length on two lines": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 4\r\n\r\nxxxx",
    "length after a lone line feed": b"POST /predict HTTP/1.1\r\nHost: x\nContent-Length: 4\r\n\r\nxxxx",
    "length after a lone return": b"POST /predict HTTP/1.1\r\nHost: x\rContent-Length: 4\r\n\r\nxxxx",
    "chunked": b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "chunked and a length": b"POST /predict HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\nx\r\n0\r\n\r\n",
    "zero byte": b"POST /predict HTTP/1.1\r\nHost: \0\r\nContent-Length: 4\r\n\r\nxxxx",
    "no host": b"POST /predict HTTP/1.1\r\nContent-Length: 4\r\n\r\nxxxx",
    "HTTP/1.0": b"POST /predict HTTP/1.0\r\nHost: x\r\nContent-Length: 4\r\n\r\nxxxx",
    "absolute target": b"POST http://x/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nxxxx",
    "another path": b"POST /predicted HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nxxxx",
}


@pytest.mark.parametrize("request_bytes", HEADS.values(), ids=HEADS)
def test_no_request_ends_elsewhere_than_for_the_parser(start_full: StartFull, request_bytes: bytes) -> None:
    """Of two ideas of where a request ends, the second request of the next client would be made."""
    url = start_full()
    last = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    def statuses(parts: list[bytes]) -> list[bytes]:
        with connect(url) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.02 * (len(parts) > 1))
            return re.findall(rb"HTTP/1.1 (\d+)", until_closed(connection))

    assert statuses([request_bytes + last]) == statuses([request_bytes[:3], request_bytes[3:] + last])


def test_connection_that_stays_idle_behind_a_refused_body_is_closed_as_others_are(
    start_full: StartFull, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = start_full(idle_timeout_s=0.3)
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.1)  # which is another matter, and would be answered with 408
    with connect(url) as connection:
        connection.sendall(head(length=2))
        assert read(connection)[0] == 503
        connection.sendall(b"xx")
        assert until_closed(connection) == b""


def test_stranger_at_a_full_service_is_still_a_stranger(start_full: StartFull) -> None:
    key, line = new_key("shop")
    url = start_full(api_keys=line, inside=f"X-API-Key: {key}\r\n")

    assert httpx.post(f"{url}/predict", content=IMAGE).json()["code"] == "unauthorized"
    assert httpx.post(f"{url}/predict", content=IMAGE, headers={"X-API-Key": key}).json()["code"] == "overloaded"


def test_page_of_an_allowed_origin_can_read_its_refusal(start_full: StartFull) -> None:
    url = start_full(cors_origins="https://shop.example")
    refused = httpx.post(f"{url}/predict", content=IMAGE, headers={"Origin": "https://shop.example"})

    assert refused.status_code == 503
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    stranger = httpx.post(f"{url}/predict", content=IMAGE, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers


def test_refusals_are_counted_and_logged(start_full: StartFull, caplog: pytest.LogCaptureFixture) -> None:
    url = start_full(access_log=True)
    counter = 'predictor_requests_total{code="overloaded",method="PUT",route="/predict",status="503"}'
    with caplog.at_level(logging.INFO, logger="app.access"):
        refused = httpx.put(f"{url}/predict", content=IMAGE)

    assert f"{counter} 1.0" in httpx.get(f"{url}/metrics").text
    lines = [record.getMessage() for record in caplog.records if "PUT /predict 503" in record.getMessage()]
    assert len(lines) == 1
    assert refused.headers["x-request-id"] in lines[0]
