"""Clients that send requests and read no answers hold neither connections nor memory, nor the end of the service."""

from __future__ import annotations

import gc
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.server.connection import reading_pace
from app.settings import Settings
from tests.support.colours import colour_image
from tests.support.live import live_server
from tests.support.sockets import answers_on, connect, head, running, until, until_closed

pytestmark = pytest.mark.slow

Start = Callable[..., str]
LARGE = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"  # 1.4 MB
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def start(colours_store: Path) -> Iterator[Start]:
    """Starts services in threads of this process, and returns their URLs."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            running(Settings(model_store=colours_store, model="colours", **settings))
        )


def never_reading(url: str) -> socket.socket:
    """Returns a connection with twenty requests for much, whose answers are not read."""
    connection = connect(url)
    connection.sendall(LARGE * 20)
    return connection


def closed_count(url: str, reason: str) -> float:
    found = re.search(rf'closed_total{{reason="{reason}"}} (\S+)', httpx.get(f"{url}/metrics").text)
    return float(found[1]) if found else 0.0


def test_clients_that_never_read_keep_nobody_out(start: Start) -> None:
    url = start(max_connections=8)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(never_reading(url))
        time.sleep(0.5)  # their answers have filled every buffer
        for _ in range(20):
            assert httpx.get(f"{url}/health/live").status_code == 200
            assert httpx.post(f"{url}/predict", content=colour_image("red")).status_code == 200
        assert closed_count(url, "evicted") >= 1


def test_answer_that_nobody_reads_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_pace, "INTERVAL_S", 0.2)
    url = start()
    with never_reading(url) as connection:
        until(lambda: closed_count(url, "not_read") == 1)
        with pytest.raises(ConnectionResetError):
            until_closed(connection)


def test_answer_that_is_read_slowly_arrives_whole(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_pace, "INTERVAL_S", 0.2)
    url = start()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        connection.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        connection.sendall(LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        for _ in range(30):  # 1.5 seconds, and several looks at the pace
            received += connection.recv(4_000)
            time.sleep(0.05)
        received += until_closed(connection)

    length = int(re.findall(rb"(?i)content-length: (\d+)", received)[0])
    assert len(received.partition(b"\r\n\r\n")[2]) == length


def test_few_requests_are_parsed_ahead_and_all_are_answered_in_order(start: Start) -> None:
    url = start(request_timeout_s=20)
    count = 14_000
    with connect(url) as connection:
        connection.sendall(head(length=len(colour_image("red"))))  # whose answer is due first
        time.sleep(0.1)
        connection.sendall(colour_image("red")[:-1])
        time.sleep(0.1)
        connection.setblocking(False)
        sent = connection.send(colour_image("red")[-1:] + LIVE * count)
        most = 0
        for _ in range(20):
            most = max(most, sum(type(each) is RequestResponseCycle for each in gc.get_objects()))
            time.sleep(0.005)
        connection.settimeout(20)
        answers = answers_on(connection, 1 + (sent - 1) // len(LIVE))

    assert sent > 100_000
    assert most < 50
    assert [status for status, _ in answers] == [200] * len(answers)
    assert b"red" in answers[0][1]


@pytest.mark.parametrize("chunked", [False, True])
def test_many_requests_with_bodies_sent_at_once_are_each_answered(start: Start, chunked: bool) -> None:
    image = colour_image("green")
    if chunked:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(image), image)
        request = head(more="Transfer-Encoding: chunked\r\n") + body
    else:
        request = head(length=len(image)) + image
    with connect(start()) as connection:
        connection.sendall(request * 100)
        answers = answers_on(connection, 100)

    assert [status for status, _ in answers] == [200] * 100
    assert all(b'"class_name":"green"' in body for _, body in answers)


@pytest.mark.parametrize("cut", [1, 20, len(LIVE) - 3, len(LIVE) - 1])
def test_burst_that_ends_inside_a_head_is_no_huge_head(start: Start, cut: int) -> None:
    count = 1_200  # 45 kB
    burst = LIVE * count
    with connect(start()) as connection:
        connection.sendall(burst + LIVE[:cut])
        time.sleep(0.05)
        connection.sendall(LIVE[cut:])
        answers = answers_on(connection, count + 1)

    assert [status for status, _ in answers] == [200] * (count + 1)


def test_probes_find_room_while_every_connection_is_at_work(start: Start) -> None:
    url = start(max_connections=2)
    with connect(url) as busy, connect(url) as busy_too:
        for connection in (busy, busy_too):
            connection.sendall(head(length=1_000, more="Expect: 100-continue\r\n"))
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for path in ("/health/live", "/health/ready", "/healthz"):
            assert httpx.get(f"{url}{path}").status_code == 200
        assert httpx.get(f"{url}/models").status_code == 503
        assert httpx.post(f"{url}/predict", content=colour_image("red")).json()["code"] == "overloaded"


def test_unread_answer_does_not_hold_up_the_end(colours_store: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "log", model="colours", model_store=colours_store) as server:
        server.wait_until_ready()
        with never_reading(server.url), never_reading(server.url):
            time.sleep(0.5)
            started_at = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=30) == 0
            assert time.monotonic() - started_at < 8
