"""Engines that combine others: batches in turn, or all threads for a batch that is alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch

from app.inference.engine import Engine, Precision, Probabilities
from app.inference.thread_layout import LayoutChoice


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
        """Computes probabilities; see `app.inference.engine.Engine`."""
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
    """Returns an engine of two layouts that computes as was chosen.

    Args:
        several: built for several single-threaded streams.
        one: the same, built for one stream of many threads.
        choice: of them.
    """
    if choice.layout.streams == 1:
        return SerialEngine(one)
    return AdaptiveEngine(several, one) if choice.is_adaptive else several
