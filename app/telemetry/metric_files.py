"""Keeps each worker's metrics in files that all workers read, whatever becomes of the folder for temporary files.

a worker starts -> its files, whose blocks are reserved -> no space? -> memory of its own, and the log says so
a scrape -> files that a cleaner has removed are written again -> all files are added up

The library maps sparse files: on a full disk, the first write to a block that cannot be had ends the process (SIGBUS).
"""

from __future__ import annotations

import logging
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Final

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

from app.system.worker_board import WorkerPlace

logger = logging.getLogger("app.metrics")

_FIRST_BYTES: Final = 1 << 16


def share_files(place: WorkerPlace) -> None:
    """Makes this process keep its metrics in files that all workers can read. Call it before any metric is made.

    The files have the worker's index in their names, not the process id. So a replacement goes on counting where the
    worker that died has stopped: counters never go back, and files never pile up.

    Args:
        place: this worker's place among the workers.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(place.metrics_folder)
    values.MmapedDict = ReservedFile  # type: ignore[attr-defined] # MultiProcessValue makes its files by this name
    # The library looks at the environment when it is imported, and that was in the supervisor.
    label = _file_label(place.index)
    values.ValueClass = values.MultiProcessValue(lambda: label)  # type: ignore[no-untyped-call]


def forget_worker(folder: Path, index: int) -> None:
    """Removes the gauges of a worker that has ended, such as its pending images; its counters stay.

    Args:
        folder: the folder in which the workers keep their metrics.
        index: the number of the worker that has ended.
    """
    mark_process_dead(_file_label(index), path=str(folder))  # type: ignore[no-untyped-call]


def restore_files() -> None:
    """Writes the files of this process again that somebody has removed."""
    for file in list(_files):
        file.restore()


class ReservedFile(MmapedDict):
    """A file of values whose blocks are reserved before they are mapped; memory where that is not possible."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._path = filename
        self._is_lost = False
        super().__init__(_reserved(filename) or _in_memory(), read_mode)  # type: ignore[no-untyped-call]
        _files.add(self)

    def restore(self) -> None:
        """Writes the file again if it was removed, and maps it."""
        if self._is_lost or os.path.exists(self._path):
            return
        if _reserved(self._path, content=self._m[:]) is None:
            self._is_lost = True
            return
        file = open(self._path, "a+b")  # noqa: SIM115 # it stays open, as the library's does
        before = self._f
        self._f, self._m = file, mmap.mmap(file.fileno(), self._capacity)
        before.close()

    def _init_value(self, key: str) -> None:
        needed = self._used + 2 * len(key.encode()) + 64  # the key, its length, padding and two numbers
        if needed > self._capacity and not self._reserve(2 * self._capacity):
            self._move_to_memory()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _reserve(self, size: int) -> bool:
        try:
            _allocate(self._f.fileno(), size)
        except OSError as error:
            _tell(self._path, error)
            return False
        return True

    def _move_to_memory(self) -> None:
        file = open(_in_memory(), "a+b")  # noqa: SIM115
        file.write(self._m[:])
        file.flush()
        self._f, self._m, self._is_lost = file, mmap.mmap(file.fileno(), self._capacity), True


_files: weakref.WeakSet[ReservedFile] = weakref.WeakSet()


def _reserved(path: str, content: bytes = b"") -> str | None:
    """Makes a file with blocks of its own, and returns its path; None where that is not possible."""
    if sys.platform != "linux":
        return path
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            file.write(content)
            file.flush()
            _allocate(file.fileno(), max(_FIRST_BYTES, os.fstat(file.fileno()).st_size))
    except OSError as error:
        _tell(path, error)
        return None
    return path


def _allocate(descriptor: int, size: int) -> None:
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, 0, size)


def _in_memory() -> str:
    """Returns the path of a file that lies in memory and that no other process sees; Linux only."""
    assert sys.platform == "linux"
    return f"/proc/self/fd/{os.memfd_create('metrics')}"


def _tell(path: str, error: OSError) -> None:
    logger.warning("Metrics of this worker are missing in /metrics: %s: %s.", path, error.strerror)


def _file_label(index: int) -> str:
    return f"worker{index}"
