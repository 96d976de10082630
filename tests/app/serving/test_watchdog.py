"""Probes tell when inference itself is stuck."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.inference.batcher import Batcher
from app.inference.engine import Pixels
from app.serving.service import Service
from tests.support.colours import StartApp

PROBABILITIES = [1.0]


class FakePipeline:
    """A pipeline over a real batcher, whose engine does as the test says.

    Args:
        run: the engine.
    """

    def __init__(self, run: Any) -> None:
        self.batcher: Batcher[Pixels, Pixels, Any] = Batcher(
            lambda pixels: pixels, run, streams=1, max_batch_size=4, max_queue_items=8
        )

    @property
    def longest_batch_s(self) -> float:
        return self.batcher.longest_running_s

    @property
    def failures_in_a_row(self) -> int:
        return self.batcher.failures_in_a_row

    async def classify(self, pixels: Pixels, *, deadline: float) -> Any:
        return (await self.batcher.submit(pixels, deadline=deadline)).result

    def close(self) -> None:
        self.batcher.close()


def replace_pipeline(service: Service, pipeline: FakePipeline) -> None:
    deployment = service.registry.deployments[0]
    assert deployment.model
    deployment.model.pipeline.close()
    deployment.model = dataclasses.replace(deployment.model, pipeline=pipeline)  # type: ignore[arg-type]


async def submit(pipeline: FakePipeline, count: int) -> None:
    work = [
        pipeline.classify(np.zeros((1, 1, 3), dtype=np.uint8), deadline=time.monotonic() + 30) for _ in range(count)
    ]
    await asyncio.gather(*work, return_exceptions=True)


def test_engine_that_fails_on_everything_makes_the_service_unready_until_it_works_again(start_app: StartApp) -> None:
    client = start_app()
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    broken = True

    def run(images: Sequence[Pixels]) -> list[Any]:
        if broken:
            raise RuntimeError("CUDA error: device lost")
        return PROBABILITIES * len(images)

    pipeline = FakePipeline(run)
    replace_pipeline(service, pipeline)

    asyncio.run(submit(pipeline, 4))
    asyncio.run(service.watchdog.look())
    refusal = client.get("/health/ready")
    assert (refusal.status_code, refusal.json()["code"]) == (503, "not_ready")
    assert "device lost" in refusal.json()["detail"]
    assert client.get("/health/live").status_code == 200

    broken = False
    asyncio.run(service.watchdog.look())
    assert client.get("/health/ready").status_code == 200


def test_images_that_fail_do_not_make_the_service_unready_while_others_come_through(start_app: StartApp) -> None:
    client = start_app()
    service: Service = client.app.state.service  # type: ignore[attr-defined]

    def run(images: Sequence[Pixels]) -> list[Any]:
        if any(image.size == 3 for image in images):
            raise RuntimeError("too small")
        return PROBABILITIES * len(images)

    pipeline = FakePipeline(run)
    replace_pipeline(service, pipeline)

    asyncio.run(submit(pipeline, 8))
    assert pipeline.failures_in_a_row == 8
    asyncio.run(service.watchdog.look())
    assert client.get("/health/ready").status_code == 200
    assert pipeline.failures_in_a_row == 0


def test_batch_that_never_ends_makes_the_service_unready_and_calls_for_a_restart(
    start_app: StartApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.serving.service._MIN_STUCK_S", 0.0)
    client = start_app(request_timeout_s=0.01)
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    started, go_on = threading.Event(), threading.Event()

    def run(images: Sequence[Pixels]) -> list[Any]:
        started.set()
        go_on.wait()
        return PROBABILITIES * len(images)

    pipeline = FakePipeline(run)
    replace_pipeline(service, pipeline)
    stuck = threading.Thread(target=lambda: asyncio.run(submit(pipeline, 1)))
    stuck.start()
    try:
        assert started.wait(10)
        while pipeline.longest_batch_s <= 0.01:
            threading.Event().wait(0.005)
        asyncio.run(service.watchdog.look())

        assert "has been running" in client.get("/health/ready").json()["detail"]
        assert client.get("/health/live").status_code == 503
    finally:
        go_on.set()
        stuck.join()
    while pipeline.longest_batch_s:  # the answer is there a moment before the stream is free
        threading.Event().wait(0.005)
    asyncio.run(service.watchdog.look())
    assert client.get("/health/live").status_code == 200
