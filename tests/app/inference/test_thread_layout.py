"""Threads are laid out by measurement: alone and busy, whichever way is faster by more than noise."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.images import decode as decode_module
from app.images.decode import DecodedImage
from app.inference.adaptive_engine import AdaptiveEngine, SerialEngine
from app.inference.artifact import load_artifact
from app.inference.decode_budget import DecodeBudget, DecodeResources
from app.inference.engine import Precision, Probabilities
from app.inference.engine_choice import choose_engine
from app.inference.measuring import lay_out, rate_of
from app.inference.pipeline import Pipeline
from app.inference.thread_layout import LayoutChoice, ThreadLayout, possible_layouts
from app.settings import ModelSettings
from app.store.model_store import ModelStore
from tests.support.colours import colour_image

LAYOUTS = (ThreadLayout(2, 1), ThreadLayout(1, 2))
BATCH = [torch.zeros(3, 4, 4)] * 2

ROOM = DecodeResources(DecodeBudget(1_000_000_000))


class FakeEngine:
    """Computes when it is let; counts its batches."""

    name = "fake"
    precision: Precision = "float32"
    device = "cpu"
    warm_up_runs = 1

    def __init__(self) -> None:
        self.calls = 0
        self.running = self.most_running = 0
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        self.calls += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.entered.release()
        assert self.gate.wait(30)
        self.running -= 1
        return np.ones((len(images), 1), dtype=np.float32)


@pytest.mark.parametrize(
    ("busy", "lone", "layout", "lone_threads", "kind"),
    [
        ((100, 105), (50, 52), ThreadLayout(2, 1), 1, FakeEngine),
        ((100, 105), (50, 80), ThreadLayout(2, 1), 2, AdaptiveEngine),
        ((100, 120), (50, 80), ThreadLayout(1, 2), 2, SerialEngine),
        ((100, 40), (50, 20), ThreadLayout(2, 1), 1, FakeEngine),
    ],
    ids=["no-difference", "faster-alone", "faster-always", "slower"],
)
def test_what_is_faster_by_more_than_noise_serves(
    monkeypatch: pytest.MonkeyPatch,
    busy: tuple[int, int],
    lone: tuple[int, int],
    layout: ThreadLayout,
    lone_threads: int,
    kind: type,
) -> None:
    def fake_rate(engine: object, batch: Sequence[torch.Tensor], streams: int, seconds: float) -> float:
        return (busy if len(batch) == 2 else lone)[isinstance(engine, SerialEngine)]

    monkeypatch.setattr("app.inference.measuring.rate_of", fake_rate)
    engine, choice = lay_out(FakeEngine(), FakeEngine(), LAYOUTS, BATCH)

    assert (choice.layout, choice.lone_threads, type(engine)) == (layout, lone_threads, kind)
    assert [each.images_per_s for each in choice.measured] == list(busy)
    assert [each.lone_batch_ms for each in choice.measured] == [1000 / rate for rate in lone]


def test_slow_engine_of_one_stream_is_measured_at_no_more_than_it_does() -> None:
    """A batch takes longer than is measured; that other callers wait for it makes nothing faster."""

    class Slow(FakeEngine):
        def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
            time.sleep(0.06)
            return super().__call__(images)

    _, choice = lay_out(Slow(), Slow(), LAYOUTS, BATCH)

    assert choice.measured[1].images_per_s <= len(BATCH) / 0.06


def test_batch_that_is_alone_has_all_threads_and_others_a_stream_each() -> None:
    busy, lone = FakeEngine(), FakeEngine()
    engine = AdaptiveEngine(busy, lone)
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
    engine = AdaptiveEngine(busy, lone)
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


@pytest.mark.anyio
async def test_engine_that_is_chosen_is_told_of_streams_that_decode(
    colours_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = await choose_engine(
        load_artifact("colours", ModelStore(colours_store)),
        (torch.device("cpu"),),
        ModelSettings(cores=2),
        decoding=ROOM,
        max_queue_items=8,
        keep_layout=LayoutChoice(ThreadLayout(3, 1), lone_threads=2),
    )
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


def test_batch_that_fails_does_not_count_as_running() -> None:
    def failing(images: Sequence[torch.Tensor]) -> Probabilities:
        raise ValueError

    busy, lone = FakeEngine(), FakeEngine()
    engine = AdaptiveEngine(busy, lone)
    engine._lone = failing  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011 - our own
            engine(BATCH)
    assert busy.calls == 0


def test_serial_engine_computes_one_batch_at_a_time() -> None:
    engine = FakeEngine()
    rate_of(SerialEngine(engine), BATCH, streams=4, seconds=0.01)

    assert engine.calls >= 4
    assert engine.most_running == 1


def test_gpu_has_two_streams_so_that_one_copies_while_the_other_computes() -> None:
    assert possible_layouts(ModelSettings(), "cuda", device_count=2) == (ThreadLayout(4, 1),)
    assert possible_layouts(ModelSettings(streams=3), "cuda") == (ThreadLayout(3, 1),)


def test_cpu_has_a_stream_to_spare_unless_it_has_one_core() -> None:
    assert possible_layouts(ModelSettings(cores=4), "cpu") == (ThreadLayout(5, 1), ThreadLayout(1, 4))
    assert possible_layouts(ModelSettings(cores=1), "cpu") == (ThreadLayout(1, 1),)
