"""Counts the CPU cores that this process may really use, by its affinity mask and the quotas of its control groups.

sched_getaffinity, /proc/self/cgroup -> cpu.max (v2) or cpu.cfs_quota_us (v1) of the group and those above -> the least
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Returns how many cores this process may use, at least 1; a quota of 1.5 cores counts as 2.

    Args:
        root: the folder that holds `proc` and `sys`; another than `/` in tests.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [-(-quota // period) for quota, period in _quotas(root) if quota > 0 and period > 0]
    return max(1, min([cores, *quotas]))


def _quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Yields the (quota, period) of each control group around this process that has one, in microseconds.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst ("cpu.max") and scheduler/sched-bwc.rst.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    for mount, group in _groups(root, mounts):
        # In a container, the path may be the host's, of which only the mount's own root can be seen.
        for folder in {mount, *(mount / part for part in (group, *group.parents))}:
            try:
                yield _read_quota(folder)
            except (OSError, ValueError):  # no such group here, no CPU controller, or "max"
                continue


def _groups(root: Path, mounts: Path) -> Iterator[tuple[Path, Path]]:
    """Yields the mount point of each hierarchy, and the path of this process's group relative to it."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:  # such as 0::/system.slice/predictor.service, or 4:cpu,cpuacct:/docker/4f5c
        _, controllers, group = line.split(":", 2)
        relative = Path(group.lstrip("/"))
        if not controllers:
            yield mounts, relative
        elif "cpu" in controllers.split(","):
            yield mounts / controllers, relative
            yield mounts / "cpu", relative


def _read_quota(folder: Path) -> tuple[int, int]:
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota), int(period)
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())
