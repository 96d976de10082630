"""How a CPU engine's threads are laid out: several single-threaded streams, one of many threads, or both by turns.

engine -> built for (cores + 1) x 1 and 1 x cores -> measured, busy and alone -> the one that serves

Several single-threaded streams lose least to decoding and to other processes, but leave a lone request one core. Where
all cores together are faster on a batch that is alone, `AdaptiveEngine` gives it them.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import torch

from app.engine import Engine, Precision, Probabilities
from app.settings import ModelSettings

ROUNDS: Final = 3
ROUND_S: Final = 0.1
BUSY_BATCH_SIZE: Final = 2
"""Of an almost idle service and of a busy one alike: what is queued is shared out."""
SPARE_STREAMS: Final = 1
"""Single-threaded streams beyond one a core: they compute while others hand over or wait for Python's lock, which left
two cores idle for 8 % of the time (docs/performance.md). On one core they cost small networks a fifth."""
MIN_GAIN: Final = 1.1
"""What is measured to be faster is only taken if it is so by more than the measurement's noise."""

_Image = TypeVar("_Image")


@dataclass(frozen=True)
class Layout:
    """How many batches are computed at once, and by how many CPU threads each.

    Attributes:
        streams: batches at once.
        threads_per_stream: threads of each.
    """

    streams: int
    threads_per_stream: int

    def __str__(self) -> str:
        return f"{self.streams} x {self.threads_per_stream} threads"


@dataclass(frozen=True)
class MeasuredLayout:
    """What a layout was measured to do.

    Attributes:
        layout: of the chosen engine.
        images_per_s: with all streams busy.
        lone_batch_ms: that a batch of one image takes when nothing else is computed.
    """

    layout: Layout
    images_per_s: float
    lone_batch_ms: float


@dataclass(frozen=True)
class LayoutChoice:
    """What serves.

    Attributes:
        layout: of busy times.
        lone_threads: that compute a batch when nothing else is computed.
        measured: all that was measured; empty where there was no choice.
    """

    layout: Layout
    lone_threads: int
    measured: tuple[MeasuredLayout, ...] = ()

    @property
    def is_adaptive(self) -> bool:
        """Whether a batch that is alone is computed by more threads than others."""
        return self.lone_threads != self.layout.threads_per_stream


def possible_layouts(settings: ModelSettings, device_type: str, *, device_count: int = 1) -> tuple[Layout, ...]:
    """Returns the layouts that the settings leave open, the one in which engines are compared first.

    Args:
        settings: streams, threads and cores.
        device_type: such as `cpu`.
        device_count: GPUs.
    """
    streams, threads, cores = settings.streams, settings.threads_per_stream, settings.core_count
    if device_type != "cpu":
        # While one stream computes, the other copies.
        return (Layout(streams or 2 * device_count, threads or 1),)
    if streams or threads:
        return (Layout(streams or max(1, cores // threads), threads or max(1, cores // streams)),)
    return (Layout(cores + SPARE_STREAMS, 1), Layout(1, cores)) if cores > 1 else (Layout(1, 1),)


class _Composed:
    """Tells of the engine within."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.precision: Precision = engine.precision
        self.device = engine.device
        self.warm_up_runs = engine.warm_up_runs


class SerialEngine(_Composed):
    """Computes one batch at a time: the streams that call it decode meanwhile.

    Args:
        engine: built for one stream of all threads.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._engine = engine
        self._turn = threading.Lock()

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities; see `app.engine.Engine`."""
        with self._turn:
            return self._engine(images)


class AdaptiveEngine(_Composed):
    """Gives a batch that is alone all threads, and those of busy times a stream each.

    Args:
        busy: built for several streams.
        lone: the same, built for one stream of all threads.
    """

    def __init__(self, busy: Engine, lone: Engine) -> None:
        super().__init__(busy)
        self._busy, self._lone = busy, lone
        self._running = 0
        self._changing = threading.Lock()
        self.streams_at_work: Callable[[], int] = lambda: 0
        """Tells how many streams have an image, the calling one included: those that decode need a core as well."""

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities; see `app.engine.Engine`."""
        with self._changing:
            engine = self._busy if self._running or self.streams_at_work() > 1 else self._lone
            self._running += 1
        try:
            return engine(images)
        finally:
            with self._changing:
                self._running -= 1


def lay_out(
    several: Engine,
    one: Engine,
    layouts: tuple[Layout, Layout],
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


def composed(several: Engine, one: Engine, choice: LayoutChoice) -> Engine:
    """Returns an engine of two layouts that computes as was chosen.

    Args:
        several: built for several single-threaded streams.
        one: the same, built for one stream of many threads.
        choice: of them.
    """
    if choice.layout.streams == 1:
        return SerialEngine(one)
    return AdaptiveEngine(several, one) if choice.is_adaptive else several


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
