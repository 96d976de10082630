"""Runs the service as a process of its own, as `make serve` starts it; or as it was installed into another environment.

`make test-slim` sets SERVICE_PYTHON. Then every service runs there, those that tests usually have in their own process
too, and a test that looks into that process is skipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from app.commands.bench.http_load import OwnServer, own_server

SERVICE_PYTHON = os.environ.get("SERVICE_PYTHON")
"""The interpreter of the environment in which services run; None for this one."""


class LiveServer(OwnServer):
    """A running service, to send signals to."""

    @property
    def workers(self) -> list[int]:
        """The ids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def resident_bytes(self) -> int:
        """Returns the memory that the workers hold (RSS)."""
        pages = sum(int(Path(f"/proc/{worker}/statm").read_text().split()[1]) for worker in self.workers)
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def live_server(log: Path, **settings: object) -> Iterator[LiveServer]:
    """Starts the service on a free port, waits until it listens, and ends it afterwards.

    Args:
        log: the file that takes what the service prints.
        settings: values by their names in `app.settings.Settings`; one worker, if they do not say otherwise.
    """
    folder = Path(tempfile.gettempdir()) if SERVICE_PYTHON else None  # not where the code lies
    python = SERVICE_PYTHON or sys.executable
    with own_server({"workers": 1} | settings, log=log, python=python, folder=folder) as server:
        yield LiveServer(server.process, server.log, server.url)


class OutsideClient(httpx.Client):
    """Asks a service that runs elsewhere, in the place of starlette's `TestClient`."""

    @property
    def app(self) -> NoReturn:
        """Skips the test."""
        pytest.skip("looks into the process of the service")


@contextmanager
def outside_client(**settings: object) -> Iterator[OutsideClient]:
    """Starts the service and yields a client for it.

    Args:
        settings: values by their names in `app.settings.Settings`.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        live_server(Path(folder) / "log", **settings) as server,
        OutsideClient(base_url=server.url, timeout=60) as client,
    ):
        yield client
