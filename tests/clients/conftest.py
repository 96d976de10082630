"""A running service with three models, for clients that speak to it over its port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.app.protocols.conftest import mixed_pixels, three_models_in
from tests.support.images import encode
from tests.support.live import live_server

pytestmark = pytest.mark.slow
VERTEX = {"vertex_health_route": "/vertex/health", "vertex_predict_route": "/vertex/predict"}


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the service; its models are colours, pair and bare."""
    root, model = three_models_in(tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("file"))
    log = tmp_path_factory.mktemp("log") / "service"
    with live_server(log, model=model, model_store=root, **VERTEX) as server:
        while httpx.get(f"{server.url}/health/ready").status_code != 200:
            pass
        yield server.url


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """The pixels of the image that the clients send."""
    return mixed_pixels()


@pytest.fixture(scope="session")
def photo(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the image that the clients send."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(encode(pixels, "PNG"))
    return path


@pytest.fixture(scope="session")
def expected(url: str, photo: Path) -> dict[str, float]:
    """What /predict answers for it, with the model `colours`: the probability of each label."""
    answer = httpx.post(f"{url}/models/colours/predict", content=photo.read_bytes()).json()
    return {each["class_name"]: each["probability"] for each in answer["predictions"]}
