"""What clients see is the same with every engine: some tests of `test_api`, run with each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.app.api.test_api import test_answer_names_the_class_and_describes_the_image as test_answer
from tests.app.api.test_api import test_batch_answers_in_order_and_a_bad_image_fails_alone as test_batch
from tests.app.api.test_api import test_top_k_limits_the_answer as test_top_k
from tests.support.colours import applications
from tests.support.twins import ENGINES

__all__ = ["test_answer", "test_batch", "test_top_k"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.onnx


@pytest.fixture(scope="module", params=ENGINES)
def client(request: pytest.FixtureRequest, twin_store: Path) -> Iterator[TestClient]:
    """An application that serves the colour model with one engine."""
    with applications(twin_store) as start:
        client = start(engine=request.param)
        assert client.get("/models/colours").json()["engine"] == request.param
        yield client


def test_bad_image_has_its_problem(client: TestClient) -> None:
    assert client.post("/predict", content=b"no image").json()["code"] == "unsupported_format"
    assert client.post("/predict", content=b"\x89PNG\r\n\x1a\n").json()["code"] == "corrupt_image"
