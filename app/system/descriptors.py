"""How many connections the limit on open files leaves room for, besides everything else that needs one."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

if sys.platform != "win32":
    import resource

# Kept free beyond what is open at the start: for looks at the store, models, sockets of libraries, files of metrics.
_SPARE: Final = 128
# What is assumed to be open where the system does not tell.
_USUALLY_OPEN: Final = 64
_MAX_REFUSALS: Final = 256


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections a process may have at once.

    Attributes:
        served: the number of connections that are served.
        refused: the number of connections beyond the limit, which may only probe and get a refusal otherwise.
    """

    served: int
    refused: int


def connection_limits(wanted: int) -> ConnectionLimits:
    """Raises the process's limit on open files if needed and allowed, and divides what it leaves.

    Args:
        wanted: the number of connections to serve at once.

    Raises:
        ValueError: the limit leaves room for no connection at all. The sentence says how many it must allow.
    """
    if sys.platform == "win32":
        return ConnectionLimits(wanted, _MAX_REFUSALS)
    others = _open_now() + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = others + wanted + _MAX_REFUSALS
    if soft == resource.RLIM_INFINITY:
        soft = needed
    elif soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    room = soft - others
    if room < 2:
        raise ValueError(
            f"The limit on open files (ulimit -Hn: {hard}) leaves no room for connections: it must be at least "
            f"{others + 2}, and {needed} for --max-connections {wanted}."
        )
    refused = min(_MAX_REFUSALS, max(1, room // 4))
    served = min(wanted, room - refused)
    if served < wanted:
        logger.warning(
            "--max-connections %d: the limit on open files (ulimit -Hn: %d) leaves room for %d.", wanted, hard, served
        )
    return ConnectionLimits(served, refused)


def _open_now() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return _USUALLY_OPEN
