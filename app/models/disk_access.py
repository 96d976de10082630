"""Runs what reads the disk with a time limit, because a network disk that hangs may answer never.

call -> a thread that does not hold up the end of the process -> its result, or an error at the limit
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from app.errors import ArtifactError
from app.system.kernel import lower_thread_priority

T = TypeVar("T")

# As the cause, it tells that another try may succeed.
_TIMED_OUT: Final = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


class DiskAccess:
    """Access to one place on the disk, for one call at a time. Only the event loop may use it.

    A call that hangs cannot be ended. It is left behind, and until it returns no other one begins: that would hang too.
    """

    def __init__(self) -> None:
        self._left_behind: asyncio.Future[None] | None = None

    async def call(self, function: Callable[[], T], *, limit_s: float) -> T:
        """Calls a function in a thread of its own, and returns what it returns.

        Args:
            function: what to call.
            limit_s: how long to wait, in seconds.

        Raises:
            ArtifactError: the disk does not answer, now or since an earlier call.
            Exception: what the function raises.
        """
        if self._left_behind and not self._left_behind.done():
            raise _no_answer() from _TIMED_OUT
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        ended: asyncio.Future[None] = loop.create_future()

        def finish(value: T | None, error: BaseException | None) -> None:
            ended.set_result(None)
            if result.done():  # nobody waits any more
                return
            if error:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type]

        def run() -> None:
            lower_thread_priority()
            value, error = None, None
            try:
                value = function()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(finish, value, error)

        threading.Thread(target=run, name="disk", daemon=True).start()
        try:
            # Before Python 3.12, wait_for loses a cancellation that meets the result.
            async with asyncio.timeout(limit_s):
                return await result
        except TimeoutError:
            if not result.cancelled():  # it is the function's own
                raise
            raise _no_answer() from _TIMED_OUT
        finally:
            if not ended.done():
                self._left_behind = ended


def _no_answer() -> ArtifactError:
    return ArtifactError("The disk does not answer. It is looked at again.")
