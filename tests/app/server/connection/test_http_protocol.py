"""A connection's head, pace and number are limited, and refusals can be read; seen on raw sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import MagicMock

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.api.bodies import uploads
from app.api.problems import PROBLEMS
from app.server.connection import http_protocol as protocol
from app.server.connection import read_ahead
from app.server.connection.parsing_turns import ParsingTurns
from app.server.connection.uvicorn_names import UVICORN_NAMES
from app.settings import Settings
from tests.support.colours import colour_image
from tests.support.sockets import answers_on, connect, head, running, until, until_closed

pytestmark = pytest.mark.slow

Start = Callable[..., str]


@pytest.fixture
def start(colours_store: Path) -> Iterator[Start]:
    """Starts services in threads of this process, whose time limits can be shortened, and returns their URLs."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(Settings(model_store=colours_store, **settings)))


def metric(url: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(f"{url}/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def check_refusal(answer: bytes, code: str) -> None:
    """Holds a refusal to the table, to RFC 9457, and to what makes a client close its connection."""
    top, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (problem["code"], problem["status"], problem["title"]) == (code, *PROBLEMS[code])
    lines = top.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {PROBLEMS[code].status} ")
    assert "content-type: application/problem+json" in lines
    assert "connection: close" in lines
    assert f"x-request-id: {problem['request_id']}" in lines


@pytest.mark.anyio
async def test_uvicorn_has_the_names_that_are_taken_from_inside_it() -> None:
    async def application(scope: object, receive: object, send: object) -> None: ...

    state = ServerState()
    connection = HttpToolsProtocol(uvicorn.Config(application, log_config=None), state, {})
    connection.connection_made(MagicMock(asyncio.Transport))
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.gather(*state.tasks)
    taken_from = {"HttpToolsProtocol": connection, "RequestResponseCycle": connection.cycle, "ServerState": state}

    assert taken_from.keys() == UVICORN_NAMES.keys()
    for name, owner in taken_from.items():
        assert type(owner).__name__ == name
        for taken in UVICORN_NAMES[name]:
            assert hasattr(owner, taken), f"{name} has no {taken} in uvicorn {uvicorn.__version__}"


def test_ordinary_requests_share_a_connection(start: Start) -> None:
    url = start(model="colours")
    with connect(url) as connection:
        for colour in ("red", "blue"):
            image = colour_image(colour)
            connection.sendall(head(length=len(image)) + image)
            assert f'"class_name":"{colour}"'.encode() in connection.recv(65536)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"X-Large: " + b"a" * 10_000_000], id="one header"),
        pytest.param([b"X-%d: small" % number for number in range(500_000)], id="many headers"),
        pytest.param([b"X-Large: " + b"a" * 40_000], id="just above"),
    ],
)
def test_huge_head_is_refused(start: Start, lines: list[bytes]) -> None:
    with connect(start(model="colours")) as connection, ThreadPoolExecutor(1) as sender:
        sending = sender.submit(connection.sendall, b"POST /predict HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
        answer = until_closed(connection)
        connection.close()
        assert sending.exception(20) is None or isinstance(sending.exception(), OSError)

    check_refusal(answer, "head_too_large")


def test_huge_address_is_refused(start: Start) -> None:
    with connect(start(model="colours")) as connection:
        connection.sendall(b"GET /" + b"a" * 200_000)
        check_refusal(until_closed(connection), "head_too_large")


def test_large_head_within_the_limit_is_served_with_a_body_behind_it(start: Start) -> None:
    image = colour_image("green") + bytes(100_000)
    with connect(start(model="colours")) as connection:
        connection.sendall(head(length=len(image), more=f"X-Large: {'a' * 30_000}\r\n") + image)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_endless_trailer_ends_the_connection(start: Start) -> None:
    with connect(start(model="colours")) as connection:
        connection.sendall(head(more="Transfer-Encoding: chunked\r\n") + b"1\r\nx\r\n0\r\n")
        endless = (connection.send(b"X-Trailer: " + b"a" * 100_000) for _ in itertools.count())
        with pytest.raises(OSError, match=r"reset|Broken"):
            sum(endless)


@pytest.mark.parametrize("start_of_head", [b"GET /health/live HTTP/1.1\r\nHost:", b"\r\n"])
def test_slow_head_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch, start_of_head: bytes) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.1)
    with connect(start(model="colours")) as connection:
        connection.sendall(start_of_head)
        check_refusal(until_closed(connection), "request_too_slow")


def test_connection_that_never_sends_is_closed(start: Start) -> None:
    with connect(start(model="colours", idle_timeout_s=0.1)) as connection:
        assert until_closed(connection) == b""


def test_what_is_no_http_gets_a_problem(start: Start) -> None:
    with connect(start(model="colours")) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        check_refusal(until_closed(connection), "malformed_request")


def test_slow_body_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_PACE_WINDOW_S", 0.1)
    url = start(model="colours")
    with connect(url) as connection:
        connection.sendall(head(length=1_000_000) + b"x" * 20)
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_too_slow"' in answer
    until(lambda: metric(url, "predictor_pending_bytes") == 0)


def test_body_that_keeps_the_pace_may_take_many_windows(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_PACE_WINDOW_S", 0.5)
    image = colour_image("red") + bytes(10_000)
    with connect(start(model="colours")) as connection:
        connection.sendall(head(length=len(image)))
        started_at = time.monotonic()
        for at in range(0, len(image), 500):
            connection.sendall(image[at : at + 500])
            time.sleep(0.03)
        assert time.monotonic() - started_at > 0.6
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("chunked", [False, True])
def test_steady_upload_may_take_longer_than_the_time_of_a_request(start: Start, chunked: bool) -> None:
    image = colour_image("red")
    pieces = [image[at : at + len(image) // 10 + 1] for at in range(0, len(image), len(image) // 10 + 1)]
    with connect(start(model="colours", request_timeout_s=0.5, min_upload_bytes_per_s=1)) as connection:
        more = "Transfer-Encoding: chunked\r\n"
        connection.sendall(head(more=more) if chunked else head(length=len(image)))
        for piece in pieces:  # in a second
            time.sleep(0.1)
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_patience_of_a_client_ends_its_upload(start: Start) -> None:
    with connect(start(model="colours")) as connection:
        connection.sendall(head(length=100, more="X-Request-Timeout-Ms: 100\r\n"))
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 504 ")


def test_trickling_bodies_keep_nobody_out(start: Start) -> None:
    url = start(model="colours", max_pending_images=2, max_body_bytes=1_000_000, max_pending_bytes=1_000_000)
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(url))
            connection.sendall(head(length=500_000) + b"x")
        until(lambda: metric(url, "predictor_pending_bytes") == 20)
        answer = httpx.post(f"{url}/predict", content=colour_image("red"))

    assert answer.status_code == 200


def test_bodies_beyond_the_bytes_are_refused_before_they_are_read(start: Start) -> None:
    url = start(model="colours", max_body_bytes=100_000, max_pending_bytes=100_000)
    with connect(url) as connection, connect(url) as late:
        connection.sendall(head(length=90_000) + bytes(80_000))
        until(lambda: metric(url, "predictor_pending_bytes") == 80_000)
        late.sendall(head(length=50_000))
        declared = late.recv(65536)
        chunked = httpx.post(f"{url}/predict", content=iter([bytes(10_000)] * 5))

    assert declared.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"overloaded"' in declared
    assert b"retry-after: " in declared.lower()
    assert (chunked.status_code, chunked.json()["code"]) == (503, "overloaded")


def test_refusal_of_what_was_announced_closes_the_connection(start: Start) -> None:
    """A client that waits for `100 Continue` may send its body after the refusal, or not: nobody could tell."""
    with connect(start(model="colours")) as connection:
        connection.sendall(head("/nowhere", length=10, more="Expect: 100-continue\r\n"))
        answer = connection.recv(65536)
        connection.shutdown(socket.SHUT_WR)
        assert until_closed(connection) == b""

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close\r\n" in answer


def test_refusal_is_read_by_a_client_that_sends_on_and_wants_the_connection_closed(start: Start) -> None:
    with connect(start(model="colours", max_body_bytes=1_000)) as connection, ThreadPoolExecutor(1) as sender:
        content = head(length=20_000_000, more="Connection: close\r\n") + bytes(20_000_000)
        sending = sender.submit(connection.sendall, content)
        answer = until_closed(connection)
        sending.result(20)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_rest_of_a_refused_body_is_not_awaited_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_LINGER_S", 0.1)
    with connect(start(model="colours", max_body_bytes=1_000)) as connection:
        connection.sendall(head(length=20_000_000))
        assert until_closed(connection).startswith(b"HTTP/1.1 413 ")


def test_rest_of_a_refused_body_does_not_end_the_connection(start: Start) -> None:
    image = colour_image("red")
    with connect(start(model="colours", max_body_bytes=1_000)) as connection:
        connection.sendall(head(length=50_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        connection.sendall(bytes(50_000) + head(length=len(image)) + image)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_longest_waiting_connection_makes_room(start: Start) -> None:
    url = start(model="colours", max_connections=3)
    with connect(url) as idle, connect(url) as trickling:
        until(lambda: metric(url, "predictor_connections") >= 2)
        trickling.sendall(b"GET / HT")
        with connect(url), connect(url):
            assert until_closed(idle) == b""
        assert httpx.get(f"{url}/health/live").status_code == 200
    assert metric(url, 'predictor_connections_closed_total{reason="evicted"}') >= 1


def test_one_connection_too_many_is_told_so_while_all_are_busy(start: Start) -> None:
    url = start(model="colours", max_connections=2)
    with connect(url) as busy, connect(url) as busy_too:
        for connection in (busy, busy_too):
            connection.sendall(head(length=1_000, more="Expect: 100-continue\r\n"))
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        with connect(url) as refused:
            answer = until_closed(refused)
        busy.sendall(bytes(1_000))
        assert busy.recv(65536).startswith(b"HTTP/1.1 415 ")

    check_refusal(answer, "overloaded")
    assert b"retry-after: 1\r\n" in answer


GARBAGE = b"\xff\xfe this is no HTTP\r\n\r\n"


def request_of(image: bytes, *, missing: int = 0, more: str = "") -> bytes:
    return head(length=len(image) - missing, more=more) + image


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request_of(colour_image("red")) + GARBAGE, id="garbage behind it"),
        pytest.param(request_of(colour_image("red") + bytes(10), missing=10), id="its length is too small"),
        pytest.param(request_of(colour_image("red")) + GARBAGE + bytes(200_000), id="much garbage"),
        pytest.param(request_of(colour_image("red")) + b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000, id="a huge head"),
        pytest.param(
            request_of(colour_image("red")) + head(more="Transfer-Encoding: chunked\r\n") + b"no chunk\r\n",
            id="a request with a bad chunk",
        ),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_request_is_answered_before_what_is_wrong_behind_it(
    start: Start, sent: bytes, apart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(start(model="colours")) as connection:
        whole = sent.find(b"IEND") + 8
        for part in (sent[:whole], sent[whole:]) if apart else (sent,):
            connection.sendall(part)
            time.sleep(0.001)
        answer = until_closed(connection)

    first, second = re.split(rb"(?=HTTP/1.1 4)", answer)
    assert first.startswith(b"HTTP/1.1 200 ")
    assert b'"class_name":"red"' in first
    check_refusal(second, "head_too_large" if b"aaaa" in sent else "malformed_request")
    assert not [record for record in caplog.records if record.exc_info]


def test_several_requests_are_answered_before_what_is_wrong_behind_them(start: Start) -> None:
    live, chunked = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", head(more="Transfer-Encoding: chunked\r\n")
    url = start(model="colours")
    for wrong in (GARBAGE, chunked + b"1\r\nx\r\nno chunk\r\n"):
        with connect(url) as connection:
            connection.sendall(live * 3 + wrong)
            answer = until_closed(connection)
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * 3 + [b"400"]


@pytest.mark.parametrize("chunk", [b"no chunk\r\n", b"-1\r\n", b"1\r\nxyz", b"fffffffffffffffff\r\n", b"1 1\r\nx\r\n"])
def test_bad_chunk_is_told(start: Start, chunk: bytes) -> None:
    with connect(start(model="colours")) as connection:
        connection.sendall(head(more="Transfer-Encoding: chunked\r\n"))
        time.sleep(0.05)
        connection.sendall(b"3\r\nabc\r\n" + chunk)
        check_refusal(until_closed(connection), "malformed_request")


def test_last_request_is_answered_though_garbage_is_behind_it(start: Start) -> None:
    with connect(start(model="colours")) as connection:
        connection.sendall(request_of(colour_image("red"), more="Connection: close\r\n") + GARBAGE)
        answer = until_closed(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_large_malformed_request_leaves_no_traceback(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with connect(start(model="colours")) as connection:
        connection.sendall(GARBAGE + bytes(60_000))
        check_refusal(until_closed(connection), "malformed_request")

    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


HEAD_FROM_SHOP = b"POST /predict HTTP/1.1\r\nOrigin: https://shop.example\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ("https://shop.example,https://other.example", "https://shop.example"),
        ("https://other.example,https://third.example", None),
        ("https://shop.example", "https://shop.example"),
        ("*", "*"),
    ],
)
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(HEAD_FROM_SHOP + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431, id="431"),
        pytest.param(HEAD_FROM_SHOP + b"no header\r\n\r\n", 400, id="400"),
        pytest.param(HEAD_FROM_SHOP + b"Transfer-Encoding: chunked\r\n\r\nnothing", 400, id="400 of a chunk"),
    ],
)
def test_page_can_read_what_a_connection_refuses_by_itself(
    start: Start, origins: str, allowed: str | None, sent: bytes, status: int
) -> None:
    with connect(start(model="colours", cors_origins=origins)) as connection:
        connection.sendall(sent)
        top = until_closed(connection).partition(b"\r\n\r\n")[0].decode()

    assert top.startswith(f"HTTP/1.1 {status} ")
    found = re.findall(r"(?im)^access-control-allow-origin: (.+?)\r?$", top)
    assert found == ([allowed] if allowed else [])


def test_page_of_an_origin_that_is_not_allowed_cannot_read_a_refusal(start: Start) -> None:
    with connect(start(model="colours", cors_origins="https://shop.example")) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nOrigin: https://evil.example\r\nHost: x\r\nno header\r\n\r\n")

        assert b"access-control" not in until_closed(connection).lower()


def test_chunks_of_one_byte_do_not_hold_up_others(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connection gives the event loop back after each short piece, and its body arrives whole."""
    monkeypatch.setattr(read_ahead, "_TURN_S", 0)
    pieces: list[int] = []
    turns: list[object] = []
    parse, wait = protocol.LimitedProtocol.data_received, ParsingTurns.wait

    def remember_piece(connection: protocol.LimitedProtocol, data: bytes) -> None:
        pieces.append(len(data))
        parse(connection, data)

    def remember_turn(line: ParsingTurns, go_on: Callable[[], None]) -> None:
        turns.append(go_on)
        wait(line, go_on)

    monkeypatch.setattr(protocol.LimitedProtocol, "data_received", remember_piece)
    monkeypatch.setattr(ParsingTurns, "wait", remember_turn)
    image = colour_image("red") + bytes(50_000)  # what follows the image's end is passed over
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in image)
    url = start(model="colours")
    turns.clear()
    with connect(url) as connection:
        connection.sendall(head(more="Transfer-Encoding: chunked\r\n") + chunks + b"0\r\n\r\n")
        [(status, body)] = answers_on(connection, 1)

    assert status == 200
    assert json.loads(body)["predictions"][0]["class_name"] == "red"
    assert max(pieces) <= 4096
    assert len(turns) > len(chunks) / 4096 / 2  # some pieces are the first of what one read has brought
