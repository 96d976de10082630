"""What is written in one turn of the event loop goes out together, and nothing is lost at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.server.connection.joined_writes import JoinedWrites

pytestmark = pytest.mark.anyio


class FakeTransport:
    """Keeps what is written, and in which order it was ended."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def write_eof(self) -> None:
        self.calls.append("eof")

    def close(self) -> None:
        self.calls.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.calls

    def get_extra_info(self, name: str) -> str:
        return name


async def test_head_and_body_of_one_turn_are_written_together_and_those_of_the_next_apart() -> None:
    fake = FakeTransport()
    transport = JoinedWrites(fake, asyncio.get_running_loop())  # type: ignore[arg-type]
    transport.write(b"head,")
    transport.write(b"body")
    await asyncio.sleep(0)
    transport.write(b"next")
    await asyncio.sleep(0)

    assert fake.calls == [b"head,body", b"next"]
    assert transport.get_extra_info("peername") == "peername"


@pytest.mark.parametrize(("end", "ended"), [("close", "closed"), ("write_eof", "eof")])
async def test_what_was_written_goes_out_before_the_end(end: str, ended: str) -> None:
    fake = FakeTransport()
    transport = JoinedWrites(fake, asyncio.get_running_loop())  # type: ignore[arg-type]
    transport.write(b"last words")
    getattr(transport, end)()
    await asyncio.sleep(0)

    assert fake.calls == [b"last words", ended]


async def test_nothing_is_written_to_a_connection_that_is_gone() -> None:
    fake = FakeTransport()
    transport = JoinedWrites(fake, asyncio.get_running_loop())  # type: ignore[arg-type]
    transport.write(b"too late")
    fake.close()
    await asyncio.sleep(0)

    assert fake.calls == ["closed"]
