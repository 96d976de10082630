"""Measures how fast engines are, and picks the fastest thread layout of an engine."""

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
"""How often each engine or layout is measured; the median counts."""
ROUND_S: Final = 0.1
"""Seconds that an engine is measured in each round."""
BUSY_BATCH_SIZE: Final = 2
"""How many images a batch has while engines are measured. Batches are as small in a busy service as in an almost idle
one, because idle streams share what is queued."""
MIN_GAIN: Final = 1.1
"""How much faster than the reference an engine or layout must be to be taken: more than the measurement's noise."""

_Image = TypeVar("_Image")


def lay_out(
    several: Engine,
    one: Engine,
    layouts: tuple[ThreadLayout, ThreadLayout],
    batch: Sequence[torch.Tensor],
) -> tuple[Engine, LayoutChoice]:
    """Measures an engine in two layouts, in turn.

    Args:
        several: the engine built for several single-threaded streams, warmed up.
        one: the engine built for one stream of many threads, warmed up.
        layouts: the layouts of `several` and `one`.
        batch: the images that they classify when busy. When alone they classify the first one only.

    Returns:
        the engine that serves best, and the choice with what was measured.
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
    """Returns the median of each measurement. They take turns, so that noise hits all of them.

    Args:
        turns: the measurements. Each takes one figure when it is called.
        rounds: how often each measurement is called.
    """
    measured = [[turn() for turn in turns] for _ in range(rounds)]
    return [statistics.median(of_one) for of_one in zip(*measured, strict=True)]


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
