"""The memory that may be used is the machine's, or less where a control group says so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from app.system import memory
from app.system.memory import usable_memory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its memory is not told by sysconf")

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        pytest.param("0::/", {}, MACHINE, id="no limit"),
        pytest.param("0::/", {"memory.max": "max"}, MACHINE, id="unlimited"),
        pytest.param("0::/", {"memory.max": "2000000"}, 2_000_000, id="a container"),
        pytest.param(
            "0::/pods/one", {"pods/one/memory.max": "max", "pods/memory.max": "3000000"}, 3_000_000, id="an outer one"
        ),
        pytest.param("0::/a", {"b/memory.max": "1"}, MACHINE, id="another's"),
        pytest.param("0::/", {"memory.max": str(2 * MACHINE)}, MACHINE, id="more than there is"),
        pytest.param(
            "12:cpu,cpuacct:/a\n4:memory:/a\n0::/",
            {"memory/a/memory.limit_in_bytes": "4000000"},
            4_000_000,
            id="version 1",
        ),
    ],
)
def test_control_groups_limit_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, limits: dict[str, str], expected: int
) -> None:
    (tmp_path / "own").write_text(own)
    for name, limit in limits.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")

    assert usable_memory() == expected
