"""What only Unix has is not needed to import the service, to show its help, to classify and to serve in one process.

This is no Windows: the interpreter and the libraries are Linux's. What the code itself asks of the system is taken away
after the libraries have been imported, and the code is told that it runs on Windows.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.colours import colour_image
from tests.support.sockets import until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="it pretends to be another system")]

_AS_ON_WINDOWS = """
import importlib, os, signal, sys, types
import fastapi, multipart, numpy, openvino, PIL.Image, prometheus_client, psutil, pydantic_settings, rich.table, torch
import cryptography.hazmat.primitives.serialization, multiprocessing.popen_fork, uvicorn.protocols.http.httptools_impl
import tempfile, shutil, subprocess, urllib.request, zipfile, logging.handlers, concurrent.futures.thread, asyncio

tempfile.gettempdir()
asyncio.ProactorEventLoop = asyncio.SelectorEventLoop  # the event loop there
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "uvloop"):
    sys.modules[name] = None
sys.modules["msvcrt"] = types.SimpleNamespace(LK_LOCK=1, locking=lambda *_: None)  # what Windows has instead
for owner, names in (
    (os, ("fork", "getuid", "geteuid", "getpriority", "setpriority", "nice", "sysconf", "fchmod", "O_NONBLOCK", "uname",
          "memfd_create", "pidfd_open", "sched_getaffinity", "killpg", "getpgid", "posix_fallocate")),
    (signal, ("SIGHUP", "SIGQUIT", "SIGKILL", "SIGUSR1", "pthread_sigmask", "setitimer")),
):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
sys.platform = "win32"
from app.__main__ import main

main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _AS_ON_WINDOWS, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("command", ["serve", "predict", "models", "pin", "prune", "sign", "new-key", "bench"])
def test_help_needs_nothing_of_unix(command: str) -> None:
    finished = run(command, "--help")

    assert finished.returncode == 0, finished.stderr
    assert f"usage: image-predictor {command}" in finished.stdout


def test_command_that_classifies_needs_nothing_of_unix(colours_store: Path, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(colour_image("red"))
    arguments = ["--model", "colours", "--model-store", str(colours_store), "--json", str(tmp_path / "red.png")]
    finished = run("predict", *arguments)

    assert finished.returncode == 0, finished.stderr
    assert "red" in finished.stdout


def test_models_are_pinned_without_unix(store_root: Path) -> None:
    finished = run("unpin", "colours", "--model-store", str(store_root))

    assert finished.returncode == 0, finished.stderr


@pytest.fixture
def service(colours_store: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", _AS_ON_WINDOWS, "serve", "--model", "colours",
             "--model-store", str(colours_store), "--port", "0"],
            stdout=log, stderr=log,
        ) as process,
    ):  # fmt: skip
        yield process
        process.kill()


def test_service_runs_in_one_process_without_unix(service: subprocess.Popen[bytes], tmp_path: Path) -> None:
    log = tmp_path / "log"
    until(lambda: "is ready" in log.read_text())
    url = f"http://127.0.0.1:{re.findall(r'http://localhost:([0-9]+)', log.read_text())[0]}"

    assert httpx.get(f"{url}/health/ready").status_code == 200
    answer = httpx.post(f"{url}/predict", files={"file": colour_image("blue")}).json()
    assert answer["predictions"][0]["class_name"] == "blue"
    assert "predictor_requests_total" in httpx.get(f"{url}/metrics").text
    service.send_signal(signal.SIGTERM)
    assert service.wait(20) == 0
    assert "Traceback" not in log.read_text()
