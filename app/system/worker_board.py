"""The board that the worker processes of a service share: each publishes its status there and reads the others'.

the supervisor makes the board -> forks workers, which inherit it -> each publishes its status, reads the others'

It lies in memory that has no name, so that nobody can take it away. A spawned worker inherits nothing, and maps a file.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

# A worker that has not published for this long takes no connections, and its siblings leave it none.
_FRESH_S: Final = 1.0
# A worker that has not published for this long does not serve: a sibling that is not ready takes the connections then,
# and refuses the requests, rather than let them wait.
_SERVING_S: Final = 5.0
METRICS_FOLDER: Final = "metrics"
"""Name of the folder, inside the shared folder, in which the workers keep their metrics."""
_FIELDS: Final = 8
_BYTES_PER_FIELD: Final = 8


class _Header(IntEnum):
    DRAINING = 0
    RESTARTS = 1
    COMPLETE = 2


class _Field(IntEnum):
    ACCEPTING = 0
    READY = 1
    CONNECTIONS = 2
    HEARTBEAT_S = 3
    WANTS_RESTART = 4
    RETIRING = 5
    PID = 6
    CHANGES = 7


class WorkerBoard:
    """A table of numbers in memory that all processes share: a row for the service, and a row for each worker.

    No locks are needed: each field is as wide as a machine word, and has one writer or writers of the same value.

    Args:
        shared: the memory.
        path: the file of that memory, from which a spawned process maps it; none where processes are forked.
    """

    FILE_NAME: Final = "board"

    def __init__(self, shared: mmap.mmap, path: Path) -> None:
        self._path = path
        self._fields = memoryview(shared).cast("d")

    def __reduce__(self) -> tuple[Callable[[Path], WorkerBoard], tuple[Path]]:
        """Says how a spawned process gets the board."""
        return WorkerBoard.open, (self._path,)

    @classmethod
    def open(cls, path: Path) -> WorkerBoard:
        """Returns the board of a file that `create` has made."""
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), 0), path)

    @classmethod
    def create(cls, path: Path, *, workers: int) -> WorkerBoard:
        """Makes the board.

        Args:
            path: the file to make where processes are not forked.
            workers: the number of workers, each of which gets a row.
        """
        size = (1 + workers) * _FIELDS * _BYTES_PER_FIELD
        if sys.platform == "linux":
            return cls(mmap.mmap(-1, size), path)
        path.write_bytes(bytes(size))
        return cls.open(path)

    @property
    def draining(self) -> bool:
        """Whether the whole service is shutting down."""
        return bool(self._fields[_Header.DRAINING])

    @draining.setter
    def draining(self, value: bool) -> None:
        self._fields[_Header.DRAINING] = value

    @property
    def restarts(self) -> int:
        """The number of workers that were replaced after they had died."""
        return int(self._fields[_Header.RESTARTS])

    @restarts.setter
    def restarts(self, count: int) -> None:
        self._fields[_Header.RESTARTS] = count

    @property
    def complete(self) -> bool:
        """Whether the start is over: all workers have been ready at the same time, or one has died."""
        return bool(self._fields[_Header.COMPLETE] or self.restarts)

    @complete.setter
    def complete(self, value: bool) -> None:
        self._fields[_Header.COMPLETE] = value

    @property
    def statuses(self) -> list[WorkerStatus]:
        """The status of every worker."""
        return [WorkerStatus(self._fields, number) for number in range(1, len(self._fields) // _FIELDS)]

    def status_of(self, worker: int) -> WorkerStatus:
        """Returns the status of a worker, by its number from 0."""
        return WorkerStatus(self._fields, 1 + worker)


class WorkerStatus:
    """The status of one worker: a row of the board."""

    def __init__(self, fields: memoryview[float], number: int) -> None:
        self._fields = fields[number * _FIELDS : (number + 1) * _FIELDS]

    def tell_ready(self) -> None:
        """Tells that the worker's own models serve, without waiting for the next `publish`."""
        self._fields[_Field.PID] = os.getpid()
        self._fields[_Field.READY] = 1

    def publish(self, *, accepting: bool, ready: bool, connections: int) -> None:
        """Publishes the state of this worker, and that its event loop moves.

        Args:
            accepting: whether the worker takes new connections.
            ready: whether the worker's own models serve.
            connections: the number of its open connections.
        """
        fields = self._fields
        fields[_Field.ACCEPTING] = accepting
        fields[_Field.READY] = ready
        fields[_Field.CONNECTIONS] = connections
        fields[_Field.PID] = os.getpid()
        fields[_Field.HEARTBEAT_S] = time.monotonic()  # processes can compare it: it is the machine's clock

    def count_connections(self, connections: int) -> None:
        """Publishes the number of open connections alone."""
        self._fields[_Field.CONNECTIONS] = connections

    def follow(self, changes: int) -> None:
        """Publishes how many of the changes that were requested at run time this worker has carried out."""
        self._fields[_Field.CHANGES] = changes

    def ask_for_restart(self) -> None:
        """Asks the supervisor to replace this process."""
        self._fields[_Field.WANTS_RESTART] = True

    def retire(self) -> None:
        """Publishes that this worker finishes what it has and takes nothing new."""
        self._fields[_Field.RETIRING] = True

    def clear(self) -> None:
        """Sets every field to 0, after the worker has ended or before it starts."""
        for field in _Field:
            self._fields[field] = 0

    @property
    def followed_changes(self) -> int:
        """How many of the requested changes the worker has carried out."""
        return int(self._fields[_Field.CHANGES])

    @property
    def pid(self) -> int:
        """The worker's process id; 0 before it has published its state."""
        return int(self._fields[_Field.PID])

    @property
    def connections(self) -> int:
        """The number of the worker's open connections."""
        return int(self._fields[_Field.CONNECTIONS])

    @property
    def ready(self) -> bool:
        """Whether the worker's own models serve."""
        return bool(self._fields[_Field.READY])

    @property
    def accepts(self) -> bool:
        """Whether the worker takes new connections, and has published in the last second."""
        return bool(self._fields[_Field.ACCEPTING]) and self.silent_s < _FRESH_S

    @property
    def serves(self) -> bool:
        """Whether the worker is ready and takes new connections, and has published in the last 5 seconds."""
        return bool(self._fields[_Field.ACCEPTING]) and self.ready and self.silent_s < _SERVING_S

    @property
    def silent_s(self) -> float:
        """The seconds since the worker last published."""
        return time.monotonic() - self._fields[_Field.HEARTBEAT_S]

    @property
    def wants_restart(self) -> bool:
        """Whether the worker has asked to be replaced."""
        return bool(self._fields[_Field.WANTS_RESTART])

    @property
    def retiring(self) -> bool:
        """Whether the worker finishes what it has and takes nothing new."""
        return bool(self._fields[_Field.RETIRING])


@dataclass(frozen=True)
class WorkerPlace:
    """A worker's place among its siblings.

    Attributes:
        folder: the folder that all workers of this run of the service share; the supervisor removes it at the end.
        workers: the number of workers.
        index: the worker's number, from 0; a replacement has the number of the worker that died.
        board: what the workers tell each other.
    """

    folder: Path
    workers: int
    index: int
    board: WorkerBoard

    @property
    def status(self) -> WorkerStatus:
        """This worker's own status."""
        return self.board.status_of(self.index)

    @property
    def siblings(self) -> list[WorkerStatus]:
        """The statuses of the other workers."""
        return [self.board.status_of(worker) for worker in range(self.workers) if worker != self.index]

    @property
    def metrics_folder(self) -> Path:
        """The folder in which each worker keeps its metrics, so that any worker can add up all of them."""
        return self.folder / METRICS_FOLDER
