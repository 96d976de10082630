"""Every item of a batch ends exactly once, alone where it must, together where it may."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from app.errors import DeadlineExceededError, OverloadedError
from app.inference.batcher import Answer, Batcher

pytestmark = pytest.mark.anyio


class Doubler:
    """Doubles numbers; remembers its batches; waits at a gate while that is closed; fails on negative numbers."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.gate.wait(30)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [2 * item for item in items]


async def entered(doubler: Doubler) -> None:
    """Waits until a batch has been taken."""
    assert await asyncio.to_thread(doubler.entered.acquire, timeout=30)


def submit(batcher: Batcher[int, int, int], item: int, deadline: float = math.inf) -> asyncio.Task[Answer[int]]:
    """Submits an item from a task of its own."""
    return asyncio.create_task(batcher.submit(item, deadline=deadline))


def make(doubler: Doubler, *, streams: int = 1, max_batch_size: int = 4, max_queue_items: int = 100,
         max_batch_delay_ms: float = 0) -> Batcher[int, int, int]:  # fmt: skip
    """Returns a batcher over a doubler."""
    return Batcher(
        lambda item: item,
        doubler,
        streams=streams,
        max_batch_size=max_batch_size,
        max_queue_items=max_queue_items,
        max_batch_delay_ms=max_batch_delay_ms,
    )


async def blocked(doubler: Doubler, batcher: Batcher[int, int, int]) -> asyncio.Task[Answer[int]]:
    """Occupies the only stream with an item of its own."""
    doubler.gate.clear()
    task = submit(batcher, 0)
    await entered(doubler)
    return task


async def test_idle_stream_takes_an_item_at_once_and_alone() -> None:
    doubler = Doubler()
    batcher = make(doubler)
    answer = await batcher.submit(21, deadline=math.inf)
    batcher.close()

    assert answer.result == 42
    assert answer.batch_size == 1
    assert doubler.batches == [[21]]
    assert answer.queue_s >= 0
    assert answer.inference_s >= 0


async def test_items_that_wait_share_batches_in_order_up_to_the_limit() -> None:
    doubler = Doubler()
    batcher = make(doubler)
    first = await blocked(doubler, batcher)
    tasks = [submit(batcher, item) for item in range(1, 8)]
    await asyncio.sleep(0)
    assert batcher.depth == 7
    doubler.gate.set()
    answers = await asyncio.gather(first, *tasks)
    batcher.close()

    assert [answer.result for answer in answers] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_failing_batch_is_retried_one_by_one_and_a_bad_item_fails_alone() -> None:
    doubler = Doubler()
    batcher = make(doubler)
    first = await blocked(doubler, batcher)
    tasks = [submit(batcher, item) for item in (1, -2, 3)]
    await asyncio.sleep(0)
    doubler.gate.set()
    outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
    batcher.close()

    assert [outcome.result if isinstance(outcome, Answer) else type(outcome) for outcome in outcomes] == [
        0, 2, ValueError, 6,
    ]  # fmt: skip
    assert doubler.batches == [[0], [1, -2, 3], [1], [-2], [3]]


async def test_item_whose_time_is_up_is_not_computed() -> None:
    doubler = Doubler()
    batcher = make(doubler)
    first = await blocked(doubler, batcher)
    late = submit(batcher, 5, deadline=time.monotonic() - 1)
    good = submit(batcher, 6)
    await asyncio.sleep(0)
    doubler.gate.set()
    outcomes = await asyncio.gather(first, late, good, return_exceptions=True)
    batcher.close()

    assert isinstance(outcomes[1], DeadlineExceededError)
    assert doubler.batches == [[0], [6]]


async def test_item_whose_client_has_left_is_not_computed() -> None:
    doubler = Doubler()
    batcher = make(doubler)
    first = await blocked(doubler, batcher)
    gone, good = submit(batcher, 5), submit(batcher, 6)
    await asyncio.sleep(0)
    assert batcher.depth == 2
    gone.cancel()
    await asyncio.sleep(0)
    assert batcher.depth == 1  # neither its item nor its place is kept
    doubler.gate.set()
    await asyncio.gather(first, good)
    batcher.close()

    assert gone.cancelled()
    assert doubler.batches == [[0], [6]]


async def test_many_clients_that_leave_cost_little_and_their_items_are_never_formatted() -> None:
    class Body:
        def __repr__(self) -> str:
            pytest.fail("A representation contains a body.")

    entered, may_go_on = threading.Event(), threading.Event()

    def run(items: Sequence[Body]) -> list[None]:
        entered.set()
        assert may_go_on.wait(30)
        return [None] * len(items)

    batcher: Batcher[Body, Body, None] = Batcher(
        lambda item: item, run, streams=1, max_batch_size=1, max_queue_items=20_001
    )
    computed = asyncio.create_task(batcher.submit(Body(), deadline=math.inf))
    assert await asyncio.to_thread(entered.wait, 30)
    waiting = [asyncio.create_task(batcher.submit(Body(), deadline=math.inf)) for _ in range(20_000)]
    await asyncio.sleep(0)
    started_at = time.process_time()
    for task in (computed, *reversed(waiting)):
        task.cancel()
    await asyncio.gather(computed, *waiting, return_exceptions=True)
    seconds = time.process_time() - started_at
    may_go_on.set()
    await asyncio.to_thread(batcher.close)

    assert batcher.depth == 0
    assert seconds < 2  # a search for each would look at 200 million places


async def test_full_queue_refuses_and_takes_again_when_there_is_room() -> None:
    doubler = Doubler()
    batcher = make(doubler, max_queue_items=2)
    first = await blocked(doubler, batcher)
    waiting = [submit(batcher, item) for item in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.submit(3, deadline=math.inf)
    doubler.gate.set()
    await asyncio.gather(first, *waiting)

    assert (await batcher.submit(4, deadline=math.inf)).result == 8
    batcher.close()


async def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    doubler = Doubler()
    batcher = make(doubler)
    first = await blocked(doubler, batcher)
    waiting = [submit(batcher, item) for item in (1, 2)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    doubler.gate.set()
    answers = await asyncio.gather(first, *waiting)
    await closing

    assert [answer.result for answer in answers] == [0, 2, 4]
    with pytest.raises(OverloadedError):
        await batcher.submit(3, deadline=math.inf)


async def test_idle_streams_share_what_waits() -> None:
    doubler = Doubler()
    doubler.gate.clear()
    batcher = make(doubler, streams=2, max_batch_size=8)
    occupying = [submit(batcher, item) for item in (0, 1)]
    for _ in occupying:
        await entered(doubler)
    waiting = [submit(batcher, item) for item in range(2, 8)]
    await asyncio.sleep(0)
    doubler.gate.set()
    answers = await asyncio.gather(*occupying, *waiting)
    batcher.close()

    assert [answer.result for answer in answers] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sorted(item for batch in doubler.batches for item in batch) == list(range(8))


async def test_batch_waits_for_more_when_asked_to() -> None:
    doubler = Doubler()
    batcher = make(doubler, max_batch_size=3, max_batch_delay_ms=20_000)
    answers = await asyncio.gather(*(batcher.submit(item, deadline=math.inf) for item in (1, 2, 3)))
    batcher.close()

    assert [answer.batch_size for answer in answers] == [3, 3, 3]


async def test_wrong_number_of_results_is_an_error_not_a_mix_up() -> None:
    batcher: Batcher[int, int, int] = Batcher(
        lambda item: item, lambda items: [1, 2, 3], streams=1, max_batch_size=1, max_queue_items=9
    )
    with pytest.raises(RuntimeError, match="3 results for a batch of 1"):
        await batcher.submit(1, deadline=math.inf)
    batcher.close()


async def test_thousand_items_on_four_streams_all_end_once() -> None:
    doubler = Doubler()
    batcher = make(doubler, streams=4, max_queue_items=1000)
    answers = await asyncio.gather(*(batcher.submit(item, deadline=math.inf) for item in range(1000)))
    batcher.close()

    assert [answer.result for answer in answers] == [2 * item for item in range(1000)]
    assert sorted(item for batch in doubler.batches for item in batch) == list(range(1000))


async def test_item_that_cannot_be_prepared_fails_alone_and_is_never_computed() -> None:
    doubler = Doubler()

    def prepare(item: int) -> int:
        if item == 2:
            raise ValueError("cannot be prepared")
        return item * 10

    batcher: Batcher[int, int, int] = Batcher(prepare, doubler, streams=1, max_batch_size=4, max_queue_items=9)
    first = await blocked(doubler, batcher)
    tasks = [submit(batcher, item) for item in (1, 2, 3)]
    await asyncio.sleep(0)
    doubler.gate.set()
    outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
    batcher.close()

    assert [outcome.result if isinstance(outcome, Answer) else str(outcome) for outcome in outcomes] == [
        0, 20, "cannot be prepared", 60,
    ]  # fmt: skip
    assert doubler.batches == [[0], [10, 30]]


async def test_item_whose_client_leaves_while_it_is_prepared_is_not_computed() -> None:
    doubler, preparing, may_go_on = Doubler(), threading.Event(), threading.Event()

    def prepare(item: int) -> int:
        preparing.set()
        assert may_go_on.wait(30)
        return item

    batcher: Batcher[int, int, int] = Batcher(prepare, doubler, streams=1, max_batch_size=4, max_queue_items=9)
    task = submit(batcher, 1)
    assert await asyncio.to_thread(preparing.wait, 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    may_go_on.set()
    assert (await batcher.submit(2, deadline=math.inf)).result == 4
    batcher.close()

    assert doubler.batches == [[2]]


@pytest.mark.parametrize("failing", ["prepare", "run"])
async def test_item_leaves_memory_with_its_answer_or_its_error_without_the_collector_of_cycles(failing: str) -> None:
    def fail(_: object) -> list[int]:
        raise ValueError("broken")

    class Image:
        pass

    good: Batcher[Image, int, int] = Batcher(id, list, streams=1, max_batch_size=4, max_queue_items=100)
    bad: Batcher[Image, list[int], int] = Batcher(
        fail if failing == "prepare" else lambda item: [id(item)], fail, streams=1, max_batch_size=4, max_queue_items=9
    )

    async def memory_of(batcher: Batcher[Image, Any, int]) -> weakref.ref[Image]:
        image = Image()
        with suppress(ValueError):
            await batcher.submit(image, deadline=math.inf)
        return weakref.ref(image)

    gc.disable()
    try:
        memories = [await memory_of(good), await memory_of(bad)]
        await asyncio.sleep(0)  # the loop holds the future that woke this task until it has run
        good.close()
        bad.close()
        assert [memory() for memory in memories] == [None, None]
    finally:
        gc.enable()
