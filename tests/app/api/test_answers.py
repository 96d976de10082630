"""Answers with many predictions are bounded, right, and hold up nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

from app.settings import Settings
from tests.support.colours import applications, colour_image
from tests.support.sockets import running

pytestmark = [pytest.mark.in_process, pytest.mark.slow]

CLASSES = 22_000


class Wide(nn.Module):
    """A model of many classes, the one with the highest number being the most probable."""

    def __init__(self, class_names: list[str]) -> None:
        super().__init__()
        self.class_names = class_names

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(len(self.class_names), dtype=torch.float32)
        return torch.softmax(steps / 1_000, 0).expand(pixels.shape[0], -1)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.pt"
    torch.jit.script(Wide([f"class number {number}" for number in range(CLASSES)])).save(str(path))  # type: ignore[no-untyped-call]
    return path


@pytest.fixture(scope="module")
def client(wide: Path) -> Iterator[TestClient]:
    with applications(wide.parent) as start:
        yield start(model=str(wide))


def form(images: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", ("a.png", colour_image("red")))] * images


def test_more_predictions_than_the_limit_are_refused_with_the_figures(client: TestClient) -> None:
    response = client.post(f"/predict/batch?top_k={CLASSES}", files=form(5))

    assert (response.status_code, response.json()["code"]) == (413, "answer_too_large")
    assert "5 images with 22,000 classes each are 110,000 predictions; the limit is 100,000" in response.text
    assert client.post(f"/predict/batch?top_k={100_000 // 64}", files=form(64)).status_code == 200


def test_large_answers_are_the_same_as_small_ones_but_longer(client: TestClient) -> None:
    one = client.post(f"/predict?top_k={CLASSES}", content=colour_image("red"))
    several = client.post(
        f"/predict/batch?top_k={CLASSES}", files=[*form(2), ("files", ("b.png", b"nonsense")), *form(1)]
    )
    small = client.post("/predict?top_k=3", content=colour_image("red")).json()
    results = several.json()["results"]

    assert one.headers["Content-Type"] == several.headers["Content-Type"] == "application/json"
    assert len(one.json()["predictions"]) == CLASSES
    assert one.json() | {"predictions": one.json()["predictions"][:3]} == small
    assert [result.get("predictions") for result in results] == [
        *[one.json()["predictions"]] * 2, None, one.json()["predictions"]
    ]  # fmt: skip
    assert results[2]["error"]["code"] == "unsupported_format"
    assert list(several.json()) == ["model", "version", "results"]
    assert len(several.content) == int(several.headers["Content-Length"])


@contextmanager
def probing(url: str) -> Iterator[list[float]]:
    """Probes all the time, and gives a list that gets the seconds of each probe."""
    seconds: list[float] = []
    done = threading.Event()

    def probe() -> None:
        with httpx.Client() as http:
            while not done.is_set():
                started_at = time.monotonic()
                assert http.get(f"{url}/health/live").status_code == 200
                seconds.append(time.monotonic() - started_at)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield seconds
    finally:
        done.set()
        thread.join()


def test_probes_are_answered_while_large_answers_are_made(wide: Path) -> None:
    with running(Settings(model=str(wide))) as url, probing(url) as seconds:
        for _ in range(3):
            assert httpx.post(f"{url}/predict/batch?top_k=1500", files=form(64), timeout=60).status_code == 200

    assert len(seconds) > 20  # most of them while an answer of 8 MB was made
    assert max(seconds) < 1.0
