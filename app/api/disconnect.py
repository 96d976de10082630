"""Stops the work for a request when its client has left or its deadline has passed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

from app.errors import DeadlineExceededError

T = TypeVar("T")
# Most answers come sooner than this, and watching whether the client leaves would cost each a task.
_NOTICE_AFTER_S: Final = 0.02


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T], *, deadline: float) -> T:
    """Runs `work` until the deadline and for as long as the client is there, so that nothing is computed for nobody.

    Args:
        request: the client's request; its body must have been read.
        work: the coroutine to run. It is cancelled when the client leaves or the time is up.
        deadline: when the time is up, on the clock of `time.monotonic()`.

    Returns:
        what `work` returns.

    Raises:
        ClientDisconnect: the client left first.
        DeadlineExceededError: the time was up first.
    """
    loop = asyncio.get_running_loop()
    watching: asyncio.Task[None] | None = None
    has_left = is_over = False

    def watch() -> None:
        nonlocal watching
        watching = loop.create_task(_wait_for_disconnect(request))
        watching.add_done_callback(leave)

    def leave(watched: asyncio.Task[None]) -> None:
        nonlocal has_left
        if not (is_over or watched.cancelled()):
            has_left = True
            scope.reschedule(loop.time())

    starting = loop.call_later(_NOTICE_AFTER_S, watch)
    try:
        async with asyncio.timeout(deadline - time.monotonic()) as scope:
            try:
                finished = await work
            finally:
                is_over = True
                starting.cancel()
                if watching is not None:
                    watching.cancel()
    except TimeoutError:
        if has_left:
            raise ClientDisconnect from None
        raise DeadlineExceededError("The request's time ran out.") from None
    if time.monotonic() > deadline:  # the event loop was late: the client has given up
        raise DeadlineExceededError("The request's time ran out.")
    return finished


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
