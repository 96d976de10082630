"""A signal ends the service in order: requests inside it are answered, and new ones are refused."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.__main__ import main
from tests.support.colours import colour_image
from tests.support.images import encode
from tests.support.live import LiveServer, live_server


@pytest.fixture
def server(request: pytest.FixtureRequest, colours_store: Path, tmp_path: Path) -> Iterator[LiveServer]:
    """A service with the colour model, and the settings that the test asks for by `indirect` parameters."""
    settings = getattr(request, "param", {})
    with live_server(tmp_path / "log", model="colours", model_store=colours_store, **settings) as server:
        server.wait_until_ready()
        yield server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_ends_the_service_in_order(server: LiveServer, number: int) -> None:
    assert httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200
    server.process.send_signal(number)

    assert server.process.wait(20) == 0
    assert "Traceback" not in server.log.read_text()


def test_request_inside_is_answered_after_the_signal(server: LiveServer) -> None:
    """An upload is under way when the signal comes: it is read to its end, classified and answered."""
    image = colour_image("blue")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /predict?top_k=1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image)}\r\n\r\n"
        connection.sendall(head.encode() + image[:10])
        _until(lambda: "predictor_pending_bytes 10.0" in httpx.get(f"{server.url}/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        _until(lambda: _refused(server.url))
        connection.sendall(image[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"class_name":"blue"' in answer
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("server", [{"drain_delay_s": 3}], indirect=True)
def test_draining_service_answers_until_the_delay_is_over(server: LiveServer) -> None:
    server.process.send_signal(signal.SIGTERM)
    _until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503)

    assert httpx.get(f"{server.url}/health/ready").json()["code"] == "draining"
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    assert httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("server", [{"drain_delay_s": 600}], indirect=True)
def test_second_signal_ends_the_service_at_once(server: LiveServer) -> None:
    server.process.send_signal(signal.SIGTERM)
    _until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503)
    server.process.send_signal(signal.SIGTERM)  # the same one, sent to the group and passed on
    time.sleep(1.1)
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(20) == 0


def test_upload_larger_than_the_limit_gets_its_answer(server: LiveServer) -> None:
    """The refusal arrives although the client is still sending, with a declared length and without."""
    body = b"\xff\xd8\xff" + bytes(55_000_000)
    declared = httpx.post(f"{server.url}/predict", content=body, timeout=30)
    chunked = httpx.post(f"{server.url}/predict", content=iter([body[:1_000_000]] * 60), timeout=30)

    assert (declared.status_code, declared.json()["code"]) == (413, "body_too_large")
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("server", [{"decode_threads": 1}], indirect=True)
def test_client_that_leaves_costs_no_more_and_harms_nobody(server: LiveServer) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    large = encode(noise, "PNG", compress_level=1)

    host, port = server.url.removeprefix("http://").split(":")

    def leave_early(_: int) -> None:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n\r\n".encode())
            connection.sendall(large)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave_early, range(16)))
    _until(lambda: "predictor_pending_images 0.0" in httpx.get(f"{server.url}/metrics").text)
    text = httpx.get(f"{server.url}/metrics").text

    assert 'status="499"' in text
    assert httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200


def test_port_that_is_taken_ends_the_start_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.MonkeyPatch.context() as patch:
        port = taken.getsockname()[1]
        patch.setattr(sys, "argv", ["image-predictor", "serve", "--port", str(port)])
        with pytest.raises(SystemExit) as exit_info:
            main()

    assert exit_info.value.code == 2
    complaint = capsys.readouterr().err
    assert f"port {port}" in complaint
    assert "PORT=" in complaint


def _refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/health/live")
    except httpx.TransportError:
        return True
    return False


def _until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
