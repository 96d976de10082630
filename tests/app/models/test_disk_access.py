"""A call that reads the disk has a time limit, and whoever waits for it can be cancelled at any moment."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from app.errors import ArtifactError
from app.models.disk_access import DiskAccess


@pytest.mark.anyio
async def test_cancellation_that_meets_the_result_is_not_lost() -> None:
    """Otherwise the watch of the store would go on after its end, and the service never stop."""
    answers = threading.Event()
    waiting = asyncio.create_task(DiskAccess().call(lambda: answers.wait(20), limit_s=20))
    await asyncio.sleep(0.05)
    answers.set()
    time.sleep(0.2)  # meanwhile the thread hands its result to the loop, which is busy here
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.anyio
async def test_no_second_call_begins_while_one_hangs() -> None:
    answers, calls = threading.Event(), 0
    access = DiskAccess()

    def hang() -> int:
        nonlocal calls
        calls += 1
        answers.wait(20)
        return calls

    for _ in range(3):
        with pytest.raises(ArtifactError, match="The disk does not answer"):
            await access.call(hang, limit_s=0.05)
    assert calls == 1
    answers.set()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await access.call(hang, limit_s=20) == 2
                break
            except ArtifactError:  # the one that was left behind has not ended yet
                await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_error_of_the_call_is_passed_on_even_a_timeout() -> None:
    def fail() -> None:
        raise TimeoutError("by the disk")

    with pytest.raises(TimeoutError, match="by the disk"):
        await DiskAccess().call(fail, limit_s=20)
