"""Images are decoded when there is memory for them: in order, in time, never more at once than the budget allows."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.errors import DeadlineExceededError, TooMuchMemoryError
from app.inference.decode_budget import DecodeBudget
from tests.support.colours import colour_image
from tests.support.file_structures import huge_webp
from tests.support.live import live_server
from tests.support.sockets import until


def soon() -> float:
    return time.monotonic() + 20


def test_more_than_the_whole_budget_is_refused_at_once_with_the_figures() -> None:
    budget = DecodeBudget(100_000_000)
    with pytest.raises(TooMuchMemoryError, match="about 2,000 MB; the limit is 100 MB"), budget.turn(soon()) as turn:
        turn.reserve(2_000_000_000)
    assert budget.used_bytes == 0


def test_image_waits_until_there_is_room_and_the_next_one_behind_it() -> None:
    budget = DecodeBudget(100)
    order: list[int] = []

    def decode(needed: int) -> None:
        with budget.turn(soon()) as turn:
            turn.reserve(needed)
            order.append(needed)
            assert budget.used_bytes <= 100

    with ThreadPoolExecutor(3) as threads, budget.turn(soon()) as first:
        first.reserve(60)
        waiting = []
        for count, needed in enumerate((90, 10, 20), 1):  # the last two would fit, and do not pass the first
            waiting.append(threads.submit(decode, needed))
            until(lambda count=count: len(budget._waiting) == count)  # type: ignore[misc]
        assert order == []
        budget.release(first.held_bytes)
        first.held_bytes = 0
        for each in waiting:
            each.result(20)
    assert order == [90, 10, 20]
    assert budget.used_bytes == 0


def test_deadline_ends_the_wait() -> None:
    budget = DecodeBudget(100)
    with budget.turn(soon()) as first:
        first.reserve(100)
        with pytest.raises(DeadlineExceededError), budget.turn(time.monotonic() + 0.02) as late:
            late.reserve(1)
        assert budget.used_bytes == 100
    with budget.turn(soon()) as next_one:
        next_one.reserve(100)


def test_pixels_that_wait_for_a_stream_count_until_they_are_gone() -> None:
    budget = DecodeBudget(1_000)
    with budget.turn(soon()) as turn:
        turn.reserve(900)
        pixels = np.zeros((10, 10, 3), dtype=np.uint8)
        turn.keep_for(pixels)
    assert budget.used_bytes == 300
    del pixels
    gc.collect()
    assert budget.used_bytes == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_many_bombs_at_once_stay_within_the_budget_and_keep_nobody_out(colours_store: Path, tmp_path: Path) -> None:
    bomb = huge_webp(2_400, 2_400)  # 130 MB each, in 40 bytes
    with live_server(
        tmp_path / "log", model="colours", model_store=colours_store, max_decode_mb=150, streams=4
    ) as server:
        server.wait_until_ready()
        before = server.resident_bytes()
        peak, done = before, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.002):
                peak = max(peak, server.resident_bytes())

        with ThreadPoolExecutor(17) as threads:
            watching = threads.submit(watch)
            bombs = [threads.submit(httpx.post, f"{server.url}/predict", content=bomb, timeout=60) for _ in range(16)]
            good = [httpx.post(f"{server.url}/predict", content=colour_image("red"), timeout=60) for _ in range(10)]
            statuses = {each.result().status_code for each in bombs}
            done.set()
            watching.result()
        too_large = httpx.post(f"{server.url}/predict", content=huge_webp(4_000, 4_000))
        used = httpx.get(f"{server.url}/metrics").text

    assert statuses == {200}
    assert {each.status_code for each in good} == {200}
    assert peak - before < 1.3 * 150_000_000 + 50_000_000
    assert (too_large.status_code, too_large.json()["code"]) == (413, "too_much_memory")
    assert "predictor_decode_bytes 0.0" in used
