"""The engine that gives a batch all threads while it is alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from app.inference.engine import Engine, Pixels, Precision, Probabilities, Samples


class AdaptiveEngine:
    """Gives a batch that is alone all threads, and each of several batches a stream of its own.

    Args:
        busy: the engine built for several streams. It computes every batch until there is another one.
        lone_threads: how many threads that other one has.

    Attributes:
        lone: the engine built for one stream of all threads; None while there is none.
        streams_at_work: tells how many streams have an image, the calling one included. One that decodes needs a core
            as well.
    """

    def __init__(self, busy: Engine, lone_threads: int) -> None:
        self.name = busy.name
        self.precision: Precision = busy.precision
        self.device = busy.device
        self.warm_up_runs = busy.warm_up_runs
        self.takes_samples = busy.takes_samples
        self.lone: Engine | None = None
        self.lone_threads = lone_threads
        self.streams_at_work: Callable[[], int] = lambda: 0
        self._busy = busy
        self._running = 0
        self._changing = threading.Lock()

    def __call__(self, images: Sequence[Pixels | Samples]) -> Probabilities:
        """Computes probabilities; see `app.inference.engine.Engine`."""
        with self._changing:
            is_alone = not self._running and self.streams_at_work() <= 1
            engine = self.lone if self.lone and is_alone else self._busy
            self._running += 1
        try:
            return engine(images)
        finally:
            with self._changing:
                self._running -= 1
