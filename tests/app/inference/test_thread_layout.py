"""Several batches have a stream each; a batch that is alone has all threads, if that is worth it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.images import decode as decode_module
from app.images.decode import DecodedImage
from app.inference.adaptive_engine import AdaptiveEngine
from app.inference.artifact import Artifact
from app.inference.decode_budget import DecodeBudget, DecodeResources
from app.inference.devices import CPU
from app.inference.engine import Pixels, Precision, Probabilities, Samples
from app.inference.engine_choice import EngineChoice, _add_lone, choose_engine
from app.inference.loading import load_artifact
from app.inference.pipeline import Pipeline
from app.inference.thread_layout import ThreadLayout, busy_layout, lone_layout
from app.settings import ModelSettings
from app.store.model_store import ModelStore
from tests.support.colours import colour_image

BATCH = [np.zeros((4, 4, 3), dtype=np.uint8)] * 2

ROOM = DecodeResources(DecodeBudget(1_000_000_000))


class FakeEngine:
    """Computes when it is let; counts its batches."""

    name = "fake"
    precision: Precision = "float32"
    device = "cpu"
    warm_up_runs = 1
    takes_samples = False

    def __init__(self) -> None:
        self.calls = 0
        self.running = self.most_running = 0
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, images: Sequence[Pixels | Samples]) -> Probabilities:
        self.calls += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.entered.release()
        assert self.gate.wait(30)
        self.running -= 1
        return np.ones((len(images), 1), dtype=np.float32)


def adaptive(busy: FakeEngine, lone: FakeEngine) -> AdaptiveEngine:
    """An engine that has both already."""
    engine = AdaptiveEngine(busy, lone_threads=2)
    engine.lone = lone
    return engine


def test_batch_that_is_alone_has_all_threads_and_others_a_stream_each() -> None:
    busy, lone = FakeEngine(), FakeEngine()
    engine = adaptive(busy, lone)
    lone.gate.clear()
    first = threading.Thread(target=engine, args=(BATCH,))
    first.start()
    assert lone.entered.acquire(timeout=30)
    engine(BATCH)
    lone.gate.set()
    first.join()

    assert (lone.calls, busy.calls) == (1, 1)
    engine(BATCH)
    assert (lone.calls, busy.calls) == (2, 1)


def hold_red(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Holds red images while they are decoded: the first event tells that one is held, the second one lets it go on."""
    decoding, go_on = threading.Event(), threading.Event()
    decode = decode_module.decode

    def slow_for_red(encoded: bytes, **options: Any) -> DecodedImage:
        if encoded == colour_image("red"):
            decoding.set()
            assert go_on.wait(30)
        return decode(encoded, **options)

    monkeypatch.setattr("app.inference.prepare.decode", slow_for_red)
    return decoding, go_on


def test_batch_is_not_alone_while_another_stream_decodes(colours_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding, go_on = hold_red(monkeypatch)
    busy, lone = FakeEngine(), FakeEngine()
    artifact = load_artifact("colours", ModelStore(colours_store))
    engine = adaptive(busy, lone)
    pipeline = Pipeline(artifact, engine, ModelSettings(), streams=2, decoding=ROOM, max_queue_items=4)
    engine.streams_at_work = pipeline.busy_streams_counter()

    async def classify() -> None:
        until = time.monotonic() + 30
        red = asyncio.create_task(pipeline.classify(colour_image("red"), deadline=until))
        await asyncio.to_thread(decoding.wait, 30)
        await pipeline.classify(colour_image("blue"), deadline=until)
        assert (lone.calls, busy.calls) == (0, 1)
        while pipeline._batcher.busy_streams > 1:  # it answers first, and is free a moment later
            await asyncio.sleep(0.001)
        go_on.set()
        await red
        assert (lone.calls, busy.calls) == (1, 1)

    asyncio.run(classify())
    pipeline.close()


async def chosen(artifact: Artifact) -> EngineChoice:
    return await choose_engine(artifact, CPU, ModelSettings(cores=2), decoding=ROOM, max_queue_items=8)


@pytest.mark.anyio
async def test_engine_that_is_chosen_is_told_of_streams_that_decode(
    colours_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = await chosen(load_artifact("colours", ModelStore(colours_store)))
    assert isinstance(choice.engine, AdaptiveEngine)
    decoding, go_on = hold_red(monkeypatch)  # not before: the golden images are not to be held
    red = asyncio.create_task(choice.pipeline.classify(colour_image("red"), deadline=time.monotonic() + 30))
    await asyncio.to_thread(decoding.wait, 30)
    while choice.engine.streams_at_work() > 1:  # those of the golden check are free a moment after their answers
        await asyncio.sleep(0.001)

    assert choice.engine.streams_at_work() == 1
    go_on.set()
    await red
    await asyncio.to_thread(choice.pipeline.close)


@pytest.mark.anyio
@pytest.mark.parametrize(("min_s", "has_lone"), [(0.0, True), (60.0, False)])
async def test_only_a_network_that_takes_a_while_has_an_engine_for_a_batch_that_is_alone(
    colours_store: Path, monkeypatch: pytest.MonkeyPatch, min_s: float, has_lone: bool
) -> None:
    monkeypatch.setattr("app.inference.engine_choice._MIN_LONE_S", min_s)
    choice = await chosen(load_artifact("colours", ModelStore(colours_store)))
    assert isinstance(choice.engine, AdaptiveEngine)
    assert choice.improve
    assert choice.engine.lone is None
    await asyncio.to_thread(choice.improve)

    assert (choice.engine.lone is not None) == has_lone
    await asyncio.to_thread(choice.pipeline.close)


@pytest.mark.anyio
async def test_engine_for_a_batch_that_is_alone_must_compute_the_same(
    colours_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.inference.engine_choice._MIN_LONE_S", 0.0)
    choice = await chosen(load_artifact("colours", ModelStore(colours_store)))
    assert isinstance(choice.engine, AdaptiveEngine)
    await asyncio.to_thread(_add_lone, load_artifact("colours", ModelStore(colours_store)), choice.engine, FakeEngine)

    assert choice.engine.lone is None
    assert "computes all batches alike" in caplog.text
    await asyncio.to_thread(choice.pipeline.close)


def test_batch_that_fails_does_not_count_as_running() -> None:
    def failing(images: Sequence[Pixels | Samples]) -> Probabilities:
        raise ValueError

    busy, lone = FakeEngine(), FakeEngine()
    engine = adaptive(busy, lone)
    engine.lone = failing  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011 - our own
            engine(BATCH)
    assert busy.calls == 0


def test_gpu_has_two_streams_so_that_one_copies_while_the_other_computes() -> None:
    assert busy_layout(ModelSettings(), ("cuda:0", "cuda:1")) == ThreadLayout(4, 1)
    assert busy_layout(ModelSettings(streams=3), ("cuda:0",)) == ThreadLayout(3, 1)
    assert lone_layout(ModelSettings(), ("cuda:0",)) is None


def test_cpu_has_a_stream_to_spare_unless_it_has_one_core() -> None:
    assert busy_layout(ModelSettings(cores=4), CPU) == ThreadLayout(5, 1)
    assert lone_layout(ModelSettings(cores=4), CPU) == ThreadLayout(1, 4)
    assert busy_layout(ModelSettings(cores=1), CPU) == ThreadLayout(1, 1)
    assert lone_layout(ModelSettings(cores=1), CPU) is None
    assert lone_layout(ModelSettings(cores=4, streams=2), CPU) is None
