"""The bound of `test_fidelity` holds with every engine and layout of threads, not only with what is chosen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.support.fidelity import MAX_DEVIATION, Serve, deviation
from tests.support.images import Pixels, encode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[("torchscript", 1), ("openvino", 2)])
def client(request: pytest.FixtureRequest, imagenet_store: Path) -> Iterator[TestClient]:
    """The service with the default model, one engine, and so many threads a stream."""
    engine, threads = request.param
    if engine == "openvino":
        pytest.importorskip("openvino", reason="there is no OpenVINO for this platform")
    settings = Settings(model_store=imagenet_store, engine=engine, streams=1, threads_per_stream=threads)
    with TestClient(create_app(settings)) as client:
        while client.get("/health/ready").status_code != 200:
            model = client.get("/models").json()["models"][0]
            assert model["state"] != "failed", model["reason"]
            time.sleep(0.05)
        yield client


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_every_engine_is_within_the_bound(
    photos: dict[str, Pixels],
    serve: Serve,
    refer: Serve,
    image_format: str,
) -> None:
    for photo in photos.values():
        encoded = encode(photo, image_format)
        assert deviation(serve(encoded), refer(encoded)) <= MAX_DEVIATION
