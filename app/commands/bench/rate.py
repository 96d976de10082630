"""Measures how many images a second an engine computes while several threads keep it busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

_Image = TypeVar("_Image")


def rate_of(
    compute: Callable[[Sequence[_Image]], object], batch: Sequence[_Image], streams: int, seconds: float
) -> float:
    """Returns how many images a second an engine computes while several threads keep it busy.

    Args:
        compute: the engine, or a function around it. All threads call it.
        batch: the images of each call.
        streams: how many threads call. There should be no more than can compute at once: otherwise the time that some
            wait for their turn hides how long a batch takes.
        seconds: how long to measure. Each thread computes at least one batch.
    """
    rates = [0.0] * streams

    def stream(number: int) -> None:
        started_at, batches = time.perf_counter(), 0
        while batches == 0 or time.perf_counter() < started_at + seconds:
            compute(batch)
            batches += 1
        rates[number] = batches * len(batch) / (time.perf_counter() - started_at)

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)
