"""Signals to the whole group, a full folder for temporary files, and one that is cleaned away break nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.colours import colour_image
from tests.support.live import LiveServer, live_server
from tests.support.sockets import connect, head, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")]


def signal_group(server: LiveServer, *, workers_first: bool = True) -> None:
    """Sends SIGTERM to the supervisor and its workers, as systemd, `timeout` and a terminal do."""
    processes = [*server.workers, server.process.pid]
    for process in processes if workers_first else reversed(processes):
        os.kill(process, signal.SIGTERM)


@pytest.mark.parametrize("workers_first", [True, False])
def test_upload_is_answered_though_the_whole_group_is_signalled(
    colours_store: Path, tmp_path: Path, workers_first: bool
) -> None:
    log, image = tmp_path / "log", colour_image("red")
    with live_server(log, model="colours", model_store=colours_store) as server:
        server.wait_until_ready()
        with connect(server.url) as connection:
            connection.sendall(head(length=len(image)) + image[:10])
            until(lambda: "predictor_pending_bytes 10.0" in httpx.get(f"{server.url}/metrics").text)
            signal_group(server, workers_first=workers_first)
            time.sleep(0.3)
            connection.sendall(image[10:])
            answer = connection.recv(65536)
        assert server.process.wait(20) == 0

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("delay_s", [0.0, 0.3, 0.6, 1.0])
def test_group_may_be_signalled_while_models_are_loaded(colours_store: Path, tmp_path: Path, delay_s: float) -> None:
    log = tmp_path / "log"
    with live_server(log, model="colours", model_store=colours_store) as server:
        time.sleep(delay_s)
        signal_group(server)
        assert server.process.wait(20) == 0

    assert "Traceback" not in log.read_text()
    assert "ERROR" not in log.read_text()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the temporary files of services."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def requests_counted(server: LiveServer) -> float:
    text = httpx.get(f"{server.url}/metrics").raise_for_status().text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("predictor_requests_total"))


@pytest.mark.parametrize("workers", [1, 2])
def test_cleaner_may_take_the_runtime_folder_away(
    colours_store: Path, tmp_path: Path, temporary: Path, workers: int
) -> None:
    with live_server(tmp_path / "log", model="colours", model_store=colours_store, workers=workers) as server:
        server.wait_until_ready()
        for _ in range(20):
            assert httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200
        before = requests_counted(server)
        (folder,) = temporary.glob("image-predictor-*")
        shutil.rmtree(folder)
        until(lambda: requests_counted(server) >= before)  # written again by all workers, with what they had
        shutil.rmtree(folder)

        worker = server.workers[0]
        os.kill(worker, signal.SIGKILL)
        until(lambda: len(server.workers) == workers and worker not in server.workers)
        server.wait_until_ready()
        assert httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200
        until(lambda: requests_counted(server) >= 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


@pytest.fixture
def tiny_disk(temporary: Path) -> Iterator[Path]:
    """A folder for temporary files that holds 900 kB, and 0 once the test has filled it."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "none", str(temporary)], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield temporary
    subprocess.run(["umount", "-l", str(temporary)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.mark.parametrize("when", ["before the start", "later"])
def test_full_folder_for_temporary_files_kills_nobody(
    colours_store: Path, tmp_path: Path, tiny_disk: Path, when: str
) -> None:
    log = tmp_path / "log"
    if when == "before the start":
        fill(tiny_disk)
    with live_server(log, model="colours", model_store=colours_store) as server:
        server.wait_until_ready()
        if when == "later":
            fill(tiny_disk)
        workers = server.workers
        for number in range(300):  # each path that is not found has metrics of its own by method; each format too
            httpx.request("GET" if number % 2 else "PUT", f"{server.url}/nowhere/{number}")
            assert httpx.post(f"{server.url}/predict", content=colour_image("red")).status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        assert server.workers == workers

    assert "died" not in log.read_text()


def test_nothing_writable_is_told_in_a_sentence(colours_store: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\ndef refuse(**_): raise FileNotFoundError(2, 'No usable folder')\ntempfile.mkdtemp = refuse\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--model", "colours", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PREDICTOR_MODEL_STORE": str(colours_store)},
    )
    assert done.returncode == 2
    assert "No folder for temporary files can be written" in done.stderr
    assert "Traceback" not in done.stderr
