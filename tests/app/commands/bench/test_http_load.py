"""The service is started in a process of its own and loaded; what goes wrong is told, not counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.commands.bench.http_load import Client, LoadError, closed_loop, own_server, per_second, post
from tests.support.colours import colour_image

RED = post(colour_image("red"))


@pytest.mark.slow
def test_answers_are_counted_and_a_refusal_ends_the_load(colours_store: Path) -> None:
    settings = {"model": "colours", "model_store": colours_store, "engine": "torchscript"}
    with own_server(settings) as server:
        server.wait_until_ready()
        url = server.url
        answers = asyncio.run(closed_loop(url, [RED], connections=2, seconds=0.1))
        assert {answer.status for answer in answers} == {200}
        assert per_second(answers) > 0
        answers = asyncio.run(closed_loop(url, [RED], connections=2, seconds=0))
        assert answers, "there is an answer, however busy the machine"
        with pytest.raises(LoadError, match="415"):
            asyncio.run(closed_loop(url, [post(b"no image")], connections=1, seconds=0.1))
        refused = asyncio.run(closed_loop(url, [post(b"no image")], connections=1, seconds=0, strict=False))
        assert [answer.status for answer in refused] == [415]


@pytest.mark.slow
def test_server_that_does_not_become_ready_tells_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(LoadError, match="cannot be served"),
        own_server({"model": "absent", "model_store": tmp_path}) as server,
    ):
        server.wait_until_ready()


@pytest.mark.slow
def test_server_that_cannot_start_tells_its_log(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="gone"), own_server({"api_keys_file": tmp_path / "gone"}):
        pass


@asynccontextmanager
async def answering(*parts: bytes) -> AsyncIterator[str]:
    """Runs a server that sends the parts for each request, one after another, and gives its URL; b"" hangs up."""
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            if not parts[-1]:
                break
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await ended.wait()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 4\r\n\r\nwh", b"ole"], id="length"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nwhol\r\n", b"0\r\n\r\n"], id="chunks"
        ),
    ],
)
def test_answer_counts_when_all_of_it_is_there(parts: list[bytes]) -> None:
    async def ask_twice() -> None:
        async with answering(*parts) as url:
            client = Client(url)
            for _ in range(2):
                answered = await client.ask(RED)
                assert answered.status == 200
                assert b"whol" in client.body
                assert answered.latency_s >= 0.02
            client.close()

    asyncio.run(ask_twice())


def test_broken_connection_is_told_and_the_next_request_opens_another() -> None:
    async def ask_twice() -> None:
        async with answering(b"HTTP/1.1 200 OK\r\n", b"") as url:
            client = Client(url)
            assert [(await client.ask(RED)).status for _ in range(2)] == [0, 0]

    asyncio.run(ask_twice())
