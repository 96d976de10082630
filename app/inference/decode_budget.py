"""What all models of a process share for decoding, above all its memory: an image waits for room for what it will take.

the estimate from an image's header -> more than the whole budget? -> 413
                                    -> more than is free? -> it waits for its turn -> decode -> free again
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from app.errors import DeadlineExceededError, TooMuchMemoryError
from app.images.isolation.decoders import Decoders
from app.inference.engine import Pixels, Samples
from app.system.kernel import return_freed_memory

# glibc keeps what was freed for the thread that freed it. Of small images that is what the next one needs.
_MUCH_BYTES: Final = 64_000_000


class DecodeBudget:
    """The memory that decoding may take.

    Images get it in the order in which they ask, so that a large one is not passed by small ones for ever.

    Args:
        max_bytes: the most bytes that all images that are being decoded may take, by an estimate.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """What the images take that are being decoded now, and those that wait decoded at full size, by an estimate."""
        return self._used_bytes

    @contextmanager
    def turn(self, deadline: float) -> Iterator[Turn]:
        """Gives an image its turn, whose memory is free again at the end.

        Args:
            deadline: when the request's time is up, on the clock of `time.monotonic()`.
        """
        turn = Turn(self, deadline)
        try:
            yield turn
        finally:
            if turn.held_bytes > _MUCH_BYTES:
                return_freed_memory()
            self.release(turn.held_bytes)

    def take(self, needed: int, deadline: float) -> None:
        """Takes memory; waits in the calling thread until there is room.

        Raises:
            TooMuchMemoryError: the budget as a whole is smaller.
            DeadlineExceededError: the time was up before there was room.
        """
        if needed > self._max_bytes:
            limit_mb = self._max_bytes / 1e6
            raise TooMuchMemoryError(
                f"Decoding the image would take about {needed / 1e6:,.0f} MB; the limit is {limit_mb:,.0f} MB."
            )
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._used_bytes + needed > self._max_bytes:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        raise DeadlineExceededError("The request's time ran out before there was memory for its image.")
                    self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
                self._used_bytes += needed
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def release(self, held: int) -> None:
        """Gives memory back."""
        with self._changed:
            self._used_bytes -= held
            self._changed.notify_all()


class Turn:
    """What one image has of the budget.

    Args:
        budget: the budget.
        deadline: when the request's time is up, on the clock of `time.monotonic()`.

    Attributes:
        held_bytes: what it has now.
    """

    def __init__(self, budget: DecodeBudget, deadline: float) -> None:
        self._budget = budget
        self._deadline = deadline
        self.held_bytes = 0

    def reserve(self, needed: int) -> None:
        """Takes what decoding needs, in bytes; see `DecodeBudget.take` for the errors."""
        self._budget.take(needed, self._deadline)
        self.held_bytes += needed

    def keep_for(self, pixels: Pixels | Samples) -> None:
        """Keeps the memory of pixels until they are gone, and not until the turn ends."""
        kept = min(pixels.nbytes, self.held_bytes)
        self.held_bytes -= kept
        weakref.finalize(pixels, self._budget.release, kept)


@dataclass(frozen=True)
class DecodeResources:
    """What decoding takes place with.

    Attributes:
        budget: the memory for decoding.
        pool: the threads that decode; None where the streams of the models decode.
        decoders: the processes that decode what takes much work, or everything; None if there are none.
        waiting: the threads that wait for decoders which have much work; None if there are no decoders.
    """

    budget: DecodeBudget
    pool: Executor | None = None
    decoders: Decoders | None = None
    waiting: Executor | None = None
