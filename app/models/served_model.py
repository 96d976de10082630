"""A model that may answer requests, and the count of the requests that are inside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.inference.adaptive_engine import AdaptiveEngine
from app.inference.artifact import Artifact
from app.inference.engine import Engine
from app.inference.golden_check import Candidate, GoldenCheck
from app.inference.pipeline import Pipeline
from app.inference.thread_layout import ThreadLayout


class Usage:
    """Counts the requests inside a model, so that it is not closed under them. Only the event loop may use it."""

    def __init__(self) -> None:
        self._requests = 0
        self._ended = asyncio.Event()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps the model open while the context lasts."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._ended.set()

    async def wait_until_unused(self) -> None:
        """Returns when the last request has left."""
        while self._requests:
            self._ended.clear()
            await self._ended.wait()


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model that may answer requests.

    Attributes:
        artifact: the model's files in memory, and what is known about them.
        engine: the engine that computes the model.
        pipeline: the way of an image through the model.
        layout: how the engine's threads are laid out.
        candidates: the engines that were considered, in order. The last one serves.
        golden_check: the outcome of the golden check; None for a plain TorchScript file, which has no golden examples
            and is shown as `unverified`.
        usage: the count of the requests inside. A request holds it from taking the model until the answer is made.
    """

    artifact: Artifact
    engine: Engine
    pipeline: Pipeline
    layout: ThreadLayout
    candidates: tuple[Candidate, ...]
    golden_check: GoldenCheck | None
    usage: Usage = field(default_factory=Usage, repr=False)

    @property
    def lone_threads(self) -> int:
        """How many threads compute a batch when nothing else is computed."""
        if isinstance(self.engine, AdaptiveEngine) and self.engine.lone:
            return self.engine.lone_threads
        return self.layout.threads_per_stream

    async def retire(self) -> None:
        """Closes the model once the requests inside have their answers."""
        await self.usage.wait_until_unused()
        await asyncio.to_thread(self.pipeline.close)
