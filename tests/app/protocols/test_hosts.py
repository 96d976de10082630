"""SageMaker's, MLflow's and Hugging Face's routes."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.colours import StartApp

TABLES: dict[str, Any] = {
    "instances": lambda text: {"instances": [text, {"b64": text}]},
    "inputs": lambda text: {"inputs": [text, text]},
    "dataframe_split": lambda text: {"dataframe_split": {"columns": ["x"], "index": [0, 1], "data": [[text], [text]]}},
    "dataframe_records": lambda text: {"dataframe_records": [{"x": text}, {"x": text}]},
}


@pytest.mark.parametrize("table", TABLES)
def test_table_answers_a_prediction_a_row(service: TestClient, image: bytes, text: str, table: str) -> None:
    expected = service.post("/predictions/colours", content=image).json()

    assert service.post("/invocations", json=TABLES[table](text)).json() == {"predictions": [expected] * 2}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": ["a"], "inputs": ["a"]},
        {"dataframe_split": {"columns": ["a", "b"], "data": [["x", "y"]]}},
        {"dataframe_split": {"columns": ["a"]}},
        {"dataframe_split": []},
        {"dataframe_records": [{"a": "x", "b": "y"}]},
        {"dataframe_records": ["a"]},
        {"dataframe_records": "a"},
        {"inputs": {"a": "b"}},
        [1],
    ],
)
def test_other_tables_are_the_clients_fault(service: TestClient, body: Any) -> None:
    response = service.post("/invocations", json=body)

    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == "invalid_request"


def test_verbose_answer_has_every_class_in_their_order(service: TestClient, image: bytes) -> None:
    for accept in ("application/json;verbose", "application/json; verbose"):
        answer = service.post("/invocations", content=image, headers={"Accept": accept}).json()
        assert answer["labels"] == ["red", "green", "blue"]
        assert (
            answer["predicted_label"] == answer["labels"][answer["probabilities"].index(max(answer["probabilities"]))]
        )
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_model_may_be_named_by_parameter_path_or_header(service: TestClient, image: bytes) -> None:
    for response in (
        service.post("/invocations?model_name=pair", content=image),
        service.post("/models/pair/invoke", content=image),
        service.post("/invocations", content=image, headers={"X-Amzn-SageMaker-Target-Model": "pair.tar.gz"}),
        service.post("/endpoints/e/invocations", content=image, headers={"X-Amzn-SageMaker-Target-Model": "pair"}),
    ):
        assert response.json()["model"] == "pair"
    assert service.post("/invocations?model_name=nobody", content=image).json()["code"] == "unknown_model"


def test_batch_transform_is_told_how_to_send(start: StartApp) -> None:
    assert start(max_body_bytes=2_000_000, max_pending_images=7).get("/execution-parameters").json() == {
        "MaxConcurrentTransforms": 7,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": 2,
    }


def test_mlflow_asks_for_health_and_version(service: TestClient, start: StartApp) -> None:
    assert service.get("/health").status_code == 200
    assert service.get("/version").text
    assert start(model="nobody").get("/health").json()["code"] == "not_ready"


@pytest.mark.parametrize(("top_k", "count"), [(None, 3), (1, 1), (99, 3)])
def test_hugging_face_chooses_how_many(service: TestClient, text: str, top_k: int | None, count: int) -> None:
    parameters = {"function_to_apply": "softmax", **({"top_k": top_k} if top_k else {})}
    answer = service.post("/", json={"inputs": text, "parameters": parameters}).json()

    assert [set(each) for each in answer] == [{"label", "score"}] * count
    assert [each["score"] for each in answer] == sorted((each["score"] for each in answer), reverse=True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"inputs": ["a"]}, 400),
        ({"inputs": "http://127.0.0.1/a.jpg"}, 400),
        ({"inputs": "https://example.org/a.jpg"}, 400),
        ({"inputs": "aGVsbG8=", "parameters": []}, 400),
        ({"inputs": "aGVsbG8=", "parameters": {"top_k": 0}}, 422),
        ({"inputs": "aGVsbG8="}, 415),
    ],
)
def test_hugging_face_errors_have_its_shape(service: TestClient, body: Any, status: int) -> None:
    response = service.post("/", json=body)

    assert response.status_code == status
    assert set(response.json()) == {"error", "code", "request_id"}


def test_protocols_can_be_switched_off(start: StartApp, image: bytes) -> None:
    client = start(protocols="none")
    for path in ("/predictions/pair", "/v2/models/pair/infer", "/v1/models/pair:predict", "/invocations"):
        assert client.post(path, content=image).json()["code"] == "not_found"
        assert client.post(path, content=image).headers["Content-Type"] == "application/problem+json"
    assert client.get("/ping").status_code == 404
    assert client.post("/", content=image).status_code == 405
    assert client.get("/").headers["Content-Type"].startswith("text/html")

    client = start(protocols="mlflow, oip")
    assert client.get("/ping").status_code == 200
    assert client.get("/v2").status_code == 200
    assert client.get("/v1/models").json()["code"] == "not_found"
