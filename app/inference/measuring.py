"""Measures how fast engines are with different numbers of streams and threads, and picks the fastest layout."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import torch

from app.inference.adaptive_engine import SerialEngine, composed
from app.inference.engine import Engine
from app.inference.thread_layout import LayoutChoice, MeasuredLayout, ThreadLayout

ROUNDS: Final = 3
ROUND_S: Final = 0.1
BUSY_BATCH_SIZE: Final = 2
"""Of an almost idle service and of a busy one alike: what is queued is shared out."""
MIN_GAIN: Final = 1.1
"""What is measured to be faster is only taken if it is so by more than the measurement's noise."""
_Image = TypeVar("_Image")


def lay_out(
    several: Engine,
    one: Engine,
    layouts: tuple[ThreadLayout, ThreadLayout],
    batch: Sequence[torch.Tensor],
) -> tuple[Engine, LayoutChoice]:
    """Measures two layouts of an engine, taking turns.

    Args:
        several: warmed up, built for several single-threaded streams.
        one: the same, built for one stream of many threads.
        layouts: theirs.
        batch: what they classify when busy; its first image alone otherwise.

    Returns:
        what serves best, and what was measured.
    """
    engines = (several, SerialEngine(one))
    cores = layouts[1].threads_per_stream
    callers = [min(layout.streams, cores) for layout in layouts]
    busy = measure([partial(rate_of, each, batch, n, ROUND_S / 2) for each, n in zip(engines, callers, strict=True)])
    lone = measure([partial(rate_of, each, batch[:1], 1, ROUND_S / 4) for each in engines])
    measured = tuple(
        MeasuredLayout(layout, images_per_s, 1000 / lone_rate)
        for layout, images_per_s, lone_rate in zip(layouts, busy, lone, strict=True)
    )
    chosen = layouts[1] if busy[1] > MIN_GAIN * busy[0] else layouts[0]
    lone_layout = layouts[1] if lone[1] > MIN_GAIN * lone[0] else chosen
    choice = LayoutChoice(chosen, lone_layout.threads_per_stream, measured)
    return composed(several, one, choice), choice


def measure(turns: Sequence[Callable[[], float]], *, rounds: int = ROUNDS) -> list[float]:
    """Returns the median of what each measurement gives; they take turns, so that noise hits all."""
    measured = [[turn() for turn in turns] for _ in range(rounds)]
    return [statistics.median(of_one) for of_one in zip(*measured, strict=True)]


def rate_of(
    compute: Callable[[Sequence[_Image]], object], batch: Sequence[_Image], streams: int, seconds: float
) -> float:
    """Returns the images a second of what several threads keep busy; each computes a batch at least.

    Args:
        compute: an engine, or more than it, called by all the threads.
        batch: what each of them gives it, again and again.
        streams: how many threads; no more than can compute at once, as the time in which one waits for its turn is not
            that of the others, and a batch or two would seem to take less than they do.
        seconds: how long.
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
