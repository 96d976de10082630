"""KServe's V1 protocol and Vertex AI's routes: lists of instances in every form in which clients write them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.protocols.conftest import API_KEYS
from tests.support.colours import StartApp

VERTEX = {"vertex_health_route": "/vertex/health", "vertex_predict_route": "/vertex/predict"}


@pytest.fixture(scope="module")
def vertex(start: StartApp) -> TestClient:
    """A service as Vertex AI starts it."""
    return start(**VERTEX)


def check_error(response: Any, status: int, code: str) -> str:
    """Holds a response to the shape with `error`, and returns its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert set(body) == {"error", "code", "request_id"}
    assert body["code"] == code
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert ("Retry-After" in response.headers) == (status == 503)
    return str(body["error"])


def test_models_are_listed_and_ready(service: TestClient) -> None:
    assert service.get("/v1/models").json() == {"models": ["colours", "pair", "bare"]}
    assert service.get("/v1/models/pair").json() == {"name": "pair", "ready": True}
    error = check_error(service.get("/v1/models/m"), 404, "unknown_model")
    assert error == "Model with name m does not exist."


def test_model_that_cannot_be_loaded_is_not_ready(start: StartApp) -> None:
    check_error(start(model="nobody").get("/v1/models/nobody"), 503, "not_ready")


def test_root_tells_clients_that_it_is_alive_and_browsers_the_page(service: TestClient) -> None:
    assert service.get("/").json() == {"status": "alive"}
    page = service.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("field", ["b64", "data", "content", "image_bytes", "image", "body"])
@pytest.mark.parametrize("nested", [False, True])
def test_instance_has_its_image_in_any_field(service: TestClient, text: str, field: str, nested: bool) -> None:
    instance = {field: {"b64": text} if nested else text}

    response = service.post("/v1/models/pair:predict", json={"instances": [instance, text]})

    first, second = response.json()["predictions"]
    assert first == second
    assert list(first.values()) == sorted(first.values(), reverse=True)


BAD: dict[str, tuple[Any, int, str]] = {
    "no object": ([1], 400, "invalid_request"),
    "nothing": ({}, 400, "invalid_request"),
    "no list": ({"instances": "a"}, 400, "invalid_request"),
    "empty list": ({"instances": []}, 400, "invalid_request"),
    "a number": ({"instances": [1]}, 400, "invalid_request"),
    "two fields": ({"instances": [{"b64": "", "data": ""}]}, 400, "invalid_request"),
    "no field": ({"instances": [{"x": ""}]}, 400, "invalid_request"),
    "bad base64": ({"instances": ["a*b="]}, 400, "invalid_request"),
    "half base64": ({"instances": ["YWJ"]}, 400, "invalid_request"),
    "web-safe base64": ({"instances": ["-_-_"]}, 400, "invalid_request"),
    "empty image": ({"instances": [" "]}, 400, "empty_body"),
    "no image": ({"instances": ["aGVsbG8="]}, 415, "unsupported_format"),
    "too many": ({"instances": ["aGVsbG8="] * 65}, 422, "invalid_parameter"),
}


@pytest.mark.parametrize("path", ["/v1/models/pair:predict", "/vertex/predict"])
@pytest.mark.parametrize("case", BAD)
def test_bad_instances_are_the_clients_fault(vertex: TestClient, path: str, case: str) -> None:
    body, status, code = BAD[case]
    if body == [1] and path == "/vertex/predict":
        body = [[1]]

    check_error(vertex.post(path, json=body), status, code)


def test_error_tells_which_instance_it_was(service: TestClient, text: str) -> None:
    for bad, status, code in [("a*b=", 400, "invalid_request"), ("aGVsbG8=", 415, "unsupported_format")]:
        response = service.post("/v1/models/pair:predict", json={"instances": [text, bad, text]})
        assert check_error(response, status, code).startswith("Image 1: ")


def test_other_paths_have_the_same_shape(service: TestClient) -> None:
    check_error(service.post("/v1/models/nobody:predict", json={"instances": ["aGVsbG8="]}), 404, "unknown_model")
    check_error(service.post("/v1/models/pair:explain", json={}), 501, "not_supported")
    check_error(service.get("/v1/models/pair:predict"), 405, "method_not_allowed")
    check_error(service.get("/v1/nowhere"), 404, "not_found")
    assert service.get("/v1/models/pair:predict").headers["Allow"] == "POST"


def test_vertex_gets_its_own_image_classification(vertex: TestClient, image: bytes, text: str) -> None:
    best = vertex.post("/predict", content=image).json()["predictions"]
    expected = {
        "ids": [str(each["class_id"]) for each in best],
        "displayNames": [each["class_name"] for each in best],
        "confidences": [each["probability"] for each in best],
    }

    assert vertex.get("/vertex/health").status_code == 200
    for response in (
        vertex.post("/vertex/predict", json={"instances": [{"content": text}]}),
        vertex.post("/vertex/predict", content=image),  # rawPredict
    ):
        assert response.json() == {"predictions": [expected]}


@pytest.mark.parametrize(
    ("parameters", "count"),
    [({}, 3), ({"maxPredictions": 2}, 2), ({"top_k": 1}, 1), ({"maxPredictions": 99}, 3),
     ({"confidenceThreshold": 1}, 0), (None, 3)],
)  # fmt: skip
def test_vertex_parameters_choose_the_classes(
    vertex: TestClient, text: str, parameters: dict[str, Any] | None, count: int
) -> None:
    body = {"instances": [{"content": text}], "parameters": parameters}
    [prediction] = vertex.post("/vertex/predict", json=body).json()["predictions"]

    assert [len(values) for values in prediction.values()] == [count] * 3


@pytest.mark.parametrize(
    "parameters", [{"top_k": 0}, {"top_k": 1.5}, {"top_k": True}, {"confidenceThreshold": 2}, {"maxPredictions": "1"}]
)
def test_vertex_parameters_are_checked(vertex: TestClient, text: str, parameters: dict[str, Any]) -> None:
    body = {"instances": [{"content": text}], "parameters": parameters}
    check_error(vertex.post("/vertex/predict", json=body), 422, "invalid_parameter")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("name", ["maxPredictions", "confidenceThreshold"])
def test_vertex_numbers_may_be_beyond_all_bounds(vertex: TestClient, text: str, name: str, number: str) -> None:
    response = vertex.post(
        "/vertex/predict", content=f'{{"instances": ["{text}"], "parameters": {{"{name}": {number}}}}}'
    )
    if name == "maxPredictions" and number.isdigit():  # more classes than there are
        assert response.status_code == 200
    else:
        check_error(response, 422, "invalid_parameter")


def test_route_that_exists_keeps_its_protocol(start: StartApp, image: bytes, text: str) -> None:
    client = start(vertex_health_route="/ping", vertex_predict_route="/v1/models/pair:predict")

    assert client.get("/ping").json() == {"status": "Healthy"}
    answer = client.post("/v1/models/pair:predict", json={"instances": [text]}).json()
    assert set(answer["predictions"][0]) == {"dark", "light"}


def test_vertex_probe_is_open_and_tells_when_it_is_not_ready(start: StartApp) -> None:
    client = start(**VERTEX, api_keys=API_KEYS, model="nobody")

    check_error(client.get("/vertex/health"), 503, "not_ready")
    check_error(client.post("/vertex/predict", json={}), 401, "unauthorized")
