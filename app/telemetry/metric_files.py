"""Keeps each worker's metrics in files that all workers read, whatever becomes of the folder for temporary files.

a worker starts -> its files, whose blocks are reserved -> no space? -> memory of its own, and the log says so
once a second -> files that a cleaner has removed are written again
a scrape -> all files are added up

The library maps sparse files: on a full disk, the first write to a block that cannot be had ends the process (SIGBUS).
"""

from __future__ import annotations

import errno
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

from app.store.publishing import write_atomically
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
        path = Path(self._path)
        try:
            _make_folder(path.parent)
            write_atomically(path, self._m[:])  # other workers read it at any time
        except OSError as error:
            _tell(self._path, error)
            self._is_lost = True
            return
        self._map(self._path)

    def _init_value(self, key: str) -> None:
        needed = self._used + 2 * len(key.encode()) + 64  # the key, its length, padding and two numbers
        if needed > self._capacity and not self._reserve(2 * self._capacity):
            self._map(_in_memory(self._m[:]))
            self._is_lost = True
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _reserve(self, size: int) -> bool:
        try:
            _allocate(self._f.fileno(), size)
        except OSError as error:
            _tell(self._path, error)
            return False
        return True

    def _map(self, path: str) -> None:
        """Goes on in another file, which has the same content already."""
        before, self._f = self._f, open(path, "a+b")  # noqa: SIM115 # it stays open, as the library's does
        self._m = mmap.mmap(self._f.fileno(), self._capacity)
        before.close()


_files: weakref.WeakSet[ReservedFile] = weakref.WeakSet()


def _reserved(path: str) -> str | None:
    """Makes a file with blocks of its own, and returns its path; None where that is not possible."""
    if sys.platform != "linux":
        return path
    try:
        _make_folder(Path(path).parent)
        with open(path, "a+b") as file:
            _allocate(file.fileno(), max(_FIRST_BYTES, os.fstat(file.fileno()).st_size))
    except OSError as error:
        _tell(path, error)
        return None
    return path


def _make_folder(folder: Path) -> None:
    """Makes the folder of metrics again if it is gone. Another user may have taken its name meanwhile."""
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        if each.is_symlink() or each.stat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, f"{each} belongs to somebody else")


def _allocate(descriptor: int, size: int) -> None:
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, 0, size)


def _in_memory(content: bytes = b"") -> str:
    """Returns the path of a file that lies in memory and that no other process sees; Linux only."""
    assert sys.platform == "linux"
    descriptor = os.memfd_create("metrics")
    os.write(descriptor, content)
    return f"/proc/self/fd/{descriptor}"


def _tell(path: str, error: OSError) -> None:
    logger.warning("Metrics of this worker are missing in /metrics: %s: %s.", path, error.strerror)


def _file_label(index: int) -> str:
    return f"worker{index}"
