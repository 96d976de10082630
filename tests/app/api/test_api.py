"""The package `api`, as clients see it: answers, forms, models and health."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.colours import COLOURS, DEVICE, StartApp, applications, colour_image, export_colours

BOUNDARY = {"Content-Type": "multipart/form-data; boundary=xyz"}


@pytest.mark.parametrize("colour", COLOURS)
def test_answer_names_the_class_and_describes_the_image(client: TestClient, colour: str) -> None:
    response = client.post("/predict", files={"file": ("a.png", colour_image(colour))})

    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == ["model", "version", "predictions", "image"]
    assert (answer["model"], answer["version"]) == ("colours", "1")
    assert answer["predictions"][0]["class_name"] == colour
    assert answer["predictions"][0]["class_id"] == list(COLOURS).index(colour)
    probabilities = [prediction["probability"] for prediction in answer["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert answer["image"] == {"format": "PNG", "width": 40, "height": 30, "adjustments": []}


@pytest.mark.parametrize(
    "content_type", [None, "application/x-www-form-urlencoded", "text/plain", "image/tiff", "nonsense"]
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_raw_body_is_classified_whatever_its_declared_type(
    client: TestClient, method: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.request(method, "/predict", content=colour_image("green"), headers=headers)

    assert response.json()["predictions"][0]["class_name"] == "green"


@pytest.mark.parametrize("field", ["file", "image", "upload", ""])
def test_only_file_of_a_form_is_found_under_any_name(client: TestClient, field: str) -> None:
    response = client.post("/predict", files={field: ("a.png", colour_image("blue"))}, data={"comment": "hello"})

    assert response.json()["predictions"][0]["class_name"] == "blue"


def test_field_file_wins_over_other_files(client: TestClient) -> None:
    files = [("other", ("a.png", colour_image("red"))), ("file", ("b.png", colour_image("blue")))]

    assert client.post("/predict", files=files).json()["predictions"][0]["class_name"] == "blue"


def test_field_file_needs_no_file_name(client: TestClient) -> None:
    image = colour_image("red")
    body = b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + image + b"\r\n--xyz--\r\n"

    assert client.post("/predict", content=body, headers=BOUNDARY).json()["predictions"][0]["class_name"] == "red"


def test_raw_image_with_a_form_type_but_no_boundary_is_classified(client: TestClient) -> None:
    response = client.post("/predict", content=colour_image("red"), headers={"Content-Type": "multipart/form-data"})

    assert response.json()["predictions"][0]["class_name"] == "red"


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_limits_the_answer(client: TestClient, top_k: int) -> None:
    response = client.post(f"/predict?top_k={top_k}", content=colour_image("red"))

    assert len(response.json()["predictions"]) == top_k


def test_batch_answers_in_order_and_a_bad_image_fails_alone(client: TestClient) -> None:
    contents = [colour_image("red"), b"not an image", b"", colour_image("blue")[:60], colour_image("green")]
    response = client.post("/predict/batch?top_k=1", files=[("files", ("a", content)) for content in contents])

    assert response.status_code == 200
    results = response.json()["results"]
    outcomes = [
        result["error"]["code"] if "error" in result else result["predictions"][0]["class_name"] for result in results
    ]
    assert outcomes == ["red", "unsupported_format", "empty_body", "corrupt_image", "green"]
    assert results[1]["error"]["request_id"] == response.headers["X-Request-ID"]


def test_batch_takes_a_single_raw_image_too(client: TestClient) -> None:
    results = client.post("/predict/batch", content=colour_image("red")).json()["results"]

    assert [result["predictions"][0]["class_name"] for result in results] == ["red"]


@pytest.mark.in_process
def test_models_are_addressed_by_name_and_version(start_app: StartApp, store_root: Path) -> None:
    export_colours(store_root, "hues")
    export_colours(store_root, "colours")
    client = start_app(model_store=store_root, model="colours,hues,colours/1")

    def served_by(path: str) -> tuple[str, str]:
        answer = client.post(path, content=colour_image("red")).json()
        return answer["model"], answer["version"]

    assert served_by("/predict") == ("colours", "2")
    assert served_by("/models/colours/predict") == ("colours", "2")
    assert served_by("/models/colours/versions/1/predict") == ("colours", "1")
    assert served_by("/models/hues/predict") == ("hues", "1")
    names = [(model["name"], model["version"], model["is_default"]) for model in client.get("/models").json()["models"]]
    assert names == [("colours", "2", True), ("hues", "1", False), ("colours", "1", False)]


@pytest.mark.in_process
def test_model_description_tells_how_it_is_served(client: TestClient) -> None:
    description = client.get("/models/colours").json()

    assert description["state"] == "ready"
    assert description["verified"] is True
    assert (description["device"], description["engine"], description["precision"]) == (
        DEVICE,
        "torchscript",
        "float32",
    )
    assert description["class_names"] == list(COLOURS)
    assert description["manifest"]["architecture"]["name"] == "mostly-colour"
    check = description["golden_check"]
    assert check["example_count"] == 3
    assert 0 <= check["max_abs_deviation"] <= check["bound"] == 1e-3


def test_health_is_good_when_the_model_serves(client: TestClient) -> None:
    statuses = {probe: client.get(f"/health/{probe}").json()["status"] for probe in ("live", "ready", "startup")}

    assert statuses == {"live": "live", "ready": "ready", "startup": "started"}


def test_start_page_shows_itself(client: TestClient) -> None:
    response = client.get("/", headers={"Accept": "text/html"})

    assert response.headers["Content-Type"].startswith("text/html")
    assert "Image Predictor" in response.text


def test_documentation_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text

    assert "swagger-ui" in page
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_every_answer_has_an_id_and_its_times(client: TestClient) -> None:
    response = client.post("/predict", content=colour_image("red"), headers={"X-Request-ID": "my-id-7"})

    assert response.headers["X-Request-ID"] == "my-id-7"
    steps = [step.split(";")[0] for step in response.headers["Server-Timing"].split(", ")]
    assert steps == ["decode", "queue", "inference", "total"]
    assert "server" not in response.headers


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "caf\u00e9"])
def test_unusable_request_id_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/health/live", headers={b"X-Request-ID": given.encode()})

    assert response.headers["X-Request-ID"] != given
    assert len(response.headers["X-Request-ID"]) == 32


def test_metrics_count_requests_and_images(own_client: TestClient) -> None:
    own_client.post("/predict", content=colour_image("red"))
    own_client.post("/predict", content=b"nonsense")
    text = own_client.get("/metrics").text

    assert 'predictor_requests_total{code="",method="POST",route="/predict",status="200"} 1.0' in text
    assert 'predictor_requests_total{code="unsupported_format",method="POST",route="/predict",status="415"} 1.0' in text
    assert 'predictor_images_total{format="PNG",model="colours"} 1.0' in text
    assert 'predictor_inference_seconds_count{model="colours"} 1.0' in text
    assert "predictor_pending_images 0.0" in text
    assert 'predictor_model_loads_total{outcome="ready"} 1.0' in text


@pytest.fixture(scope="module")
def client_without_model(colours_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An application that found no model."""
    with applications(colours_store) as start:
        yield start(model_store=tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize(
    ("alias", "path"),
    [
        ("/livez", "/health/live"),
        ("/healthz", "/health/live"),
        ("/readyz", "/health/ready"),
    ],
)
def test_probes_answer_under_the_names_that_others_expect(
    client: TestClient, client_without_model: TestClient, alias: str, path: str
) -> None:
    for each in (client, client_without_model):
        answer, expected = each.get(alias), each.get(path)
        assert answer.status_code == expected.status_code
        assert answer.json().get("status") == expected.json().get("status")
        assert alias not in each.get("/openapi.json").json()["paths"]


def test_time_limit_of_a_client_is_documented(client: TestClient) -> None:
    parameters = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["parameters"]

    assert ("X-Request-Timeout-Ms", "header") in {(each["name"], each["in"]) for each in parameters}
