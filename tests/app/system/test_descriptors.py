"""The limit on open files is divided such that looks at the store and probes always find a descriptor."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.system import descriptors
from app.system.descriptors import connection_limits
from tests.support.colours import colour_image, export_colours
from tests.support.sockets import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on open files")

LimitTo = Callable[[int, int], list[tuple[int, int]]]


@pytest.fixture
def limit_to(monkeypatch: pytest.MonkeyPatch) -> LimitTo:
    """Pretends a limit on open files, and that 50 are open."""
    import resource

    def limit(soft: int, hard: int) -> list[tuple[int, int]]:
        changes: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits: changes.append(limits))
        monkeypatch.setattr(descriptors, "_open_now", lambda: 50)
        return changes

    return limit


@pytest.mark.parametrize(
    ("soft", "hard", "served", "refused", "raised"),
    [
        pytest.param(1024, 1_048_576, 1000, 256, 50 + 128 + 1000 + 256, id="raised to what is needed"),
        pytest.param(1_048_576, 1_048_576, 1000, 256, None, id="high enough"),
        pytest.param(-1, -1, 1000, 256, None, id="no limit"),
        pytest.param(1024, 1024, 635, 211, 1024, id="cannot be raised"),
        pytest.param(256, 512, 251, 83, 512, id="raised as far as allowed"),
        pytest.param(180, 180, 1, 1, 180, id="just enough"),
    ],
)
def test_limit_is_divided(
    limit_to: LimitTo, soft: int, hard: int, served: int, refused: int, raised: int | None
) -> None:
    changes = limit_to(soft, hard)
    limits = connection_limits(1000)

    assert (limits.served, limits.refused) == (served, refused)
    assert changes == ([(raised, hard)] if raised else [])
    assert hard == -1 or limits.served + limits.refused + 50 + 128 <= max(raised or 0, soft)


def test_limit_that_leaves_no_room_is_told(limit_to: LimitTo) -> None:
    limit_to(100, 100)
    with pytest.raises(
        ValueError, match=r"ulimit -Hn: 100.* must be at least 180, and 1434 for --max-connections 1000"
    ):
        connection_limits(1000)


def _serve(store: Path, log: Path, *, open_files: int) -> subprocess.Popen[bytes]:
    command = (
        f"ulimit -n {open_files}; exec {sys.executable} -m app serve --model colours --model-store {store} --port 0"
    )
    with log.open("wb") as output:
        return subprocess.Popen(
            ["sh", "-c", f"{command} --workers 1 --watch-store-s 0.2"], stdout=output, stderr=output
        )


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
def test_no_number_of_connections_keeps_the_store_or_a_probe_from_being_seen(store_root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    service = _serve(store_root, log, open_files=320)
    try:
        until(lambda: "is ready" in log.read_text())
        port = int(re.findall(r"http://localhost:(\d+)", log.read_text())[0])
        url = f"http://127.0.0.1:{port}"
        assert "leaves room for" in log.read_text()
        with contextlib.ExitStack() as opened:
            for _ in range(500):
                opened.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            export_colours(store_root)
            until(lambda: httpx.get(f"{url}/models/colours").json()["version"] == "2")
            assert httpx.get(f"{url}/health/live").status_code == 200
            assert httpx.post(f"{url}/predict", content=colour_image("red")).status_code == 200
        assert "cannot be taken" not in log.read_text()
        assert "Too many open files" not in log.read_text()
    finally:
        service.terminate()
        assert service.wait(20) == 0


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
def test_service_that_may_open_too_few_files_says_so(store_root: Path, tmp_path: Path) -> None:
    service = _serve(store_root, tmp_path / "log", open_files=100)

    assert service.wait(30) == 2
    assert "leaves no room for connections: it must be at least" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
