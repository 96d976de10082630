"""A SageMaker endpoint with several models: the platform loads and unloads them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.colours import StartApp


@pytest.fixture
def models(three_models: tuple[Path, str], tmp_path: Path) -> Path:
    """The folder below which the platform puts models: a published version, a store and a file."""
    root, model = three_models
    folder = tmp_path / "models"
    shutil.copytree(root / "colours" / "1", folder / "a" / "model")
    shutil.copytree(root / "pair", folder / "b" / "model" / "pair")
    (folder / "c" / "model").mkdir(parents=True)
    shutil.copy(model.rpartition(",")[2], folder / "c" / "model")
    return folder


@pytest.fixture
def endpoint(start: StartApp, models: Path) -> TestClient:
    """A service as SageMaker starts it."""
    return start(sagemaker_multi_model=True, sagemaker_models=models, memory_budget_mb=30)


def load(endpoint: TestClient, name: str, folder: Path) -> Any:
    """Asks for a model as the platform does."""
    return endpoint.post("/models", json={"model_name": name, "url": str(folder)})


def test_it_is_ready_without_a_model(endpoint: TestClient, image: bytes) -> None:
    assert endpoint.get("/ping").status_code == 200
    assert endpoint.get("/models").json() == {"models": []}
    assert endpoint.post("/models/m/invoke", content=image).status_code == 404
    assert endpoint.post("/predict", content=image).json()["code"] == "unknown_model"


def test_models_are_loaded_invoked_and_unloaded(endpoint: TestClient, models: Path, image: bytes) -> None:
    classes = {"a": 3, "b": 2, "c": 4}
    for name in classes:
        assert load(endpoint, f"hash-{name}", models / name / "model").status_code == 200
    described = endpoint.get("/models/hash-a").json()
    assert described == {"modelName": "hash-a", "modelUrl": str(models / "a" / "model")}
    assert [each["modelName"] for each in endpoint.get("/models").json()["models"]] == ["hash-a", "hash-b", "hash-c"]

    for name, count in classes.items():
        headers = {"X-Amzn-SageMaker-Target-Model": f"{name}.tar.gz"}  # the path has the model
        answer = endpoint.post(f"/models/hash-{name}/invoke", content=image, headers=headers).json()
        assert (answer["model"], len(answer["predictions"])) == (f"hash-{name}", count)

    assert load(endpoint, "hash-a", models / "a" / "model").status_code == 409
    assert endpoint.delete("/models/hash-a").status_code == 200
    assert endpoint.delete("/models/hash-a").status_code == 404
    assert endpoint.get("/models/hash-a").status_code == 404
    assert endpoint.post("/models/hash-a/invoke", content=image).status_code == 404
    assert load(endpoint, "hash-a", models / "a" / "model").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model_name": "m"},
        {"model_name": "../m", "url": "a/model"},
        {"model_name": "m", "url": "/etc"},
        {"model_name": "m", "url": "a/../../.."},
        {"model_name": "m", "url": "nowhere"},
        {"model_name": "m", "url": "a"},
        {"model_name": "m", "url": 1},
        [],
    ],
)
def test_only_folders_of_models_are_loaded(endpoint: TestClient, models: Path, body: Any) -> None:
    if isinstance(body, dict) and isinstance(body.get("url"), str) and not body["url"].startswith("/"):
        body["url"] = f"{models}/{body['url']}"
    response = endpoint.post("/models", json=body)

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert endpoint.get("/models").json() == {"models": []}


def test_damaged_model_is_refused(endpoint: TestClient, models: Path) -> None:
    file = models / "a" / "model" / "model.pt"
    file.write_bytes(file.read_bytes()[:-100])

    assert load(endpoint, "m", models / "a" / "model").status_code == 400


def test_model_without_room_gets_507(start: StartApp, models: Path) -> None:
    big = models / "big"
    shutil.copytree(models / "c" / "model", big)
    with (big / "bare.pt").open("ab") as file:
        file.truncate(40_000_000)
    endpoint = start(sagemaker_multi_model=True, sagemaker_models=models, memory_budget_mb=30)

    assert load(endpoint, "big", big).status_code == 507
