"""Several workers are one service: crashes, signals and orphans, one readiness, one set of metrics."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from app.server.runtime_folder import runtime_folder
from app.server.worker import share_limits
from app.settings import Settings
from app.system.cores import usable_cores
from tests.support.colours import colour_image
from tests.support.live import LiveServer, live_server

RED = colour_image("red")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not reaped yet does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def answered(server: LiveServer) -> int:
    """Returns how many predictions the metrics count."""
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(r'predictor_requests_total\{[^}]*route="/predict",status="200"\} (\d+)', text)
    return int(found[1]) if found else 0


def top_class(server: LiveServer) -> str:
    answer = httpx.post(f"{server.url}/predict", content=RED)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["predictions"][0]["class_name"])


@pytest.mark.slow
def test_killed_worker_is_replaced_while_the_other_serves(
    colours_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With counters that do not forget what it had done; and in the end, every process goes, and the folder too."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with live_server(tmp_path / "log", model="colours", model_store=colours_store, workers=2) as server:
        server.wait_until_ready()
        assert "predictor_workers_ready 2.0" in httpx.get(f"{server.url}/metrics").text
        assert len(server.workers) == 2
        for _ in range(10):
            assert top_class(server) == "red"
        assert answered(server) == 10

        victim = server.workers[0]
        os.kill(victim, signal.SIGKILL)
        for _ in range(10):
            assert httpx.get(f"{server.url}/health/ready").status_code == 200
            assert top_class(server) == "red"
        until(lambda: len(server.workers) == 2 and victim not in server.workers)
        until(lambda: "predictor_workers_ready 2.0" in httpx.get(f"{server.url}/metrics").text)
        assert answered(server) == 20
        assert "predictor_worker_restarts_total 1.0" in httpx.get(f"{server.url}/metrics").text

        workers = server.workers
        for process in (server.process.pid, *workers):  # Ctrl-C goes to the whole group
            os.kill(process, signal.SIGINT)
        assert server.process.wait(20) == 0
        assert not any(exists(worker) for worker in workers)
        assert list(temporary.glob("image-predictor-*")) == []


def connections_of(pid: int) -> int:
    """Returns how many TCP connections a process has open."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    established = [fields for line in lines if (fields := line.split())[3] == "01"]
    return sum(fields[9] in inodes for fields in established)


@pytest.mark.slow
def test_connections_that_outlive_a_worker_are_shared_with_its_replacement(colours_store: Path, tmp_path: Path) -> None:
    """Clients keep theirs open, and would leave the new worker with nothing to do; none loses a request by it."""
    with (
        live_server(tmp_path / "log", model="colours", model_store=colours_store, workers=2) as server,
        ExitStack() as opened,
    ):
        server.wait_until_ready()
        victim = server.workers[0]
        clients = [opened.enter_context(httpx.Client(base_url=server.url)) for _ in range(12)]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in server.workers)

        def shares() -> list[int]:
            for client in clients:
                assert client.post("/predict", content=RED).status_code == 200
            return [connections_of(worker) for worker in server.workers]

        until(lambda: 12 in shares())  # the survivor's, as the replacement is still loading
        until(lambda: shares() in ([6, 6], [7, 5], [5, 7]))


@pytest.mark.slow
def test_connection_waits_for_the_replacement_of_the_only_worker(colours_store: Path, tmp_path: Path) -> None:
    """And when the supervisor itself is killed, no worker outlives it."""
    with live_server(tmp_path / "log", model="colours", model_store=colours_store, workers=1) as server:
        server.wait_until_ready()
        os.kill(server.workers[0], signal.SIGKILL)
        httpx.get(f"{server.url}/health/live", timeout=20).raise_for_status()
        server.wait_until_ready()
        assert top_class(server) == "red"

        workers = server.workers
        server.process.kill()
        server.process.wait()
        until(lambda: not any(exists(worker) for worker in workers))


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_model_that_is_faster_than_one_process_gets_several(colours_store: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "log", model="colours", model_store=colours_store, workers="auto") as server:
        # Whoever has an answer has found a service that stays.
        until(lambda: httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200)
        for _ in range(20):
            assert httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200
        server.wait_until_ready()

        assert len(server.workers) == usable_cores()
        assert top_class(server) == "red"
        assert httpx.get(f"{server.url}/models/colours").json()["streams"] == 1


@pytest.mark.parametrize(
    ("pending", "in_one_request", "workers", "part"), [(128, 64, 1, 128), (128, 16, 4, 32), (128, 64, 16, 64)]
)
def test_worker_admits_its_part_and_one_whole_request(
    pending: int, in_one_request: int, workers: int, part: int
) -> None:
    settings = Settings(max_pending_images=pending, max_images_per_request=in_one_request)

    assert share_limits(settings, workers).max_pending_images == part


def test_folders_that_killed_services_left_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "image-predictor-left"
    left.mkdir()
    with runtime_folder() as alive:
        for folder in (left, alive):
            (folder / "lock").touch()
            os.utime(folder / "lock", (0, 0))
        with runtime_folder() as own:
            assert {path.name for path in tmp_path.iterdir()} == {alive.name, own.name}
            assert own.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []
