"""What the worker processes of one service share: a private folder, and a board on which each tells how it is.

supervisor: makes folder and board -> forks workers -> each publishes its status, and reads the others'
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Final

# A worker whose event loop has not come by for this long takes no connections: the others do not leave it any.
_FRESH_S: Final = 1.0
# And after this long, one that is not ready would rather refuse what comes than let it wait for that worker.
_SERVING_S: Final = 5.0
METRICS_FOLDER: Final = "metrics"
_FIELDS: Final = 6
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


class WorkerBoard:
    """A table of numbers in a file that all processes map: a row for the service, and one for each worker.

    Every field has one writer, or writers of one value, and is as wide as a machine word, so that no locks are needed.

    Args:
        path: of the file, which `create` has made.
    """

    FILE_NAME: Final = "board"

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._fields = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")

    @classmethod
    def create(cls, path: Path, *, workers: int) -> WorkerBoard:
        """Makes the file, with a row for each of so many workers, and maps it."""
        path.write_bytes(bytes((1 + workers) * _FIELDS * _BYTES_PER_FIELD))
        return cls(path)

    @property
    def draining(self) -> bool:
        """Whether the whole service is shutting down."""
        return bool(self._fields[_Header.DRAINING])

    @draining.setter
    def draining(self, value: bool) -> None:
        self._fields[_Header.DRAINING] = value

    @property
    def restarts(self) -> int:
        """How many workers were replaced after they had died."""
        return int(self._fields[_Header.RESTARTS])

    @restarts.setter
    def restarts(self, count: int) -> None:
        self._fields[_Header.RESTARTS] = count

    @property
    def complete(self) -> bool:
        """Whether all workers have been seen ready together, or one has died, and the rest is what there is."""
        return bool(self._fields[_Header.COMPLETE] or self.restarts)

    @complete.setter
    def complete(self, value: bool) -> None:
        self._fields[_Header.COMPLETE] = value

    @property
    def statuses(self) -> list[WorkerStatus]:
        """Every worker's status."""
        return [WorkerStatus(self._fields, number) for number in range(1, len(self._fields) // _FIELDS)]

    def status_of(self, worker: int) -> WorkerStatus:
        """Returns the row of a worker, counted from 0."""
        return WorkerStatus(self._fields, 1 + worker)


class WorkerStatus:
    """What one worker tells."""

    def __init__(self, fields: memoryview[float], number: int) -> None:
        self._fields = fields[number * _FIELDS : (number + 1) * _FIELDS]

    def publish(self, *, accepting: bool, ready: bool, connections: int) -> None:
        """Tells that the event loop has come by, and how it stands."""
        fields = self._fields
        fields[_Field.ACCEPTING] = accepting
        fields[_Field.READY] = ready
        fields[_Field.CONNECTIONS] = connections
        fields[_Field.HEARTBEAT_S] = time.monotonic()  # of the machine: processes can compare it

    def count_connections(self, connections: int) -> None:
        """Tells how many connections there are, between two of the above."""
        self._fields[_Field.CONNECTIONS] = connections

    def ask_for_restart(self) -> None:
        """Tells the supervisor that only a new process helps."""
        self._fields[_Field.WANTS_RESTART] = True

    def retire(self) -> None:
        """Tells that this worker finishes what it has and takes nothing new."""
        self._fields[_Field.RETIRING] = True

    def clear(self) -> None:
        """Forgets a worker that has died."""
        for field in _Field:
            self._fields[field] = 0

    @property
    def connections(self) -> int:
        """How many connections it has."""
        return int(self._fields[_Field.CONNECTIONS])

    @property
    def ready(self) -> bool:
        """Whether its own models serve."""
        return bool(self._fields[_Field.READY])

    @property
    def accepts(self) -> bool:
        """Whether it takes new connections, and is awake to do so."""
        return bool(self._fields[_Field.ACCEPTING]) and self.silent_s < _FRESH_S

    @property
    def serves(self) -> bool:
        """Whether it takes new connections and answers them, be it slowly."""
        return bool(self._fields[_Field.ACCEPTING]) and self.ready and self.silent_s < _SERVING_S

    @property
    def silent_s(self) -> float:
        """Seconds since its event loop last came by."""
        return time.monotonic() - self._fields[_Field.HEARTBEAT_S]

    @property
    def wants_restart(self) -> bool:
        """Whether it has asked to be replaced."""
        return bool(self._fields[_Field.WANTS_RESTART])

    @property
    def retiring(self) -> bool:
        """Whether it has been told to end."""
        return bool(self._fields[_Field.RETIRING])


@dataclass(frozen=True)
class WorkerPlace:
    """A worker's place among its siblings.

    Attributes:
        folder: private to this run of the service, the same for all workers, gone afterwards.
        workers: how many there are.
        index: which of them this is, from 0; a replacement takes the place of the one that died.
    """

    folder: Path
    workers: int
    index: int

    @cached_property
    def board(self) -> WorkerBoard:
        """The board on which the workers tell how they are; mapped by each process on its own."""
        return WorkerBoard(self.folder / WorkerBoard.FILE_NAME)

    @property
    def status(self) -> WorkerStatus:
        """This worker's own status."""
        return self.board.status_of(self.index)

    @property
    def siblings(self) -> list[WorkerStatus]:
        """The statuses of the others."""
        return [self.board.status_of(worker) for worker in range(self.workers) if worker != self.index]

    @property
    def metrics_folder(self) -> Path:
        """Where each worker keeps its counters, for all to add up."""
        return self.folder / METRICS_FOLDER
