"""Cores are those that the process may really use, whichever way they are limited."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.system.cores import usable_cores


@pytest.fixture
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def kernel(root: Path, files: dict[str, str]) -> Path:
    """Writes the kernel's files below a root of their own."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.usefixtures("_sixteen_cores")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, 16, id="no-quota"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 16, id="v2-max"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2, id="v2-rounds-up"),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1, id="v2-at-least-one"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/predictor.service\n",
                "sys/fs/cgroup/system.slice/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/system.slice/predictor.service/cpu.max": "max 100000\n",
            },
            4,
            id="v2-a-group-above-has-it",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/pod/main\n4:memory:/pod\n",
                f"{V1}/cpu.cfs_quota_us": "-1\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
                f"{V1}/pod/main/cpu.cfs_quota_us": "300000\n",
                f"{V1}/pod/main/cpu.cfs_period_us": "100000\n",
            },
            3,
            id="v1-nested",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:cpu:/docker/4f5c\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
            id="v1-path-of-the-host-in-a-container",
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, 16, id="nonsense"),
    ],
)
def test_quota_of_any_group_around_the_process_counts(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(kernel(tmp_path, files)) == cores


def test_affinity_counts(tmp_path: Path) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity here")
    everything = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, everything)
    assert usable_cores(tmp_path) == len(everything)
