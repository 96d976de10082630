"""Signals to the whole group, a full folder for temporary files, and one that is cleaned away break nothing."""

from __future__ import annotations

import contextlib
import hashlib
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


def take_away(folder: Path) -> None:
    """Deletes a folder, though the service may write into it meanwhile."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
            return


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
        take_away(folder)
        until(lambda: requests_counted(server) >= before)  # written again by all workers, with what they had
        take_away(folder)

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


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGHUP])
def test_other_signals_that_ask_for_the_end_are_heard(colours_store: Path, tmp_path: Path, number: int) -> None:
    """Some images are stopped by SIGQUIT; a terminal sends it to the whole group."""
    log = tmp_path / "log"
    with live_server(log, model="colours", model_store=colours_store) as server:
        server.wait_until_ready()
        for process in [*server.workers, server.process.pid]:
            os.kill(process, number)
        assert server.process.wait(20) == 0

    assert "Shutting down." in log.read_text()
    assert "died" not in log.read_text()


def test_worker_that_dies_while_a_key_file_is_broken_does_not_end_the_service(
    colours_store: Path, tmp_path: Path
) -> None:
    keys, log = tmp_path / "keys", tmp_path / "log"
    good = f"ann:{hashlib.sha256(b'key').hexdigest()}\n"
    keys.write_text(good)
    with live_server(log, model="colours", model_store=colours_store, api_keys_file=keys) as server:
        server.wait_until_ready()
        keys.write_text("this is no key\n")
        os.kill(server.workers[0], signal.SIGKILL)
        until(lambda: "exit status 2" in log.read_text())
        keys.write_text(good)
        server.wait_until_ready()
        answer = httpx.post(
            f"{server.url}/predict", content=colour_image("red"), headers={"Authorization": "Bearer key"}
        )

    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["class_name"] == "red"


def _may_be_first() -> bool:
    return shutil.which("unshare") is not None and not subprocess.call(["unshare", "-p", "-f", "--mount-proc", "true"])


@pytest.fixture
def first_process(colours_store: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The service as the first process of a container; its output is in the file `log`."""
    if not _may_be_first():
        pytest.skip("no process may be the first of a container here")
    serve = f"{sys.executable} -m app serve --model colours --model-store {colours_store} --port 0 --workers 1"
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", f"exec {serve}"],
            stdout=log, stderr=log,
        ) as outside,
    ):  # fmt: skip
        yield outside
        outside.kill()


def _inside(outside: subprocess.Popen[bytes]) -> int:
    """Returns the id that the first process of a container has outside."""
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
    until(lambda: bool(children.read_text().split()))
    return int(children.read_text().split()[0])


def _states(parent: int) -> list[str]:
    """Returns the states of the children of a process, such as Z for one that has ended and was not reaped."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children]


def test_first_process_of_a_container_reaps_orphans_and_hears_sigterm(
    first_process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    inside = _inside(first_process)
    until(lambda: "is ready" in (tmp_path / "log").read_text())
    orphan = "(sleep 0.2 &) ; exit 0"  # its parent ends at once
    subprocess.run(["nsenter", "-t", str(inside), "-p", "-m", "sh", "-c", orphan], check=True)
    time.sleep(0.5)
    until(lambda: "Z" not in _states(inside))
    os.kill(inside, signal.SIGTERM)

    assert first_process.wait(20) == 0
    assert "Shutting down." in (tmp_path / "log").read_text()


def test_first_process_of_a_container_hears_sigterm_during_its_start(first_process: subprocess.Popen[bytes]) -> None:
    inside = _inside(first_process)
    handled = Path(f"/proc/{inside}/status")
    term = 1 << (signal.SIGTERM - 1)
    until(lambda: bool(int(handled.read_text().partition("SigCgt:")[2].split()[0], 16) & term))
    os.kill(inside, signal.SIGTERM)

    assert first_process.wait(10) == 0
