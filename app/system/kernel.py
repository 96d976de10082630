"""Threads that compute step back behind the event loop, which has little to do but has to do it at once.

Without it, the probes and refusals of a service with more work than cores wait for the scheduler like everything else:
on a busy 2-core machine at ten times what it could do, 503 came after 30 ms (p99 600 ms and more) instead of 9 (82).
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from typing import Final

logger = logging.getLogger(__name__)

if sys.platform != "win32":
    import resource


_OTHER_DESCRIPTORS: Final = 512  # libraries, models, sockets that are being refused


_NICENESS: Final = 5  # a third of the event loop's weight


def lower_thread_priority() -> None:
    """Lowers the priority of the calling thread, and of those that it starts, below that of the main thread."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        of_main_thread = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, of_main_thread + _NICENESS))


def return_freed_memory() -> None:
    """Gives memory that was freed back to the system, where the C library would keep it (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)


def usable_connections(wanted: int) -> int:
    """Raises the process's limit on open files where it can, and returns how many connections that leaves room for."""
    if sys.platform == "win32":
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + _OTHER_DESCRIPTORS
    if soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    usable = max(1, min(wanted, soft - _OTHER_DESCRIPTORS))
    if usable < wanted:
        logger.warning(
            "--max-connections %d: the limit on open files (ulimit -Hn: %d) leaves room for %d.", wanted, hard, usable
        )
    return usable
