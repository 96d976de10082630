"""The service as a process of its own, as `make serve` starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

_START_TIMEOUT_S = 120
_POLL_S = 0.05


@dataclass
class LiveServer:
    """A running service.

    Attributes:
        url: where it listens.
        process: to send signals to.
        log: the file that it logs to.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def workers(self) -> list[int]:
        """The ids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def resident_bytes(self) -> int:
        """Returns the memory that the workers hold (RSS)."""
        pages = sum(int(Path(f"/proc/{worker}/statm").read_text().split()[1]) for worker in self.workers)
        return pages * os.sysconf("SC_PAGE_SIZE")

    def wait_until_ready(self) -> None:
        """Waits until the service is ready."""
        _poll(self, lambda: httpx.get(f"{self.url}/health/ready").status_code == 200)


@contextmanager
def live_server(log: Path, **settings: object) -> Iterator[LiveServer]:
    """Starts `python -m app serve` on a free port, waits until it listens, and ends it afterwards.

    Args:
        log: where its output goes.
        settings: by their names in `app.settings.Settings`; one worker, if they do not say otherwise.
    """
    settings = {"workers": 1} | settings
    environment = os.environ | {f"PREDICTOR_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "app", "serve", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    server = LiveServer("", process, log)
    try:
        _poll(server, lambda: bool(re.search(r"Listening on (\S+)", log.read_text())))
        found = re.search(r"Listening on (\S+)", log.read_text())
        assert found
        server.url = found[1].replace("localhost", "127.0.0.1")
        yield server
    finally:
        process.kill()
        process.wait()


def _poll(server: LiveServer, condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not condition():
        assert server.process.poll() is None, f"The service has ended:\n{server.log.read_text()}"
        assert time.monotonic() < deadline, f"The service took too long:\n{server.log.read_text()}"
        time.sleep(_POLL_S)
