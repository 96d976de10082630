"""What a first process does besides serving: it hears SIGTERM from the start, and inherits orphans in a container."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

_CHILDREN: Final = Path("/proc/1/task/1/children")


def hear_sigterm() -> None:
    """Makes SIGTERM end this process in order, until the service handles it itself.

    The kernel keeps signals without a handler from process 1, so that one sent during the start would be lost. Any
    other process would end with the status of one that was killed.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def reap_orphans(*, besides: Collection[int | None]) -> None:
    """Takes notice of the end of every child that has ended; otherwise each would stay as a zombie.

    The kernel hands processes whose parents have ended to process 1. It does nothing unless this is process 1.

    Args:
        besides: the processes that this one has started itself, and waits for elsewhere.
    """
    if os.getpid() != 1:
        return
    with contextlib.suppress(OSError):  # a container need not show its processes
        for pid in {int(pid) for pid in _CHILDREN.read_text().split()} - set(besides):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
