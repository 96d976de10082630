"""Forms dynamic batches of the items in a bounded queue and runs them on several streams. It knows no model.

submit (event loop) -> queue -> a free stream (thread): prepare the items that wait, run(batch) -> futures (event loop)
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Never, TypeVar

from app.errors import DeadlineExceededError, OverloadedError
from app.system.kernel import lower_thread_priority

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

# A stream that has prepared items for this long computes them, rather than let them wait for the next one. With a few
# items it stops sooner. Larger batches help only small networks, for which many images are prepared in that time
# (benchmarks/NOTES.md).
_MAX_PREPARATION_S: Final = 0.02
_FEW: Final = 4
_MAX_PREPARATION_OF_MORE_S: Final = 0.0025


class Answer(NamedTuple, Generic[Result]):
    """What came of one item, and how long it took.

    Attributes:
        result: what `run` returned for this item.
        queue_s: seconds from the item's submission to the start of its batch, without those of its own preparation.
        inference_s: seconds that its batch took to run.
        batch_size: how many items the batch had.
    """

    result: Result
    queue_s: float
    inference_s: float
    batch_size: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    item: Item = field(repr=False)
    deadline: float
    future: asyncio.Future[Answer[Result]] = field(repr=False)
    submitted_at: float = field(default_factory=time.monotonic)


class _Ready(NamedTuple, Generic[Item, Prepared, Result]):
    """An entry whose item is prepared."""

    entry: _Entry[Item, Result]
    prepared: Prepared
    preparation_s: float


class Batcher(Generic[Item, Prepared, Result]):
    """Groups items into batches while all streams are busy. When a stream is idle, an item waits only if asked to.

    Every item that is submitted ends exactly once: with an answer, an error, `DeadlineExceededError`, or its own
    cancellation.

    Args:
        prepare: makes an item ready for its batch, on the stream that takes it. An item that fails does so alone.
        run: computes a batch and returns one result for each item, in order. Like `prepare`, it is called from several
            threads at once.
        streams: how many threads call `run`.
        max_batch_size: the most items in a batch.
        max_queue_items: the most items that may wait. More are refused.
        max_batch_delay_ms: how long a batch that is not full may wait for more items, in milliseconds.
    """

    def __init__(
        self,
        prepare: Callable[[Item], Prepared],
        run: Callable[[Sequence[Prepared]], Sequence[Result]],
        *,
        streams: int,
        max_batch_size: int,
        max_queue_items: int,
        max_batch_delay_ms: float = 0.0,
    ) -> None:
        self._prepare = prepare
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_batch_delay_s = max_batch_delay_ms / 1000
        self._max_queue_items = max_queue_items
        # In order. The entry of a client that leaves is taken out without a search.
        self._queue: OrderedDict[_Entry[Item, Result], None] = OrderedDict()
        self._changed = threading.Condition()
        self._idle_streams = 0
        self._closed = False
        self._running_since: dict[int, float] = {}  # by thread
        self._failures_in_a_row = 0
        self.on_batch: Callable[[int], None] | None = None
        """Called with the size of each batch that was computed, in the stream's thread; None to call nothing."""
        self._threads = [
            threading.Thread(target=self._stream, name=f"stream-{number}", daemon=True) for number in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """How many items wait for a stream."""
        return len(self._queue)

    @property
    def busy_streams(self) -> int:
        """How many streams are preparing or computing a batch."""
        return len(self._running_since)

    @property
    def longest_running_s(self) -> float:
        """Seconds since the stream that is busy for longest began to prepare its batch; 0 if all streams are idle."""
        started_at = min(list(self._running_since.values()), default=None)
        return 0.0 if started_at is None else time.monotonic() - started_at

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Tells that the calling thread waits for something else than its batch, and does not count as busy."""
        stream = threading.get_ident()
        was_running = self._running_since.pop(stream, None)
        try:
            yield
        finally:
            if was_running is not None:
                self._running_since[stream] = time.monotonic()

    @property
    def failures_in_a_row(self) -> int:
        """How many items have failed, each on its own, since the last batch that did not fail."""
        return self._failures_in_a_row

    async def submit(self, item: Item, *, deadline: float) -> Answer[Result]:
        """Computes one item, in a batch with whatever else waits.

        Args:
            item: the item, as `prepare` takes it.
            deadline: when the item's time is up, on the clock of `time.monotonic()`. If it is up when the item's turn
                comes, the item is dropped.

        Raises:
            OverloadedError: the queue is full, or closed.
            DeadlineExceededError: the deadline passed before the item's turn came.
            Exception: `prepare` raised it for this item, or `run` did so for the item alone.
        """
        entry: _Entry[Item, Result] = _Entry(item, deadline, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._closed or len(self._queue) >= self._max_queue_items:
                raise OverloadedError("The inference queue is full.", retry_after_s=1)
            self._queue[entry] = None
            self._changed.notify()
        try:
            return await entry.future
        except asyncio.CancelledError:
            # Otherwise the entry would keep its item in memory, and its place in the queue, until its turn comes.
            with self._changed:
                self._queue.pop(entry, None)
            raise
        except Exception:
            # The error's traceback leads through the stream's frames to the entry, and the entry's future back to the
            # error. This cycle would keep the item in memory until the garbage collector runs.
            del entry.future
            raise

    def close(self) -> None:
        """Computes the items that wait, then ends the streams. Blocks until they have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        # Both lead back to the pipeline that owns this queue. Without them no cycle keeps a closed pipeline in memory.
        self._prepare = self._run = _refuse

    def _stream(self) -> None:
        lower_thread_priority()
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """Waits for a batch and computes it. Its variables are gone when it returns, and with them the last batch.

        Returns:
            False once the queue is closed and empty, otherwise True.
        """
        entry, most = self._wait_for_first()
        if entry is None:
            return False
        stream = threading.get_ident()
        self._running_since[stream] = time.monotonic()
        if batch := self._gather(entry, most):
            self._compute(batch)
        del self._running_since[stream]
        return True

    def _gather(self, entry: _Entry[Item, Result] | None, most: int) -> list[_Ready[Item, Prepared, Result]]:
        """Prepares an entry and those behind it, at most `most`. Returns those whose clients still wait."""
        started_at = time.monotonic()
        batch = []
        while entry:
            if ready := self._prepare_alone(entry):
                batch.append(ready)
            most -= 1
            most_s = _MAX_PREPARATION_S if len(batch) < _FEW else _MAX_PREPARATION_OF_MORE_S
            late = time.monotonic() - started_at > most_s
            entry = None if late or most == 0 else self._next()
        # While items were prepared, clients may have left.
        return [ready for ready in batch if self._is_alive(ready.entry)]

    def _wait_for_first(self) -> tuple[_Entry[Item, Result] | None, int]:
        """Returns the first entry of a batch, or None once closed and empty; and how many entries to take at most."""
        with self._changed:
            self._idle_streams += 1
            try:
                while True:
                    while not self._queue and not self._closed:
                        self._changed.wait()
                    if not self._queue:
                        return None, 0
                    self._wait_for_more()
                    if self._queue:  # another stream may have been quicker
                        # Idle streams share what waits: two half batches at once end sooner than one whole one.
                        share = -(-len(self._queue) // self._idle_streams)
                        return self._queue.popitem(last=False)[0], min(self._max_batch_size, share)
            finally:
                self._idle_streams -= 1

    def _next(self) -> _Entry[Item, Result] | None:
        with self._changed:
            return self._queue.popitem(last=False)[0] if self._queue else None

    def _wait_for_more(self) -> None:
        while self._max_batch_delay_s and not self._closed and 0 < len(self._queue) < self._max_batch_size:
            left_s = next(iter(self._queue)).submitted_at + self._max_batch_delay_s - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                break

    def _is_alive(self, entry: _Entry[Item, Result]) -> bool:
        """Returns whether an entry's client still waits. An entry whose time is up gets its error here."""
        if entry.future.cancelled():
            return False
        if time.monotonic() > entry.deadline:
            self._deliver([(entry, DeadlineExceededError("The request's time ran out in the queue."))])
            return False
        return True

    def _prepare_alone(self, entry: _Entry[Item, Result]) -> _Ready[Item, Prepared, Result] | None:
        if not self._is_alive(entry):
            return None
        started_at = time.monotonic()
        try:
            prepared = self._prepare(entry.item)
        except Exception as error:
            self._deliver([(entry, error)])
            return None
        return _Ready(entry, prepared, time.monotonic() - started_at)

    def _compute(self, batch: list[_Ready[Item, Prepared, Result]]) -> None:
        started_at = time.monotonic()
        try:
            results = self._run([ready.prepared for ready in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}.")
        except Exception as error:
            if len(batch) == 1:
                self._failures_in_a_row += 1
                self._deliver([(batch[0].entry, error)])
                return
            logger.exception("A batch of %d failed; its items are computed one by one.", len(batch))
            for ready in batch:
                self._compute([ready])
            return
        self._failures_in_a_row = 0
        inference_s = time.monotonic() - started_at
        if self.on_batch:
            self.on_batch(len(batch))
        outcomes: list[tuple[_Entry[Item, Result], Answer[Result] | Exception]] = []
        for (entry, _, preparation_s), result in zip(batch, results, strict=True):
            queue_s = started_at - entry.submitted_at - preparation_s
            outcomes.append((entry, Answer(result, queue_s, inference_s, len(batch))))
        self._deliver(outcomes)

    def _deliver(self, outcomes: list[tuple[_Entry[Item, Result], Answer[Result] | Exception]]) -> None:
        try:
            outcomes[0][0].future.get_loop().call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:  # the loop has closed: nobody waits any more
            logger.debug("%d answers came after the event loop had closed.", len(outcomes))


def _refuse(_: object) -> Never:
    raise RuntimeError("The queue is closed.")


def _settle(outcomes: list[tuple[_Entry[Item, Result], Answer[Result] | Exception]]) -> None:
    """Ends the futures of a batch. It runs in the event loop, which owns them."""
    for entry, outcome in outcomes:
        if entry.future.done():  # cancelled meanwhile
            continue
        if isinstance(outcome, Exception):
            entry.future.set_exception(outcome)
        else:
            entry.future.set_result(outcome)
