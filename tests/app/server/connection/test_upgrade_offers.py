"""An offer to speak another protocol changes nothing: answer, body and connection are as without it. On raw sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.support.colours import colour_image
from tests.support.sockets import answers_on, connect, head, running

pytestmark = pytest.mark.slow

JAVA = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
)
OFFERS = [
    pytest.param(JAVA, id="h2c"),
    pytest.param(JAVA.replace("Upgrade", "upgrade").replace("h2c", "H2C"), id="another case"),
    pytest.param(WEBSOCKET, id="websocket"),
    pytest.param("Connection: upgrade\r\nUpgrade: TLS/1.3, IRC/6.9\r\n", id="others"),
    pytest.param("Connection: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\nUpgrade: foo\r\n", id="in several lines"),
]
SMUGGLED = b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def url(colours_store: Path) -> Iterator[str]:
    with running(Settings(model_store=colours_store, model="colours")) as url:
        yield url


@pytest.mark.parametrize("pause_s", [0, 0.1])
@pytest.mark.parametrize("offer", OFFERS)
def test_offer_is_declined_and_body_and_connection_stay_whole(url: str, offer: str, pause_s: float) -> None:
    with connect(url) as connection:
        for colour in ("red", "blue"):
            image = colour_image(colour)
            for part in (head(length=len(image), more=offer), image[:100], image[100:]):
                connection.sendall(part)
                time.sleep(pause_s)
            status, answer = answers_on(connection, 1)[0]
            assert status == 200
            assert f'"class_name":"{colour}"'.encode() in answer


@pytest.mark.parametrize("offer", OFFERS)
def test_chunked_body_behind_an_offer_is_read(url: str, offer: str) -> None:
    image = colour_image("green")
    with connect(url) as connection:
        connection.sendall(head(more=f"{offer}Transfer-Encoding: chunked\r\n"))
        time.sleep(0.1)
        connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(image), image))
        status, answer = answers_on(connection, 1)[0]

    assert status == 200
    assert b'"class_name":"green"' in answer


@pytest.mark.parametrize("pause_s", [0, 0.1])
@pytest.mark.parametrize("offer", OFFERS)
def test_body_behind_an_offer_is_never_taken_for_a_request(url: str, offer: str, pause_s: float) -> None:
    with connect(url) as connection:
        connection.sendall(head(length=len(SMUGGLED), more=offer))
        time.sleep(pause_s)
        connection.sendall(SMUGGLED + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = answers_on(connection, 2)

    assert [status for status, _ in answers] == [415, 200]
    assert b"unsupported_format" in answers[0][1]
    assert b"models" not in answers[1][1]


def test_many_pipelined_requests_with_offers_are_answered_in_order(url: str) -> None:
    request = f"GET /health/live HTTP/1.1\r\nHost: x\r\n{JAVA}\r\n".encode()
    with connect(url) as connection:
        connection.sendall(request * 50 + SMUGGLED)
        answers = answers_on(connection, 51)

    assert [status for status, _ in answers] == [200] * 51
    assert b"models" in answers[-1][1]


def test_what_follows_a_tunnel_request_is_no_request(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + SMUGGLED)
        connection.settimeout(3)
        answers = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1 ") == 1
