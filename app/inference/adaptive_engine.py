"""Engines that combine others: one computes batches in turn, one gives a batch that is alone all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch

from app.inference.engine import Engine, Precision, Probabilities
from app.inference.thread_layout import LayoutChoice


class _Composed:
    """Has the name, precision and device of the engine inside."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.precision: Precision = engine.precision
        self.device = engine.device
        self.warm_up_runs = engine.warm_up_runs


class SerialEngine(_Composed):
    """Computes one batch at a time, while the other streams that call it decode.

    Args:
        engine: the engine inside, built for one stream of all threads.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._engine = engine
        self._turn = threading.Lock()

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities; see `app.inference.engine.Engine`."""
        with self._turn:
            return self._engine(images)


class AdaptiveEngine(_Composed):
    """Gives a batch that is alone all threads, and each of several batches a stream of its own.

    Args:
        busy: the engine built for several streams.
        lone: the engine built for one stream of all threads.
    """

    def __init__(self, busy: Engine, lone: Engine) -> None:
        super().__init__(busy)
        self._busy, self._lone = busy, lone
        self._running = 0
        self._changing = threading.Lock()
        self.streams_at_work: Callable[[], int] = lambda: 0
        """Tells how many streams have an image, the calling one included. One that decodes needs a core as well."""

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities; see `app.inference.engine.Engine`."""
        with self._changing:
            engine = self._busy if self._running or self.streams_at_work() > 1 else self._lone
            self._running += 1
        try:
            return engine(images)
        finally:
            with self._changing:
                self._running -= 1


def composed(several: Engine, one: Engine, choice: LayoutChoice) -> Engine:
    """Returns an engine that computes in the thread layout that was chosen.

    Args:
        several: the engine built for several single-threaded streams.
        one: the engine built for one stream of many threads.
        choice: the layout that was chosen.
    """
    if choice.layout.streams == 1:
        return SerialEngine(one)
    return AdaptiveEngine(several, one) if choice.is_adaptive else several
