"""A client that leaves just when its answer is there upsets nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from starlette.requests import Request

from app.api.disconnect import unless_disconnected


@pytest.mark.anyio
async def test_client_that_leaves_just_when_its_answer_is_there_upsets_nothing() -> None:
    left, done, upsets = asyncio.Event(), asyncio.Event(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: upsets.append(context))
    watched = asyncio.Event()

    async def receive() -> dict[str, str]:
        watched.set()
        await left.wait()
        return {"type": "http.disconnect"}

    async def work() -> str:
        await done.wait()
        return "answer"

    request = Request({"type": "http"}, receive)
    answering = asyncio.create_task(unless_disconnected(request, work(), deadline=time.monotonic() + 30))
    await watched.wait()
    left.set()
    done.set()
    answer = await answering
    await asyncio.sleep(0)

    assert answer == "answer"
    assert upsets == []
