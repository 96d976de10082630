"""How much memory this process may use: the machine's, or less where a control group (a container, a pod) says so.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max; cgroup-v1/memory.html, memory.limit_in_bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_OWN_GROUPS: Final = Path("/proc/self/cgroup")
_ASSUMED_BYTES: Final = 4 << 30  # where the system does not tell


def usable_memory() -> int:
    """Returns the bytes of memory that this process and its children may use together, at most."""
    return min(_machine_memory(), *_group_limits())


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows; a system that does not know the names
        return _ASSUMED_BYTES


def _group_limits() -> list[int]:
    """Returns the limits of the control groups that this process is in, the outer ones included."""
    limits = [2**63 - 1]
    try:
        groups = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return limits
    for group in groups:
        number, controllers, path = group.split(":", 2)
        if number == "0":
            root, name = _GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                limits += _limit(folder / name)
    return limits


def _limit(file: Path) -> list[int]:
    try:
        return [int(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError):  # there is no such group here, or its limit is "max"
        return []
