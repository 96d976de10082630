"""Runs the service as a process of its own, as `make serve` starts it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.commands.bench.http_load import OwnServer, own_server


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
    with own_server({"workers": 1} | settings, log=log) as server:
        yield LiveServer(server.process, server.log, server.url)
